"""The nouns of one node's kernel: what we want there and what we read from there are the same type (rule 2).

A NodePlan maps namespace names to items. "" is the node's own namespace; the others are the namespaces that
routemesh makes. An item is a frozen value; `key(item)` says which kernel object it is, the other fields what that
object should be like. Two items with one key are two states of one object, so `diff` needs no more than this file.

The same nouns tell what others have made (`snapshot`). What only they do has a field here too, whose default is what we do.

nftables' and iptables' rules are data, not text, in one vocabulary: nft re-spells what it is given (nft 1.0.6), so text can't be
compared. Expressions are named as nft spells them. A statement that is none of ours is read as `Unknown`, never skipped.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from operator import attrgetter
from typing import Any, Literal, TypeVar, cast

from routemesh.names import TABLE

HOST = ""
ROUTE_PROTOCOL = 82
"""Our number in rtm_protocol, the rule's and the neighbour's protocol: how we recognise them (rule 5). 82 is 'R'."""

_T = TypeVar("_T")


def theirs(default: _T) -> _T:
    """A field that no plan sets: there for what others have made. What prints a plan leaves it out."""
    return field(default=default, metadata={"theirs": True})


# --- namespaces, links, addresses, routes ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Netns:
    """A network namespace of ours; an item of HOST's."""

    name: str


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth: which namespace it is in and what it is called there."""

    netns: str
    link: str


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN tunnel whose underlay socket is in the node's own namespace.

    `local` 0.0.0.0: sends from the address that the route prefers. `learning`: it notes behind which tunnel end a MAC was seen;
    `proxy`: it answers ARP from its neighbours.
    """

    vni: int
    local: IPv4Address
    port: int
    learning: bool = theirs(False)
    proxy: bool = theirs(True)


LinkKind = Literal["bridge", "veth", "vxlan", "loopback", "other"]
"""`other`: whatever leads out of what can be seen, as a network card does. Ours are the first three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network device, up. `mac` None: whatever the kernel gave it.

    A veth is two Links, one in each namespace, each naming the other as `peer` (None: it is in a namespace that we can't see).
    `master` is a bridge in the same namespace; `flood` is the bridge port's flag for unknown destinations (True where there is
    no master); `learning`: the port notes which MACs it saw. An `isolated` port reaches the bridge itself and no other isolated
    port (False where there is no master). `vxlan` is set for kind vxlan. `carrier` False: what the link leads to is off; a plan
    has none of that. Every link of ours carries the alias `routemesh`.
    """

    name: str
    kind: LinkKind
    mtu: int = 1500
    mac: str | None = None
    master: str | None = None
    peer: Peer | None = None
    vxlan: Vxlan | None = None
    flood: bool = True
    isolated: bool = False
    up: bool = True
    learning: bool = theirs(False)
    carrier: bool = theirs(True)


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel setting of one namespace, by its path below /proc/sys: net/ipv4/ip_forward."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 address on a link."""

    link: str
    address: IPv4Interface


RouteKind = Literal[
    "unicast", "local", "broadcast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "unknown"
]  # fmt: skip
"""As ip-route(8) has it; `unknown`: with several next hops, or one that is no IPv4 address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route. Ours (protocol ROUTE_PROTOCOL) go via a next hop; those that come with an address are the kernel's own.

    `via` None: the destination is on the link. `source`: the address that a socket bound to none takes when it sends this way;
    None leaves it to the kernel. `link` is "" for kinds without one. `protocol` is rtm_protocol, the kernel's own is 2.
    """

    destination: IPv4Network
    via: IPv4Address | None
    link: str
    table: int = 254
    source: IPv4Address | None = None
    metric: int = theirs(0)
    kind: RouteKind = theirs("unicast")
    protocol: int = theirs(ROUTE_PROTOCOL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """`ip rule add fwmark MARK/MASK lookup TABLE pref PRIORITY`; mask 0: whatever the mark.

    Ours have no more than that. `source`, `destination`, `iif`, `oif`: which packets it is for (None, "": all); `negate`: for all
    but those. `action` other than lookup needs no table. `unknown`: conditions that have no place here, as attribute numbers.
    """

    priority: int
    fwmark: int
    mask: int
    table: int
    source: IPv4Network | None = theirs(None)
    destination: IPv4Network | None = theirs(None)
    iif: str = theirs("")
    oif: str = theirs("")
    negate: bool = theirs(False)
    action: Literal["lookup", "blackhole", "unreachable", "prohibit", "unknown"] = theirs("lookup")
    unknown: tuple[int, ...] = theirs(())


NeighbourState = Literal["permanent", "noarp", "reachable", "stale", "delay", "probe", "failed", "incomplete"]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An ARP entry; ours are permanent. `mac` is "" where it is failed or incomplete."""

    link: str
    ip: IPv4Address
    mac: str
    state: NeighbourState = theirs("permanent")


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """Where a MAC is: behind tunnel end `dst` of a vxlan device (self permanent), or on a bridge port (master static).

    `learned`: seen by the device itself, which forgets it again. `local`: frames to it are the bridge's own (master permanent).
    """

    link: str
    mac: str
    dst: IPv4Address | None = None
    kind: Literal["static", "learned", "local"] = theirs("static")


# --- nftables ----------------------------------------------------------------------------------------------------

Family = Literal["ip", "ip6", "inet", "arp", "bridge", "netdev"]
OUR_FAMILIES: tuple[Family, ...] = ("ip", "netdev")

Field = Literal[
    "iifname", "oifname", "meta l4proto", "meta mark",
    "ip saddr", "ip daddr", "th sport", "th dport", "ether saddr", "ether daddr",
    "ct mark", "ct state", "ct status", "ct direction", "ct original zone", "tcp flags",
    "fib saddr type", "fib daddr type",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Numgen:
    """`numgen inc mod N`: 0, 1 … N-1, 0 …; the counter belongs to the rule and starts anew with it. `random`: any of them."""

    modulus: int
    mode: Literal["inc", "random"] = "inc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Jhash:
    """`jhash FIELD mod N seed S`: a number below N, always the same for the same value of the field."""

    field: Field
    modulus: int
    seed: int


Index = Numgen | Jhash
Key = tuple[Field | Index, ...]
"""What a map or set is asked with: one expression or a concatenation."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """`KEY map @NAME`: the value for the key; without an entry the rule ends without effect."""

    key: Key
    map: str


@dataclass(frozen=True, slots=True)
class Match:
    """`FIELD VALUE` or `FIELD != VALUE`. `value` as nft prints it: eth0, tcp, local, 10.0.0.0/24, established,related, dnat."""

    field: Field
    value: str
    negate: bool = False


@dataclass(frozen=True, slots=True)
class MarkMatch:
    """`meta mark & MASK == VALUE`, or ct mark."""

    field: Literal["meta mark", "ct mark"]
    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class InSet:
    """`KEY @SET`: goes on when the set holds the key."""

    key: Key
    set: str


@dataclass(frozen=True, slots=True)
class Assign:
    """`FIELD set VALUE`: a number, another field, or a map's value."""

    field: Literal["meta mark", "ct mark", "ct original zone", "ether daddr"]
    value: int | Field | Lookup


@dataclass(frozen=True, slots=True)
class ClampMss:
    """`tcp option maxseg size set BYTES`: lowers a SYN's MSS, never raises it (net/netfilter/nft_exthdr.c)."""

    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Learn:
    """`update @MAP { KEY timeout T : VALUE }`: the map remembers the value until it was not asked to for so long.

    An entry that is there keeps its value (net/netfilter/nft_set_hash.c, nft_rhash_update). When the map is full the rule ends.
    """

    map: str
    key: Key
    value: Field
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts packets and bytes; the numbers are no part of the plan."""


@dataclass(frozen=True, slots=True)
class Dnat:
    """`dnat to ADDRESS[:PORT]`; without a port it stays, with one (iptables only) it may be another."""

    to: IPv4Address | Lookup
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Snat:
    """`snat to ADDRESS`."""

    to: IPv4Address


@dataclass(frozen=True, slots=True)
class Masquerade:
    """`masquerade`."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """`redirect to :PORT`; nftables takes the port from a map, iptables has a rule per port."""

    to: int | Lookup


@dataclass(frozen=True, slots=True)
class Reject:
    """`reject with tcp reset` or `reject with icmp port-unreachable`."""

    with_: Literal["tcp reset", "icmp port-unreachable"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """accept, drop, return, or jump/goto a chain."""

    kind: Literal["accept", "drop", "return", "jump", "goto"]
    chain: str = ""


@dataclass(frozen=True, slots=True)
class VerdictLookup:
    """`KEY vmap @MAP`: the verdict for the key; without an entry the next rule follows."""

    key: Key
    map: str


@dataclass(frozen=True, slots=True)
class IpvsMatch:
    """`-m ipvs --ipvs`: the packet belongs to an IPVS connection. iptables only."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A statement outside this vocabulary, as nft's JSON or iptables-save has it. Read only; nothing plans it."""

    json: str


Statement = (
    Match | MarkMatch | InSet | IpvsMatch | Assign | ClampMss | Learn | Counter | Dnat | Snat | Masquerade | Redirect | Reject
    | Verdict | VerdictLookup | Unknown
)  # fmt: skip
Rule = tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """An nftables table. Ours is always named `routemesh`, that is how it is known. `dormant`: no packet meets it."""

    family: Family
    name: str = theirs(TABLE)
    dormant: bool = theirs(False)


KeyType = tuple[Literal["proto", "port", "mark", "index", "mac", "ip"], ...]
"""proto: inet_proto, port: inet_service, mark: mark, index: the number that an Index gives, mac: ether_addr, ip: ipv4_addr."""


@dataclass(frozen=True, slots=True)
class Map:
    """A named map (`value`: ip, mark, port, mac, zone, verdict) or a named set (`value` None).

    `learns`: what Learn adds to it, up to so many entries, is the kernel's own: no part of the plan, and left out by `read`.
    """

    family: Family
    name: str
    key: KeyType
    value: Literal["ip", "mark", "port", "mac", "zone", "verdict"] | None = None
    table: str = theirs(TABLE)
    learns: int = 0


Scalar = str | int | IPv4Address
"""A map's key part or value: proto str, port/mark/index/zone int, mac str, ip IPv4Address, verdict Verdict."""


@dataclass(frozen=True, slots=True)
class Element:
    """One entry of a map, or of a set (`value` None)."""

    family: Family
    map: str
    key: tuple[Scalar, ...]
    value: Scalar | Verdict | None = None
    table: str = theirs(TABLE)


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain sits. `device` for chains of one device only, several are separated by commas."""

    type: Literal["filter", "nat", "route"]
    hook: Literal["ingress", "prerouting", "input", "forward", "output", "postrouting", "egress"]
    priority: int
    device: str | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain with all its rules, in order: rules have no names, so a chain is replaced whole.

    `policy` is what becomes of a packet that no rule of a base chain has decided about; ours all accept. `handles`: the rules'
    numbers, by which nft deletes one, where they are not ours.
    """

    family: Family
    name: str
    hook: Hook | None = None
    rules: tuple[Rule, ...] = ()
    policy: Literal["accept", "drop"] = theirs("accept")
    table: str = theirs(TABLE)
    handles: tuple[int, ...] = theirs(())


# --- iptables ----------------------------------------------------------------------------------------------------

XtTable = Literal["raw", "mangle", "nat", "filter", "security"]
BUILT_IN: Mapping[XtTable, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
"""The chains that a table has by itself, named for their hooks; `security` is read, never planned. Source: iptables(8)."""


@dataclass(frozen=True, slots=True)
class XtChain:
    """An iptables chain that is ours alone, with all its rules, in order.

    In the node's own namespace it has one of our names (DOCKER-INGRESS); in a namespace of ours every chain is ours. A built-in
    chain is an item only while it has rules or its policy is not ACCEPT. `policy` is None for the others, which have none.
    """

    table: XtTable
    name: str
    rules: tuple[Rule, ...] = ()
    policy: Literal["ACCEPT", "DROP"] | None = None


@dataclass(frozen=True, slots=True)
class XtRule:
    """A rule of ours in a built-in chain of the node's namespace, among rules of others: known by the comment `routemesh`.

    `head`: it is put before what is there, else behind it; where it stands later is for those others to say too, so every such
    rule is read as it is wanted. `copies`: how often it is there, which should be once.
    """

    table: XtTable
    chain: str
    rule: Rule
    head: bool = True
    copies: int = theirs(1)


# --- IPVS --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class IpvsTimeouts:
    """Idle connections are forgotten after so many seconds: `ipvsadm --set TCP TCPFIN UDP`; one of each namespace."""

    tcp_s: int
    tcp_fin_s: int
    udp_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IpvsService:
    """A virtual service by firewall mark: `ipvsadm -A -f MARK -s SCHEDULER`.

    `persistent_s`: for how many seconds without a packet a client keeps its destination; 0: every connection is scheduled.
    `fallback`: where the hash of `sh` or `mh` leads to a destination of weight 0, another is taken.
    """

    mark: int
    scheduler: str
    persistent_s: int = 0
    fallback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IpvsDestination:
    """A real server of a service: `ipvsadm -a -f MARK -r ADDRESS:PORT -m -w WEIGHT`. Port 0: as the client had it.

    With weight 0 it keeps its connections and gets no new ones. `method` other is only read: none of the three, or a limit of
    connections besides.
    """

    mark: int
    address: IPv4Address
    port: int = 0
    weight: int = 1
    method: Literal["masq", "route", "tunnel", "other"] = "masq"


Item = (
    Netns | Link | Sysctl | Address | Route | RoutingRule | Neighbour | FdbEntry
    | IpvsTimeouts | IpvsService | IpvsDestination | Table | Map | Chain | Element | XtChain | XtRule
)  # fmt: skip

KIND_ORDER: tuple[type, ...] = (
    Netns, Link, Sysctl, Address, Route, RoutingRule, Neighbour, FdbEntry,
    IpvsTimeouts, IpvsService, IpvsDestination, Table, Map, Chain, Element, XtChain, XtRule,
)  # fmt: skip
"""Referents first (rule 6): created in this order, deleted in reverse. (A verdict element refers to a chain, a chain's rules to
maps; chains that jump to one another are declared, then filled, within one transaction.) What balances comes before the rules
that lead packets to it."""

ItemKey = tuple[object, ...]
Namespace = Mapping[ItemKey, Item]


_NAMED_BY: Mapping[type, tuple[str, ...]] = {
    Netns: ("name",),
    Link: ("name",),
    Sysctl: ("path",),
    Address: ("link", "address"),
    Route: ("table", "destination", "metric"),
    RoutingRule: ("priority", "fwmark"),
    Neighbour: ("link", "ip"),
    FdbEntry: ("link", "mac"),
    IpvsTimeouts: (),
    IpvsService: ("mark",),
    IpvsDestination: ("mark", "address", "port"),
    Table: ("family",),
    Map: ("family", "name"),
    Chain: ("family", "name"),
    Element: ("family", "map", "key"),
    XtChain: ("table", "name"),
    XtRule: ("table", "chain", "rule"),
}
_IN_TABLE: Mapping[type, str] = {Table: "name", Map: "table", Chain: "table", Element: "table"}
"""The field with the table's name, which ends the keys of what is in others' tables."""


def _namer(kind: type) -> Callable[[Any], ItemKey]:
    """What gives the key of an item of that kind; a large cluster has tens of thousands of them."""
    name, fields = kind.__name__, _NAMED_BY[kind]
    if not fields:
        return lambda item: (name,)
    read = attrgetter(*fields)
    if kind not in _IN_TABLE:
        return (lambda item: (name, *read(item))) if len(fields) > 1 else (lambda item: (name, read(item)))
    read_with_table = attrgetter(*fields, _IN_TABLE[kind])

    def named(item: Any) -> ItemKey:
        found: ItemKey = read_with_table(item)
        return (name, *(found[:-1] if found[-1] == TABLE else found))

    return named


_NAMERS: Mapping[type, Callable[[Any], ItemKey]] = {kind: _namer(kind) for kind in _NAMED_BY}


def key(item: Item) -> ItemKey:
    """Which kernel object an item is, unique within its namespace: the kind and the fields that name the object."""
    return _NAMERS[type(item)](item)


def namespace(items: Iterable[Item]) -> Namespace:
    """Items by key; a later item replaces an earlier one with its key."""
    return {_NAMERS[type(item)](item): item for item in items}


def of_kind(items: Namespace, kind: type[_T]) -> list[_T]:
    """The items of one kind. Told by their keys: a namespace may have ten thousand items, and every pass asks."""
    wanted = kind.__name__
    return [cast(_T, item) for name, item in items.items() if name[0] == wanted]


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Everything that routemesh has, or should have, in one node's kernel: namespace name → items by key."""

    namespaces: Mapping[str, Namespace] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Create:
    """Make `item` in `netns`."""

    netns: str
    item: Item


@dataclass(frozen=True, slots=True)
class Change:
    """Turn `old` into `new`; both have the same key."""

    netns: str
    old: Item
    new: Item


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove `item` from `netns`."""

    netns: str
    item: Item


Op = Create | Change | Delete


def item_of(op: Op) -> Item:
    """What an operation is about; of a change, what it leads to."""
    return op.new if isinstance(op, Change) else op.item


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that the kernel refused (rule 9): the command that repeats it, and why."""

    op: Op
    command: str
    reason: str

    def __str__(self) -> str:
        return f"{self.command}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a node's kernel and tools offer. `kernel` is its release; `iptables` the variant that works there, "" for none."""

    nf_tables: bool
    ip_vs: bool
    kernel: str
    mtu_bytes: int = 1500
    iptables: Literal["nft", "legacy", ""] = ""

    def engine(self, wanted: str) -> str:
        """The engine to use for `auto`, `nftables` or `ipvs`; `auto` is nftables."""
        return "nftables" if wanted == "auto" else wanted
