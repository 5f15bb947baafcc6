"""What was seen of a node's kernel, with everything that others put there: one fact each."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

import pytest

from routemesh.model import Protocol
from routemesh.nodeplan import (
    HOST,
    Address,
    Assign,
    Chain,
    Dnat,
    FdbEntry,
    Hook,
    IpvsDestination,
    IpvsService,
    Item,
    Link,
    Match,
    Neighbour,
    NeighbourState,
    Peer,
    Route,
    RouteKind,
    RoutingRule,
    Rule,
    Sysctl,
    Table,
    Unknown,
    Verdict,
    Vxlan,
    XtChain,
)
from routemesh.reasons.words import of_doubt, of_end
from routemesh.snapshot import (
    LINK_SYSCTLS,
    Bound,
    ClusterSnapshot,
    ConntrackEntry,
    Endpoint,
    Flow,
    IpsecPolicy,
    NamedNode,
    Names,
    NamespaceSnapshot,
    NodeSnapshot,
    Socket,
)
from routemesh.values import replace
from routemesh.walk import (
    OUTSIDE,
    Branch,
    Delivered,
    Packet,
    Place,
    ReplyArrives,
    ReplyLost,
    Unclear,
    UnknownRule,
    every_way,
    observed,
    walk,
)

NODE, SECOND, CLIENT = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Address("198.51.100.7")
ROUTER = IPv4Address("192.0.2.254")
GATEWAY, INSIDE = IPv4Address("172.18.0.1"), IPv4Address("172.18.0.2")
MAC_1, MAC_2 = "02:42:ac:12:00:01", "02:42:ac:12:00:02"
HERE, BOX = Place("node1", HOST), Place("node1", "box")
EVERYWHERE = IPv4Network("0.0.0.0/0")
TCP, UDP = Protocol.TCP, Protocol.UDP
DROP: Rule = (Verdict("drop"),)

RULES = tuple(
    RoutingRule(priority=priority, fwmark=0, mask=0, table=table) for priority, table in ((0, 255), (32766, 254), (32767, 253))
)
LOOPBACK = Link(name="lo", kind="loopback", mac="00:00:00:00:00:00")
CARD = Link(name="eth0", kind="other", mac="52:54:00:00:00:01")
BRIDGE = Link(name="br0", kind="bridge", mac=MAC_1)
PORT = Link(name="veth0", kind="veth", master="br0", peer=Peer("box", "eth1"), learning=True)
LEARNED = FdbEntry("veth0", MAC_2, kind="learned")
DEFAULT = Route(destination=EVERYWHERE, via=ROUTER, link="eth0", protocol=4)


def on_link(network: str, link: str) -> Route:
    """A route that came with an address."""
    return Route(destination=IPv4Network(network), via=None, link=link, protocol=2)


def settings(*links: str, **others: str) -> tuple[Sysctl, ...]:
    """As a kernel has them, all off, but that it forwards."""
    own = [Sysctl(f"net/ipv4/conf/{link}/{name}", "0") for link in ("all", "lo", *links) for name in LINK_SYSCTLS]
    known = {item.path: item.value for item in own} | {"net/ipv4/ip_forward": "1"}
    known |= {f"net/ipv4/conf/{link}/forwarding": "1" for link in ("all", *links)}
    known |= {path.replace("__", "/"): value for path, value in others.items()}
    return tuple(Sysctl(path, value) for path, value in known.items())


HOST_ITEMS: tuple[Item, ...] = (
    *RULES, LOOPBACK, CARD, BRIDGE, PORT, LEARNED,
    Address("lo", IPv4Interface("127.0.0.1/8")), Address("eth0", IPv4Interface("192.0.2.1/24")),
    Address("br0", IPv4Interface("172.18.0.1/16")),
    on_link("192.0.2.0/24", "eth0"), on_link("172.18.0.0/16", "br0"), DEFAULT,
    *settings("eth0", "br0"),
)  # fmt: skip
END = Link(name="eth1", kind="veth", mac=MAC_2, peer=Peer(HOST, "veth0"))
WAY_OUT = Route(destination=EVERYWHERE, via=GATEWAY, link="eth1", protocol=3)
BOX_ITEMS: tuple[Item, ...] = (
    *RULES, LOOPBACK, END, Address("eth1", IPv4Interface("172.18.0.2/16")), on_link("172.18.0.0/16", "eth1"), WAY_OUT,
    *settings("eth1"),
)  # fmt: skip


def anywhere(*ports: int, protocol: Protocol = TCP) -> tuple[Socket, ...]:
    return tuple(Socket(protocol=protocol, address=IPv4Address("0.0.0.0"), port=port, process="server") for port in ports)


HOST_SPACE = NamespaceSnapshot(path="", items=HOST_ITEMS, sockets=anywhere(22))
BOX_SPACE = NamespaceSnapshot(path="/box", items=BOX_ITEMS, sockets=(*anywhere(80), *anywhere(53, protocol=UDP)))


def cluster(
    host: Iterable[Item] = HOST_ITEMS,
    box: Iterable[Item] = BOX_ITEMS,
    *,
    host_space: NamespaceSnapshot = HOST_SPACE,
    box_space: NamespaceSnapshot = BOX_SPACE,
) -> ClusterSnapshot:
    """node1 with a namespace behind its bridge; node2 is known by name alone."""
    spaces = {HOST: replace(host_space, items=tuple(host)), "box": replace(box_space, items=tuple(box))}
    node = NodeSnapshot(name="node1", kind="swarm", engine="ipvs", addresses=(NODE,), device="eth0", namespaces=spaces)
    named = (NamedNode(name="node1", address=NODE), NamedNode(name="node2", address=SECOND, absent="its daemon does not answer"))
    return ClusterSnapshot(nodes={"node1": node}, names=Names(nodes=named))


def sent(
    seen: ClusterSnapshot,
    destination: IPv4Address = INSIDE,
    port: int = 80,
    *,
    source: IPv4Address = CLIENT,
    start: Place = HERE,
    protocol: Protocol = TCP,
) -> Branch:
    """A packet that the node itself sends, unless it is from elsewhere; by default to the box."""
    own = GATEWAY if start == HERE and source == CLIENT else source
    packet = Packet(protocol=protocol, source=Endpoint(own, 40000), destination=Endpoint(destination, port))
    (branch,) = every_way(observed(seen), packet, start)
    return branch


def end(branch: Branch) -> str:
    """How it ends, in words."""
    match branch.outcome:
        case Delivered(place=place, process=process, reply=ReplyArrives()):
            return f"{process} at {place}"
        case Delivered(reply=ReplyLost(place, lost)):
            return f"answer lost at {place}: {of_end(lost)}"
        case Delivered(reply=Unclear(place, doubt)) | Unclear(place, doubt):
            return f"unclear at {place}: {of_doubt(doubt)}"
        case Delivered() as outcome:
            return str(outcome)
        case other:
            return f"{type(other).__name__} {other.place}: {of_end(other.reason)}"


def instead(items: tuple[Item, ...], old: Item, *new: Item) -> tuple[Item, ...]:
    assert old in items
    at = items.index(old)
    return (*items[:at], *new, *items[at + 1 :])


# --- ways ------------------------------------------------------------------------------------------------------------


def test_a_namespace_is_reached_and_the_process_is_named() -> None:
    assert end(sent(cluster())) == "server at node1/box"
    assert end(sent(cluster(), NODE, 22, start=OUTSIDE)) == "server at node1"


def test_nothing_is_made_up() -> None:
    no_way_back = instead(HOST_ITEMS, DEFAULT)
    assert end(sent(cluster(no_way_back), NODE, 22, start=OUTSIDE)) == (f"answer lost at node1: there is no route to {CLIENT}")
    without_rule = instead(HOST_ITEMS, RULES[1])
    assert end(sent(cluster(without_rule))) == "Refused node1: there is no route to 172.18.0.2"
    no_subnet = instead(HOST_ITEMS, on_link("172.18.0.0/16", "br0"))
    assert end(sent(cluster(no_subnet))) == "Dropped node1: the route to 172.18.0.2 leads to eth0, and that address is behind br0"


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("unicast", "server at node1/box"),
        ("blackhole", "Dropped node1: the route to 172.18.0.2 is a black hole"),
        ("unreachable", "Refused node1: the route to 172.18.0.2 says unreachable"),
        ("prohibit", "Refused node1: the route to 172.18.0.2 says prohibit"),
        ("throw", "Refused node1: there is no route to 172.18.0.2"),
        ("broadcast", "server at node1/box"),
        ("unknown", "unclear at node1: the route to 172.18.0.2/32, which is unknown"),
    ],
)
def test_routes_lead_away_to_nowhere_or_to_what_is_not_known(kind: RouteKind, found: str) -> None:
    special = Route(destination=IPv4Network("172.18.0.2/32"), via=None, link="br0" if kind == "unicast" else "", kind=kind)
    assert end(sent(cluster((*HOST_ITEMS, special)))) == found


def test_of_two_equal_routes_the_one_with_the_lower_metric_is_taken() -> None:
    nowhere = Route(destination=IPv4Network("172.18.0.0/16"), via=None, link="", kind="blackhole", metric=1)
    assert end(sent(cluster((*HOST_ITEMS, nowhere)))) == "server at node1/box"
    cheaper = replace(on_link("172.18.0.0/16", "br0"), metric=2)
    costly = instead((*HOST_ITEMS, nowhere), on_link("172.18.0.0/16", "br0"), cheaper)
    assert "black hole" in end(sent(cluster(costly)))


SPECIAL = RoutingRule(priority=10, fwmark=0, mask=0, table=0, action="blackhole")


@pytest.mark.parametrize(
    ("rule", "applies"),
    [
        (SPECIAL, True),
        (replace(SPECIAL, priority=40000), False),
        (replace(SPECIAL, fwmark=1, mask=1), False),
        (replace(SPECIAL, source=IPv4Network("172.18.0.1/32")), True),
        (replace(SPECIAL, source=IPv4Network("10.0.0.0/8")), False),
        (replace(SPECIAL, destination=IPv4Network("172.18.0.2/32")), True),
        (replace(SPECIAL, destination=IPv4Network("10.0.0.0/8")), False),
        (replace(SPECIAL, destination=IPv4Network("10.0.0.0/8"), negate=True), True),
        (replace(SPECIAL, iif="lo"), True),
        (replace(SPECIAL, iif="eth0"), False),
    ],
)
def test_a_routing_rule_is_for_the_packets_that_it_says(rule: RoutingRule, applies: bool) -> None:
    found = "Dropped node1: the route to 172.18.0.2 is a black hole" if applies else "server at node1/box"
    assert end(sent(cluster((*HOST_ITEMS, rule)))) == found


def test_an_address_is_the_namespaces_own_by_the_rule_that_it_begins_with() -> None:
    gone = instead(BOX_ITEMS, RULES[0])
    assert end(sent(cluster(box=gone))) == "Dropped node1: nobody on br0 answers ARP for 172.18.0.2"
    late = (*gone, replace(RULES[0], priority=32767))
    assert end(sent(cluster(box=late))) == end(sent(cluster(box=gone))) != "server at node1/box"
    earlier = (*gone, replace(RULES[0], priority=100))
    assert end(sent(cluster(box=earlier))) == "server at node1/box"


BLOCKS = IpsecPolicy(
    direction="out",
    source=IPv4Network("172.18.0.1/32"),
    destination=IPv4Network("172.18.0.0/16"),
    protocol=6,
    priority=5,
    blocks=True,
)
UNSEEN = "an IPsec policy (out, 172.18.0.1/32 to 172.18.0.0/16): what becomes of it once encrypted is not seen"
BLOCKED = "Dropped node1: an IPsec policy (out, 172.18.0.1/32 to 172.18.0.0/16) blocks it"


@pytest.mark.parametrize(
    ("policies", "found"),
    [
        ((BLOCKS,), BLOCKED),
        ((replace(BLOCKS, port=80, port_mask=0xFFFF),), BLOCKED),
        ((replace(BLOCKS, port=81, port_mask=0xFFFF),), "server at node1/box"),
        ((replace(BLOCKS, source_port=40000, source_port_mask=0xFFFF),), BLOCKED),
        ((replace(BLOCKS, protocol=17),), "server at node1/box"),
        ((replace(BLOCKS, protocol=0),), BLOCKED),
        ((replace(BLOCKS, mark=1, mark_mask=1),), "server at node1/box"),
        ((replace(BLOCKS, direction="fwd"),), "server at node1/box"),
        ((replace(BLOCKS, direction="in"),), "server at node1/box"),
        ((BLOCKS, replace(BLOCKS, priority=1, blocks=False)), "server at node1/box"),
        ((replace(BLOCKS, blocks=False, transforms=True),), f"unclear at node1: {UNSEEN}"),
        (
            (replace(BLOCKS, direction="in", source=IPv4Network("172.18.0.2/32"), destination=IPv4Network("172.18.0.1/32")),),
            "answer lost at node1: an IPsec policy (in, 172.18.0.2/32 to 172.18.0.1/32) blocks it",
        ),
    ],
)
def test_an_ipsec_policy_is_for_the_packets_that_it_says(policies: tuple[IpsecPolicy, ...], found: str) -> None:
    assert end(sent(cluster(host_space=replace(HOST_SPACE, ipsec=policies)))) == found


def test_a_forwarded_packet_meets_the_policies_for_forwarding_and_for_leaving() -> None:
    for direction in ("fwd", "out"):
        policy = replace(BLOCKS, direction=direction, source=EVERYWHERE)
        seen = cluster(host_space=replace(HOST_SPACE, ipsec=(policy,)))
        packet = Packet(protocol=TCP, source=Endpoint(CLIENT, 40000), destination=Endpoint(INSIDE, 80))
        (branch,) = every_way(observed(seen), packet, router="node1")
        assert end(branch) == f"Dropped node1: an IPsec policy ({direction}, 0.0.0.0/0 to 172.18.0.0/16) blocks it"


def test_a_routing_rule_that_is_not_understood_matters_only_where_it_may_apply() -> None:
    odd = replace(SPECIAL, unknown=(17,))
    assert end(sent(cluster((*HOST_ITEMS, odd)))) == "unclear at node1: routing rule 10, which has conditions (17,)"
    elsewhere = replace(odd, destination=IPv4Network("10.0.0.0/8"))
    assert end(sent(cluster((*HOST_ITEMS, elsewhere)))) == "server at node1/box"
    assert end(sent(cluster((*HOST_ITEMS, replace(SPECIAL, action="unknown"))))) == "unclear at node1: routing rule 10"


def test_a_setting_that_was_not_read_is_not_taken_for_off() -> None:
    unread = tuple(item for item in BOX_ITEMS if not (isinstance(item, Sysctl) and item.path.endswith("eth1/rp_filter")))
    assert end(sent(cluster(box=unread))) == "server at node1/box", "the way back leads through eth1 anyway"
    elsewhere = tuple(item for item in unread if item not in (WAY_OUT, on_link("172.18.0.0/16", "eth1")))
    assert end(sent(cluster(box=elsewhere))) == "unclear at node1/box: net/ipv4/conf/eth1/rp_filter, which was not read"


@pytest.mark.parametrize(
    ("link", "found"),
    [
        (replace(CARD, up=False), "Dropped node1: eth0 is down"),
        (replace(CARD, carrier=False), "Dropped node1: eth0 has no carrier"),
        (CARD, "server at node1"),
    ],
)
def test_nothing_comes_in_by_a_card_that_is_off(link: Link, found: str) -> None:
    address_stays = instead(HOST_ITEMS, CARD, link)
    assert end(sent(cluster(address_stays), NODE, 22, start=OUTSIDE)) == found


def test_a_bridge_port_without_carrier_carries_nothing() -> None:
    off = instead(HOST_ITEMS, PORT, replace(PORT, carrier=False))
    assert end(sent(cluster(off))) == "Dropped node1: nobody on br0 answers ARP for 172.18.0.2"


def test_lo_may_be_down() -> None:
    off = instead(HOST_ITEMS, LOOPBACK, replace(LOOPBACK, up=False))
    assert end(sent(cluster(off), NODE, 22, source=NODE)) == "Dropped node1: lo is down"


# --- other nodes, hidden namespaces -----------------------------------------------------------------------------------


def test_a_node_that_was_not_seen_is_not_the_outside() -> None:
    assert end(sent(cluster(), SECOND, source=NODE)) == "unclear at outside: 192.0.2.2: that is node2, its daemon does not answer"
    assert end(sent(cluster(), CLIENT, source=NODE)) == f"Dropped outside: {CLIENT} belongs to no node"
    with pytest.raises(UnknownRule, match=r"192\.0\.2\.2: that is node2"):
        packet = Packet(protocol=TCP, source=Endpoint(NODE, 40000), destination=Endpoint(SECOND, 80))
        walk(observed(cluster()), packet, HERE)


HIDDEN = Link(name="veth9", kind="veth", master="br0")


def test_a_namespace_that_was_not_seen_may_answer_or_not() -> None:
    assert end(sent(cluster((*HOST_ITEMS, HIDDEN)))) == "server at node1/box"
    other = IPv4Address("172.18.0.9")
    assert end(sent(cluster(), other)) == "Dropped node1: nobody on br0 answers ARP for 172.18.0.9"
    assert end(sent(cluster((*HOST_ITEMS, HIDDEN)), other)) == (
        "unclear at node1: ARP for 172.18.0.9, which only a namespace that was not seen may answer"
    )
    known = (*HOST_ITEMS, HIDDEN, Neighbour("br0", other, "02:00:00:00:00:09"), FdbEntry("veth9", "02:00:00:00:00:09"))
    assert end(sent(cluster(known), other)) == "unclear at node1: the other end of veth9, in a namespace that was not seen"


# --- neighbours and bridges --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["reachable", "stale", "delay", "probe", "noarp", "permanent"])
def test_what_the_arp_table_has_is_used_as_long_as_it_has_it(state: NeighbourState) -> None:
    wrong = Neighbour("br0", INSIDE, "02:00:00:00:00:09", state)
    assert end(sent(cluster((*HOST_ITEMS, wrong)))).startswith("Dropped node1")


@pytest.mark.parametrize("state", ["failed", "incomplete"])
def test_what_was_not_found_is_asked_for_again(state: NeighbourState) -> None:
    assert end(sent(cluster((*HOST_ITEMS, Neighbour("br0", INSIDE, "", state))))) == "server at node1/box"


@pytest.mark.parametrize(("ignore", "found"), [("0", True), ("1", False)])
def test_a_strict_interface_answers_arp_for_its_own_addresses_only(ignore: str, found: bool) -> None:
    """As in direct routing, where the virtual address is on lo of every real server."""
    vip = IPv4Address("172.18.0.80")
    strict = (*instead(BOX_ITEMS, LOOPBACK, LOOPBACK, Address("lo", IPv4Interface(f"{vip}/32"))),)
    strict = (*strict, Sysctl("net/ipv4/conf/eth1/arp_ignore", ignore))
    assert (end(sent(cluster(box=strict), vip)) == "server at node1/box") is found
    assert end(sent(cluster(box=strict))) == "server at node1/box"


def test_the_settings_of_arp_are_asked_where_they_make_a_difference() -> None:
    odd = (*BOX_ITEMS, Sysctl("net/ipv4/conf/eth1/arp_ignore", "3"))
    assert end(sent(cluster(box=odd))) == "unclear at node1/box: ARP on eth1 with arp_ignore 3"
    never = (*BOX_ITEMS, Sysctl("net/ipv4/conf/eth1/arp_ignore", "8"))
    assert end(sent(cluster(box=never))) == f"Dropped node1: nobody on br0 answers ARP for {INSIDE}"
    for of_the_subnet in ("net/ipv4/conf/eth1/arp_ignore", "2"), ("net/ipv4/conf/all/arp_filter", "1"):
        assert end(sent(cluster(box=(*BOX_ITEMS, Sysctl(*of_the_subnet))))) == "server at node1/box"
    elsewhere = IPv4Address("172.18.0.9")  # of an address that is not there, neither setting is asked
    for unasked in (odd, never):
        assert end(sent(cluster(box=unasked), elsewhere)) == f"Dropped node1: nobody on br0 answers ARP for {elsewhere}"


def test_a_namespace_may_answer_arp_for_what_is_behind_it() -> None:
    far = IPv4Address("172.18.9.9")
    behind = Route(destination=IPv4Network("172.18.9.0/24"), via=None, link="eth2")
    second = Link(name="eth2", kind="other")
    proxy = (*BOX_ITEMS, behind, second, *settings("eth2"), Sysctl("net/ipv4/conf/eth1/proxy_arp", "1"))
    assert end(sent(cluster(box=proxy), far)) == f"Dropped outside: {far} belongs to no node"
    assert "nobody on br0 answers ARP" in end(sent(cluster(box=(*BOX_ITEMS, behind, second, *settings("eth2"))), far))


@pytest.mark.parametrize(("considers_marks", "passes"), [("0", False), ("1", True)])
def test_the_reverse_path_depends_on_the_mark_only_where_that_is_wanted(considers_marks: str, passes: bool) -> None:
    special = RoutingRule(priority=100, fwmark=7, mask=7, table=100)
    back = Route(destination=EVERYWHERE, via=GATEWAY, link="eth1", table=100)
    marked = XtChain("mangle", "PREROUTING", ((Assign("meta mark", 7),), (Assign("ct mark", "meta mark"),)), "ACCEPT")
    strict = (*instead(BOX_ITEMS, WAY_OUT, special, back, marked), Sysctl("net/ipv4/conf/eth1/rp_filter", "1"))
    box = (*strict, Sysctl("net/ipv4/conf/all/src_valid_mark", considers_marks))
    to_box = Chain("ip", "nat", Hook("nat", "prerouting", -100), ((Match("th dport", "8080"), Dnat(INSIDE, 80)),))
    led = end(sent(cluster((*HOST_ITEMS, to_box), box), NODE, 8080, start=OUTSIDE))
    assert ("rp_filter is 1" in led) is not passes


def test_a_frame_to_a_mac_that_no_port_has_is_flooded() -> None:
    assert end(sent(cluster(instead(HOST_ITEMS, LEARNED)))) == "server at node1/box"
    own = instead(HOST_ITEMS, LEARNED, FdbEntry("veth0", MAC_2, kind="local"))
    assert end(sent(cluster(own))) == "server at node1/box"
    tunnel = Link(name="vxlan0", kind="vxlan", master="br0", vxlan=Vxlan(4096, NODE, 4789))
    assert end(sent(cluster((*instead(HOST_ITEMS, LEARNED), tunnel)))) == "server at node1/box"


def test_a_tunnel_that_does_not_answer_arp_itself_is_not_known() -> None:
    asking = Link(name="vxlan0", kind="vxlan", master="br0", vxlan=Vxlan(4096, NODE, 4789, proxy=False))
    assert end(sent(cluster((*HOST_ITEMS, asking)))) == (
        "unclear at node1: ARP for 172.18.0.2 through vxlan0, which does not answer it itself"
    )


# --- rules of others ----------------------------------------------------------------------------------------------------

FENCE = Chain("inet", "output", Hook("filter", "output", 0), (DROP,), table="theirs")


@pytest.mark.parametrize(
    ("items", "passes"),
    [
        ((FENCE,), False),
        ((replace(FENCE, family="ip"),), False),
        ((replace(FENCE, family="ip6"),), True),
        ((replace(FENCE, rules=()),), True),
        ((replace(FENCE, rules=(), policy="drop"),), False),
        ((FENCE, Table("inet", "theirs", dormant=True)), True),
        ((FENCE, Table("inet", "another", dormant=True)), False),
        ((XtChain("security", "OUTPUT", (DROP,), "ACCEPT"),), False),
        ((replace(FENCE, hook=Hook("filter", "egress", 0, "br0"), family="netdev"),), False),
        ((replace(FENCE, hook=Hook("filter", "egress", 0, "eth7,br0"), family="netdev"),), False),
        ((replace(FENCE, hook=Hook("filter", "egress", 0, "eth7"), family="netdev"),), True),
    ],
)
def test_everybodys_chains_are_met(items: tuple[Item, ...], passes: bool) -> None:
    assert (end(sent(cluster((*HOST_ITEMS, *items)))) == "server at node1/box") is passes


def test_chains_of_one_name_in_several_tables_are_several() -> None:
    jump: Rule = (Verdict("jump", "inner"),)
    items = [
        Chain("ip", "output", Hook("filter", "output", 0), (jump,), table="one"),
        Chain("ip", "inner", None, (), table="one"),
        Chain("ip", "inner", None, (DROP,), table="two"),
    ]
    assert end(sent(cluster((*HOST_ITEMS, *items)))) == "server at node1/box"
    items[0] = replace(items[0], table="two")
    assert end(sent(cluster((*HOST_ITEMS, *items)))) == "Dropped node1: filter inner drops it"


def test_what_comes_in_by_a_device_may_meet_rules_there() -> None:
    ingress = Chain("netdev", "in", Hook("filter", "ingress", 0, "eth1"), (DROP,), table="theirs")
    assert end(sent(cluster(box=(*BOX_ITEMS, ingress)))) == "Dropped node1/box: filter in drops it"
    on_card = replace(ingress, hook=Hook("filter", "ingress", 0, "eth0"))
    assert end(sent(cluster((*HOST_ITEMS, on_card)), NODE, 22, start=OUTSIDE)) == "Dropped node1: filter in drops it"


@pytest.mark.parametrize(
    ("hook", "rule", "told"),
    [
        ("forward", DROP, "server at node1/box"),  # nothing is forwarded: the node itself sends
        ("output", DROP, "Dropped node1: nobody on br0 answers ARP for 172.18.0.2"),
        ("output", (Match("th dport", "81"), *DROP), "server at node1/box"),
        ("output", (Match("th dport", "80"), *DROP), "Dropped node1: filter frames drops it"),
        ("input", (Match("th sport", "80"), *DROP), "answer lost at node1: filter frames drops it"),
        ("output", (Unknown('{"match": {"carrots": 1}}'), Match("th dport", "81"), *DROP), "server at node1/box"),
    ],
)
def test_rules_for_frames_are_met_in_the_bridge(hook: Literal["forward", "output", "input"], rule: Rule, told: str) -> None:
    frames = Chain("bridge", "frames", Hook("filter", hook, 0), (rule,), table="theirs")
    assert end(sent(cluster((*HOST_ITEMS, frames)))) == told


def test_rules_for_arp_are_not_known() -> None:
    asks = replace(FENCE, family="arp", hook=Hook("filter", "input", 0))
    assert end(sent(cluster(box=(*BOX_ITEMS, asks)))) == "unclear at node1/box: chain arp theirs output, which filters ARP"


# --- sockets ----------------------------------------------------------------------------------------------------------


def test_a_socket_gets_what_is_for_its_address() -> None:
    local = replace(BOX_SPACE, sockets=(Socket(protocol=TCP, address=IPv4Address("127.0.0.1"), port=80),))
    nobody = "Refused node1/box: nothing listens on tcp/80"
    assert end(sent(cluster(box_space=local))) == f"{nobody}; a process listens on 127.0.0.1:80"
    ipv6 = replace(BOX_SPACE, sockets=(), only_ipv6=(Bound(protocol=TCP, address="::", port=80, process="web"),))
    assert end(sent(cluster(box_space=ipv6))) == f"{nobody}; web listens on [::]:80 for IPv6 alone"
    other = replace(BOX_SPACE, sockets=anywhere(81))
    assert end(sent(cluster(box_space=other))) == f"{nobody}; server listens on 0.0.0.0:81"
    both = (*anywhere(80), Socket(protocol=TCP, address=INSIDE, port=80, process="own"))
    assert end(sent(cluster(box_space=replace(BOX_SPACE, sockets=both)))) == "own at node1/box"
    unread = replace(BOX_SPACE, sockets=None)
    assert end(sent(cluster(box_space=unread))) == "unclear at node1/box: tcp/80: what listens there was not read"


def test_whence_a_process_on_all_addresses_answers_is_known_only_where_there_is_no_choice() -> None:
    assert end(sent(cluster(), port=53, protocol=UDP)) == "server at node1/box"
    second = IPv4Address("172.18.0.9")
    two = (*BOX_ITEMS, Address("eth1", IPv4Interface(f"{second}/16")))
    assert end(sent(cluster(box=two), second, 53, protocol=UDP)) == (
        "unclear at node1/box: the answer from 172.18.0.9:53, which a process on all addresses may send from 172.18.0.2 instead"
    )
    bound = replace(BOX_SPACE, sockets=(Socket(protocol=UDP, address=second, port=53, process="own"),))
    assert end(sent(cluster(box=two, box_space=bound), second, 53, protocol=UDP)) == "own at node1/box"


# --- connections that there are already ----------------------------------------------------------------------------------

ASKED = Flow(UDP, Endpoint(CLIENT, 40000), Endpoint(NODE, 5353))
GONE = IPv4Address("172.18.0.77")


def entry(server: IPv4Address, *status: str, zone: int = 0, state: str = "", port: int = 53) -> ConntrackEntry:
    """The client's connection to the node, led on to a server."""
    reply = Flow(UDP, Endpoint(server, port), ASKED.source)
    return ConntrackEntry(original=ASKED, reply=reply, zone=zone, status=frozenset(status), state=state)


def again(*entries: ConntrackEntry, host: tuple[Item, ...] = HOST_ITEMS, count: int | None = None) -> str:
    """What becomes of another packet from the client's port."""
    space = replace(HOST_SPACE, conntrack=entries, conntrack_count=count, conntrack_max=4)
    return end(sent(cluster(host, host_space=space), NODE, 5353, start=OUTSIDE, protocol=UDP))


def test_a_packet_goes_where_its_connection_went_before() -> None:
    assert again() == "Refused node1: nothing listens on udp/5353"
    assert again(entry(INSIDE, "dnat", "seen-reply")) == "server at node1/box"
    assert again(entry(GONE, "dnat")) == f"Dropped node1: nobody on br0 answers ARP for {GONE}"


@pytest.mark.parametrize(
    "over", [entry(GONE, "dnat", "dying"), entry(GONE, "dnat", state="TIME_WAIT"), entry(GONE, "dnat", zone=7)]
)
def test_one_that_is_over_or_in_another_zone_does_not_matter(over: ConntrackEntry) -> None:
    assert again(over) == "Refused node1: nothing listens on udp/5353"


def test_a_rule_puts_a_packet_in_a_zone() -> None:
    zoned = Chain("ip", "raw", Hook("filter", "prerouting", -300), ((Assign("ct original zone", 7),),))
    assert again(entry(INSIDE, "dnat", zone=7), host=(*HOST_ITEMS, zoned)) == "server at node1/box"
    assert again(entry(INSIDE, "dnat"), host=(*HOST_ITEMS, zoned)) == "Refused node1: nothing listens on udp/5353"


ZONED = Chain("ip", "raw", Hook("filter", "prerouting", -300), ((Match("th dport", "5353"), Assign("ct original zone", 7)),))
LED = Chain("ip", "pre", Hook("nat", "prerouting", -100), ((Match("th dport", "5353"), Dnat(INSIDE, 53)),), table="theirs")


def test_a_client_that_comes_again_in_another_zone_is_seen_with_another_port() -> None:
    """The first connection has no zone; replies of both have none, so they must differ."""
    first = entry(INSIDE, "dnat", "seen-reply")
    space = replace(HOST_SPACE, conntrack=(first,))
    branch = sent(cluster((*HOST_ITEMS, ZONED, LED), host_space=space), NODE, 5353, start=OUTSIDE, protocol=UDP)
    assert end(branch) == "server at node1/box"
    assert isinstance(branch.outcome, Delivered)
    assert branch.outcome.peer == Endpoint(CLIENT, 1024)
    alone = sent(cluster((*HOST_ITEMS, ZONED, LED)), NODE, 5353, start=OUTSIDE, protocol=UDP)
    assert isinstance(alone.outcome, Delivered)
    assert alone.outcome.peer == Endpoint(CLIENT, 40000)


def test_where_nothing_translates_such_a_packet_is_lost() -> None:
    reversed_entry = ConntrackEntry(original=Flow(UDP, Endpoint(NODE, 5353), ASKED.source), reply=ASKED, zone=7)
    host = replace(HOST_SPACE, sockets=anywhere(5353, protocol=UDP), conntrack=(replace(reversed_entry, reply=ASKED.reversed()),))
    lost = sent(cluster((*HOST_ITEMS, ZONED), host_space=host), NODE, 5353, start=OUTSIDE, protocol=UDP)
    assert end(lost) == ("Dropped node1: answers to it would look like those of another connection, and no NAT makes them differ")


def test_in_a_full_table_there_is_no_room_for_a_new_connection() -> None:
    assert again(count=4) == "Dropped node1: the connection tracking table is full (4 of 4), and this connection is new"
    assert again(entry(INSIDE, "dnat"), count=4) == "server at node1/box"
    assert again(count=3) == "Refused node1: nothing listens on udp/5353"


BALANCER = (Sysctl("net/ipv4/vs/conntrack", "1"), IpvsService(mark=256, scheduler="rr"))


def test_ipvs_leads_a_connection_on_to_its_server() -> None:
    kept = (*HOST_ITEMS, *BALANCER, IpvsDestination(mark=256, address=INSIDE, weight=0))
    assert again(entry(INSIDE), host=kept) == "server at node1/box"
    assert again(entry(GONE), host=kept) == f"Dropped node1: ipvs leads its connection to {GONE}:53, which is no longer a server"
