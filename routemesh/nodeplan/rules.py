"""nftables' tables, chains, maps and elements, and the rules that iptables shares with it."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from routemesh.names import TABLE
from routemesh.nodeplan.fields import theirs

Family = Literal["ip", "ip6", "inet", "arp", "bridge", "netdev"]
OUR_FAMILIES: tuple[Family, ...] = ("ip", "netdev", "bridge")

Field = Literal[
    "iifname", "oifname", "meta l4proto", "meta mark",
    "ip saddr", "ip daddr", "th sport", "th dport", "ether saddr", "ether daddr",
    "ct mark", "ct state", "ct status", "ct direction", "ct original zone", "tcp flags",
    "fib saddr type", "fib daddr type", "arp saddr ether", "arp saddr ip",
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
    """Counts packets and bytes; the numbers are not part of the plan."""


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


RejectWith = Literal[
    "tcp reset", "icmp net-unreachable", "icmp host-unreachable", "icmp prot-unreachable", "icmp port-unreachable",
    "icmp net-prohibited", "icmp host-prohibited", "icmp admin-prohibited",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reject:
    """`reject with tcp reset`, `reject with icmp port-unreachable`; ours are no others."""

    with_: RejectWith


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
class SetTimeouts:
    """`ct timeout set NAME`: a connection that begins with this packet is remembered for as long as CtTimeouts says."""

    name: str


@dataclass(frozen=True, slots=True)
class IpvsMatch:
    """`-m ipvs --ipvs`: the packet belongs to an IPVS connection. iptables only."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A statement outside this vocabulary, as nft's JSON or iptables-save has it. Read only; nothing plans it."""

    json: str


Statement = (
    Match | MarkMatch | InSet | IpvsMatch | Assign | ClampMss | Learn | Counter | Dnat | Snat | Masquerade | Redirect | Reject
    | Verdict | VerdictLookup | SetTimeouts | Unknown
)  # fmt: skip
Rule = tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """An nftables table. Ours is always named `routemesh`, that is how it is known. `dormant`: no packet meets it."""

    family: Family
    name: str = theirs(TABLE)
    dormant: bool = theirs(False)


@dataclass(frozen=True, slots=True)
class CtTimeouts:
    """nft's `ct timeout` object: for how many seconds connection tracking remembers a connection in which no packet comes.

    `seconds`: by the connection's state (close_wait; of UDP unreplied, replied), in the states' order by name; of a state that is
    not there it is nft's default (its src/rule.c). Only a connection that begins takes it up.
    """

    family: Family
    name: str
    protocol: Literal["tcp", "udp"]
    seconds: tuple[tuple[str, int], ...]
    table: str = theirs(TABLE)


KeyType = tuple[Literal["proto", "port", "mark", "index", "mac", "ip", "link"], ...]
"""proto: inet_proto, port: inet_service, mark: mark, index: the number that an Index gives, mac: ether_addr, ip: ipv4_addr,
link: ifname."""


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
"""A map's key part or value: proto str, port/mark/index/zone int, mac and link str, ip IPv4Address, verdict Verdict."""


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
