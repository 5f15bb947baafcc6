"""The hop from a node to the underlay: by which device, to whose MAC. PURE.

A route may lead away from where an address is, or past the underlay to a peer; a neighbour's entry may have another MAC than the
peer. What is between the nodes nobody sees.
"""

from ipaddress import IPv4Address

from routemesh.names import SANDBOX
from routemesh.nodeplan import HOST, Link, Neighbour
from routemesh.reasons.ends import LeadsAway, WrongNeighbour
from routemesh.reasons.unclear import OtherMac, WayUnseen
from routemesh.walk.arp import FORGOTTEN, is_behind
from routemesh.walk.flight import Flight
from routemesh.walk.nouns import UnknownRule
from routemesh.walk.stack import Stack


def leave(flight: Flight) -> None:
    """Check where an observed node sends a packet that leaves it; raises Ended or UnknownRule where that goes wrong, or may."""
    network, destination = flight.trip.network, flight.packet.destination.address
    if flight.stack.place.node not in network.seen:
        return
    owner = network.owner(destination)
    if owner is None:
        _check_is_not_here(flight, destination)
    elif flight.outgoing != flight.stack.underlay and _is_near(flight.stack, destination):
        raise UnknownRule(flight.stack.place, WayUnseen(flight.outgoing, destination))
    _check_mac(flight)


def pass_on(flight: Flight) -> None:
    """Check that an observed node, or its sandbox, does not forward a packet away from where its destination is, before rules end
    it for that; raises Ended. A task answers by the way that the request came, on purpose.
    """
    network, place, destination = flight.trip.network, flight.stack.place, flight.packet.destination.address
    if place.node in network.seen and place.netns in (HOST, SANDBOX) and network.owner(destination) is None:
        _check_is_not_here(flight, destination)


def stay(flight: Flight, link: Link) -> None:
    """Check that an observed node keeps to itself no packet that is for a peer; raises Ended where it does."""
    network, destination, stack = flight.trip.network, flight.packet.destination.address, flight.stack
    if stack.place.node not in network.seen or stack.place.netns != HOST or network.owner(destination) is None:
        return
    if _is_near(stack, destination) and not is_behind(flight, link, destination):
        flight.drop(LeadsAway(destination, link.name, stack.underlay), flight.routed)


def _check_is_not_here(flight: Flight, destination: IPv4Address) -> None:
    """That the address is not at another device of the node, in whose subnet it is."""
    stack = flight.stack
    for name, found in stack.addresses.items():
        link = stack.link(name)
        if link is None or name == flight.outgoing or not any(destination in each.address.network for each in found):
            continue
        if link.kind in ("bridge", "veth") and is_behind(flight, link, destination):
            flight.drop(LeadsAway(destination, flight.outgoing, name), flight.routed)


def _is_near(stack: Stack, address: IPv4Address) -> bool:
    return any(address in each.network for each in stack.addresses_on(stack.underlay))


def _check_mac(flight: Flight) -> None:
    """A dynamic entry says what somebody answered: a cloud's router may do so for all, else it is not known who it was."""
    stack, address = flight.stack, flight.next_hop
    assert address is not None
    known, peer = stack.neighbours.get((flight.outgoing, address)), flight.trip.network.owner(address)
    if known is None or known.state in FORGOTTEN or not known.mac or peer is None:
        return
    own = _mac_of(peer, address)
    if own is None or own == known.mac:
        return
    if known.state == "permanent":
        flight.drop(WrongNeighbour(address, known.mac, own), known)
    if not _answers_for_others(stack, known):
        raise UnknownRule(stack.place, OtherMac(address, known.mac, own))


def _mac_of(peer: Stack, address: IPv4Address) -> str | None:
    having = (name for name, found in peer.addresses.items() if any(each.address.ip == address for each in found))
    link = peer.links.get(next(having, ""))
    return None if link is None else link.mac


def _answers_for_others(stack: Stack, known: Neighbour) -> bool:
    return any(
        each.mac == known.mac and each.ip != known.ip for (link, _), each in stack.neighbours.items() if link == known.link
    )
