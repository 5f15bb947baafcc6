"""The IP layer of one namespace: what comes in, what goes on, what is sent, what has arrived. PURE.

Source: the kernel's ip_input.c, ip_forward.c, ip_output.c, route.c.
"""

from routemesh.nodeplan import HOST, LOOPBACK
from routemesh.reasons.ends import LinkDown, LoopbackLeaves, NotForwarding, NoTunnel
from routemesh.reasons.events import Accepted, OutOfTunnel
from routemesh.reasons.unclear import SeveralTunnels
from routemesh.values import replace
from routemesh.walk import ipsec, underlay
from routemesh.walk.flight import Arrived, AtDevice, AtStack, Flight, Sending, Step, Trip
from routemesh.walk.layer2 import transmit
from routemesh.walk.netfilter import pass_hook
from routemesh.walk.nouns import TCP_AND_IP_HEADER_BYTES, UnknownRule
from routemesh.walk.stack import is_loopback


def receive(trip: Trip, at: AtStack) -> Step:
    """Take a packet from a device: to the sockets, or on to another namespace."""
    flight = Flight(trip, at.stack, at.packet, at.link, connection=at.connection, replies=at.replies)
    if not at.prerouted:
        pass_hook(flight, "prerouting")
    stack, packet = flight.stack, flight.packet
    objection = stack.objection(at.link, packet.source.address, packet.destination.address, packet.mark)
    if objection is not None:
        flight.drop(objection)
    if stack.is_local(packet.destination.address):
        pass_hook(flight, "input")
        if flight.taken:
            return _sent_on(flight)
        ipsec.meet(flight, "in")
        return _deliver(flight)
    if not stack.forwards(at.link):
        flight.drop(NotForwarding())
    flight.route()
    ipsec.meet(flight, "fwd", "out")
    underlay.pass_on(flight)
    flight.check_size()
    pass_hook(flight, "forward")
    if flight.taken:
        return _sent_on(flight)
    pass_hook(flight, "postrouting")
    return transmit(flight)


def send(trip: Trip, sending: Sending) -> Step:
    """Send a packet of the namespace's own."""
    flight = Flight(trip, sending.stack, sending.packet, connection=sending.connection, replies=sending.replies)
    flight.route()
    ipsec.meet(flight, "out")
    if "syn" in flight.packet.flags:
        flight.packet = replace(flight.packet, mss_bytes=flight.stack.mtu(flight.outgoing) - TCP_AND_IP_HEADER_BYTES)
    pass_hook(flight, "output")
    if flight.taken:
        return _sent_on(flight)
    if flight.outgoing == LOOPBACK and (lo := flight.stack.links.get(LOOPBACK)) is not None and not lo.up:
        flight.drop(LinkDown(lo.name), lo)
    if is_loopback(flight.packet.source.address) and flight.outgoing != LOOPBACK:
        if flight.outgoing == flight.stack.underlay:
            underlay.leave(flight)
        _check_loopback_may_leave(flight)
    pass_hook(flight, "postrouting")
    flight.check_size()
    if flight.outgoing == LOOPBACK:
        return AtStack(flight.stack, LOOPBACK, flight.packet, flight.connection, flight.replies)
    return transmit(flight)


def _sent_on(flight: Flight) -> Step:
    """What IPVS has taken goes to the real server as if it were sent from here."""
    flight.taken = False
    pass_hook(flight, "output")
    pass_hook(flight, "postrouting")
    return transmit(flight)


def _check_loopback_may_leave(flight: Flight) -> None:
    """Source: __mkroute_output."""
    if not flight.stack.routes_loopback(flight.outgoing):
        flight.drop(LoopbackLeaves(flight.outgoing))


def _deliver(flight: Flight) -> Step:
    stack, packet = flight.stack, flight.packet
    if packet.inner is None or stack.place.netns != HOST:
        flight.note(Accepted(packet.protocol, packet.destination.port), None)
        return Arrived(stack.place, packet)
    vni, frame = packet.inner
    ends = flight.trip.network.tunnels(stack.place.node, packet.destination.port, vni)
    if not ends:
        flight.drop(NoTunnel(vni, packet.destination.port))
    if len(ends) > 1:
        raise UnknownRule(stack.place, SeveralTunnels(vni))
    inside, link = ends[0]
    flight.note(OutOfTunnel(vni, inside.place, link.name), link, after=frame)
    return AtDevice(inside, link, frame)
