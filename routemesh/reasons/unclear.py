"""Why it can't be told what becomes of a packet: what was not read, what is not understood, what is anybody's guess. PURE."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from routemesh.model import Protocol
from routemesh.nodeplan import RouteKind
from routemesh.reasons.events import How
from routemesh.snapshot import Endpoint, IpsecDirection

# --- what was not read or seen ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NotRead:
    """A part of the namespace: `what` (a file or a command) could not be read, why, and what it would tell."""

    what: str
    reason: str
    loses: str


@dataclass(frozen=True, slots=True)
class ItemUnknown:
    """The namespace holds something of a kind that this version does not know."""

    kind: str


@dataclass(frozen=True, slots=True)
class SettingNotRead:
    """A setting below /proc/sys."""

    path: str


@dataclass(frozen=True, slots=True)
class ListenersNotRead:
    """What listens there."""

    protocol: Protocol
    port: int


@dataclass(frozen=True, slots=True)
class NodeNotRead:
    """A node that has the address; `absent` says why it was not read, "" where that is not known."""

    address: IPv4Address
    node: str
    absent: str


@dataclass(frozen=True, slots=True)
class FarEndUnseen:
    """The other end of a link is in a namespace that was not seen."""

    link: str


@dataclass(frozen=True, slots=True)
class ArpUnseen:
    """Only namespaces that were not seen may answer ARP for the address."""

    address: IPv4Address


@dataclass(frozen=True, slots=True)
class WayUnseen:
    """The route to a node leads past the underlay, in whose subnet the node is."""

    link: str
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class OtherMac:
    """The ARP table has learned another MAC for a node than that has."""

    address: IPv4Address
    mac: str
    own: str


@dataclass(frozen=True, slots=True)
class IpsecTransforms:
    """An IPsec policy (ip xfrm policy) has what is from `source` for `destination` encrypted, or takes it only if it was."""

    direction: IpsecDirection
    source: IPv4Network
    destination: IPv4Network


OfReading = (
    NotRead | ItemUnknown | SettingNotRead | ListenersNotRead | NodeNotRead | FarEndUnseen | ArpUnseen | WayUnseen | OtherMac
    | IpsecTransforms
)  # fmt: skip

# --- ambiguities --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ArpBySeveral:
    """Several MACs answer ARP for the address."""

    address: IPv4Address
    macs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArpThroughTunnel:
    """ARP is sent through a tunnel that does not answer it itself."""

    address: IPv4Address
    link: str


@dataclass(frozen=True, slots=True)
class ArpSetting:
    """Whether ARP is answered depends on a setting that the walker does not evaluate (arp_ignore 3 to 7)."""

    link: str
    setting: str
    value: int


@dataclass(frozen=True, slots=True)
class FramesFiltered:
    """Rules of nftables' family bridge, or arp, look at frames, which are not walked."""

    family: str
    chain: str


@dataclass(frozen=True, slots=True)
class SeveralCopies:
    """Several ports of the bridge get a copy of the frame, and more than one may take it."""

    mac: str


@dataclass(frozen=True, slots=True)
class SeveralTunnels:
    """Several VXLAN devices of the node take that VNI."""

    vni: int


@dataclass(frozen=True, slots=True)
class AnswerFrom:
    """A process on all addresses may answer from `preferred` instead of the address that was asked."""

    asked: Endpoint
    preferred: IPv4Address


OfLinks = ArpBySeveral | ArpThroughTunnel | ArpSetting | FramesFiltered | SeveralCopies | SeveralTunnels | AnswerFrom

# --- routes and balancing -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RoutingRuleUnknown:
    """A routing rule with an action, or `conditions` (FRA_ numbers of netlink), that are not understood."""

    priority: int
    conditions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteUnknown:
    """A route of a kind that is not understood."""

    network: IPv4Network
    kind: RouteKind


@dataclass(frozen=True, slots=True)
class SchedulerUnknown:
    """An IPVS service with a scheduler that is not understood."""

    mark: int
    scheduler: str


@dataclass(frozen=True, slots=True)
class MethodUnknown:
    """An IPVS destination that is reached neither by masquerading nor directly (tunnel, other)."""

    mark: int
    server: IPv4Address
    method: str


@dataclass(frozen=True, slots=True)
class BalancedToItself:
    """IPVS leads a packet of the namespace's own to the namespace's own address."""

    server: IPv4Address


OfDecisions = RoutingRuleUnknown | RouteUnknown | SchedulerUnknown | MethodUnknown | BalancedToItself

# --- rules of nftables and iptables; `space`: iptables' table, or nftables' family and table -----------------------


@dataclass(frozen=True, slots=True)
class StatementUnknown:
    """A rule has a part outside of the walker's vocabulary, as its own tool spells it."""

    space: str
    chain: str
    statement: str


@dataclass(frozen=True, slots=True)
class MatchUnknown:
    """A rule compares in a way that is not understood; `problem` says what of it, "" where all of it."""

    space: str
    chain: str
    match: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FieldUnknown:
    """A rule asks for something that packets do not have at that chain."""

    space: str
    chain: str
    field: str


@dataclass(frozen=True, slots=True)
class MapUnknown:
    """A rule looks up `key` in a map or set that is of another type or not there."""

    space: str
    chain: str
    key: str
    map: str


@dataclass(frozen=True, slots=True)
class LearningUnknown:
    """A rule adds to a map of another type."""

    space: str
    chain: str
    statement: str


@dataclass(frozen=True, slots=True)
class ChainUnknown:
    """A rule leads to a chain that is not there."""

    space: str
    chain: str
    verdict: str
    target: str


@dataclass(frozen=True, slots=True)
class NoVerdict:
    """A rule asks a map for a verdict and finds something else."""

    space: str
    chain: str
    element: str


@dataclass(frozen=True, slots=True)
class TranslationUnknown:
    """A rule translates at a hook where the kernel does not accept it."""

    space: str
    chain: str
    how: How
    to: Endpoint
    hook: str


OfRules = (
    StatementUnknown | MatchUnknown | FieldUnknown | MapUnknown | LearningUnknown | ChainUnknown | NoVerdict | TranslationUnknown
)

Doubt = OfReading | OfLinks | OfDecisions | OfRules
