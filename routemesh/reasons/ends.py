"""Why a packet goes no further. PURE."""

from ipaddress import IPv4Address, IPv4Network

import msgspec

from routemesh.model import Protocol
from routemesh.nodeplan import RouteKind
from routemesh.snapshot import Bound, Endpoint, IpsecDirection, Place

# --- devices ------------------------------------------------------------------------------------------------------


class LinkDown(msgspec.Struct, frozen=True):
    """A link is switched off."""

    link: str


class NoCarrier(msgspec.Struct, frozen=True):
    """A link is up, and nothing is at its other end."""

    link: str


class BridgeDown(msgspec.Struct, frozen=True):
    """A frame came to a port of a bridge that is down or not there."""

    bridge: str
    link: str


class FarEndGone(msgspec.Struct, frozen=True):
    """The other end of a veth is down or not there."""

    link: str


class WrongMac(msgspec.Struct, frozen=True):
    """A frame came to a link that has another MAC."""

    mac: str
    link: str


class TooLarge(msgspec.Struct, frozen=True):
    """A packet, with its IP header, is larger than a link takes, and may not be cut."""

    size_bytes: int
    link: str
    mtu_bytes: int


class NoPort(msgspec.Struct, frozen=True):
    """No port of the bridge has the MAC, and no port takes flooded frames."""

    mac: str


class BehindSamePort(msgspec.Struct, frozen=True):
    """The MAC is behind the port through which the frame came."""

    mac: str
    link: str


class Isolated(msgspec.Struct, frozen=True):
    """Both ports of the bridge are isolated, so that nothing goes from one to the other."""

    mac: str
    link: str


class NoNeighbour(msgspec.Struct, frozen=True):
    """Nobody answers ARP."""

    link: str
    address: IPv4Address


class WrongNeighbour(msgspec.Struct, frozen=True):
    """A permanent entry of the ARP table has another MAC than the node with that address."""

    address: IPv4Address
    mac: str
    own: str


OfDevices = (
    LinkDown | NoCarrier | BridgeDown | FarEndGone | WrongMac | TooLarge | NoPort | BehindSamePort | Isolated | NoNeighbour
    | WrongNeighbour
)  # fmt: skip

# --- tunnels ------------------------------------------------------------------------------------------------------


class NoFdbEntry(msgspec.Struct, frozen=True):
    """A VXLAN device does not know behind which node a MAC is."""

    mac: str
    link: str


class TunnelFromElsewhere(msgspec.Struct, frozen=True):
    """A VXLAN device would send from an address that its node does not have."""

    address: IPv4Address
    link: str


class NoTunnel(msgspec.Struct, frozen=True):
    """No VXLAN device of the node takes that VNI on that UDP port."""

    vni: int
    port: int


OfTunnels = NoFdbEntry | TunnelFromElsewhere | NoTunnel

# --- addresses and routes -----------------------------------------------------------------------------------------


class NoRoute(msgspec.Struct, frozen=True):
    """There is no route."""

    destination: IPv4Address


class BlackHole(msgspec.Struct, frozen=True):
    """The route throws packets away without a word."""

    destination: IPv4Address


class RouteRefuses(msgspec.Struct, frozen=True):
    """The route is to nowhere, and the sender is told (unreachable, prohibit)."""

    destination: IPv4Address
    kind: RouteKind


class NotForwarding(msgspec.Struct, frozen=True):
    """The packet is for somebody else, and this namespace forwards nothing."""


class LoopbackOnWire(msgspec.Struct, frozen=True):
    """A packet with a loopback address came in through a link that has no route_localnet."""

    link: str


class LoopbackLeaves(msgspec.Struct, frozen=True):
    """A packet from a loopback address would leave by a link that has no route_localnet."""

    link: str


class OwnSource(msgspec.Struct, frozen=True):
    """A packet came in whose source is an address of this namespace."""

    address: IPv4Address


class ReversePath(msgspec.Struct, frozen=True):
    """The route back to the source does not lead through the link by which the packet came, and rp_filter minds."""

    source: IPv4Address
    link: str
    rp_filter: int


class LeadsAway(msgspec.Struct, frozen=True):
    """The route leads to a link, and the address is behind another one."""

    destination: IPv4Address
    link: str
    behind: str


class NotOwnAddress(msgspec.Struct, frozen=True):
    """The sender does not have the source address."""

    address: IPv4Address


class NobodysAddress(msgspec.Struct, frozen=True):
    """The address belongs to no node, and nobody outside answers for it."""

    address: IPv4Address


class GoesInCircles(msgspec.Struct, frozen=True):
    """The packet passes more namespaces and layers than any sensible way has."""


OfRoutes = (
    NoRoute | BlackHole | RouteRefuses | NotForwarding | LoopbackOnWire | LoopbackLeaves | OwnSource | ReversePath | LeadsAway
    | NotOwnAddress | NobodysAddress | GoesInCircles
)  # fmt: skip

# --- rules, connections, balancing --------------------------------------------------------------------------------


class RuleDrops(msgspec.Struct, frozen=True):
    """A rule drops it. `kind`: the type of nftables' base chain (filter, nat, route), or iptables' table.

    `some`: it draws lots, and drops only some of the packets that it is for.
    """

    kind: str
    chain: str
    some: bool = False


class NotTracked(msgspec.Struct, frozen=True):
    """A rule keeps connection tracking from it, so that nothing translates it."""

    kind: str
    chain: str


class PolicyDrops(msgspec.Struct, frozen=True):
    """The policy of a base chain drops what no rule has decided about."""

    kind: str
    chain: str


class RuleRejects(msgspec.Struct, frozen=True):
    """A rule rejects it; `answer` is what the sender gets (tcp reset, icmp port-unreachable)."""

    kind: str
    chain: str
    answer: str


class IpsecBlocks(msgspec.Struct, frozen=True):
    """An IPsec policy (ip xfrm policy) blocks what is from `source` for `destination`."""

    direction: IpsecDirection
    source: IPv4Network
    destination: IPv4Network


class RedirectedNowhere(msgspec.Struct, frozen=True):
    """A rule redirects what came in through a link that has no address."""

    link: str


class NothingToMasquerade(msgspec.Struct, frozen=True):
    """A rule masquerades in a namespace without any address."""


class TableFull(msgspec.Struct, frozen=True):
    """The namespace tracks as many connections as it may, and this is a new one."""

    connections: int
    limit: int


class AnswersClash(msgspec.Struct, frozen=True):
    """Answers would look like those of another connection, and no NAT makes them differ."""


class NoServer(msgspec.Struct, frozen=True):
    """IPVS has no server for connections with that firewall mark."""

    mark: int


class ServerGone(msgspec.Struct, frozen=True):
    """IPVS knows the connection, and its server is in no service any more."""

    server: Endpoint


class LoopbackToServer(msgspec.Struct, frozen=True):
    """IPVS sends nothing from a loopback address to another namespace."""

    source: IPv4Address


OfRules = (
    RuleDrops | NotTracked | PolicyDrops | RuleRejects | RedirectedNowhere | NothingToMasquerade | TableFull | AnswersClash
    | NoServer | IpsecBlocks | ServerGone | LoopbackToServer
)  # fmt: skip

# --- processes and answers ----------------------------------------------------------------------------------------


class NobodyListens(msgspec.Struct, frozen=True):
    """No process has the port. `instead`: where processes of that namespace wait (address, port, process)."""

    protocol: Protocol
    port: int
    instead: tuple[Bound, ...] = ()


class Unheard(msgspec.Struct, frozen=True):
    """It ended so, and its sender (None: the client) does not hear of it, for that was lost `at` a place."""

    end: "End"
    sender: Place | None
    at: Place | None = None
    lost: "End | None" = None


class Astray(msgspec.Struct, frozen=True):
    """The answer arrives with ends that are not those of anything that the client asked. `error`: an ICMP error about it."""

    protocol: Protocol
    source: Endpoint
    destination: Endpoint
    client: Place
    error: bool = False


class LargeAstray(msgspec.Struct, frozen=True):
    """Packets of that size get somewhere else than small ones."""

    size_bytes: int


class EverSmaller(msgspec.Struct, frozen=True):
    """Whatever the sender is told of MTUs, its packets are still too large somewhere."""


class EitherWay(msgspec.Struct, frozen=True):
    """What it is that ends it depends on something that can't be told; it gets no further in either case."""

    end: "End"
    other: "End"


OfAnswers = NobodyListens | Unheard | Astray | LargeAstray | EverSmaller | EitherWay

End = OfDevices | OfTunnels | OfRoutes | OfRules | OfAnswers


def root(end: End) -> End:
    """Why it went no further, whether or not anybody heard of that."""
    return root(end.end) if isinstance(end, Unheard | EitherWay) else end
