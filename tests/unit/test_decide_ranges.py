"""A mesh's address ranges are nobody else's: chosen free, refused where they are taken."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from routemesh.decide import admit
from routemesh.decide.ranges import INGRESS_POOLS, clashes, free, ranges_of
from routemesh.errors import Conflict
from routemesh.model import Node, NodeId, State
from routemesh.nodeplan import Address, Item, Route
from routemesh.nodeplan.ranges import Occupied, occupied_by

GATEWAY = IPv4Address("192.0.2.254")


def node(number: int) -> Node:
    return Node(id=NodeId(f"n{number}"), name=f"node{number}", address=IPv4Address(f"192.0.2.{number}"))


def occupied(*networks: str) -> tuple[Occupied, ...]:
    return tuple(Occupied(IPv4Network(network), "wg0") for network in networks)


def route(network: str, link: str, **others: object) -> Route:
    words = {"via": GATEWAY, "protocol": 3, **others}
    return Route(destination=IPv4Network(network), link=link, **words)  # type: ignore[arg-type]


def subnets(state: State) -> list[str]:
    return [str(subnet) for subnet in ranges_of(state).values()]


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ((), ["10.0.0.0/24", "172.18.0.0/16"]),
        (("10.0.0.0/16",), ["10.1.0.0/24", "172.18.0.0/16"]),
        (("10.0.0.0/8",), ["192.168.255.0/24", "172.18.0.0/16"]),
        (("172.16.0.0/12", "10.0.0.128/25"), ["10.1.0.0/24", "10.200.0.0/16"]),
        (("172.18.5.0/24", "172.19.0.1/32"), ["10.0.0.0/24", "172.20.0.0/16"]),
    ],
)
def test_a_new_cluster_takes_what_is_free_and_keeps_it(others: tuple[str, ...], chosen: list[str]) -> None:
    state = admit.join(State(), node(1), 1.0, occupied=occupied(*others))
    assert subnets(state) == chosen
    assert subnets(admit.join(state, node(2), 2.0)) == chosen


def test_where_nothing_is_free_it_says_what_to_do() -> None:
    with pytest.raises(Conflict, match="no range is free for ingress; give one with --ingress-subnet"):
        free("ingress", INGRESS_POOLS, occupied("10.0.0.0/8", "192.168.0.0/16"))


def test_given_ranges_that_are_taken_are_refused() -> None:
    with pytest.raises(
        Conflict, match=r"10\.7\.0\.0/24 of ingress is somebody else's here \(route to 10\.7\.0\.0/16 through wg0\)"
    ):
        admit.join(State(), node(1), 1.0, ingress_subnet=IPv4Network("10.7.0.0/24"), occupied=occupied("10.7.0.0/16"))


def test_a_machine_that_has_a_range_can_not_join_but_one_that_was_there_comes_back() -> None:
    state = admit.join(State(), node(1), 1.0)
    with pytest.raises(Conflict, match=r"node2 can't join: the range 172\.18\.0\.0/16 of docker_gwbridge .* --gwbridge-subnet"):
        admit.join(state, node(2), 2.0, occupied=occupied("172.18.0.0/16"))
    state = admit.join(state, node(2), 2.0)
    assert admit.join(state, node(2), 3.0, occupied=occupied("172.18.0.0/16")) == state


def test_what_a_machine_has() -> None:
    items: list[Item] = [
        Address("lo", IPv4Interface("127.0.0.1/8")),
        Address("eth0", IPv4Interface("192.0.2.1/24")),
        Address("docker_gwbridge", IPv4Interface("172.18.0.1/16")),
        route("192.0.2.0/24", "eth0", via=None, protocol=2),
        route("172.18.0.0/16", "docker_gwbridge", via=None, protocol=2),
        route("0.0.0.0/0", "eth0"),
        route("128.0.0.0/1", "tun0"),
        route("10.0.0.0/8", "tun0"),
        route("10.9.0.0/16", "tun0", protocol=82),
        route("10.1.0.0/16", "", kind="unreachable"),
    ]
    assert list(map(str, occupied_by(items, {"docker_gwbridge"}))) == [
        "address 192.0.2.1/24 on eth0",
        "route to 10.0.0.0/8 through tun0",
    ]


def test_several_reasons_are_counted() -> None:
    (said,) = clashes({"ingress": IPv4Network("10.0.0.0/24")}, occupied("10.0.0.0/8", "10.0.0.0/16", "10.0.1.0/24"))
    assert "(route to 10.0.0.0/8 through wg0 and 1 more)" in said
