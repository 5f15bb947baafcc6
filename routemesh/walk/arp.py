"""Who is asked for a MAC, and who answers: neighbours and ARP. PURE.

The ARP exchange itself is not followed: a host within reach of a broadcast that has the address answers, and the answer comes
back, if bridges let both in. Source: the kernel's arp.c, br_input.c, vxlan_core.c (arp_reduce).
"""

from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address

from routemesh.model import Protocol
from routemesh.nodeplan import Link, Neighbour
from routemesh.reasons.ends import NoNeighbour
from routemesh.reasons.events import Resolved
from routemesh.reasons.unclear import ArpBySeveral, ArpThroughTunnel, ArpUnseen, LinkOdd
from routemesh.snapshot import ANY_ADDRESS, Endpoint, Place
from routemesh.walk import rules
from routemesh.walk.flight import Ended, Flight, Trip
from routemesh.walk.nouns import Packet, UnknownRule
from routemesh.walk.stack import Stack

FORGOTTEN = ("failed", "incomplete")
"""States in which an entry of the ARP table has no MAC."""


def resolve(flight: Flight, link: Link) -> str:
    """The MAC of the next hop on a link. Raises UnknownRule where it can't be told who answers, Ended where nobody does."""
    stack, address = flight.stack, flight.next_hop
    assert address is not None
    stack.must_know("neighbours")
    known = stack.neighbours.get((link.name, address))
    if known is not None and known.state not in FORGOTTEN:
        flight.note(Resolved(address, known.mac, "" if known.state == "permanent" else known.state), known)
        return known.mac
    request = _asking(flight, link)
    answers = flight.trip.network.arp.get(asked := (stack.place, link.name, address, request.source.address))
    if answers is None:
        answers = dict(_answers(flight.trip, stack, link, address, request))
        if not flight.trip.supposed:
            flight.trip.network.arp[asked] = answers
    if not answers and any(map(is_hidden, (link, *stack.ports[link.name]))):
        raise UnknownRule(stack.place, ArpUnseen(address))
    if not answers:
        flight.drop(NoNeighbour(link.name, address), link)
    if len(answers) > 1:
        raise UnknownRule(stack.place, ArpBySeveral(address, tuple(sorted(answers))))
    ((mac, item),) = answers.items()
    flight.note(Resolved(address, mac, learned=True), item)
    return mac


def is_behind(flight: Flight, link: Link, address: IPv4Address) -> bool:
    """Whether anybody behind a link would answer for an address."""
    own = flight.stack.source_on(link.name, address) or ANY_ADDRESS
    return any(True for _ in _answers(flight.trip, flight.stack, link, address, _arp(flight.stack.mac(link), own)))


def _asking(flight: Flight, link: Link) -> Packet:
    """The ARP request for the next hop. Source: arp_solicit."""
    stack, own = flight.stack, flight.packet.source.address
    source = own if stack.is_local(own) else stack.source_on(link.name, flight.next_hop)
    return _arp(stack.mac(link), source or ANY_ADDRESS)


def _arp(mac: str, address: IPv4Address) -> Packet:
    nobody = Endpoint(ANY_ADDRESS, 0)
    return Packet(protocol=Protocol.UDP, source=Endpoint(address, 0), destination=nobody, source_mac=mac, arp=True)


def _passes(trip: Trip, stack: Stack, port: Link, frame: Packet, *hooks: str) -> bool:
    """Whether a frame of ARP that comes in by a bridge's port, or from the bridge itself, gets past rules for frames."""
    if not any(stack.bridge_chains(hook) for hook in hooks):
        return True  # most bridges: and each of hundreds of ports is asked
    flight = Flight(Trip(trip.network, trip.choose, supposed=trip.supposed), stack, frame, incoming=port.name)
    try:
        for hook in hooks:
            for chain in stack.bridge_chains(hook):
                rules.traverse(flight, chain)
    except Ended:
        return False
    return True


def _answers(trip: Trip, stack: Stack, link: Link, address: IPv4Address, asked: Packet) -> Iterator[tuple[str, Neighbour | Link]]:
    """The MACs that answer an ARP request that leaves by `link`, each with what makes it answer."""
    if link.vxlan is not None:
        known = stack.neighbours.get((link.name, address))
        if not link.vxlan.proxy:
            raise UnknownRule(stack.place, ArpThroughTunnel(address, link.name))
        if known is not None and known.state not in FORGOTTEN:
            yield known.mac, known
    elif link.kind == "bridge":
        ports = stack.bridge_ports(link) if _passes(trip, stack, link, asked, "output", "postrouting") else ()
        for port in ports:
            yield from _answers_by(trip, stack, port, address, asked, "input")
    elif (end := other_end(trip, stack, link)) is not None:
        for answer in _answers_behind(trip, *end, address, asked):
            must_follow(stack, link)
            must_follow(*end)
            yield answer


def _answers_by(
    trip: Trip, stack: Stack, port: Link, address: IPv4Address, asked: Packet, *hooks: str
) -> Iterator[tuple[str, Neighbour | Link]]:
    """The same for a bridge's port, by which the answer comes in; behind the first, it passes these hooks of the bridge."""
    for mac, item in _answers(trip, stack, port, address, asked):
        if _passes(trip, stack, port, _arp(mac, address), "prerouting", *hooks):
            yield mac, item


def _answers_behind(
    trip: Trip, stack: Stack, link: Link, address: IPv4Address, asked: Packet
) -> Iterator[tuple[str, Neighbour | Link]]:
    """The same for a request that comes in by `link`."""
    if link.master and not _passes(trip, stack, link, asked, "prerouting"):
        return
    bridge = stack.link(link.master) if link.master else link
    suppose = partial(trip.suppose, stack.place, packet=asked)
    if bridge is not None and stack.answers_arp(bridge.name, address, asked.source.address, suppose):
        if (unknown := stack.rules_of("arp")) is not None:
            raise UnknownRule(stack.place, unknown)
        mac = stack.mac(bridge)
        if not link.master or (
            _passes(trip, stack, link, asked, "input")
            and _passes(trip, stack, bridge, _arp(mac, address), "output", "postrouting")
        ):
            yield mac, bridge
    if bridge is not None and link.master and _passes(trip, stack, link, asked, "forward", "postrouting"):
        for port in stack.bridge_ports(bridge):
            if port != link and not apart(port, link):
                yield from _answers_by(trip, stack, port, address, asked, "forward", "postrouting")


def other_end(trip: Trip, stack: Stack, link: Link) -> tuple[Stack, Link] | None:
    """The other end of a veth, where that is there and up."""
    if link.peer is None:
        return None
    other_stack = trip.network.stack(Place(stack.place.node, link.peer.netns))
    other = None if other_stack is None else other_stack.link(link.peer.link)
    return None if other_stack is None or other is None else (other_stack, other)


def must_follow(stack: Stack, link: Link) -> None:
    """Raises UnknownRule for a link with a setting that is not followed."""
    if link.master is not None and stack.link(link.master) is None:
        return  # the kernel disables a bridge's ports as it goes down (br_stp_disable_bridge): then the bridge is to be told
    if link.odd:
        raise UnknownRule(stack.place, LinkOdd(link.name, link.odd))


def apart(port: Link, other: Link | None) -> bool:
    """Whether two ports of a bridge do not reach one another."""
    return other is not None and port.isolated and other.isolated


def is_hidden(link: Link) -> bool:
    """Whether nobody can see what it leads to."""
    return link.kind == "other" or (link.kind == "veth" and link.peer is None)


def enter_bridge(flight: Flight) -> None:
    """What meets a frame that comes in by a port of a bridge; raises Ended where it is dropped."""
    for chain in flight.stack.bridge_chains("prerouting"):
        rules.traverse(flight, chain)
