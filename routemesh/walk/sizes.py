"""Whether packets as large as both ends send them get through, on the connection that a walk has opened. PURE.

A sender that is told of a smaller MTU on the way sends smaller packets (path MTU discovery, RFC 1191); one that is not told loses
all large ones, though small ones arrive. (Where only a device's own check loses them, a batch of TCP's segments that travels as
one packet may still slip through: is_skb_forwardable.)
"""

from typing import NamedTuple

from routemesh.model import Protocol
from routemesh.reasons.ends import End, EverSmaller, LargeAstray, RuleDrops, Unheard
from routemesh.snapshot import OUTSIDE, Place
from routemesh.values import replace
from routemesh.walk.flight import AtDevice, Ended, Sending, Trip
from routemesh.walk.nouns import TCP_AND_IP_HEADER_BYTES, Packet, ReplyArrives, ReplyLost, Unclear, UnknownRule
from routemesh.walk.stack import USUAL_MTU
from routemesh.walk.travel import set_out, travel

_MOST_SIZES = 8
"""More different MTUs than any sensible way has."""


class Sender(NamedTuple):
    """One end of the connection: what it has sent first, and how much of TCP's data the other end wants in a packet."""

    place: Place
    packet: Packet
    mss_bytes: int


def tried(trip: Trip, client: Sender, server: Sender) -> ReplyArrives | ReplyLost | Unclear:
    """Send a packet as large as may be each way. Leaves the trip's hops as they are."""
    hops = len(trip.hops)
    try:
        return _lost(trip, client, server.place) or _lost(trip, server, client.place) or ReplyArrives()
    except UnknownRule as error:
        return error.unclear
    finally:
        del trip.hops[hops:]


def _lost(trip: Trip, sender: Sender, to: Place) -> ReplyLost | None:
    packet = replace(sender.packet, flags=_later(sender.packet), mss_bytes=0, size_bytes=_largest(trip, sender))
    for _ in range(_MOST_SIZES):
        try:
            arrived = travel(trip, set_out(trip, packet, sender.place))
        except Ended as end:
            size_bytes, reason = packet.size_bytes, end.outcome.reason
            if isinstance(reason, RuleDrops) and reason.some:
                return None  # small ones draw that lot too
            if not end.mtu_bytes or end.mtu_bytes >= size_bytes:
                return ReplyLost(end.outcome.place, reason)
            if end.refusal is not None and (unheard := _unheard(trip, reason, end.refusal, sender.place)) is not None:
                return ReplyLost(end.outcome.place, unheard)
            packet = replace(packet, size_bytes=end.mtu_bytes)
        else:
            return None if arrived.place == to else ReplyLost(arrived.place, LargeAstray(packet.size_bytes))
    return ReplyLost(sender.place, EverSmaller())


def _later(packet: Packet) -> frozenset[str]:
    return frozenset({"ack"}) if packet.protocol is Protocol.TCP else frozenset()


def _largest(trip: Trip, sender: Sender) -> int:
    """As much as the other end wants and the sender's own device takes."""
    mtu, stack, packet = USUAL_MTU, trip.network.stack(sender.place), sender.packet
    if sender.place != OUTSIDE and stack is not None:
        hop = stack.route(packet.destination.address, 0, packet.source.address)
        mtu = USUAL_MTU if hop is None else stack.mtu(hop.link)
    return mtu if packet.protocol is Protocol.UDP else min(mtu, sender.mss_bytes + TCP_AND_IP_HEADER_BYTES)


def _unheard(trip: Trip, reason: End, refusal: Sending | AtDevice, sender: Place) -> Unheard | None:
    """Where a sender is not told that its packet is too large, and why it is not; None where it is told."""
    try:
        return None if travel(trip, refusal).place == sender else Unheard(reason, sender)
    except Ended as lost:
        return Unheard(reason, sender, lost.outcome.place, lost.outcome.reason)
