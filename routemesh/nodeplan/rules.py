"""nftables' tables, chains, maps and elements, and the rules that iptables shares with it."""

from ipaddress import IPv4Address
from typing import Literal

import msgspec

from routemesh.names import TABLE
from routemesh.nodeplan.fields import Theirs

Family = Literal["ip", "ip6", "inet", "arp", "bridge", "netdev"]
OUR_FAMILIES: tuple[Family, ...] = ("ip", "netdev", "bridge")

Field = Literal[
    "iifname", "oifname", "meta l4proto", "meta mark",
    "ip saddr", "ip daddr", "th sport", "th dport", "ether saddr", "ether daddr",
    "ct mark", "ct state", "ct status", "ct direction", "ct original zone", "tcp flags",
    "fib saddr type", "fib daddr type", "arp saddr ether", "arp saddr ip",
]  # fmt: skip


class Numgen(msgspec.Struct, frozen=True):
    """`numgen inc mod N`: 0, 1 … N-1, 0 …; the counter belongs to the rule and starts anew with it. `random`: any of them."""

    modulus: int
    mode: Literal["inc", "random"] = "inc"


class Jhash(msgspec.Struct, frozen=True, kw_only=True):
    """`jhash FIELD mod N seed S`: a number below N, always the same for the same value of the field."""

    field: Field
    modulus: int
    seed: int


Index = Numgen | Jhash
Key = tuple[Field | Index, ...]
"""What a map or set is asked with: one expression or a concatenation."""


class Lookup(msgspec.Struct, frozen=True):
    """`KEY map @NAME`: the value for the key; without an entry the rule ends without effect."""

    key: Key
    map: str


class Match(msgspec.Struct, frozen=True):
    """`FIELD VALUE` or `FIELD != VALUE`. `value` as nft prints it: eth0, tcp, local, 10.0.0.0/24, established,related, dnat."""

    field: Field
    value: str
    negate: bool = False


class MarkMatch(msgspec.Struct, frozen=True):
    """`meta mark & MASK == VALUE`, or ct mark."""

    field: Literal["meta mark", "ct mark"]
    value: int
    mask: int


class InSet(msgspec.Struct, frozen=True):
    """`KEY @SET`: goes on when the set holds the key."""

    key: Key
    set: str


class Assign(msgspec.Struct, frozen=True):
    """`FIELD set VALUE`: a number, another field, or a map's value."""

    field: Literal["meta mark", "ct mark", "ct original zone", "ether daddr"]
    value: int | Field | Lookup


class ClampMss(msgspec.Struct, frozen=True):
    """`tcp option maxseg size set BYTES`: lowers a SYN's MSS, never raises it (net/netfilter/nft_exthdr.c)."""

    bytes: int


class Learn(msgspec.Struct, frozen=True, kw_only=True):
    """`update @MAP { KEY timeout T : VALUE }`: the map remembers the value until it was not asked to for so long.

    An entry that is there keeps its value (net/netfilter/nft_set_hash.c, nft_rhash_update). When the map is full the rule ends.
    """

    map: str
    key: Key
    value: Field
    timeout_s: int


class Counter(msgspec.Struct, frozen=True):
    """Counts packets and bytes; the numbers are not part of the plan."""


class Dnat(msgspec.Struct, frozen=True):
    """`dnat to ADDRESS[:PORT]`; without a port it stays, with one (iptables only) it may be another."""

    to: IPv4Address | Lookup
    port: int | None = None


class Snat(msgspec.Struct, frozen=True):
    """`snat to ADDRESS`."""

    to: IPv4Address


class Masquerade(msgspec.Struct, frozen=True):
    """`masquerade`."""


class Redirect(msgspec.Struct, frozen=True):
    """`redirect to :PORT`; nftables takes the port from a map, iptables has a rule per port."""

    to: int | Lookup


RejectWith = Literal[
    "tcp reset", "icmp net-unreachable", "icmp host-unreachable", "icmp prot-unreachable", "icmp port-unreachable",
    "icmp net-prohibited", "icmp host-prohibited", "icmp admin-prohibited",
]  # fmt: skip


class Reject(msgspec.Struct, frozen=True):
    """`reject with tcp reset`, `reject with icmp port-unreachable`; ours are no others."""

    with_: RejectWith


class Verdict(msgspec.Struct, frozen=True):
    """accept, drop, return, or jump/goto a chain."""

    kind: Literal["accept", "drop", "return", "jump", "goto"]
    chain: str = ""


class VerdictLookup(msgspec.Struct, frozen=True):
    """`KEY vmap @MAP`: the verdict for the key; without an entry the next rule follows."""

    key: Key
    map: str


class SetTimeouts(msgspec.Struct, frozen=True):
    """`ct timeout set NAME`: a connection that begins with this packet is remembered for as long as CtTimeouts says."""

    name: str


class IpvsMatch(msgspec.Struct, frozen=True):
    """`-m ipvs --ipvs`: the packet belongs to an IPVS connection. iptables only."""


class Unknown(msgspec.Struct, frozen=True):
    """A statement outside this vocabulary, as nft's JSON or iptables-save has it. Read only; nothing plans it."""

    json: str


Statement = (
    Match | MarkMatch | InSet | IpvsMatch | Assign | ClampMss | Learn | Counter | Dnat | Snat | Masquerade | Redirect | Reject
    | Verdict | VerdictLookup | SetTimeouts | Unknown
)  # fmt: skip
Rule = tuple[Statement, ...]


class Table(msgspec.Struct, frozen=True):
    """An nftables table. Ours is always named `routemesh`, that is how it is known. `dormant`: no packet meets it."""

    family: Family
    name: Theirs[str] = TABLE
    dormant: Theirs[bool] = False


class CtTimeouts(msgspec.Struct, frozen=True):
    """nft's `ct timeout` object: for how many seconds connection tracking remembers a connection in which no packet comes.

    `seconds`: by the connection's state (close_wait; of UDP unreplied, replied), in the states' order by name; of a state that is
    not there it is nft's default (its src/rule.c). Only a connection that begins takes it up.
    """

    family: Family
    name: str
    protocol: Literal["tcp", "udp"]
    seconds: tuple[tuple[str, int], ...]
    table: Theirs[str] = TABLE


KeyType = tuple[Literal["proto", "port", "mark", "index", "mac", "ip", "link"], ...]
"""proto: inet_proto, port: inet_service, mark: mark, index: the number that an Index gives, mac: ether_addr, ip: ipv4_addr,
link: ifname."""


class Map(msgspec.Struct, frozen=True):
    """A named map (`value`: ip, mark, port, mac, zone, verdict) or a named set (`value` None).

    `learns`: what Learn adds to it, up to so many entries, is the kernel's own: no part of the plan, and left out by `read`.
    `listed`: what it holds in nft's JSON, where that is more than Elements can say (intervals, other types).
    """

    family: Family
    name: str
    key: KeyType
    value: Literal["ip", "mark", "port", "mac", "zone", "verdict"] | None = None
    table: Theirs[str] = TABLE
    learns: int = 0
    listed: Theirs[str] = ""


Scalar = str | int | IPv4Address
"""A map's key part or value: proto str, port/mark/index/zone int, mac and link str, ip IPv4Address, verdict Verdict."""


class Element(msgspec.Struct, frozen=True):
    """One entry of a map, or of a set (`value` None)."""

    family: Family
    map: str
    key: tuple[Scalar, ...]
    value: Scalar | Verdict | None = None
    table: Theirs[str] = TABLE


class Hook(msgspec.Struct, frozen=True):
    """Where a base chain sits. `device` for chains of one device only, several are separated by commas."""

    type: Literal["filter", "nat", "route"]
    hook: Literal["ingress", "prerouting", "input", "forward", "output", "postrouting", "egress"]
    priority: int
    device: str | None = None


class Chain(msgspec.Struct, frozen=True):
    """A chain with all its rules, in order: rules have no names, so a chain is replaced whole.

    `policy` is what becomes of a packet that no rule of a base chain has decided about; ours all accept. `handles`: the rules'
    numbers, by which nft deletes one, where they are not ours.
    """

    family: Family
    name: str
    hook: Hook | None = None
    rules: tuple[Rule, ...] = ()
    policy: Theirs[Literal["accept", "drop"]] = "accept"
    table: Theirs[str] = TABLE
    handles: Theirs[tuple[int, ...]] = ()
