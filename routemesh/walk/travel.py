"""Following a packet, step by step, until it gets to sockets or goes no further. PURE."""

from routemesh.errors import NotFound
from routemesh.reasons.ends import GoesInCircles, NotOwnAddress
from routemesh.snapshot import OUTSIDE, Place
from routemesh.walk import layer2, layer3
from routemesh.walk.flight import Arrived, AtDevice, AtStack, Ended, Sending, Step, Trip
from routemesh.walk.network import Network
from routemesh.walk.nouns import Dropped, Packet, Refused
from routemesh.walk.stack import Stack

_MOST_STEPS = 200
"""More than any sensible way has; a packet that takes more goes round in circles."""


def set_out(trip: Trip, packet: Packet, sender: Place) -> Step:
    """A packet as its sender lets it go; raises Ended where that can't have such a packet."""
    if sender == OUTSIDE:
        return layer2.on_the_wire(trip, packet, trip.router)
    stack, source = stack_of(trip.network, sender), packet.source.address
    if not stack.is_local(source):
        raise Ended(Refused(sender, NotOwnAddress(source)))
    return Sending(stack, packet)


def stack_of(network: Network, place: Place) -> Stack:
    """A namespace that sends; raises NotFound where it is not there."""
    stack = network.stack(place)
    if stack is None:
        raise NotFound(f"there is no namespace {place} to send a packet from")
    return stack


def travel(trip: Trip, step: Step) -> Arrived:
    """Follow a packet to its end; raises Ended where it does not get to any socket."""
    for _ in range(_MOST_STEPS):
        if isinstance(step, Arrived):
            return step
        place, step = step.stack.place, _advance(trip, step)
    raise Ended(Dropped(place, GoesInCircles()))


def _advance(trip: Trip, step: Sending | AtDevice | AtStack) -> Step:
    match step:
        case Sending():
            return layer3.send(trip, step)
        case AtStack():
            return layer3.receive(trip, step)
        case AtDevice():
            return layer2.arrive(trip, step)
