"""Why it can't be told what becomes of a packet: what was not read, what is not understood, what is anybody's guess. PURE."""

from ipaddress import IPv4Address, IPv4Network

import msgspec

from routemesh.model import Protocol
from routemesh.nodeplan import RouteKind
from routemesh.reasons.events import How
from routemesh.snapshot import Endpoint, IpsecDirection

# --- what was not read or seen ------------------------------------------------------------------------------------


class NotRead(msgspec.Struct, frozen=True):
    """A part of the namespace: `what` (a file or a command) could not be read, why, and what it would tell."""

    what: str
    reason: str
    loses: str


class ItemUnknown(msgspec.Struct, frozen=True):
    """The namespace holds something of a kind that this version does not know."""

    kind: str


class SettingNotRead(msgspec.Struct, frozen=True):
    """A setting below /proc/sys."""

    path: str


class ListenersNotRead(msgspec.Struct, frozen=True):
    """What listens there."""

    protocol: Protocol
    port: int


class NodeNotRead(msgspec.Struct, frozen=True):
    """A node that has the address; `absent` says why it was not read, "" where that is not known."""

    address: IPv4Address
    node: str
    absent: str


class FarEndUnseen(msgspec.Struct, frozen=True):
    """The other end of a link is in a namespace that was not seen."""

    link: str


class LinkOdd(msgspec.Struct, frozen=True):
    """A link has a setting by which it does something else than others of its kind."""

    link: str
    setting: str


class ArpUnseen(msgspec.Struct, frozen=True):
    """Only namespaces that were not seen may answer ARP for the address."""

    address: IPv4Address


class WayUnseen(msgspec.Struct, frozen=True):
    """The route to a node leads past the underlay, in whose subnet the node is."""

    link: str
    address: IPv4Address


class OtherMac(msgspec.Struct, frozen=True):
    """The ARP table has learned another MAC for a node than that has."""

    address: IPv4Address
    mac: str
    own: str


class IpsecTransforms(msgspec.Struct, frozen=True):
    """An IPsec policy (ip xfrm policy) has what is from `source` for `destination` encrypted, or takes it only if it was."""

    direction: IpsecDirection
    source: IPv4Network
    destination: IPv4Network


OfReading = (
    NotRead | ItemUnknown | SettingNotRead | ListenersNotRead | NodeNotRead | FarEndUnseen | LinkOdd | ArpUnseen | WayUnseen
    | OtherMac | IpsecTransforms
)  # fmt: skip

# --- ambiguities --------------------------------------------------------------------------------------------------


class ArpBySeveral(msgspec.Struct, frozen=True):
    """Several MACs answer ARP for the address."""

    address: IPv4Address
    macs: tuple[str, ...]


class ArpThroughTunnel(msgspec.Struct, frozen=True):
    """ARP is sent through a tunnel that does not answer it itself."""

    address: IPv4Address
    link: str


class ArpSetting(msgspec.Struct, frozen=True):
    """Whether ARP is answered depends on a setting that the walker does not evaluate (arp_ignore 3 to 7)."""

    link: str
    setting: str
    value: int


class FramesFiltered(msgspec.Struct, frozen=True):
    """Rules of nftables' family bridge, or arp, look at frames, which are not walked."""

    family: str
    chain: str


class SeveralCopies(msgspec.Struct, frozen=True):
    """Several ports of the bridge get a copy of the frame, and more than one may take it."""

    mac: str


class SeveralTunnels(msgspec.Struct, frozen=True):
    """Several VXLAN devices of the node take that VNI."""

    vni: int


class AnswerFrom(msgspec.Struct, frozen=True):
    """A process on all addresses may answer from `preferred` instead of the address that was asked."""

    asked: Endpoint
    preferred: IPv4Address


OfLinks = ArpBySeveral | ArpThroughTunnel | ArpSetting | FramesFiltered | SeveralCopies | SeveralTunnels | AnswerFrom

# --- routes and balancing -----------------------------------------------------------------------------------------


class RoutingRuleUnknown(msgspec.Struct, frozen=True):
    """A routing rule with an action, or `conditions` (FRA_ numbers of netlink), that are not understood."""

    priority: int
    conditions: tuple[int, ...] = ()


class RouteUnknown(msgspec.Struct, frozen=True):
    """A route of a kind that is not understood."""

    network: IPv4Network
    kind: RouteKind


class SchedulerUnknown(msgspec.Struct, frozen=True):
    """An IPVS service with a scheduler that is not understood."""

    mark: int
    scheduler: str


class MethodUnknown(msgspec.Struct, frozen=True):
    """An IPVS destination that is reached neither by masquerading nor directly (tunnel, other)."""

    mark: int
    server: IPv4Address
    method: str


class BalancedToItself(msgspec.Struct, frozen=True):
    """IPVS leads a packet of the namespace's own to the namespace's own address."""

    server: IPv4Address


OfDecisions = RoutingRuleUnknown | RouteUnknown | SchedulerUnknown | MethodUnknown | BalancedToItself

# --- rules of nftables and iptables; `space`: iptables' table, or nftables' family and table -----------------------


class StatementUnknown(msgspec.Struct, frozen=True):
    """A rule has a part outside of the walker's vocabulary, as its own tool spells it."""

    space: str
    chain: str
    statement: str


class MatchUnknown(msgspec.Struct, frozen=True):
    """A rule compares in a way that is not understood; `problem` says what of it, "" where all of it."""

    space: str
    chain: str
    match: str
    problem: str = ""


class FieldUnknown(msgspec.Struct, frozen=True):
    """A rule asks for something that packets do not have at that chain."""

    space: str
    chain: str
    field: str


class MapUnknown(msgspec.Struct, frozen=True):
    """A rule looks up `key` in a map or set that is of another type or not there."""

    space: str
    chain: str
    key: str
    map: str


class LearningUnknown(msgspec.Struct, frozen=True):
    """A rule adds to a map of another type."""

    space: str
    chain: str
    statement: str


class ChainUnknown(msgspec.Struct, frozen=True):
    """A rule leads to a chain that is not there."""

    space: str
    chain: str
    verdict: str
    target: str


class NoVerdict(msgspec.Struct, frozen=True):
    """A rule asks a map for a verdict and finds something else."""

    space: str
    chain: str
    element: str


class TranslationUnknown(msgspec.Struct, frozen=True):
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
