"""Packets as large as both ends may send, on the connection that a small one has opened: one fact each."""

import pytest

from routemesh.model import Protocol
from routemesh.nodeplan import HOST, Chain, ClampMss, Hook, Item, Link, Match, Verdict
from routemesh.reasons.words import of_end
from routemesh.values import replace
from routemesh.walk import OUTSIDE, Delivered, Network, Packet, Place, ReplyArrives, ReplyLost, every_way
from tests.unit.test_walk import (
    BOX,
    BRIDGE,
    CLIENT,
    END,
    FAR,
    FIRST,
    INNER,
    NEAR,
    ONE,
    OUTER,
    PORT,
    SECOND,
    Items,
    boxed,
    instead,
    network,
    packet,
)

CARD = Link(name="eth0", kind="other", mtu=1500)
NO_ERRORS = Chain("ip", "fence", Hook("filter", "input", 0), ((Match("meta l4proto", "icmp"), Verdict("drop")),))


def tried(net: Network, what: Packet, start: Place = OUTSIDE) -> str:
    """What becomes of large packets on a connection that small ones open."""
    (branch,) = every_way(net, what, start, full_size=True)
    assert isinstance(branch.outcome, Delivered)
    assert branch.outcome.reply == ReplyArrives()
    match branch.outcome.full_size:
        case ReplyLost(place, end):
            return f"lost at {place}: {of_end(end)}"
        case found:
            return type(found).__name__


def into_box(outer: Items = OUTER, inner: Items = INNER, protocol: Protocol = Protocol.TCP) -> str:
    return tried(boxed(outer, inner), packet(CLIENT, ONE, 8080, protocol))


def test_they_are_tried_only_where_that_is_wanted() -> None:
    (branch,) = every_way(boxed(), packet(CLIENT, ONE, 8080))
    assert isinstance(branch.outcome, Delivered)
    assert branch.outcome.full_size is None
    (large,) = every_way(boxed(), packet(CLIENT, ONE, 8080), full_size=True)
    assert (large.hops, large.reply_hops) == (branch.hops, branch.reply_hops)


@pytest.mark.parametrize("protocol", Protocol)
def test_where_all_devices_are_alike_they_arrive(protocol: Protocol) -> None:
    assert into_box(protocol=protocol) == "ReplyArrives"


def small(link: Link, mtu: int = 1400) -> Link:
    return replace(link, mtu=mtu)


def test_a_bridge_port_drops_them_without_a_word() -> None:
    lost = "lost at node1: its 1500 bytes exceed the MTU of veth0, 1400"
    assert into_box(instead(OUTER, PORT, small(PORT))) == lost
    assert into_box(instead(OUTER, PORT, small(PORT)), protocol=Protocol.UDP) == lost


@pytest.mark.parametrize(("mtu", "arrives"), [(1495, False), (1496, True)])
def test_four_bytes_too_many_get_through_for_they_may_be_a_vlan_tag(mtu: int, arrives: bool) -> None:
    assert (into_box(instead(OUTER, PORT, small(PORT, mtu))) == "ReplyArrives") is arrives


def test_tcp_asks_for_what_its_own_device_takes_and_udp_does_not() -> None:
    inner = instead(INNER, END, small(END))
    assert into_box(inner=inner) == "ReplyArrives"
    assert into_box(inner=inner, protocol=Protocol.UDP) == "lost at node1/box: its 1500 bytes exceed the MTU of eth1, 1400"


def test_who_forwards_tells_the_sender_who_sends_smaller_ones() -> None:
    """The bridge's own MTU is that of what is routed to it."""
    narrow = instead(OUTER, BRIDGE, small(BRIDGE))
    assert into_box(narrow, protocol=Protocol.UDP) == "ReplyArrives"


def test_a_rule_that_lowers_what_tcp_asks_for_helps_and_one_that_does_not_does_not() -> None:
    narrow = instead(OUTER, PORT, small(PORT))

    def clamped(size_bytes: int) -> Chain:
        return Chain("ip", "clamp", Hook("filter", "forward", 0), ((Match("tcp flags", "syn"), ClampMss(size_bytes)),))

    assert into_box((*narrow, clamped(1360))) == "ReplyArrives"
    assert "exceed the MTU" in into_box((*narrow, clamped(1370)))
    assert "exceed the MTU" in into_box((*narrow, clamped(1360)), protocol=Protocol.UDP)


# --- tunnels ------------------------------------------------------------------------------------------------------------


def across(first: dict[str, Items] = FIRST, *host: Item, protocol: Protocol = Protocol.TCP) -> str:
    spaces = ({**first, HOST: host}, {**SECOND, HOST: host})
    return tried(network(*spaces), packet(NEAR, FAR, protocol=protocol), BOX)


@pytest.mark.parametrize("protocol", Protocol)
def test_a_tunnel_tells_the_sender_what_it_has_no_room_for(protocol: Protocol) -> None:
    deaf = {**FIRST, "box": (*FIRST["box"], NO_ERRORS)}
    lost = "lost at node1/overlay: its 1500 bytes exceed the MTU of vxlan0, 1450, and node1/box does not hear of it "
    lost += "(node1/box: filter fence drops it)"
    assert across(FIRST, CARD, protocol=protocol) == "ReplyArrives"
    assert across(deaf, CARD, protocol=protocol) == lost
    assert across(deaf, replace(CARD, mtu=1550), protocol=protocol) == "ReplyArrives"


def test_a_packet_that_is_lost_for_another_reason_is_lost_here_too() -> None:
    """The first packet gets through by the letter of the rules, the later ones do not."""
    fence = Chain("ip", "fence", Hook("filter", "input", 0), ((Match("tcp flags", "syn"), Verdict("accept")), (Verdict("drop"),)))
    assert into_box(inner=(*INNER, fence)) == "lost at node1/box: filter fence drops it"
