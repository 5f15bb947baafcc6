"""One packet's way to a process and the answer's way back, with one answer to every choice. PURE."""

from routemesh.errors import NotFound
from routemesh.model import Protocol
from routemesh.walk import layer2, layer3
from routemesh.walk.conntrack import flow_of
from routemesh.walk.flight import Arrived, AtDevice, AtStack, Ended, Sending, Step, Trip, refusal_of
from routemesh.walk.network import Listener, Network
from routemesh.walk.nouns import (
    OUTSIDE,
    Delivered,
    Dropped,
    Outcome,
    Packet,
    Place,
    Refused,
    ReplyArrives,
    ReplyLost,
    Unclear,
    UnknownRule,
)
from routemesh.walk.stack import Stack

_MOST_STEPS = 200
"""More than any sensible way has; a packet that takes more goes round in circles."""


def there_and_back(trip: Trip, packet: Packet, client: Place) -> tuple[Outcome, int]:
    """The outcome, and how many of the trip's hops belong to the way there."""
    try:
        arrived, listener = _served(trip, packet, client)
    except Ended as end:
        turn = len(trip.hops)
        return _as_heard(trip, end, packet, client), turn
    except UnknownRule as error:
        return error.unclear, len(trip.hops)
    turn, got = len(trip.hops), arrived.packet
    reply: ReplyArrives | ReplyLost | Unclear
    try:
        reply = _brought_back(trip, _answer(trip.network, arrived, listener), packet, client)
    except UnknownRule as error:
        reply = error.unclear
    return (
        Delivered(
            place=arrived.place,
            protocol=got.protocol,
            port=got.destination.port,
            peer=got.source,
            reply=reply,
            process=listener.process,
        ),
        turn,
    )


# --- there --------------------------------------------------------------------------------------------------------


def _served(trip: Trip, packet: Packet, client: Place) -> tuple[Arrived, Listener]:
    """The packet with a process that listens; raises Ended where it gets to none."""
    arrived = _travel(trip, _first_step(trip, packet, client))
    place, got = arrived.place, arrived.packet
    if place == OUTSIDE:
        raise Ended(Dropped(place, f"{got.destination.address} belongs to no node"))
    protocol, port = got.protocol, got.destination.port
    listener = trip.network.listener(place, protocol, got.destination)
    if listener is None:
        refusal = Sending(_stack(trip.network, place), refusal_of(got, reset=protocol is Protocol.TCP))
        raise Ended(Refused(place, f"nothing listens on {protocol}/{port}"), refusal)
    return arrived, listener


def _first_step(trip: Trip, packet: Packet, client: Place) -> Step:
    if client == OUTSIDE:
        return layer2.on_the_wire(trip, packet)
    stack, source = _stack(trip.network, client), packet.source.address
    if not stack.is_local(source):
        raise Ended(Refused(client, f"{source} is not an address of this namespace"))
    return Sending(stack, packet)


def _stack(network: Network, place: Place) -> Stack:
    stack = network.stack(place)
    if stack is None:
        raise NotFound(f"there is no namespace {place} to send a packet from")
    return stack


# --- and back -----------------------------------------------------------------------------------------------------


def _answer(network: Network, got: Arrived, listener: Listener) -> Sending:
    stack, packet = _stack(network, got.place), got.packet
    source, tcp = packet.destination, packet.protocol is Protocol.TCP
    if listener.answers_from != "asked":
        preferred = source._replace(address=stack.preferred_source(packet.source.address) or source.address)
        if listener.answers_from == "unknown" and preferred != source:
            what = f"the answer from {source}, which a process on all addresses may send from {preferred.address} instead"
            raise UnknownRule(got.place, what)
        source = preferred
    flags = frozenset({"syn", "ack"}) if tcp else frozenset()
    return Sending(stack, Packet(protocol=packet.protocol, source=source, destination=packet.source, flags=flags))


def _as_heard(trip: Trip, end: Ended, asked: Packet, client: Place) -> Outcome:
    """The outcome for the client, to whom a refusal that gets lost is silence."""
    if end.refusal is None:
        return end.outcome
    match _brought_back(trip, end.refusal, asked, client):
        case ReplyArrives():
            return end.outcome
        case ReplyLost(place, why):
            return Dropped(end.outcome.place, f"{end.outcome.why}, and the client does not hear of it ({place}: {why})")


def _brought_back(trip: Trip, answer: Sending, asked: Packet, client: Place) -> ReplyArrives | ReplyLost:
    """Send an answer and see whether the client gets it as an answer to what it asked."""
    try:
        arrived = _travel(trip, answer)
    except Ended as end:
        return ReplyLost(end.outcome.place, end.outcome.why)
    if arrived.place == client and flow_of(arrived.packet) == flow_of(asked).reversed():
        return ReplyArrives()
    return ReplyLost(arrived.place, f"it arrives as {arrived.packet}, which answers nothing that {client} asked")


# --- step by step -------------------------------------------------------------------------------------------------


def _travel(trip: Trip, step: Step) -> Arrived:
    """Follow a packet to its end; raises Ended where it does not get to any socket."""
    for _ in range(_MOST_STEPS):
        if isinstance(step, Arrived):
            return step
        place, step = step.stack.place, _advance(trip, step)
    raise Ended(Dropped(place, "it goes round in circles"))


def _advance(trip: Trip, step: Sending | AtDevice | AtStack) -> Step:
    match step:
        case Sending():
            return layer3.send(trip, step)
        case AtStack():
            return layer3.receive(trip, step)
        case AtDevice():
            return layer2.arrive(trip, step)
