"""From a device to the next IP layer: egress rules, veths, bridges, tunnels. PURE.

Source: the kernel's br_input.c, br_forward.c, br_netfilter_hooks.c, vxlan_core.c (vxlan_xmit), veth.c.
"""

from ipaddress import IPv4Address

from routemesh.model import VXLAN_OVERHEAD_BYTES, Protocol
from routemesh.nodeplan import HOST, FdbEntry, Item, Link
from routemesh.reasons.ends import (
    BehindSamePort,
    BridgeDown,
    FarEndGone,
    Isolated,
    LinkDown,
    NoCarrier,
    NoFdbEntry,
    NoPort,
    TooLarge,
    TunnelFromElsewhere,
    WrongMac,
)
from routemesh.reasons.events import Bridged, IntoTunnel
from routemesh.reasons.unclear import FarEndUnseen, SeveralCopies
from routemesh.snapshot import ANY_ADDRESS, OUTSIDE, Endpoint, Place
from routemesh.values import replace
from routemesh.walk import rules, underlay
from routemesh.walk.arp import apart, enter_bridge, is_hidden, must_follow, other_end, resolve
from routemesh.walk.chains import RuleChain
from routemesh.walk.flight import Arrived, AtDevice, AtStack, Flight, Sending, Step, Trip, refusal_of
from routemesh.walk.netfilter import pass_hook
from routemesh.walk.nouns import Encapsulated, Packet, UnknownRule
from routemesh.walk.stack import Stack

_ANY_MAC = "00:00:00:00:00:00"
_VLAN_BYTES = 4
_TUNNEL_SOURCE_PORT = 49152
"""The kernel derives one from the inner packet (udp_flow_src_port); nothing here depends on it."""


def transmit(flight: Flight) -> Step:
    """Send a routed packet out of `flight.outgoing` to `flight.next_hop`."""
    stack, packet = flight.stack, flight.packet
    link = stack.links.get(flight.outgoing)
    if flight.outgoing == stack.underlay or (link is not None and link.kind == "other"):
        _check_carries(flight, link)
        underlay.leave(flight)
        _pass_device(flight, "egress", flight.outgoing)
        return on_the_wire(flight.trip, replace(flight.packet, mark=0))
    if link is None:  # it went away while all was read, and its routes were read before
        flight.drop(LinkDown(flight.outgoing))
    underlay.stay(flight, link)
    flight.packet = replace(packet, source_mac=stack.mac(link), destination_mac=resolve(flight, link))
    return _send(flight, link)


def on_the_wire(trip: Trip, packet: Packet, router: str = "") -> Step:
    """Take a packet from the underlay to the node that has its address, or to the one that is to route it.

    Raises UnknownRule for a node that was not seen.
    """
    address = packet.destination.address
    owner = trip.network.stack(Place(router, HOST)) if router else trip.network.owner(address)
    if owner is None:
        if address in trip.network.unseen:
            raise UnknownRule(OUTSIDE, trip.network.unseen[address])
        return Arrived(OUTSIDE, packet)
    flight = Flight(trip, owner, packet, incoming=owner.underlay)
    card = owner.links.get(owner.underlay)
    _check_carries(flight, card)
    if card is not None and card.kind == "veth":  # what a card of metal does with frames that are too long, its driver knows
        _check_fits(flight, card)
    _pass_device(flight, "ingress", owner.underlay)
    return AtStack(owner, owner.underlay, flight.packet)


def arrive(trip: Trip, at: AtDevice) -> Step:
    """Take a frame from a device: into its bridge, or up to the IP layer."""
    link = at.link
    must_follow(at.stack, link)
    flight = Flight(trip, at.stack, at.packet, incoming=link.name)
    _pass_device(flight, "ingress", link.name)
    if link.master is not None:
        bridge = at.stack.link(link.master)
        if bridge is None:
            flight.drop(BridgeDown(link.master, link.name), link)
        enter_bridge(flight)
        return _bridged(flight, bridge, link)
    if flight.packet.destination_mac != at.stack.mac(link):
        flight.drop(WrongMac(flight.packet.destination_mac, link.name), link)
    return AtStack(at.stack, link.name, flight.packet)


# --- devices -----------------------------------------------------------------------------------------------------


def _check_carries(flight: Flight, link: Link | None) -> None:
    if link is not None and not (link.up and link.carrier):
        flight.drop(NoCarrier(link.name) if link.up else LinkDown(link.name), link)


def _pass_device(flight: Flight, hook: str, device: str) -> None:
    for turn in flight.stack.turns(hook, device):
        if isinstance(turn, RuleChain):
            rules.traverse(flight, turn)


def _send(flight: Flight, link: Link) -> Step:
    must_follow(flight.stack, link)
    flight.outgoing = link.name
    _pass_device(flight, "egress", link.name)
    if link.kind == "bridge":
        return _bridged(flight, link, None)
    return _into_tunnel(flight, link) if link.kind == "vxlan" else _through_veth(flight, link)


def _through_veth(flight: Flight, link: Link) -> Step:
    end = other_end(flight.trip, flight.stack, link)
    if link.peer is None:
        raise UnknownRule(flight.stack.place, FarEndUnseen(link.name))
    if end is None:
        flight.drop(FarEndGone(link.name), link)
    stack, other = end
    _check_fits(Flight(flight.trip, stack, flight.packet, incoming=other.name), other)
    crosses = stack.place != flight.stack.place
    return AtDevice(stack, other, replace(flight.packet, mark=0) if crosses else flight.packet)


def _check_fits(flight: Flight, link: Link) -> None:
    """Source: is_skb_forwardable, which leaves room for a VLAN tag."""
    if flight.packet.size_bytes > link.mtu + _VLAN_BYTES:
        flight.drop(TooLarge(flight.packet.size_bytes, link.name, link.mtu), link)


def _into_tunnel(flight: Flight, link: Link) -> Step:
    stack, packet, tunnel = flight.stack, flight.packet, link.vxlan
    entry = _tunnel_entry(stack, link, packet.destination_mac)
    if entry is None or entry.dst is None or tunnel is None:
        flight.drop(NoFdbEntry(packet.destination_mac, link.name), link)
    node = flight.trip.network.stack(Place(stack.place.node, HOST))
    local = tunnel.local if node is None or tunnel.local != ANY_ADDRESS else node.preferred_source(entry.dst)
    if node is None or local is None or not node.is_local(local):
        flight.drop(TunnelFromElsewhere(local or tunnel.local, link.name), link)
    _check_tunnel_fits(flight, link, node, entry.dst)
    outer = Packet(
        protocol=Protocol.UDP,
        source=Endpoint(local, _TUNNEL_SOURCE_PORT),
        destination=Endpoint(entry.dst, tunnel.port),
        size_bytes=packet.size_bytes and packet.size_bytes + VXLAN_OVERHEAD_BYTES,
        inner=Encapsulated(tunnel.vni, replace(packet, mark=0)),
    )
    flight.note(IntoTunnel(tunnel.vni, entry.dst), entry, after=outer)
    return Sending(node, outer)


def _check_tunnel_fits(flight: Flight, link: Link, node: Stack, far: IPv4Address) -> None:
    """What would have to be cut, once it is wrapped, is refused by a frame from the tunnel (skb_tunnel_check_pmtu)."""
    packet, hop = flight.packet, node.route(far, 0)
    under = None if hop is None else node.links.get(hop.link)
    if under is not None and packet.size_bytes > under.mtu - VXLAN_OVERHEAD_BYTES:
        back = replace(refusal_of(packet, reset=False), source_mac=packet.destination_mac, destination_mac=packet.source_mac)
        flight.too_large(link, under.mtu - VXLAN_OVERHEAD_BYTES, AtDevice(flight.stack, link, back))


def _tunnel_entry(stack: Stack, link: Link, mac: str) -> FdbEntry | None:
    stack.must_know("fdb")
    return stack.tunnel_entries.get((link.name, mac)) or stack.tunnel_entries.get((link.name, _ANY_MAC))


# --- bridges -----------------------------------------------------------------------------------------------------


def _bridged(flight: Flight, bridge: Link, came_by: Link | None) -> Step:
    """Forward a frame to the one port that has, or may have, its MAC. `came_by` None: the bridge itself sends it."""
    stack, ports = flight.stack, flight.stack.bridge_ports(bridge)
    if came_by is None:
        _pass_bridge(flight, "output")
    filtered = came_by is not None and stack.filters_bridges()
    leaves = filtered and _leaves_bridge(flight, bridge)
    mac = flight.packet.destination_mac
    if leaves or (came_by is not None and any(stack.mac(link) == mac for link in (bridge, *ports))):
        _pass_bridge(flight, "input")
        return AtStack(stack, bridge.name, flight.packet, flight.connection, flight.replies, prerouted=filtered)
    must_follow(stack, bridge)
    port, item = _port_for(flight, ports, came_by)
    _pass_bridge(flight, *(("forward",) if came_by is not None else ()), "postrouting", port=port.name)
    if filtered:
        flight.outgoing = bridge.name
        pass_hook(flight, "forward")
        pass_hook(flight, "postrouting")
    flight.outgoing = port.name
    _check_fits(flight, port)
    flight.note(Bridged(bridge.name, port.name), item)
    return _send(flight, port)


def _pass_bridge(flight: Flight, *hooks: str, port: str = "") -> None:
    """What meets a frame in its bridge (nftables' family bridge); there its devices are the bridge's ports."""
    outgoing = flight.outgoing
    flight.outgoing = port or outgoing
    for hook in hooks:
        for chain in flight.stack.bridge_chains(hook):
            rules.traverse(flight, chain)
    flight.outgoing = outgoing


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
    flight.packet = replace(flight.packet, destination_mac=resolve(flight, bridge))
    return False


def _port_for(flight: Flight, ports: list[Link], came_by: Link | None) -> tuple[Link, Item]:
    """The port by which a frame leaves the bridge, and what says so."""
    stack, mac = flight.stack, flight.packet.destination_mac
    for port in ports:
        entry = _static_entry(stack, port, mac)
        if entry is not None and port == came_by:
            flight.drop(BehindSamePort(mac, port.name), entry)
        if entry is not None and apart(port, came_by):
            flight.drop(Isolated(mac, port.name), port)
        if entry is not None:
            return port, entry
    flooded = _flooded(flight, [port for port in ports if port.flood and port != came_by and not apart(port, came_by)])
    return flooded, flooded


def _static_entry(stack: Stack, port: Link, mac: str) -> FdbEntry | None:
    stack.must_know("fdb")
    entry = stack.port_entries.get((port.name, mac))
    return entry if entry is not None and entry.kind != "local" else None


def _flooded(flight: Flight, ports: list[Link]) -> Link:
    """The one port of those that get a copy of the frame behind which it is not thrown away."""
    mac = flight.packet.destination_mac
    if not ports:
        flight.drop(NoPort(mac))
    taking = [port for port in ports if _may_take(flight, port)]
    if len(taking) > 1:
        raise UnknownRule(flight.stack.place, SeveralCopies(mac))
    hidden = [port for port in ports if is_hidden(port)]
    return (taking or hidden or ports)[0]


def _may_take(flight: Flight, port: Link) -> bool:
    mac = flight.packet.destination_mac
    if port.kind == "vxlan":
        return _tunnel_entry(flight.stack, port, mac) is not None
    end = other_end(flight.trip, flight.stack, port)
    return end is not None and (end[1].master is not None or end[0].mac(end[1]) == mac)
