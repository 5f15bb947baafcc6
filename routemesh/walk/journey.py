"""One packet's way to a process and the answer's way back, with one answer to every choice. PURE."""

from routemesh.model import Protocol
from routemesh.reasons.ends import Astray, NobodyListens, NobodysAddress, Unheard
from routemesh.reasons.unclear import AnswerFrom
from routemesh.snapshot import OUTSIDE, Place
from routemesh.values import replace
from routemesh.walk.conntrack import flow_of
from routemesh.walk.flight import Arrived, Ended, Sending, Step, Trip, refusal_of
from routemesh.walk.network import Listener
from routemesh.walk.nouns import (
    TCP_AND_IP_HEADER_BYTES,
    Delivered,
    Dropped,
    Outcome,
    Packet,
    Refused,
    ReplyArrives,
    ReplyLost,
    Unclear,
    UnknownRule,
)
from routemesh.walk.sizes import Sender, tried
from routemesh.walk.stack import USUAL_MTU
from routemesh.walk.travel import set_out, stack_of, travel


def there_and_back(trip: Trip, packet: Packet, client: Place, *, full_size: bool = False) -> tuple[Outcome, int]:
    """The outcome, and how many of the trip's hops belong to the way there. `full_size`: whether large packets are tried."""
    if client == OUTSIDE and packet.protocol is Protocol.TCP:
        packet = replace(packet, mss_bytes=USUAL_MTU - TCP_AND_IP_HEADER_BYTES)
    try:
        arrived, listener = _served(trip, packet, client)
    except Ended as end:
        turn = len(trip.hops)
        return _as_heard(trip, end, packet, client), turn
    except UnknownRule as error:
        return error.unclear, len(trip.hops)
    turn, got = len(trip.hops), arrived.packet
    reply: ReplyArrives | ReplyLost | Unclear
    large: ReplyArrives | ReplyLost | Unclear | None = None
    try:
        answer = _answer(trip, arrived, listener)
        reply, heard = _brought_back(trip, answer, packet, client)
        if full_size and heard is not None:
            large = tried(trip, Sender(client, packet, heard.mss_bytes), Sender(arrived.place, answer.packet, got.mss_bytes))
    except UnknownRule as error:
        reply = error.unclear
    delivered = Delivered(
        place=arrived.place,
        protocol=got.protocol,
        port=got.destination.port,
        peer=got.source,
        reply=reply,
        process=listener.process,
        full_size=large,
    )
    return delivered, turn


# --- there --------------------------------------------------------------------------------------------------------


def _served(trip: Trip, packet: Packet, client: Place) -> tuple[Arrived, Listener]:
    """The packet with a process that listens; raises Ended where it gets to none."""
    arrived = travel(trip, set_out(trip, packet, client))
    place, got = arrived.place, arrived.packet
    if place == OUTSIDE:
        raise Ended(Dropped(place, NobodysAddress(got.destination.address)))
    protocol, port = got.protocol, got.destination.port
    listener = trip.network.listener(place, protocol, got.destination)
    if listener is None:
        refusal = Sending(stack_of(trip.network, place), refusal_of(got, reset=protocol is Protocol.TCP))
        raise Ended(Refused(place, NobodyListens(protocol, port, trip.network.instead(place, protocol, port))), refusal)
    return arrived, listener


# --- and back -----------------------------------------------------------------------------------------------------


def _answer(trip: Trip, got: Arrived, listener: Listener) -> Sending:
    stack, packet = stack_of(trip.network, got.place), got.packet
    source, tcp = packet.destination, packet.protocol is Protocol.TCP
    if listener.answers_from != "asked":
        preferred = source._replace(address=stack.preferred_source(packet.source.address) or source.address)
        if (
            listener.answers_from == "preferred"
            or preferred == source
            or trip.suppose(got.place, AnswerFrom(source, preferred.address), packet)
        ):
            source = preferred
    flags = frozenset({"syn", "ack"}) if tcp else frozenset()
    return Sending(stack, Packet(protocol=packet.protocol, source=source, destination=packet.source, flags=flags))


def _as_heard(trip: Trip, end: Ended, asked: Packet, client: Place) -> Outcome:
    """The outcome for the client, to whom a refusal that gets lost is silence."""
    if end.refusal is None:
        return end.outcome
    try:
        heard = _brought_back(trip, end.refusal, asked, client)
    except UnknownRule:
        return end.outcome  # it got no further in any case
    match heard:
        case ReplyArrives(), _:
            return end.outcome
        case ReplyLost(place, lost), _:
            return Dropped(end.outcome.place, Unheard(end.outcome.reason, None, place, lost))


def _brought_back(trip: Trip, answer: Step, asked: Packet, client: Place) -> tuple[ReplyArrives, Packet] | tuple[ReplyLost, None]:
    """Send an answer and see whether the client gets it as an answer to what it asked, and what it gets."""
    try:
        arrived = travel(trip, answer)
    except Ended as end:
        return ReplyLost(end.outcome.place, end.outcome.reason), None
    if arrived.place == client and flow_of(arrived.packet) == flow_of(asked).reversed():
        return ReplyArrives(), arrived.packet
    got = arrived.packet
    return ReplyLost(arrived.place, Astray(got.protocol, got.source, got.destination, client, got.error)), None
