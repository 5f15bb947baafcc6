"""Why a packet goes no further. PURE."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from routemesh.model import Protocol
from routemesh.nodeplan import RouteKind
from routemesh.snapshot import Bound, Endpoint, IpsecDirection, Place

# --- devices ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkDown:
    """A link is switched off."""

    link: str


@dataclass(frozen=True, slots=True)
class NoCarrier:
    """A link is up, and nothing is at its other end."""

    link: str


@dataclass(frozen=True, slots=True)
class BridgeDown:
    """A frame came to a port of a bridge that is down or not there."""

    bridge: str
    link: str


@dataclass(frozen=True, slots=True)
class FarEndGone:
    """The other end of a veth is down or not there."""

    link: str


@dataclass(frozen=True, slots=True)
class WrongMac:
    """A frame came to a link that has another MAC."""

    mac: str
    link: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A packet, with its IP header, is larger than a link takes, and may not be cut."""

    size_bytes: int
    link: str
    mtu_bytes: int


@dataclass(frozen=True, slots=True)
class NoPort:
    """No port of the bridge has the MAC, and no port takes flooded frames."""

    mac: str


@dataclass(frozen=True, slots=True)
class BehindSamePort:
    """The MAC is behind the port through which the frame came."""

    mac: str
    link: str


@dataclass(frozen=True, slots=True)
class Isolated:
    """Both ports of the bridge are isolated, so that nothing goes from one to the other."""

    mac: str
    link: str


@dataclass(frozen=True, slots=True)
class NoNeighbour:
    """Nobody answers ARP."""

    link: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class WrongNeighbour:
    """A permanent entry of the ARP table has another MAC than the node with that address."""

    address: IPv4Address
    mac: str
    own: str


OfDevices = (
    LinkDown | NoCarrier | BridgeDown | FarEndGone | WrongMac | TooLarge | NoPort | BehindSamePort | Isolated | NoNeighbour
    | WrongNeighbour
)  # fmt: skip

# --- tunnels ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoFdbEntry:
    """A VXLAN device does not know behind which node a MAC is."""

    mac: str
    link: str


@dataclass(frozen=True, slots=True)
class TunnelFromElsewhere:
    """A VXLAN device would send from an address that its node does not have."""

    address: IPv4Address
    link: str


@dataclass(frozen=True, slots=True)
class NoTunnel:
    """No VXLAN device of the node takes that VNI on that UDP port."""

    vni: int
    port: int


OfTunnels = NoFdbEntry | TunnelFromElsewhere | NoTunnel

# --- addresses and routes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoRoute:
    """There is no route."""

    destination: IPv4Address


@dataclass(frozen=True, slots=True)
class BlackHole:
    """The route throws packets away without a word."""

    destination: IPv4Address


@dataclass(frozen=True, slots=True)
class RouteRefuses:
    """The route is to nowhere, and the sender is told (unreachable, prohibit)."""

    destination: IPv4Address
    kind: RouteKind


@dataclass(frozen=True, slots=True)
class NotForwarding:
    """The packet is for somebody else, and this namespace forwards nothing."""


@dataclass(frozen=True, slots=True)
class LoopbackOnWire:
    """A packet with a loopback address came in through a link that has no route_localnet."""

    link: str


@dataclass(frozen=True, slots=True)
class LoopbackLeaves:
    """A packet from a loopback address would leave by a link that has no route_localnet."""

    link: str


@dataclass(frozen=True, slots=True)
class OwnSource:
    """A packet came in whose source is an address of this namespace."""

    address: IPv4Address


@dataclass(frozen=True, slots=True)
class ReversePath:
    """The route back to the source does not lead through the link by which the packet came, and rp_filter minds."""

    source: IPv4Address
    link: str
    rp_filter: int


@dataclass(frozen=True, slots=True)
class LeadsAway:
    """The route leads to a link, and the address is behind another one."""

    destination: IPv4Address
    link: str
    behind: str


@dataclass(frozen=True, slots=True)
class NotOwnAddress:
    """The sender does not have the source address."""

    address: IPv4Address


@dataclass(frozen=True, slots=True)
class NobodysAddress:
    """The address belongs to no node, and nobody outside answers for it."""

    address: IPv4Address


@dataclass(frozen=True, slots=True)
class GoesInCircles:
    """The packet passes more namespaces and layers than any sensible way has."""


OfRoutes = (
    NoRoute | BlackHole | RouteRefuses | NotForwarding | LoopbackOnWire | LoopbackLeaves | OwnSource | ReversePath | LeadsAway
    | NotOwnAddress | NobodysAddress | GoesInCircles
)  # fmt: skip

# --- rules, connections, balancing --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuleDrops:
    """A rule drops it. `kind`: the type of nftables' base chain (filter, nat, route), or iptables' table."""

    kind: str
    chain: str


@dataclass(frozen=True, slots=True)
class PolicyDrops:
    """The policy of a base chain drops what no rule has decided about."""

    kind: str
    chain: str


@dataclass(frozen=True, slots=True)
class RuleRejects:
    """A rule rejects it; `answer` is what the sender gets (tcp reset, icmp port-unreachable)."""

    kind: str
    chain: str
    answer: str


@dataclass(frozen=True, slots=True)
class IpsecBlocks:
    """An IPsec policy (ip xfrm policy) blocks what is from `source` for `destination`."""

    direction: IpsecDirection
    source: IPv4Network
    destination: IPv4Network


@dataclass(frozen=True, slots=True)
class RedirectedNowhere:
    """A rule redirects what came in through a link that has no address."""

    link: str


@dataclass(frozen=True, slots=True)
class NothingToMasquerade:
    """A rule masquerades in a namespace without any address."""


@dataclass(frozen=True, slots=True)
class TableFull:
    """The namespace tracks as many connections as it may, and this is a new one."""

    connections: int
    limit: int


@dataclass(frozen=True, slots=True)
class AnswersClash:
    """Answers would look like those of another connection, and no NAT makes them differ."""


@dataclass(frozen=True, slots=True)
class NoServer:
    """IPVS has no server for connections with that firewall mark."""

    mark: int


@dataclass(frozen=True, slots=True)
class ServerGone:
    """IPVS knows the connection, and its server is in no service any more."""

    server: Endpoint


@dataclass(frozen=True, slots=True)
class LoopbackToServer:
    """IPVS sends nothing from a loopback address to another namespace."""

    source: IPv4Address


OfRules = (
    RuleDrops | PolicyDrops | RuleRejects | RedirectedNowhere | NothingToMasquerade | TableFull | AnswersClash | NoServer
    | IpsecBlocks | ServerGone | LoopbackToServer
)  # fmt: skip

# --- processes and answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NobodyListens:
    """No process has the port. `instead`: where processes of that namespace wait (address, port, process)."""

    protocol: Protocol
    port: int
    instead: tuple[Bound, ...] = ()


@dataclass(frozen=True, slots=True)
class Unheard:
    """It ended so, and its sender (None: the client) does not hear of it, for that was lost `at` a place."""

    end: "End"
    sender: Place | None
    at: Place | None = None
    lost: "End | None" = None


@dataclass(frozen=True, slots=True)
class Astray:
    """The answer arrives with ends that are not those of anything that the client asked. `error`: an ICMP error about it."""

    protocol: Protocol
    source: Endpoint
    destination: Endpoint
    client: Place
    error: bool = False


@dataclass(frozen=True, slots=True)
class LargeAstray:
    """Packets of that size get somewhere else than small ones."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class EverSmaller:
    """Whatever the sender is told of MTUs, its packets are still too large somewhere."""


@dataclass(frozen=True, slots=True)
class EitherWay:
    """What it is that ends it depends on something that can't be told; it gets no further in either case."""

    end: "End"
    other: "End"


OfAnswers = NobodyListens | Unheard | Astray | LargeAstray | EverSmaller | EitherWay

End = OfDevices | OfTunnels | OfRoutes | OfRules | OfAnswers


def root(end: End) -> End:
    """Why it went no further, whether or not anybody heard of that."""
    return root(end.end) if isinstance(end, Unheard | EitherWay) else end
