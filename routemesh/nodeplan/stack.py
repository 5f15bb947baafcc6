"""Namespaces, links, addresses, routes, neighbours: what is there before any rule."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal

import msgspec

from routemesh.nodeplan.fields import Theirs
from routemesh.values import replace

HOST = ""
ROUTE_PROTOCOL = 82
"""Our number in rtm_protocol, the rule's and the neighbour's protocol: how we recognise them (rule 5). 82 is 'R'."""


KERNEL_PROTOCOL = 2
"""RTPROT_KERNEL: what the kernel makes by itself, along with an address or a namespace."""
LOOPBACK = "lo"


class Netns(msgspec.Struct, frozen=True):
    """A network namespace of ours; an item of HOST's."""

    name: str


class Peer(msgspec.Struct, frozen=True):
    """The other end of a veth: which namespace it is in and what it is called there."""

    netns: str
    link: str


class Vxlan(msgspec.Struct, frozen=True):
    """A VXLAN tunnel whose underlay socket is in the node's own namespace.

    `local` 0.0.0.0: sends from the address that the route prefers. `learning`: it notes behind which tunnel end a MAC was seen;
    `proxy`: it answers ARP from its neighbours.
    """

    vni: int
    local: IPv4Address
    port: int
    learning: Theirs[bool] = False
    proxy: Theirs[bool] = True


LinkKind = Literal["bridge", "veth", "vxlan", "loopback", "other"]
"""`other`: whatever leads out of what can be seen, as a network card does. Ours are the first three."""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network device, up. `mac` None: whatever the kernel gave it.

    A veth is two Links, one in each namespace, each naming the other as `peer` (None: it is in a namespace that we can't see).
    `master` is a bridge in the same namespace; `flood` is the bridge port's flag for unknown destinations (True where there is
    no master); `learning`: the port notes which MACs it saw. An `isolated` port reaches the bridge itself and no other isolated
    port (False where there is no master). `vxlan` is set for kind vxlan. `carrier` False: what the link leads to is off; `odd`:
    a setting by which it does something else than others of its kind. A plan has none of that. Every link of ours carries the
    alias `routemesh`.
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
    learning: Theirs[bool] = False
    carrier: Theirs[bool] = True
    odd: Theirs[str] = ""


class Sysctl(msgspec.Struct, frozen=True):
    """A kernel setting of one namespace, by its path below /proc/sys: net/ipv4/ip_forward."""

    path: str
    value: str


class Address(msgspec.Struct, frozen=True):
    """An IPv4 address on a link."""

    link: str
    address: IPv4Interface


RouteKind = Literal[
    "unicast", "local", "broadcast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "unknown"
]  # fmt: skip
"""As ip-route(8) has it; `unknown`: with several next hops, or one that is not an IPv4 address."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A route. Ours (protocol ROUTE_PROTOCOL) go via a next hop; those that come with an address are KERNEL_PROTOCOL's.

    `via` None: the destination is on the link. `source`: the address that a socket bound to none takes when it sends this way;
    None leaves it to the kernel. `link` is "" for kinds without one. `protocol` is rtm_protocol.
    """

    destination: IPv4Network
    via: IPv4Address | None
    link: str
    table: int = 254
    source: IPv4Address | None = None
    metric: Theirs[int] = 0
    kind: RouteKind = "unicast"
    protocol: int = ROUTE_PROTOCOL


class RoutingRule(msgspec.Struct, frozen=True, kw_only=True):
    """`ip rule add fwmark MARK/MASK lookup TABLE pref PRIORITY`; mask 0: whatever the mark.

    Ours have no more than that. `protocol` is KERNEL_PROTOCOL for the three that every namespace begins with. `source`,
    `destination`, `iif`, `oif`: which packets it is for (None, "": all); `negate`: for all but those. `action` other than lookup
    needs no table. `unknown`: conditions that have no place here, as attribute numbers.
    """

    priority: int
    fwmark: int
    mask: int
    table: int
    protocol: int = ROUTE_PROTOCOL
    source: Theirs[IPv4Network | None] = None
    destination: Theirs[IPv4Network | None] = None
    iif: Theirs[str] = ""
    oif: Theirs[str] = ""
    negate: Theirs[bool] = False
    action: Theirs[Literal["lookup", "blackhole", "unreachable", "prohibit", "unknown"]] = "lookup"
    unknown: Theirs[tuple[int, ...]] = ()


LOCAL_TABLE, MAIN_TABLE, _DEFAULT_TABLE = 255, 254, 253
FIRST_RULES = tuple(
    RoutingRule(priority=priority, fwmark=0, mask=0, table=table, protocol=KERNEL_PROTOCOL)
    for priority, table in ((0, LOCAL_TABLE), (32766, MAIN_TABLE), (32767, _DEFAULT_TABLE))
)
"""Those that every namespace begins with. Source: fib_rules.c (fib_default_rules_init)."""


def first_or_same(rule: RoutingRule) -> RoutingRule:
    """A rule that every namespace begins with as the kernel's own, whoever has put it back; any other as it is."""
    first = replace(rule, protocol=KERNEL_PROTOCOL)
    return first if first in FIRST_RULES else rule


NeighbourState = Literal["permanent", "noarp", "reachable", "stale", "delay", "probe", "failed", "incomplete"]


class Neighbour(msgspec.Struct, frozen=True):
    """An ARP entry; ours are permanent. `mac` is "" where it is failed or incomplete."""

    link: str
    ip: IPv4Address
    mac: str
    state: Theirs[NeighbourState] = "permanent"


class FdbEntry(msgspec.Struct, frozen=True):
    """Where a MAC is: behind tunnel end `dst` of a vxlan device (self permanent), or on a bridge port (master static).

    `learned`: seen by the device itself, which forgets it again. `local`: frames to it are the bridge's own (master permanent).
    """

    link: str
    mac: str
    dst: IPv4Address | None = None
    kind: Theirs[Literal["static", "learned", "local"]] = "static"
