"""What real requests did in a recorded Swarm, the walker says of what was recorded of its nodes."""

from fractions import Fraction
from ipaddress import IPv4Address

import pytest

from routemesh.model import Protocol
from routemesh.nodeplan import Link
from routemesh.reasons.events import Bridged, Resolved
from routemesh.reasons.words import of_doubt, of_end, of_event
from routemesh.snapshot import ClusterSnapshot
from routemesh.values import replace
from routemesh.walk import (
    OUTSIDE,
    Branch,
    Delivered,
    Dropped,
    Endpoint,
    Packet,
    Place,
    Refused,
    ReplyArrives,
    ReplyLost,
    Unclear,
    every_way,
    observed,
)
from tests.swarm.recorded import recording

CLIENT = "192.168.77.254"
NODES = {"node1": "192.168.77.1", "node2": "192.168.77.2"}
LOOPBACK = "127.0.0.1"
TCP, UDP = Protocol.TCP, Protocol.UDP


def ways(step: str, packet: Packet, start: Place) -> tuple[Branch, ...]:
    return every_way(observed(recording(step)), packet, start)


def outcomes(
    step: str, destination: str, port: int, protocol: Protocol = TCP, *, source: str = CLIENT, start: Place = OUTSIDE
) -> dict[str, str]:
    """What becomes of connections, each with its share."""
    ends = Endpoint(IPv4Address(source), 40000), Endpoint(IPv4Address(destination), port)
    found: dict[str, Fraction] = {}
    for branch in ways(step, Packet(protocol=protocol, source=ends[0], destination=ends[1]), start):
        assert not branch.estimated
        found[told(branch)] = found.get(told(branch), Fraction(0)) + branch.share
    return {outcome: str(share) for outcome, share in found.items()}


def told(branch: Branch) -> str:
    match branch.outcome:
        case Delivered(place=place, peer=peer, reply=ReplyArrives(), process=process):
            return f"{process} in {place.netns or 'the node'} sees {peer.address}"
        case Delivered(reply=ReplyLost(place, end)):
            return f"answer lost at {place}: {of_end(end)}"
        case Refused(place, _):
            return f"refused at {place}"
        case Dropped(place, end):
            return f"lost at {place}: {of_end(end)}"
        case Delivered(reply=Unclear(place, doubt)) | Unclear(place, doubt):
            return f"unclear at {place}: {of_doubt(doubt)}"
        case other:
            return str(other)


def halves(*both: str) -> dict[str, str]:
    return dict.fromkeys(both, "1/2")


# --- one service --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "ingress"), [("192.168.77.1", "10.0.0.2"), ("192.168.77.2", "10.0.0.3")])
def test_every_node_leads_to_both_tasks_which_see_the_node(entry: str, ingress: str) -> None:
    both = halves(f"who in 4f1fb3667fce sees {ingress}", f"who in 721fa25bee8c sees {ingress}")
    assert outcomes("2-service", entry, 8080) == both
    for own in (entry, LOOPBACK, "172.18.0.1"):
        start = Place("swarm1" if ingress == "10.0.0.2" else "swarm2", "")
        assert outcomes("2-service", own, 8080, source=own, start=start) == both


def test_the_way_is_the_one_that_the_tutorial_walks() -> None:
    packet = Packet(
        protocol=TCP, source=Endpoint(IPv4Address(CLIENT), 40000), destination=Endpoint(IPv4Address("192.168.77.1"), 8080)
    )
    far = next(branch for branch in ways("2-service", packet, OUTSIDE) if branch.hops[-1].place.node == "swarm2")
    assert [f"{hop.place} {hop.device}: {of_event(hop.event)}" for hop in far.hops] == [
        "swarm1 eth0: nat DOCKER-INGRESS dnat to 172.18.0.2",
        "swarm1 docker_gwbridge: route dev docker_gwbridge",
        "swarm1 docker_gwbridge: neighbour 172.18.0.2 is 02:42:ac:12:00:02, reachable",
        "swarm1 veth86fc33e: bridge docker_gwbridge to port veth86fc33e",
        "swarm1/ingress_sbox eth1: mangle PREROUTING meta mark set 0x100",
        "swarm1/ingress_sbox eth1: ipvs FWM 256 rr to 10.0.0.6",
        "swarm1/ingress_sbox eth0: route dev eth0",
        "swarm1/ingress_sbox eth0: ipvs destination 10.0.0.6:8080",
        "swarm1/ingress_sbox eth0: nat POSTROUTING snat to 10.0.0.2",
        "swarm1/ingress_sbox eth0: neighbour 10.0.0.6 is 02:42:0a:00:00:06, stale",
        "swarm1/1-mwyjqw5o1s vxlan0: bridge br0 to port vxlan0",
        "swarm1/1-mwyjqw5o1s vxlan0: vxlan 4096 to 192.168.77.2",
        "swarm1 eth0: route dev eth0",
        "swarm2 eth0: vxlan 4096 into swarm2/1-mwyjqw5o1s vxlan0",
        "swarm2/1-mwyjqw5o1s veth1: bridge br0 to port veth1",
        "swarm2/721fa25bee8c eth0: nat PREROUTING redirect to :80",
        "swarm2/721fa25bee8c eth0: is here, for tcp/80",
    ]
    assert [
        f"{hop.place} {hop.device}: {of_event(hop.event)}"
        for hop in far.reply_hops
        if not isinstance(hop.event, Resolved | Bridged)
    ] == [
        "swarm2/721fa25bee8c eth0: route dev eth0",
        "swarm2/721fa25bee8c eth0: conntrack source 10.0.0.6:8080",
        "swarm2/1-mwyjqw5o1s vxlan0: vxlan 4096 to 192.168.77.1",
        "swarm2 eth0: route dev eth0",
        "swarm1 eth0: vxlan 4096 into swarm1/1-mwyjqw5o1s vxlan0",
        "swarm1/ingress_sbox eth0: conntrack destination 192.168.77.254:40000",
        "swarm1/ingress_sbox eth1: route via 172.18.0.1 dev eth1",
        "swarm1/ingress_sbox eth1: ipvs answers as 172.18.0.2:8080",
        "swarm1/ingress_sbox eth1: route via 172.18.0.1 dev eth1",
        "swarm1 eth0: route dev eth0",
        "swarm1 eth0: conntrack source 192.168.77.1:8080",
    ]


# --- faults -------------------------------------------------------------------------------------------------------

WEB = ("9c569e2ad052", "63b6e03e3e30")
"""The tasks' namespaces on node2 and node1."""

DNS = ("e8afeba5159b", "21826aaea776")


def to_both(tasks: tuple[str, str], entry: str) -> dict[str, str]:
    return halves(*(f"who in {task} sees {'10.0.0.2' if entry == 'node1' else '10.0.0.3'}" for task in tasks))


def only_local(fault: str) -> dict[str, str]:
    return halves(fault, f"who in {WEB[1]} sees 10.0.0.2")


DROPPED = "swarm2: filter INPUT drops it"
FENCED = f"lost at swarm2/{WEB[0]}: filter INPUT drops it"
FAULTS = {
    # dockerd listens on the port and never accepts: what a client sees is a server that hangs.
    "01-dnat-deleted": {(TCP, "node1"): {"dockerd in the node sees 192.168.77.254": "1"}},
    "08-ipvs-dest-deleted": {(TCP, "node1"): {f"who in {WEB[1]} sees 10.0.0.2": "1"}},
    "12-fdb-deleted": {
        (TCP, "node1"): only_local("lost at swarm1/1-po75a2uo3p: vxlan0 does not know which node has 02:42:0a:00:00:05")
    },
    "16-vxlan-port-dropped-input-node2": {
        (TCP, "node1"): only_local(f"lost at {DROPPED}"),
        (TCP, "node2"): halves(f"who in {WEB[0]} sees 10.0.0.3", f"answer lost at {DROPPED}"),
        (UDP, "node1"): halves(f"lost at {DROPPED}", f"who in {DNS[1]} sees 10.0.0.2"),
        (UDP, "node2"): halves(f"who in {DNS[0]} sees 10.0.0.3", f"answer lost at {DROPPED}"),
    },
    "21-task-redirect-deleted": {
        (TCP, "node1"): only_local(FENCED),
        (TCP, "node2"): halves(FENCED, f"who in {WEB[1]} sees 10.0.0.3"),
    },
}


@pytest.mark.parametrize("fault", ["00-healthy", *FAULTS])
@pytest.mark.parametrize("entry", NODES)
@pytest.mark.parametrize("protocol", Protocol)
def test_a_fault_is_told_as_requests_met_it(fault: str, entry: str, protocol: Protocol) -> None:
    port, tasks = (8080, WEB) if protocol is TCP else (5353, DNS)
    expected = FAULTS.get(fault, {}).get((protocol, entry), to_both(tasks, entry))
    assert outcomes(f"faults/{fault}", NODES[entry], port, protocol) == expected
    if protocol is TCP and entry == "node1" and fault != "01-dnat-deleted":
        itself = observed(recording(f"faults/{fault}")).owner(IPv4Address(NODES[entry]))
        assert itself is not None
        assert outcomes(f"faults/{fault}", LOOPBACK, port, source=LOOPBACK, start=itself.place) == expected


def test_what_was_not_read_is_told_as_such() -> None:
    assert outcomes("3-node2-killed", "192.168.77.2", 8080) == {
        "unclear at outside: 192.168.77.2: that is swarm2, there is no recording of it": "1"
    }


# --- sizes ----------------------------------------------------------------------------------------------------------


def with_mtu(netns: str, link: str, mtu: int) -> ClusterSnapshot:
    """The one service's Swarm with another MTU of a device of the first node."""
    seen = recording("2-service")
    node = seen.nodes["swarm1"]
    space = node.namespaces[netns]
    items = tuple(replace(item, mtu=mtu) if isinstance(item, Link) and item.name == link else item for item in space.items)
    assert any(isinstance(item, Link) and (item.name, item.mtu) == (link, mtu) for item in items)
    spaces = {**node.namespaces, netns: replace(space, items=items)}
    return replace(seen, nodes={**seen.nodes, "swarm1": replace(node, namespaces=spaces)})


OVERLAY = "1-mwyjqw5o1s"


@pytest.mark.parametrize(
    ("netns", "link", "mtu", "near", "far"),
    [
        ("", "eth0", 1500, "", ""),
        # Who forwards tells the server, through the sandbox's IPVS, that its packets are too large.
        ("", "eth0", 1400, "", ""),
        ("", "docker_gwbridge", 1400, "", ""),
        ("ingress_sbox", "eth0", 1500, "", ""),
        ("ingress_sbox", "eth0", 1400, "ingress_sbox: eth0, 1400", "ingress_sbox: eth0, 1400"),
        (OVERLAY, "br0", 1300, "", ""),
        (OVERLAY, "veth0", 1300, f"{OVERLAY}: veth0, 1300", f"{OVERLAY}: veth0, 1300"),
        (OVERLAY, "vxlan0", 1300, "", f"{OVERLAY}: vxlan0, 1300"),
    ],
)
def test_a_device_that_takes_less_is_told_where_large_packets_are_lost(
    netns: str, link: str, mtu: int, near: str, far: str
) -> None:
    packet = Packet(
        protocol=TCP, source=Endpoint(IPv4Address(CLIENT), 40000), destination=Endpoint(IPv4Address("192.168.77.1"), 8080)
    )
    found = {}
    for branch in every_way(observed(with_mtu(netns, link, mtu)), packet, full_size=True):
        assert isinstance(branch.outcome, Delivered)
        assert branch.outcome.reply == ReplyArrives()
        lost = branch.outcome.full_size
        told = (
            f"{lost.place.netns}: {of_end(lost.reason).partition('exceed the MTU of ')[2]}" if isinstance(lost, ReplyLost) else ""
        )
        found[branch.outcome.place.node] = told
    assert found == {"swarm1": near, "swarm2": far}


# --- a network of its own -----------------------------------------------------------------------------------------

CLI, API1, API2, APIPUB = "4b8a940d11aa", "e6bfe20fb1d5", "eb83b8508c80", "31cb11247103"
APP, GATEWAY = "10.0.1.11", "172.18.0.7"
"""The addresses of the container `cli1` on the network `app` and on docker_gwbridge."""


@pytest.mark.parametrize(
    ("source", "destination", "port", "protocol", "expected"),
    [
        (APP, "10.0.1.2", 80, TCP, halves(f"who in {API1} sees 10.0.1.6", f"who in {API2} sees 10.0.1.6")),
        (APP, "10.0.1.2", 80, UDP, halves(f"who in {API1} sees 10.0.1.6", f"who in {API2} sees 10.0.1.6")),
        (APP, "10.0.1.2", 81, TCP, halves(f"refused at swarm2/{API1}", f"refused at swarm1/{API2}")),
        (APP, "10.0.1.9", 80, TCP, {f"who in {APIPUB} sees 10.0.1.6": "1"}),
        (APP, "10.0.1.9", 8090, TCP, {f"refused at swarm2/{APIPUB}": "1"}),
        (APP, "10.0.1.3", 80, TCP, {f"who in {API1} sees {APP}": "1"}),
        (GATEWAY, "192.168.77.1", 8090, TCP, {f"who in {APIPUB} sees 10.0.0.2": "1"}),
        (GATEWAY, "192.168.77.2", 8090, TCP, {f"who in {APIPUB} sees 10.0.0.3": "1"}),
        (GATEWAY, "172.18.0.1", 8080, TCP, halves("who in 1c0853cc5075 sees 10.0.0.2", "who in 4f1fb3667fce sees 10.0.0.2")),
    ],
)
def test_a_container_reaches_virtual_addresses_tasks_and_published_ports(
    source: str, destination: str, port: int, protocol: Protocol, expected: dict[str, str]
) -> None:
    assert outcomes("5-overlay", destination, port, protocol, source=source, start=Place("swarm1", CLI)) == expected


def test_a_task_does_not_reach_the_ingress_networks_virtual_address() -> None:
    start = Place("swarm1", "4f1fb3667fce")
    for port in (80, 8080):
        assert outcomes("5-overlay", "10.0.0.4", port, source="10.0.0.5", start=start) == {
            "lost at swarm1/4f1fb3667fce: filter OUTPUT drops it": "1"
        }
