"""From a device to the next IP layer: neighbours, egress rules, veths, bridges, tunnels. PURE.

What this does not follow is the ARP exchange itself: whoever is within reach of a broadcast and has the address answers, and the
answer comes back. Source: the kernel's br_input.c, br_forward.c, br_netfilter_hooks.c, vxlan_core.c (arp_reduce, vxlan_xmit),
veth.c, arp.c.
"""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

from routemesh.model import Protocol
from routemesh.nodeplan import HOST, FdbEntry, Item, Link, Neighbour
from routemesh.snapshot import Endpoint
from routemesh.walk import rules
from routemesh.walk.chains import RuleChain
from routemesh.walk.flight import Arrived, AtDevice, AtStack, Flight, Sending, Step, Trip
from routemesh.walk.netfilter import pass_hook
from routemesh.walk.nouns import OUTSIDE, Encapsulated, Packet, Place, UnknownRule
from routemesh.walk.stack import Stack

_ANY_MAC = "00:00:00:00:00:00"
_TUNNEL_SOURCE_PORT = 49152
"""The kernel derives one from the inner packet (udp_flow_src_port); nothing here depends on it."""


def transmit(flight: Flight) -> Step:
    """Send a routed packet out of `flight.outgoing` to `flight.next_hop`."""
    stack, packet = flight.stack, flight.packet
    if flight.outgoing == stack.underlay:
        owner = flight.trip.network.owner(packet.destination.address)
        received = replace(packet, mark=0)
        return Arrived(OUTSIDE, received) if owner is None else AtStack(owner, owner.underlay, received)
    link = stack.links[flight.outgoing]
    flight.packet = replace(packet, source_mac=stack.mac(link), destination_mac=_resolve(flight, link))
    return _send(flight, link)


def arrive(trip: Trip, at: AtDevice) -> Step:
    """Take a frame from a device: into its bridge, or up to the IP layer."""
    link = at.link
    flight = Flight(trip, at.stack, at.packet, incoming=link.name)
    if link.master is not None:
        bridge = at.stack.link(link.master)
        if bridge is None:
            flight.drop(f"{link.master}, the bridge of {link.name}, is down or not there", link)
        return _bridged(flight, bridge, link)
    if at.packet.destination_mac != at.stack.mac(link):
        flight.drop(f"it is for {at.packet.destination_mac}, not for {link.name}", link)
    return AtStack(at.stack, link.name, at.packet)


# --- devices -----------------------------------------------------------------------------------------------------


def _send(flight: Flight, link: Link) -> Step:
    flight.outgoing = link.name
    for turn in flight.stack.turns("egress", link.name):
        if isinstance(turn, RuleChain):
            rules.traverse(flight, turn)
    if link.kind == "bridge":
        return _bridged(flight, link, None)
    return _into_tunnel(flight, link) if link.kind == "vxlan" else _through_veth(flight, link)


def _through_veth(flight: Flight, link: Link) -> Step:
    end = _other_end(flight.trip, flight.stack, link)
    if end is None:
        flight.drop(f"the other end of {link.name} is down or not there", link)
    stack, other = end
    crosses = stack.place != flight.stack.place
    return AtDevice(stack, other, replace(flight.packet, mark=0) if crosses else flight.packet)


def _other_end(trip: Trip, stack: Stack, link: Link) -> tuple[Stack, Link] | None:
    if link.peer is None:
        return None
    other_stack = trip.network.stack(Place(stack.place.node, link.peer.netns))
    other = None if other_stack is None else other_stack.link(link.peer.link)
    return None if other_stack is None or other is None else (other_stack, other)


def _into_tunnel(flight: Flight, link: Link) -> Step:
    stack, packet, tunnel = flight.stack, flight.packet, link.vxlan
    entry = stack.fdb.get((link.name, packet.destination_mac)) or stack.fdb.get((link.name, _ANY_MAC))
    if entry is None or entry.dst is None or tunnel is None:
        flight.drop(f"{link.name} does not know which node has {packet.destination_mac}", link)
    node = flight.trip.network.stack(Place(stack.place.node, HOST))
    if node is None or not node.is_local(tunnel.local):
        flight.drop(f"{tunnel.local}, from which {link.name} sends, is not an address of the node", link)
    outer = Packet(
        protocol=Protocol.UDP,
        source=Endpoint(tunnel.local, _TUNNEL_SOURCE_PORT),
        destination=Endpoint(entry.dst, tunnel.port),
        inner=Encapsulated(tunnel.vni, replace(packet, mark=0)),
    )
    flight.note(f"vxlan {tunnel.vni} to {entry.dst}", entry, after=outer)
    return Sending(node, outer)


# --- bridges -----------------------------------------------------------------------------------------------------


def _bridged(flight: Flight, bridge: Link, came_by: Link | None) -> Step:
    """Forward a frame to the one port that has, or may have, its MAC. `came_by` None: the bridge itself sends it."""
    stack, ports = flight.stack, [port for port in flight.stack.ports[bridge.name] if port.up]
    filtered = came_by is not None and stack.filters_bridges()
    leaves = filtered and _leaves_bridge(flight, bridge)
    mac = flight.packet.destination_mac
    if leaves or (came_by is not None and mac in {stack.mac(link) for link in (bridge, *ports)}):
        return AtStack(stack, bridge.name, flight.packet, flight.connection, flight.replies, prerouted=filtered)
    port, item = _port_for(flight, ports, came_by)
    if filtered:
        flight.outgoing = bridge.name
        pass_hook(flight, "forward")
        pass_hook(flight, "postrouting")
    flight.outgoing = port.name
    flight.note(f"bridge {bridge.name} to port {port.name}", item)
    return _send(flight, port)


def _leaves_bridge(flight: Flight, bridge: Link) -> bool:
    """Let a bridged packet meet the prerouting hook; whether it then goes up, because its new destination is not on this bridge.

    If that is on this bridge, the frame goes on to it from where it is. Source: br_nf_pre_routing_finish.
    """
    stack, before = flight.stack, flight.packet.destination.address
    flight.incoming = bridge.name
    pass_hook(flight, "prerouting")
    destination = flight.packet.destination.address
    if destination == before:
        return False
    hop = None if stack.is_local(destination) else stack.route(destination, flight.packet.mark)
    if hop is None or hop.link != bridge.name:
        return True
    flight.next_hop = hop.address
    flight.packet = replace(flight.packet, destination_mac=_resolve(flight, bridge))
    return False


def _port_for(flight: Flight, ports: list[Link], came_by: Link | None) -> tuple[Link, Item]:
    """The port by which a frame leaves the bridge, and what says so."""
    stack, mac = flight.stack, flight.packet.destination_mac
    for port in ports:
        entry = _static_entry(stack, port, mac)
        if entry is not None and port == came_by:
            flight.drop(f"{mac} is behind the port {port.name}, through which it came", entry)
        if entry is not None and _apart(port, came_by):
            flight.drop(f"{mac} is behind {port.name}, which is isolated as is the port through which it came", port)
        if entry is not None:
            return port, entry
    flooded = _flooded(flight, [port for port in ports if port.flood and port != came_by and not _apart(port, came_by)])
    return flooded, flooded


def _apart(port: Link, other: Link | None) -> bool:
    """Whether two ports of a bridge do not reach one another."""
    return other is not None and port.isolated and other.isolated


def _static_entry(stack: Stack, port: Link, mac: str) -> FdbEntry | None:
    entry = stack.fdb.get((port.name, mac))
    return entry if entry is not None and entry.dst is None else None


def _flooded(flight: Flight, ports: list[Link]) -> Link:
    """The one port of those that get a copy of the frame behind which it is not thrown away."""
    mac = flight.packet.destination_mac
    if not ports:
        flight.drop(f"no port has {mac}, and none is flooded")
    taking = [port for port in ports if _may_take(flight, port)]
    if len(taking) > 1:
        raise UnknownRule(flight.stack.place, f"a frame to {mac}, of which several ports get a copy")
    return (taking or ports)[0]


def _may_take(flight: Flight, port: Link) -> bool:
    end = _other_end(flight.trip, flight.stack, port)
    return end is None or end[1].master is not None or end[0].mac(end[1]) == flight.packet.destination_mac


# --- neighbours --------------------------------------------------------------------------------------------------


def _resolve(flight: Flight, link: Link) -> str:
    stack, address = flight.stack, flight.next_hop
    assert address is not None
    permanent = stack.neighbours.get((link.name, address))
    if permanent is not None:
        flight.note(f"neighbour {address} is {permanent.mac}", permanent)
        return permanent.mac
    answers = dict(_answers(flight.trip, stack, link, address))
    if not answers:
        flight.drop(f"nobody on {link.name} answers ARP for {address}", link)
    if len(answers) > 1:
        raise UnknownRule(stack.place, f"ARP for {address}, which {' and '.join(sorted(answers))} answer")
    ((mac, item),) = answers.items()
    flight.note(f"neighbour {address} is {mac}", item)
    return mac


def _answers(trip: Trip, stack: Stack, link: Link, address: IPv4Address) -> Iterator[tuple[str, Neighbour | Link]]:
    """The MACs that answer an ARP request that leaves by `link`, each with what makes it answer."""
    if link.kind == "vxlan":
        known = stack.neighbours.get((link.name, address))
        if known is not None:
            yield known.mac, known
    elif link.kind == "bridge":
        for port in stack.ports[link.name]:
            if port.up:
                yield from _answers(trip, stack, port, address)
    elif (end := _other_end(trip, stack, link)) is not None:
        yield from _answers_behind(trip, *end, address)


def _answers_behind(trip: Trip, stack: Stack, link: Link, address: IPv4Address) -> Iterator[tuple[str, Neighbour | Link]]:
    """The same for a request that comes in by `link`. Any interface answers for any address of its namespace (arp_ignore 0)."""
    bridge = stack.link(link.master) if link.master else link
    if bridge is not None and stack.is_local(address):
        yield stack.mac(bridge), bridge
    if bridge is not None and link.master:
        for port in stack.ports[bridge.name]:
            if port.up and port != link and not _apart(port, link):
                yield from _answers(trip, stack, port, address)
