"""A packet under way: what the kernel keeps in an sk_buff, and what the walk keeps of the way it took. PURE."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import NoReturn, Protocol

import msgspec

from routemesh.nodeplan import LOOPBACK, Element, Item, Link, Rule
from routemesh.reasons.ends import BlackHole, End, NoRoute, RouteRefuses, TooLarge
from routemesh.reasons.events import Event, Stopped
from routemesh.reasons.unclear import Doubt
from routemesh.snapshot import Place
from routemesh.walk.balancer import Balancer
from routemesh.walk.conntrack import Connection, Conntrack
from routemesh.walk.network import Network
from routemesh.walk.nouns import Dropped, Hop, Packet, Question, Refused, Supposed, UnknownRule
from routemesh.walk.stack import Stack


class Choose(Protocol):
    """Asked which way to go of those with these weights, answers with one's number. `estimated`: nobody can tell the shares."""

    def __call__(self, weights: Sequence[int], /, estimated: bool = False) -> int: ...


class Ended(Exception):
    """The packet goes no further. `refusal` is what the kernel sends to its sender, if it does.

    `mtu_bytes`: how large a packet would have got further; the sender may be in this namespace, and then knows without a word.
    """

    def __init__(self, outcome: Refused | Dropped, refusal: "Sending | AtDevice | None" = None, mtu_bytes: int = 0) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.refusal = refusal
        self.mtu_bytes = mtu_bytes


@dataclass(slots=True)
class Trip:
    """One packet's way and its reply's, with one answer to every choice. `supposed`: what it takes for given besides.

    `router`: the node to which a client outside sends it, "" for the one that has its address.
    """

    network: Network
    choose: Choose
    router: str = ""
    supposed: Supposed = field(default_factory=dict)
    hops: list[Hop] = field(default_factory=list)
    conntracks: dict[Place, Conntrack] = field(default_factory=dict)
    balancers: dict[Place, Balancer] = field(default_factory=dict)
    learned: dict[tuple[object, ...], Element] = field(default_factory=dict)

    def suppose(self, place: Place, doubt: Doubt, packet: Packet) -> bool:
        """What this walk takes for given of something that can't be told; raises UnknownRule where that is nothing."""
        question = Question(place, doubt, packet)
        if question not in self.supposed:
            raise UnknownRule(place, doubt, question)
        return self.supposed[question]

    def conntrack(self, place: Place) -> Conntrack:
        """The connections of a namespace."""
        if place not in self.conntracks:
            self.conntracks[place] = Conntrack(self.network.connections(place))
        return self.conntracks[place]

    def balancer(self, place: Place) -> Balancer:
        """The connections that a namespace has balanced."""
        if place not in self.balancers:
            self.balancers[place] = Balancer(self.network.balanced(place))
        return self.balancers[place]


class Sending(msgspec.Struct, frozen=True):
    """A process or a tunnel of this namespace sends a packet; the kernel, what belongs to a connection already (nf_ct_attach)."""

    stack: Stack
    packet: Packet
    connection: Connection | None = None
    replies: bool = False


class AtDevice(msgspec.Struct, frozen=True):
    """A frame came out of a device of this namespace."""

    stack: Stack
    link: Link
    packet: Packet


class AtStack(msgspec.Struct, frozen=True):
    """A packet is for this namespace's IP layer. One that met hooks here before brings its connection along."""

    stack: Stack
    link: str
    packet: Packet
    connection: Connection | None = None
    replies: bool = False
    prerouted: bool = False


class Arrived(msgspec.Struct, frozen=True):
    """A packet is at the sockets of a namespace, or outside the cluster."""

    place: Place
    packet: Packet


Step = Sending | AtDevice | AtStack | Arrived
"""Where a packet is between two layers or two namespaces."""


@dataclass(slots=True)
class Flight:
    """The packet in one namespace. `incoming` is "" for a packet of its own, `outgoing` until it is routed,
    by `routed`.

    `zone`: the one of connection tracking. `space`: within which the rules that it meets look sets up (chains.Space).
    `untracked`: connection tracking leaves the packet alone. `balanced`: IPVS has dealt with it; `taken`: and sends it itself.
    """

    trip: Trip
    stack: Stack
    packet: Packet
    incoming: str = ""
    outgoing: str = ""
    next_hop: IPv4Address | None = None
    routed: Item | None = None
    connection: Connection | None = None
    replies: bool = False
    zone: int = 0
    space: str = ""
    untracked: bool = False
    balanced: bool = False
    taken: bool = False

    @property
    def new(self) -> bool:
        """Whether the packet has a connection on which no answer was seen yet."""
        return self.connection is not None and not self.connection.answered

    def note(self, event: Event, item: Item | None, rule: Rule | None = None, *, after: Packet | None = None) -> None:
        """Record what happened, and go on with the packet as it is `after` it."""
        before, self.packet = self.packet, after or self.packet
        self.trip.hops.append(Hop(self.stack.place, self.outgoing or self.incoming, event, item, before, self.packet, rule))

    def untrack(self) -> None:
        """From here on connection tracking and NAT leave the packet alone."""
        self.connection, self.replies, self.untracked = None, False, True

    def route(self) -> None:
        """Choose device and next hop by the packet's present destination and mark; refuse it where there is no route."""
        self.route_to(self.packet.destination.address, self.packet.mark)

    def route_to(self, destination: IPv4Address, mark: int) -> None:
        """The same by another destination or mark than the packet has."""
        if self.stack.is_local(destination):
            self.outgoing, self.next_hop = LOOPBACK, destination
            return
        hop = self.stack.route(destination, mark, self.packet.source.address, self.incoming)
        if hop is None:
            self.refuse(NoRoute(destination))
        if hop.kind == "blackhole":
            self.drop(BlackHole(destination), hop.item)
        if hop.kind != "unicast":
            self.refuse(RouteRefuses(destination, hop.kind), hop.item)
        self.outgoing, self.next_hop, self.routed = hop.link, hop.address, hop.item
        self.note(hop.event, hop.item)

    def drop(self, end: End, item: Item | None = None, rule: Rule | None = None) -> NoReturn:
        """End here without a word to the sender."""
        self.note(Stopped(end, refused=False), item, rule)
        raise Ended(Dropped(self.stack.place, end))

    def refuse(self, end: End, item: Item | None = None, rule: Rule | None = None, *, reset: bool = False) -> NoReturn:
        """End here and tell the sender, by a TCP reset or an ICMP error; a process of this namespace is told as it sends.

        Of what happens to a tunnel's packet nobody inside hears.
        """
        if self.packet.inner is not None:
            self.drop(end, item, rule)
        self.note(Stopped(end, refused=True), item, rule)
        raise Ended(Refused(self.stack.place, end), self._refusal(reset=reset))

    def check_size(self) -> None:
        """Refuse what is too large for the device by which it is to leave. A tunnel's packets are cut into fragments."""
        link = self.stack.links.get(self.outgoing)
        if link is not None and self.packet.inner is None and self.packet.size_bytes > link.mtu:
            self.too_large(link, link.mtu, self._refusal(reset=False))

    def _refusal(self, *, reset: bool) -> Sending | None:
        """What the sender is sent; one in this namespace knows at once."""
        packet = refusal_of(self.packet, reset)
        return Sending(self.stack, packet, self.connection, not self.replies) if self.incoming else None

    def too_large(self, link: Link, mtu_bytes: int, refusal: "Sending | AtDevice | None") -> NoReturn:
        """End here, and tell the sender how large a packet may be."""
        end = TooLarge(self.packet.size_bytes, link.name, mtu_bytes)
        self.note(Stopped(end, refused=True), link)
        raise Ended(Refused(self.stack.place, end), refusal, mtu_bytes)


def refusal_of(packet: Packet, reset: bool) -> Packet:
    """What the kernel answers to a packet that it refuses."""
    flags = frozenset({"rst", "ack"}) if reset else frozenset()
    return Packet(protocol=packet.protocol, source=packet.destination, destination=packet.source, flags=flags, error=not reset)
