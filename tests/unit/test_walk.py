"""How packets get from namespace to namespace and from node to node: by hand-made plans, one fact each."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from routemesh.errors import NotFound
from routemesh.model import Protocol
from routemesh.nodeplan import (
    HOST,
    Address,
    Assign,
    Chain,
    Dnat,
    Element,
    FdbEntry,
    Hook,
    Item,
    Link,
    Lookup,
    Map,
    Masquerade,
    Match,
    Neighbour,
    Netns,
    NodePlan,
    Peer,
    Reject,
    Route,
    RoutingRule,
    Rule,
    Statement,
    Sysctl,
    Unknown,
    Verdict,
    Vxlan,
    XtChain,
    namespace,
)
from routemesh.reasons.ends import NobodyListens, NobodysAddress, NotOwnAddress, RuleRejects
from routemesh.reasons.events import Routed
from routemesh.reasons.words import of_end, of_event
from routemesh.values import replace
from routemesh.walk import (
    OUTSIDE,
    Branch,
    Delivered,
    Dropped,
    Endpoint,
    Host,
    Network,
    Packet,
    Place,
    Refused,
    ReplyArrives,
    ReplyLost,
    UnknownRule,
    walk,
)

ONE, TWO = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
CLIENT = IPv4Address("198.51.100.7")
GATEWAY, INSIDE = IPv4Address("172.18.0.1"), IPv4Address("172.18.0.2")
EVERYWHERE = IPv4Network("0.0.0.0/0")
MAC_1, MAC_2 = "02:42:ac:12:00:01", "02:42:ac:12:00:02"
HERE, BOX = Place("node1", HOST), Place("node1", "box")
ADDRESSES = (ONE, TWO)

Items = tuple[Item, ...]


def packet(source: IPv4Address, destination: IPv4Address, port: int = 80, protocol: Protocol = Protocol.TCP) -> Packet:
    return Packet(protocol=protocol, source=Endpoint(source, 40000), destination=Endpoint(destination, port))


def network(*nodes: dict[str, Items], wildcard_udp: bool = False, sysctls: dict[str, str] | None = None) -> Network:
    """node1, node2 … on the underlay; ports 80 and 8080 answer in every namespace."""
    hosts, listening = {}, {}
    for number, spaces in enumerate(nodes, start=1):
        made = (Netns(name) for name in spaces if name != HOST)
        plan = NodePlan({name: namespace(items) for name, items in {**spaces, HOST: (*spaces.get(HOST, ()), *made)}.items()})
        hosts[f"node{number}"] = Host(plan, (ADDRESSES[number - 1],))
        listening.update(
            {
                (f"node{number}", name): {(protocol, port) for protocol in Protocol for port in (80, 8080)}
                for name in plan.namespaces
            }
        )
    return Network(hosts, listening, sysctls or {}, wildcard_udp)


def only(net: Network, what: Packet, start: Place = OUTSIDE) -> Branch:
    (branch,) = walk(net, what, start)
    return branch


# --- one machine --------------------------------------------------------------------------------------------------


def test_an_open_port_of_a_node_is_reached_and_answers() -> None:
    branch = only(network({}), packet(CLIENT, ONE))
    assert branch.outcome == Delivered(
        place=HERE, protocol=Protocol.TCP, port=80, peer=Endpoint(CLIENT, 40000), reply=ReplyArrives()
    )
    assert (str(branch.share), of_event(branch.hops[-1].event), of_event(branch.reply_hops[-1].event)) == (
        "1",
        "is here, for tcp/80",
        "route dev eth0",
    )


def test_a_closed_port_is_refused() -> None:
    assert only(network({}), packet(CLIENT, ONE, 81)).outcome == Refused(HERE, NobodyListens(Protocol.TCP, 81))


def test_an_address_of_nobody_is_not_reached() -> None:
    assert only(network({}), packet(CLIENT, TWO)).outcome == Dropped(OUTSIDE, NobodysAddress(TWO))


@pytest.mark.parametrize("address", [ONE, IPv4Address("127.0.0.1")])
def test_a_node_calls_itself(address: IPv4Address) -> None:
    outcome = only(network({}), packet(address, address), HERE).outcome
    assert isinstance(outcome, Delivered)
    assert outcome.reply == ReplyArrives()


def test_a_node_calls_another() -> None:
    outcome = only(network({}, {}), packet(ONE, TWO), HERE).outcome
    assert isinstance(outcome, Delivered)
    assert (outcome.place, outcome.reply) == (Place("node2", HOST), ReplyArrives())


def test_nobody_sends_from_an_address_of_others() -> None:
    assert only(network({}), packet(TWO, ONE), HERE).outcome == Refused(HERE, NotOwnAddress(TWO))


def test_nobody_sends_from_a_namespace_that_is_not_there() -> None:
    with pytest.raises(NotFound, match="there is no namespace node1/nowhere to send a packet from"):
        walk(network({}), packet(ONE, ONE), Place("node1", "nowhere"))


# --- into a namespace behind a bridge -----------------------------------------------------------------------------

TO_BOX = (
    Chain("ip", "to-box", Hook("nat", "prerouting", -100), ((Match("th dport", "8080"), Dnat(INSIDE)),)),
    Chain("ip", "from-here", Hook("nat", "output", -100), ((Match("th dport", "8080"), Dnat(INSIDE)),)),
    Chain("ip", "as-here", Hook("nat", "postrouting", 100), ((Match("fib saddr type", "local"), Masquerade()),)),
)
PORT = Link(name="veth0", kind="veth", master="br0", peer=Peer("box", "eth1"), flood=False)
BRIDGE = Link(name="br0", kind="bridge", mac=MAC_1)
FORWARD, LOCALNET = Sysctl("net/ipv4/ip_forward", "1"), Sysctl("net/ipv4/conf/br0/route_localnet", "1")
STATIC = FdbEntry("veth0", MAC_2)
OUTER: Items = (BRIDGE, Address("br0", IPv4Interface("172.18.0.1/16")), PORT, STATIC, FORWARD, LOCALNET, *TO_BOX)
END = Link(name="eth1", kind="veth", mac=MAC_2, peer=Peer(HOST, "veth0"))
DEFAULT = Route(destination=EVERYWHERE, via=GATEWAY, link="eth1")
INNER: Items = (END, Address("eth1", IPv4Interface("172.18.0.2/16")), DEFAULT)


def boxed(outer: Iterable[Item] = OUTER, inner: Iterable[Item] = INNER, **more: Items) -> Network:
    return network({HOST: tuple(outer), "box": tuple(inner), **more})


def without(items: Items, *gone: Item) -> Items:
    assert all(item in items for item in gone)
    return tuple(item for item in items if item not in gone)


def instead(items: Items, old: Item, new: Item) -> Items:
    assert old in items
    return tuple(new if item == old else item for item in items)


def into_box(net: Network, source: IPv4Address = CLIENT, destination: IPv4Address = ONE, start: Place = OUTSIDE) -> Branch:
    return only(net, packet(source, destination, 8080), start)


def lost(branch: Branch) -> str:
    """Where and why the packet, or the answer to it, was lost."""
    outcome = branch.outcome.reply if isinstance(branch.outcome, Delivered) else branch.outcome
    assert isinstance(outcome, Dropped | Refused | ReplyLost)
    return f"{type(outcome).__name__} {outcome.place}: {of_end(outcome.reason)}"


def test_a_port_leads_into_a_namespace_and_the_answer_out_of_it() -> None:
    branch = into_box(boxed())
    assert branch.outcome == Delivered(
        place=BOX, protocol=Protocol.TCP, port=8080, peer=Endpoint(CLIENT, 40000), reply=ReplyArrives()
    )
    assert [str(hop.place) for hop in branch.hops] == ["node1"] * 4 + ["node1/box"]
    assert [hop.item for hop in branch.hops[:4]] == [TO_BOX[0], OUTER[1], END, STATIC]


def test_so_does_the_nodes_own_loopback_address() -> None:
    branch = into_box(boxed(), IPv4Address("127.0.0.1"), IPv4Address("127.0.0.1"), HERE)
    assert isinstance(branch.outcome, Delivered)
    assert (branch.outcome.peer.address, branch.outcome.reply) == (GATEWAY, ReplyArrives())


@pytest.mark.parametrize(
    ("outer", "inner", "why"),
    [
        (without(OUTER, FORWARD), INNER, "Dropped node1: it is not for this namespace, which forwards nothing"),
        (without(OUTER, STATIC), INNER, f"Dropped node1: no port has {MAC_2}, and no port floods"),
        (without(OUTER, BRIDGE), INNER, "Dropped outside: 172.18.0.2 belongs to no node"),
        (instead(OUTER, BRIDGE, replace(BRIDGE, up=False)), INNER, "Dropped outside: 172.18.0.2 belongs to no node"),
        (without(OUTER, PORT), INNER, "Dropped node1: nobody on br0 answers ARP for 172.18.0.2"),
        ((*OUTER, Neighbour("br0", INSIDE, MAC_1)), INNER, f"Dropped node1: no port has {MAC_1}, and no port floods"),
        ((*OUTER, Neighbour("br0", INSIDE, "ff")), INNER, "Dropped node1: no port has ff, and no port floods"),
        (
            (*instead(OUTER, PORT, replace(PORT, flood=True)), Neighbour("br0", INSIDE, "ff")),
            INNER,
            "Dropped node1/box: it is for ff, not for eth1",
        ),
        (OUTER, without(INNER, END), "Dropped node1: nobody on br0 answers ARP for 172.18.0.2"),
        (OUTER, instead(INNER, END, replace(END, up=False)), "Dropped node1: nobody on br0 answers ARP for 172.18.0.2"),
        (OUTER, without(INNER, INNER[1]), "Dropped node1: nobody on br0 answers ARP for 172.18.0.2"),
        (OUTER, without(INNER, DEFAULT), f"ReplyLost node1/box: there is no route to {CLIENT}"),
        (OUTER, instead(INNER, DEFAULT, replace(DEFAULT, via=ONE)), f"ReplyLost node1/box: there is no route to {CLIENT}"),
        (OUTER, instead(INNER, DEFAULT, replace(DEFAULT, source=ONE)), f"ReplyLost node1/box: there is no route to {CLIENT}"),
        (
            OUTER,
            (*INNER, Neighbour("eth1", GATEWAY, MAC_2)),
            f"ReplyLost node1: {MAC_2} is behind the port veth0, through which it came",
        ),
    ],
)
def test_what_is_missing_or_wrong_on_the_way_is_where_the_packet_ends(outer: Items, inner: Items, why: str) -> None:
    assert lost(into_box(boxed(outer, inner))) == why


@pytest.mark.parametrize("protocol", Protocol)
def test_a_refusal_that_does_not_find_its_way_back_is_silence(protocol: Protocol) -> None:
    fence = Chain("ip", "fence", Hook("filter", "input", 0), ((Reject("icmp port-unreachable"),),))
    refused = only(boxed(inner=(*INNER, fence)), packet(CLIENT, ONE, 8080, protocol))
    assert refused.outcome == Refused(BOX, RuleRejects("filter", "fence", "icmp port-unreachable"))
    silent = only(boxed(inner=(*without(INNER, DEFAULT), fence)), packet(CLIENT, ONE, 8080, protocol))
    assert lost(silent) == (
        "Dropped node1/box: filter fence rejects with icmp port-unreachable, and the client does not hear of it "
        f"(node1/box: there is no route to {CLIENT})"
    )


def test_a_refusal_is_related_to_what_it_refuses_and_has_no_ports() -> None:
    """What a namespace does to its own answers it does to an ICMP error too, where the rule does not ask for ports."""

    def heard(*statements: Statement) -> bool:
        fence = Chain("ip", "fence", Hook("filter", "output", 0), ((*statements, Verdict("drop")),))
        deaf = Network(boxed(inner=(*INNER, fence)).hosts)
        branch = only(deaf, packet(CLIENT, ONE, 8080, Protocol.UDP))
        return isinstance(branch.outcome, Refused)

    for statement in (Match("ct state", "related"), Match("ct direction", "reply"), Match("ip daddr", str(CLIENT))):
        assert not heard(statement)
    for statement in (Match("ct state", "new,established"), Match("meta l4proto", "udp"), Match("th sport", "8080")):
        assert heard(statement)


def test_loopback_addresses_are_on_the_wire_only_where_that_is_allowed() -> None:
    loopback = IPv4Address("127.0.0.1")
    assert lost(into_box(boxed(without(OUTER, LOCALNET)), loopback, loopback, HERE)) == (
        "Dropped node1: its source is a loopback address, and route_localnet is off on br0"
    )
    unmasked = without(OUTER, TO_BOX[2])
    assert lost(into_box(boxed(unmasked), loopback, loopback, HERE)) == (
        "Dropped node1/box: a loopback address on the wire, and route_localnet is off on eth1"
    )


def test_a_source_that_is_ones_own_address_is_not_believed() -> None:
    own = "its source 172.18.0.2 is this namespace's own address"
    assert lost(into_box(boxed(), INSIDE)) == f"Dropped node1/box: {own}"
    accepting = Sysctl("net/ipv4/conf/eth1/accept_local", "1")
    assert own not in lost(into_box(boxed(inner=(*INNER, accepting)), INSIDE))


@pytest.mark.parametrize(("strictness", "why"), [("1", "rp_filter is 1"), ("2", "rp_filter is 2")])
def test_the_reverse_path_is_checked_as_strictly_as_the_namespace_says(strictness: str, why: str) -> None:
    """The route to the client leads through a second device (1), or there is none (2)."""
    other = Link(name="eth2", kind="veth", mac=MAC_1, peer=Peer(HOST, "veth9"))
    elsewhere = (other, Address("eth2", IPv4Interface("198.51.100.1/24"))) if strictness == "1" else ()
    inner = (*without(INNER, DEFAULT), *elsewhere, Sysctl("net/ipv4/conf/eth1/rp_filter", strictness))
    assert lost(into_box(boxed(inner=inner))) == (
        f"Dropped node1/box: the route back to {CLIENT} does not lead through eth1, and {why}"
    )


def test_a_namespace_has_the_kernels_settings_where_its_plan_is_silent() -> None:
    branch = only(network({}, sysctls={"net/ipv4/ip_forward": "1"}), packet(CLIENT, ONE))
    assert isinstance(branch.outcome, Delivered)
    assert lost(into_box(boxed(without(OUTER, FORWARD)))).endswith("forwards nothing")
    forwarding = Network(boxed(without(OUTER, FORWARD)).hosts, {}, {"net/ipv4/ip_forward": "1"})
    assert into_box(forwarding).outcome == Refused(BOX, NobodyListens(Protocol.TCP, 8080))


def test_a_mark_stays_in_its_namespace() -> None:
    marked = Chain("ip", "mark", Hook("filter", "prerouting", -150), ((Assign("meta mark", 5),),))
    fence = Chain("ip", "fence", Hook("filter", "input", 0), ((Match("meta mark", "5"), Verdict("drop")),))
    assert isinstance(into_box(boxed((*OUTER, marked), (*INNER, fence))).outcome, Delivered)


def test_two_that_have_one_address_are_an_error() -> None:
    twin = (replace(END, mac="02:42:00:00:00:09", peer=Peer(HOST, "veth1")), *INNER[1:])
    port = Link(name="veth1", kind="veth", master="br0", peer=Peer("twin", "eth1"))
    with pytest.raises(UnknownRule, match=r"^node1: can't tell what happens at ARP for 172.18.0.2, which .* and .* answer$"):
        into_box(boxed((*OUTER, port), twin=twin))


def test_two_that_have_one_mac_are_an_error() -> None:
    flooding = replace(PORT, flood=True)
    outer = (*without(OUTER, PORT, STATIC), flooding, Neighbour("br0", INSIDE, MAC_2))
    port = replace(flooding, name="veth1", peer=Peer("twin", "eth1"))
    with pytest.raises(UnknownRule, match="several ports get a copy"):
        into_box(boxed((*outer, port), twin=(replace(END, peer=Peer(HOST, "veth1")), *INNER[1:])))


def test_a_packet_that_goes_round_in_circles_is_lost() -> None:
    back = Route(destination=IPv4Network("203.0.113.0/24"), via=INSIDE, link="br0")
    spaces: dict[str, Items] = {HOST: (*OUTER, back), "box": (*INNER, FORWARD)}
    net = network(spaces, sysctls={"net/ipv4/conf/all/accept_local": "1"})
    assert lost(only(net, packet(INSIDE, IPv4Address("203.0.113.1")), BOX)).endswith("it goes round in circles")


BESIDE = IPv4Address("172.18.0.3")
SECOND_PORT = Link(name="veth1", kind="veth", master="br0", peer=Peer("beside", "eth1"), flood=False)
BESIDE_STATIC = FdbEntry("veth1", "02:42:ac:12:00:03")
BESIDE_ITEMS: Items = (
    Link(name="eth1", kind="veth", mac="02:42:ac:12:00:03", peer=Peer(HOST, "veth1")),
    Address("eth1", IPv4Interface("172.18.0.3/16")),
)


@pytest.mark.parametrize(
    ("one", "other", "apart"), [(False, False, False), (True, False, False), (False, True, False), (True, True, True)]
)
def test_two_isolated_ports_do_not_reach_one_another(one: bool, other: bool, apart: bool) -> None:
    outer = (*instead(OUTER, PORT, replace(PORT, isolated=one)), replace(SECOND_PORT, isolated=other), BESIDE_STATIC)
    for known in ((), (Neighbour("eth1", INSIDE, MAC_2),)):
        net = boxed(outer, beside=(*BESIDE_ITEMS, *known))
        branch = only(net, packet(BESIDE, INSIDE), Place("node1", "beside"))
        assert isinstance(branch.outcome, Delivered) is not apart
    assert isinstance(into_box(boxed(outer, beside=BESIDE_ITEMS)).outcome, Delivered)


# --- bridges whose packets meet the IP layer's rules (br_netfilter) -----------------------------------------------


def beside(*more: Item, filtered: bool = True, destination: IPv4Address = INSIDE) -> Branch:
    """From a second namespace on the bridge to the first, over the bridge alone."""
    spaces: dict[str, Items] = {HOST: (*OUTER, SECOND_PORT, BESIDE_STATIC, *more), "box": INNER, "beside": BESIDE_ITEMS}
    net = network(spaces, sysctls={"net/bridge/bridge-nf-call-iptables": "1"} if filtered else {})
    return only(net, packet(BESIDE, destination), Place("node1", "beside"))


def test_bridged_packets_meet_ip_rules_only_where_that_is_switched_on() -> None:
    fence = Chain(
        "ip", "fence", Hook("filter", "forward", 0), ((Match("iifname", "br0"), Match("oifname", "br0"), Verdict("drop")),)
    )
    assert isinstance(beside(fence, filtered=False).outcome, Delivered)
    assert isinstance(beside(filtered=True).outcome, Delivered)
    assert lost(beside(fence)) == "Dropped node1: filter fence drops it"


@pytest.mark.parametrize("filtered", [False, True])
def test_an_answer_that_is_bridged_back_is_translated_back_only_where_bridged_packets_meet_nat(filtered: bool) -> None:
    """The question goes through the node to the box; the box answers straight over the bridge."""
    default = Route(destination=EVERYWHERE, via=GATEWAY, link="eth1")
    spaces: dict[str, Items] = {HOST: (*OUTER, SECOND_PORT, BESIDE_STATIC), "box": INNER, "beside": (*BESIDE_ITEMS, default)}
    net = network(spaces, sysctls={"net/bridge/bridge-nf-call-iptables": str(int(filtered))})
    outcome = only(net, packet(BESIDE, ONE, 8080), Place("node1", "beside")).outcome
    assert isinstance(outcome, Delivered)
    assert (outcome.reply == ReplyArrives()) is filtered


def test_a_bridged_packet_that_is_translated_leaves_the_bridge() -> None:
    here = Chain("ip", "here", Hook("nat", "prerouting", -100), ((Match("th dport", "80"), Dnat(ONE)),))
    outcome = beside(here).outcome
    assert isinstance(outcome, Delivered)
    assert (outcome.place, outcome.reply) == (HERE, ReplyArrives())


# --- routes -------------------------------------------------------------------------------------------------------

SPECIAL = RoutingRule(priority=100, fwmark=0x10, mask=0xF0, table=100)
SIDE = (
    Link(name="eth2", kind="veth", mac=MAC_2, peer=Peer(HOST, "veth2")),
    Address("eth2", IPv4Interface("172.19.0.2/16")),
    Route(destination=EVERYWHERE, via=IPv4Address("172.19.0.1"), link="eth2", table=100),
)


def way_out(*inner: Item) -> list[str]:
    """The devices by which the box's answer is routed, first and again."""
    return [
        hop.device
        for hop in into_box(boxed(inner=(*INNER, *inner))).reply_hops
        if isinstance(hop.event, Routed) and hop.event.via
    ][:2]


def test_a_marked_answer_is_routed_again_by_its_mark() -> None:
    remark = Chain("ip", "remark", Hook("route", "output", -150), ((Assign("meta mark", 0x12),),))
    assert way_out(SPECIAL, *SIDE, remark)[1:] == ["eth2"]
    assert "eth2" not in way_out(replace(SPECIAL, fwmark=0x20), *SIDE, remark)
    assert "eth2" not in way_out(*SIDE, remark)


def test_an_ordinary_chain_changes_the_mark_and_not_the_route() -> None:
    remark = Chain("ip", "remark", Hook("filter", "output", -150), ((Assign("meta mark", 0x12),),))
    assert "eth2" not in way_out(SPECIAL, *SIDE, remark)


def test_the_narrowest_route_is_taken() -> None:
    narrow = Route(destination=IPv4Network("198.51.100.0/24"), via=IPv4Address("172.19.0.1"), link="eth2")
    assert way_out(*SIDE[:2], narrow)[0] == "eth2"


def test_a_host_address_brings_no_route() -> None:
    vip = Address("eth1", IPv4Interface("198.51.100.8/32"))
    assert way_out(vip)[0] == "eth1"
    assert isinstance(only(boxed(inner=(*INNER, vip)), packet(INSIDE, IPv4Address("198.51.100.8")), BOX).outcome, Delivered)


def test_a_udp_server_that_is_bound_to_no_address_answers_from_the_one_that_the_route_prefers() -> None:
    """It was asked at 172.18.0.2; only conntrack's entry for that turns the answer back."""
    second = Address("eth1", IPv4Interface("172.18.0.9/16"))
    first_second = (END, second, *INNER[1:])

    def asked(inner: Items, wildcard_udp: bool = True) -> Branch:
        spaces = {HOST: OUTER, "box": inner}
        return only(network(spaces, wildcard_udp=wildcard_udp), packet(CLIENT, ONE, 8080, Protocol.UDP))

    assert isinstance(asked(first_second, wildcard_udp=False).outcome, Delivered)
    assert "which answers nothing that outside asked" in lost(asked(first_second))
    preferring = asked(instead(first_second, DEFAULT, replace(DEFAULT, source=INSIDE))).outcome
    assert isinstance(preferring, Delivered)
    assert preferring.reply == ReplyArrives()


# --- from node to node --------------------------------------------------------------------------------------------

OVERLAY = IPv4Network("10.0.0.0/24")
NEAR, FAR = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3")
NEAR_MAC, FAR_MAC = "02:42:0a:00:00:02", "02:42:0a:00:00:03"


def overlaid(
    own: IPv4Address, own_mac: str, other: IPv4Address, other_mac: str, ends: tuple[IPv4Address, IPv4Address]
) -> dict[str, Items]:
    """A node whose namespace `box` is on an overlay that reaches to another node."""
    tunnel = Vxlan(4096, ends[0], 4789)
    return {
        "box": (
            Link(name="eth0", kind="veth", mac=own_mac, peer=Peer("overlay", "veth0")),
            Address("eth0", IPv4Interface((own, 24))),
        ),
        "overlay": (
            Link(name="br0", kind="bridge"),
            Link(name="vxlan0", kind="vxlan", master="br0", vxlan=tunnel),
            Link(name="veth0", kind="veth", master="br0", peer=Peer("box", "eth0"), flood=False),
            FdbEntry("veth0", own_mac),
            FdbEntry("vxlan0", other_mac, ends[1]),
            Neighbour("vxlan0", other, other_mac),
        ),
    }


FIRST = overlaid(NEAR, NEAR_MAC, FAR, FAR_MAC, (ONE, TWO))
SECOND = overlaid(FAR, FAR_MAC, NEAR, NEAR_MAC, (TWO, ONE))
TUNNEL = next(item for item in SECOND["overlay"] if isinstance(item, Link) and item.vxlan)


def across(first: dict[str, Items] = FIRST, second: dict[str, Items] = SECOND) -> Branch:
    return only(network(first, second), packet(NEAR, FAR), BOX)


def test_an_overlay_joins_namespaces_of_two_nodes() -> None:
    branch = across()
    assert branch.outcome == Delivered(
        place=Place("node2", "box"), protocol=Protocol.TCP, port=80, peer=Endpoint(NEAR, 40000), reply=ReplyArrives()
    )
    assert [str(hop.place) for hop in branch.hops] == [
        "node1/box", "node1/box", "node1/overlay", "node1/overlay", "node1", "node2", "node2/overlay", "node2/box",
    ]  # fmt: skip


def overlay_without(spaces: dict[str, Items], kind: type[Neighbour | FdbEntry]) -> dict[str, Items]:
    """Without what of a kind the overlay's namespace knows about the other side of its tunnel."""
    kept = (item for item in spaces["overlay"] if not (isinstance(item, kind) and item.link == TUNNEL.name))
    return {**spaces, "overlay": tuple(kept)}


def bridge_down(spaces: dict[str, Items]) -> dict[str, Items]:
    """With the overlay's bridge down."""
    bridge = Link(name="br0", kind="bridge")
    return {**spaces, "overlay": instead(spaces["overlay"], bridge, replace(bridge, up=False))}


def with_tunnel(number: int = 4096, port: int = 4789) -> dict[str, Items]:
    other = replace(TUNNEL, vxlan=Vxlan(number, TWO, port))
    return {**SECOND, "overlay": instead(SECOND["overlay"], TUNNEL, other)}


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (overlay_without(FIRST, Neighbour), SECOND, "Dropped node1/box: nobody on eth0 answers ARP for 10.0.0.3"),
        (overlay_without(FIRST, FdbEntry), SECOND, f"Dropped node1/overlay: vxlan0 does not know which node has {FAR_MAC}"),
        (bridge_down(FIRST), SECOND, "Dropped node1/box: nobody on eth0 answers ARP for 10.0.0.3"),
        (FIRST, bridge_down(SECOND), "Dropped node2/overlay: br0, the bridge of vxlan0, is down or not there"),
        (FIRST, with_tunnel(number=4097), "Dropped node2: no tunnel here has VNI 4096 and UDP port 4789"),
        (FIRST, with_tunnel(port=4790), "Dropped node2: no tunnel here has VNI 4096 and UDP port 4789"),
        (FIRST, overlay_without(SECOND, Neighbour), "ReplyLost node2/box: nobody on eth0 answers ARP for 10.0.0.2"),
        (
            overlaid(NEAR, NEAR_MAC, FAR, FAR_MAC, (TWO, TWO)),
            SECOND,
            "Dropped node1/overlay: 192.0.2.2, from which vxlan0 sends, is not an address of the node",
        ),
        (overlaid(NEAR, NEAR_MAC, FAR, FAR_MAC, (ONE, CLIENT)), SECOND, f"Dropped outside: {CLIENT} belongs to no node"),
    ],
)
def test_what_a_tunnel_does_not_know_is_lost(first: dict[str, Items], second: dict[str, Items], why: str) -> None:
    assert lost(across(first, second)) == why


def test_two_tunnels_of_one_number_are_an_error() -> None:
    with pytest.raises(UnknownRule, match="VNI 4096, which several tunnels have"):
        across(second={**SECOND, "other": (replace(TUNNEL, master=None),)})


def test_a_refused_tunnel_packet_is_silence_inside() -> None:
    fence = Chain("ip", "fence", Hook("filter", "input", 0), ((Reject("icmp port-unreachable"),),))
    assert lost(across(second={**SECOND, HOST: (fence,)})) == "Dropped node2: filter fence rejects with icmp port-unreachable"


def test_a_rule_that_takes_the_tunnels_own_packets_away_is_noticed() -> None:
    """As when 4789/udp is published: the overlay's packets would go where clients' do."""
    taken = Chain("ip", "take", Hook("nat", "prerouting", -100), ((Match("th dport", "4789"), Dnat(IPv4Address("127.0.0.1"))),))
    dropped = Chain("ip", "drop", Hook("filter", "prerouting", -150), ((Match("meta l4proto", "udp"), Verdict("drop")),))
    assert "loopback" in lost(across(second={**SECOND, HOST: (taken,)}))
    assert lost(across(second={**SECOND, HOST: (dropped,)})) == "Dropped node2: filter drop drops it"


def test_a_rule_at_the_egress_hook_chooses_the_mac_after_the_route_did() -> None:
    wrong = Neighbour("eth0", FAR, "02:42:00:00:00:09")
    known, entry = Map("netdev", "macs", ("ip",), "mac"), Element("netdev", "macs", (FAR,), FAR_MAC)
    steer: Rule = (Assign("ether daddr", Lookup(("ip daddr",), "macs")),)
    right = (known, entry, Chain("netdev", "egress", Hook("filter", "egress", 0, "eth0"), (steer,)))
    assert not isinstance(across({**FIRST, "box": (*FIRST["box"], wrong)}).outcome, Delivered)
    assert isinstance(across({**FIRST, "box": (*FIRST["box"], wrong, *right)}).outcome, Delivered)


@pytest.mark.parametrize(("shifted", "told"), [("0x100100", "delivered"), ("1048832", "delivered"), ("0x100000", "lost")])
def test_what_is_for_another_vni_leaves_a_tunnel_alone(shifted: str, told: str) -> None:
    """Docker's rules for an encrypted network, VNI 4097, beside a plain one, VNI 4096."""
    vni = Unknown(f'-m u32 --u32 "0x0>>0x16&0x3c@0xc&0xffffff00={shifted}"')
    rule = (Match("meta l4proto", "udp"), Match("th dport", "4789"), vni, Verdict("drop"))
    fenced = {**SECOND, HOST: (*SECOND.get(HOST, ()), XtChain("filter", "INPUT", (rule,), "ACCEPT"))}
    try:
        found = "delivered" if isinstance(across(second=fenced).outcome, Delivered) else "lost"
    except UnknownRule:
        found = "can't be told"
    assert found == told
