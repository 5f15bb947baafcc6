"""What IPVS does: two real servers in namespaces behind a bridge of one machine, which balances over them."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

import pytest

from routemesh.model import Protocol
from routemesh.nodeplan import (
    HOST,
    Address,
    Assign,
    Dnat,
    IpvsDestination,
    IpvsMatch,
    IpvsService,
    Item,
    Link,
    Match,
    Netns,
    NodePlan,
    Peer,
    Reject,
    Route,
    RoutingRule,
    Snat,
    Sysctl,
    Verdict,
    XtChain,
    namespace,
)
from routemesh.reasons.ends import NoRoute, NoServer
from routemesh.reasons.events import Assigned
from routemesh.reasons.words import of_end, of_event
from routemesh.values import replace
from routemesh.walk import (
    OUTSIDE,
    Branch,
    Delivered,
    Dropped,
    Endpoint,
    Hop,
    Host,
    Network,
    Packet,
    Place,
    Refused,
    ReplyArrives,
    ReplyLost,
    UnknownRule,
    ipvs,
    walk,
)
from routemesh.walk.flight import Flight, Trip
from routemesh.walk.lots import Lots

NODE = IPv4Address("192.0.2.1")
CLIENT = Endpoint(IPv4Address("198.51.100.7"), 40000)
GATEWAY = IPv4Address("172.18.0.1")
A, B = IPv4Address("172.18.0.10"), IPv4Address("172.18.0.11")
HERE = Place("node1", HOST)
EVERYWHERE = IPv4Network("0.0.0.0/0")
MARK = 256

MARKING = XtChain("mangle", "PREROUTING", ((Match("th dport", "80"), Assign("meta mark", MARK)),), "ACCEPT")
SERVICE = IpvsService(mark=MARK, scheduler="rr")
SERVERS = tuple(IpvsDestination(mark=MARK, address=address) for address in (A, B))
TRACKED, FORWARD = Sysctl("net/ipv4/vs/conntrack", "1"), Sysctl("net/ipv4/ip_forward", "1")
BALANCER: tuple[Item, ...] = (MARKING, SERVICE, *SERVERS, TRACKED, FORWARD)


def mac(address: IPv4Address) -> str:
    return f"02:42:{address.packed.hex(':')}"


def bridged(name: str) -> tuple[Item, ...]:
    return Netns(name), Link(name=f"to-{name}", kind="veth", master="br0", peer=Peer(name, "eth0"))


def server(name: str, address: IPv4Address) -> tuple[Item, ...]:
    return (
        Link(name="eth0", kind="veth", mac=mac(address), peer=Peer(HOST, f"to-{name}")),
        Address("eth0", IPv4Interface((address, 16))),
        Route(destination=EVERYWHERE, via=GATEWAY, link="eth0"),
    )


BRIDGE: tuple[Item, ...] = (
    Link(name="br0", kind="bridge", mac=mac(GATEWAY)),
    Address("br0", IPv4Interface((GATEWAY, 16))),
    *bridged("a"),
    *bridged("b"),
)


def network(
    balancer: Iterable[Item] = BALANCER, a: Iterable[Item] = (), sysctls: dict[str, str] | None = None, *, here: bool = True
) -> Network:
    """The machine balances port 80; the servers answer on 80 and 8080, the machine itself on 80 if it is `here`, and on 22."""
    spaces = {HOST: namespace((*BRIDGE, *balancer)), "a": namespace((*server("a", A), *a)), "b": namespace(server("b", B))}
    both = {(protocol, port) for protocol in Protocol for port in (80, 8080)}
    listening = {("node1", "a"): both, ("node1", "b"): both, ("node1", HOST): {(Protocol.TCP, 22)} | (both if here else set())}
    return Network({"node1": Host(NodePlan(spaces), (NODE,))}, listening, sysctls or {})


def asked(net: Network, port: int = 80, *, start: Place = OUTSIDE, protocol: Protocol = Protocol.TCP) -> tuple[Branch, ...]:
    source = CLIENT if start == OUTSIDE else Endpoint(NODE, 40000)
    return walk(net, Packet(protocol=protocol, source=source, destination=Endpoint(NODE, port)), start)


def instead(old: Item, *new: Item) -> tuple[Item, ...]:
    assert old in BALANCER
    at = BALANCER.index(old)
    return (*BALANCER[:at], *new, *BALANCER[at + 1 :])


def shares(branches: Iterable[Branch]) -> dict[str, str]:
    """Which share of connections each namespace gets; those of refused ones under `refused`."""
    return {
        branch.outcome.place.netns if isinstance(branch.outcome, Delivered) else "refused": str(branch.share)
        for branch in branches
    }


def ends(branches: Iterable[Branch]) -> set[str]:
    """How all the ways end, in words."""
    found = set()
    for branch in branches:
        outcome = branch.outcome
        if isinstance(outcome, Delivered) and isinstance(outcome.reply, ReplyLost):
            found.add(f"{outcome.place} answers; {outcome.reply.place}: {of_end(outcome.reply.reason)}")
        elif isinstance(outcome, Delivered):
            found.add(f"{outcome.place} answers")
        else:
            assert isinstance(outcome, Refused | Dropped)
            found.add(f"{type(outcome).__name__} {outcome.place}: {of_end(outcome.reason)}")
    return found


# --- there and back -------------------------------------------------------------------------------------------------


def test_a_marked_connection_is_shared_out_and_answered_by_the_address_that_was_asked() -> None:
    first, second = asked(network())
    assert [branch.outcome for branch in (first, second)] == [
        Delivered(place=Place("node1", name), protocol=Protocol.TCP, port=80, peer=CLIENT, reply=ReplyArrives())
        for name in ("a", "b")
    ]
    assert (str(first.share), first.estimated) == ("1/2", False)
    assert [(of_event(hop.event), hop.item) for hop in first.hops if "ipvs" in of_event(hop.event)] == [
        (f"ipvs FWM 256 rr to {A}", SERVERS[0]),
        (f"ipvs destination {A}:80", None),
    ]
    assert [of_event(hop.event) for hop in first.reply_hops if "ipvs" in of_event(hop.event)] == [f"ipvs answers as {NODE}:80"]


@pytest.mark.parametrize("protocol", Protocol)
def test_what_is_not_marked_or_of_another_mark_is_for_the_sockets_here(protocol: Protocol) -> None:
    assert ends(asked(network(), 8080, protocol=protocol)) == {"node1 answers"}
    other = instead(SERVICE, replace(SERVICE, mark=MARK + 1))
    assert ends(asked(network(other), protocol=protocol)) == {"node1 answers"}
    assert ends(asked(network(instead(MARKING)), protocol=protocol)) == {"node1 answers"}


def test_a_port_of_its_own_may_be_given_to_a_server() -> None:
    ported = instead(SERVERS[0], replace(SERVERS[0], port=8080))
    assert {branch.outcome.port for branch in asked(network(ported)) if isinstance(branch.outcome, Delivered)} == {80, 8080}
    assert ends(asked(network(ported))) == {"node1/a answers", "node1/b answers"}


def test_the_request_need_not_be_forwarded_but_the_answer_must() -> None:
    assert ends(asked(network(instead(FORWARD)))) == {
        f"node1/{name} answers; node1: it is not for this namespace, which forwards nothing" for name in ("a", "b")
    }


def ct_marks(hops: tuple[Hop, ...]) -> list[str]:
    return [hop.event.chain for hop in hops if isinstance(hop.event, Assigned) and hop.event.field == "ct mark"]


def test_rules_are_met_at_input_output_and_postrouting_but_not_at_forward() -> None:
    def noted(name: str) -> XtChain:
        return XtChain("mangle", name, ((Assign("ct mark", 1),),), "ACCEPT")

    chains = [noted(name) for name in ("INPUT", "FORWARD", "OUTPUT", "POSTROUTING")]
    first, _ = asked(network((*BALANCER, *chains)))
    assert ct_marks(first.hops) == ["INPUT", "OUTPUT", "POSTROUTING"]
    assert ct_marks(first.reply_hops) == [
        "FORWARD",
        "POSTROUTING",
    ]
    assert {hop.after.mark for hop in first.hops if "POSTROUTING" in of_event(hop.event)} == {MARK}


@pytest.mark.parametrize("name", ["INPUT", "OUTPUT"])
def test_filters_before_it_and_behind_it_can_drop_a_request(name: str) -> None:
    fence = XtChain("filter", name, ((Match("th dport", "80"), Verdict("drop")),), "ACCEPT")
    assert ends(asked(network((*BALANCER, fence)))) == {f"Dropped node1: filter {name} drops it"}


def test_an_answer_is_still_the_servers_when_it_meets_the_forward_filter() -> None:
    fence = XtChain("filter", "FORWARD", ((Match("ip saddr", str(A)), Verdict("drop")),), "ACCEPT")
    assert "node1/a answers; node1: filter FORWARD drops it" in ends(asked(network((*BALANCER, fence))))


def test_a_balanced_packet_is_known_as_such_behind_ipvs_and_not_before() -> None:
    def fence(name: str) -> XtChain:
        return XtChain("mangle", name, ((IpvsMatch(), Verdict("drop")),), "ACCEPT")

    assert ends(asked(network((*BALANCER, fence("INPUT"), fence("FORWARD"))))) == {"node1/a answers", "node1/b answers"}
    assert ends(asked(network((*BALANCER, fence("POSTROUTING"))))) == {"Dropped node1: mangle POSTROUTING drops it"}


# --- connection tracking ----------------------------------------------------------------------------------------------

AS_GATEWAY = XtChain("nat", "POSTROUTING", ((Match("ip daddr", "172.18.0.0/16"), IpvsMatch(), Snat(GATEWAY)),), "ACCEPT")


def peers(branches: Iterable[Branch]) -> set[IPv4Address]:
    return {branch.outcome.peer.address for branch in branches if isinstance(branch.outcome, Delivered)}


def test_the_client_is_translated_where_connections_are_tracked() -> None:
    found = asked(network((*BALANCER, AS_GATEWAY)))
    assert (peers(found), ends(found)) == ({GATEWAY}, {"node1/a answers", "node1/b answers"})


def test_and_otherwise_not() -> None:
    found = asked(network((*instead(TRACKED), AS_GATEWAY)))
    assert (peers(found), ends(found)) == ({CLIENT.address}, {"node1/a answers", "node1/b answers"})
    fence = XtChain("filter", "OUTPUT", ((Match("ct state", "untracked"), Verdict("drop")),), "ACCEPT")
    assert ends(asked(network((*instead(TRACKED), fence)))) == {"Dropped node1: filter OUTPUT drops it"}
    assert ends(asked(network((*BALANCER, fence)))) == {"node1/a answers", "node1/b answers"}


def test_answers_belong_to_the_connection_only_where_it_is_tracked() -> None:
    """Otherwise they are the first packet of another connection, as far as rules can tell."""
    fence = XtChain("mangle", "FORWARD", ((Match("ct state", "new"), Verdict("drop")),), "ACCEPT")
    assert ends(asked(network((*BALANCER, fence)))) == {"node1/a answers", "node1/b answers"}
    assert ends(asked(network((*instead(TRACKED), fence)))) == {
        f"node1/{name} answers; node1: mangle FORWARD drops it" for name in ("a", "b")
    }


def test_nat_does_not_know_of_the_destination_that_ipvs_gave() -> None:
    fence = XtChain("filter", "FORWARD", ((Match("ct status", "dnat"), Verdict("drop")),), "ACCEPT")
    assert ends(asked(network((*BALANCER, fence)))) == {"node1/a answers", "node1/b answers"}


# --- ways ------------------------------------------------------------------------------------------------------------

ELSEWHERE = IPv4Address("172.19.0.1")
ASTRAY = (
    Link(name="eth9", kind="veth", peer=Peer("nowhere", "eth0")),
    Address("eth9", IPv4Interface("172.19.0.2/16")),
    RoutingRule(priority=100, fwmark=MARK, mask=0xFFFFFFFF, table=100),
    Route(destination=EVERYWHERE, via=ELSEWHERE, link="eth9", table=100),
)


def test_the_way_to_a_server_does_not_depend_on_the_mark() -> None:
    assert ends(asked(network((*BALANCER, *ASTRAY)))) == {"node1/a answers", "node1/b answers"}


def test_a_mark_that_mangle_output_changes_leads_elsewhere() -> None:
    remark = XtChain("mangle", "OUTPUT", ((Match("ip daddr", str(A)), Assign("meta mark", 7)),), "ACCEPT")
    astray = (*ASTRAY[:2], replace(ASTRAY[2], fwmark=7), ASTRAY[3])
    assert ends(asked(network((*BALANCER, *astray, remark)))) == {
        f"Dropped node1: nobody on eth9 answers ARP for {ELSEWHERE}", "node1/b answers",
    }  # fmt: skip


@pytest.mark.parametrize(("reroute", "found"), [({}, True), ({"net/ipv4/vs/snat_reroute": "0"}, False)])
def test_an_answer_is_routed_again_once_it_has_the_source_that_was_asked(reroute: dict[str, str], found: bool) -> None:
    """By the mark that it got at the forward hook, which comes too late for its first route."""
    remark = XtChain("mangle", "FORWARD", ((Assign("meta mark", MARK),),), "ACCEPT")
    lost = f"nobody on eth9 answers ARP for {ELSEWHERE}" in str(
        ends(asked(network((*BALANCER, *ASTRAY, remark), sysctls=reroute)))
    )
    assert lost is found


def test_an_error_about_a_request_comes_from_the_address_that_was_asked() -> None:
    fence = XtChain("filter", "INPUT", ((Reject("icmp port-unreachable"),),), "ACCEPT")
    assert "Refused node1/a: filter INPUT rejects with icmp port-unreachable" in ends(asked(network(a=(fence,))))
    deaf = Sysctl("net/ipv4/ip_forward", "0")
    assert "and the client does not hear of it" in str(ends(asked(network((*instead(FORWARD), deaf), a=(fence,)))))


def test_a_process_of_the_balancer_itself_is_balanced_where_it_is_marked() -> None:
    marked = XtChain("mangle", "OUTPUT", MARKING.rules, "ACCEPT")
    assert ends(asked(network((*BALANCER, marked)), start=HERE)) == {"node1/a answers", "node1/b answers"}
    assert ends(asked(network(instead(MARKING)), start=HERE)) == {"node1 answers"}


def test_what_comes_by_loopback_is_balanced_but_its_connection_is_no_news_to_nat() -> None:
    found = asked(network((*BALANCER, AS_GATEWAY)), start=HERE)
    assert (peers(found), ends(found)) == ({NODE}, {"node1/a answers", "node1/b answers"})


def test_nothing_of_loopback_leaves_for_a_server() -> None:
    packet = Packet(
        protocol=Protocol.TCP,
        source=Endpoint(IPv4Address("127.0.0.1"), 40000),
        destination=Endpoint(IPv4Address("127.0.0.1"), 80),
    )
    assert ends(walk(network(), packet, HERE)) == {"Dropped node1: ipvs sends nothing from 127.0.0.1 to another namespace"}


def test_a_server_of_the_balancer_itself_gets_the_packet_at_once() -> None:
    local = instead(SERVERS[0], replace(SERVERS[0], address=GATEWAY))
    assert ends(asked(network(local))) == {"node1 answers", "node1/b answers"}


def with_vip(name: str) -> XtChain:
    """In place of the VIP on lo, which a server that is reached directly has: its own address answers for it."""
    return XtChain("nat", name, ((Match("ip daddr", str(NODE)), Dnat(A)),), "ACCEPT")


def test_direct_routing_sends_the_packet_as_it_is_to_the_servers_mac() -> None:
    direct = instead(SERVERS[0], replace(SERVERS[0], method="route"))
    (found,) = [branch for branch in asked(network(direct, a=(with_vip("PREROUTING"),))) if branch.hops[0].place == HERE][:1]
    assert f"ipvs FWM 256 rr to {A} by direct routing" in [of_event(hop.event) for hop in found.hops]
    assert isinstance(found.outcome, Delivered)
    assert (found.outcome.place, found.outcome.peer) == (Place("node1", "a"), CLIENT)
    into = next(hop for hop in found.hops if hop.place.netns == "a")
    assert (into.before.destination, into.before.destination_mac) == (Endpoint(NODE, 80), mac(A))


@pytest.mark.parametrize(("method", "named"), [("tunnel", "by IPIP"), ("other", "in an unknown way")])
def test_another_way_to_a_server_is_an_error(method: Literal["tunnel", "other"], named: str) -> None:
    tunnel = instead(SERVERS[0], replace(SERVERS[0], method=method))
    with pytest.raises(UnknownRule, match=f"ipvs service FWM 256, which reaches server {A} {named}"):
        asked(network(tunnel))


@pytest.mark.parametrize("flags", ["ack", "rst", "syn,rst"])
def test_only_an_opening_packet_of_tcp_is_scheduled(flags: str) -> None:
    """Any other without a connection is for the sockets here, which know nothing of it either."""
    flight = Trip(network(), Lots().draw)
    stack = flight.network.stack(HERE)
    assert stack is not None
    late = Packet(
        protocol=Protocol.TCP, source=CLIENT, destination=Endpoint(NODE, 80), mark=MARK, flags=frozenset(flags.split(","))
    )
    known = Flight(flight, stack, late, "eth0")
    ipvs.schedule(known, "input")
    assert (known.taken, known.balanced) == (False, False)


# --- the servers' shares --------------------------------------------------------------------------------------------


def weighted(a: int, b: int, scheduler: str, *, fallback: bool = False, persistent_s: int = 0) -> tuple[Item, ...]:
    service = replace(SERVICE, scheduler=scheduler, fallback=fallback, persistent_s=persistent_s)
    return (MARKING, service, replace(SERVERS[0], weight=a), replace(SERVERS[1], weight=b), TRACKED, FORWARD)


@pytest.mark.parametrize(
    ("scheduler", "a", "b", "expected", "estimated"),
    [
        ("rr", 1, 1, {"a": "1/2", "b": "1/2"}, False),
        ("rr", 1, 9, {"a": "1/2", "b": "1/2"}, False),
        ("rr", 0, 9, {"b": "1"}, False),
        ("wrr", 1, 3, {"a": "1/4", "b": "3/4"}, False),
        ("wrr", 2, 0, {"a": "1"}, False),
        ("lc", 1, 3, {"a": "1/2", "b": "1/2"}, True),
        ("wlc", 1, 3, {"a": "1/4", "b": "3/4"}, True),
        ("sed", 1, 3, {"a": "1/4", "b": "3/4"}, True),
        ("nq", 1, 3, {"a": "1/4", "b": "3/4"}, True),
        ("sh", 1, 3, {"a": "1/4", "b": "3/4"}, True),
        ("mh", 1, 3, {"a": "1/4", "b": "3/4"}, True),
        ("wlc", 0, 3, {"b": "1"}, False),
    ],
)
def test_each_scheduler_gives_its_shares(scheduler: str, a: int, b: int, expected: dict[str, str], estimated: bool) -> None:
    found = asked(network(weighted(a, b, scheduler)))
    assert (shares(found), {branch.estimated for branch in found}) == (expected, {estimated})


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
def test_a_hash_may_lead_to_a_server_of_weight_0(scheduler: str) -> None:
    assert shares(asked(network(weighted(0, 3, scheduler, fallback=True)))) == {"b": "1"}
    assert shares(asked(network(weighted(0, 3, scheduler)))) == {"b": "3/4", "refused": "1/4"}


def test_the_first_packet_of_a_client_that_is_to_keep_its_server_is_scheduled() -> None:
    assert shares(asked(network(weighted(1, 1, "rr", persistent_s=300)))) == {"a": "1/2", "b": "1/2"}


def test_a_scheduler_of_another_kind_is_an_error() -> None:
    with pytest.raises(UnknownRule, match=r"^node1: can't tell what happens at ipvs service FWM 256 with scheduler lblcr$"):
        asked(network(weighted(1, 1, "lblcr")))


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("items", [weighted(0, 0, "rr"), weighted(0, 0, "mh"), (MARKING, SERVICE, TRACKED)])
def test_a_service_without_a_server_refuses(items: tuple[Item, ...], protocol: Protocol) -> None:
    (branch,) = asked(network(items), protocol=protocol)
    assert branch.outcome == Refused(HERE, NoServer(256))
    assert branch.hops[-1].item == items[1]
    deaf = XtChain("filter", "OUTPUT", policy="DROP")
    (silent,) = asked(network((*items, deaf)), protocol=protocol)
    assert isinstance(silent.outcome, Dropped)


def test_a_server_that_no_route_leads_to_refuses() -> None:
    astray = instead(SERVERS[0], replace(SERVERS[0], address=IPv4Address("203.0.113.5")))
    assert "Dropped outside: 203.0.113.5 belongs to no node" in ends(asked(network(astray)))
    net = network()
    spaces = {**net.hosts["node1"].plan.namespaces, HOST: namespace((*BRIDGE, *bridged("c"))), "c": namespace(UNROUTED)}
    packet = Packet(protocol=Protocol.TCP, source=Endpoint(GATEWAY, 40000), destination=Endpoint(C, 80))
    (branch,) = walk(Network({"node1": Host(NodePlan(spaces), (NODE,))}), packet, HERE)
    assert branch.outcome == Refused(Place("node1", "c"), NoRoute(IPv4Address("203.0.113.5")))


C = IPv4Address("172.18.0.12")
UNROUTED: tuple[Item, ...] = (
    *server("c", C)[:2], MARKING, SERVICE, replace(SERVERS[0], address=IPv4Address("203.0.113.5")),
)  # fmt: skip
