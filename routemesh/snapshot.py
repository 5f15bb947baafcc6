"""The nouns of observed state: everything that was in the kernels of a cluster's nodes at one time, ours or not. PURE.

A NodeSnapshot is for reading what a NodePlan is for wanting, in the same nouns (rule 2), but nothing is left out that can decide
about a packet: foreign tables, dynamic neighbours, routes that came with addresses, connections. What could not be read is
named in `unread`, with what can't be told without it; nobody may take it for absent.

Made by sight.observe on a node, and from the engine's API or a recording for a Docker Swarm. Read by walk, explain, doctor.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from ipaddress import IPv4Address, IPv4Network
from typing import Literal, NamedTuple, TypeVar

import msgspec

from routemesh.model import Protocol
from routemesh.nodeplan import HOST, Item

ANY_ADDRESS = IPv4Address("0.0.0.0")


class Place(NamedTuple):
    """A namespace of a node; `netns` "" is the node's own. Outside the cluster both are ""."""

    node: str
    netns: str

    def __str__(self) -> str:
        return "/".join(part for part in self if part) or "outside"


OUTSIDE = Place("", "")

# --- connections and sockets -------------------------------------------------------------------------------------


class Endpoint(NamedTuple):
    """One end of a connection."""

    address: IPv4Address
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


def endpoint(text: str) -> Endpoint:
    """What an Endpoint is as text. Raises ValueError."""
    address, _, port = text.rpartition(":")
    return Endpoint(IPv4Address(address), int(port))


class Flow(NamedTuple):
    """One direction of a connection."""

    protocol: Protocol
    source: Endpoint
    destination: Endpoint

    def reversed(self) -> "Flow":
        """The flow of what answers this one."""
        return Flow(self.protocol, self.destination, self.source)


class ConntrackEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A TCP or UDP connection that a namespace tracks: how its packets come in, in both directions.

    `zone` is the zone of the original direction, `reply_zone` of the other (0: the usual one). `status` holds the flags of
    `ct status` (seen-reply, assured, confirmed, snat, dnat, dying, offload). `state` is TCP's (ESTABLISHED …), "" for UDP.
    """

    original: Flow
    reply: Flow
    zone: int = 0
    reply_zone: int = 0
    mark: int = 0
    status: frozenset[str] = frozenset()
    state: str = ""
    timeout_s: int | None = None

    @property
    def replied(self) -> bool:
        """Whether an answer was seen."""
        return "seen-reply" in self.status


class Led(NamedTuple):
    """So many connections that asked for a port have been led to a server."""

    protocol: Protocol
    port: int
    server: IPv4Address
    number: int


_OVER = frozenset({"TIME_WAIT", "CLOSE", "LAST_ACK", "FIN_WAIT"})


def led(entries: Iterable[ConntrackEntry]) -> tuple[Led, ...]:
    """Where connections that go on have been led, but for those that go where they asked to."""
    count = Counter(
        (entry.original.protocol, entry.original.destination.port, entry.reply.source.address)
        for entry in entries
        if entry.state not in _OVER and entry.reply.source.address != entry.original.destination.address
    )
    return tuple(Led(*of, number) for of, number in count.items())


class Connections(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the connections that a namespace tracks are told: all, those that asked for one of `ports`, or those from
    `client_port`; with that it is told of a sandbox how many of all are led where (NamespaceSnapshot.led)."""

    ports: Set[tuple[Protocol, int]] | None = None
    client_port: int | None = None


class Socket(msgspec.Struct, frozen=True, kw_only=True):
    """A process that listens on a TCP port or is bound to a UDP port. `address` 0.0.0.0: on all addresses.

    An IPv6 socket that takes IPv4 too counts as 0.0.0.0. `process` is "" and `pid` 0 when unknown. `queued`: connections that the
    kernel has accepted and the process has not, of TCP, out of `backlog` (0: not known). `stopped`: the process is (state T).
    """

    protocol: Protocol
    address: IPv4Address
    port: int
    process: str = ""
    pid: int = 0
    queued: int = 0
    backlog: int = 0
    stopped: bool = False


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process waits for others than those who ask: another address or port, or IPv6 alone. `process` "": not known."""

    protocol: Protocol
    address: str
    port: int
    process: str = ""

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port} for IPv6 alone" if ":" in self.address else f"{self.address}:{self.port}"


_MOST_INSTEAD = 4


def bound_instead(
    sockets: Iterable[Socket], ipv6: Iterable[Bound], protocol: Protocol, port: int, *, any_port: bool
) -> tuple[Bound, ...]:
    """Where processes wait though none takes what comes to a port: for that port if any do, else, if `any_port`, for others."""
    ipv4 = (Bound(protocol=each.protocol, address=str(each.address), port=each.port, process=each.process) for each in sockets)
    every = sorted({each for each in (*ipv4, *ipv6) if each.protocol is protocol}, key=lambda each: (each.port, each.address))
    same = [each for each in every if each.port == port]
    return tuple(same or (every if any_port else ()))[:_MOST_INSTEAD]


IpsecDirection = Literal["in", "out", "fwd"]


class IpsecPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become of packets for or from a network by IPsec (ip-xfrm(8)); the lowest `priority` that fits decides.

    `protocol` is IP's number (0: any), a port or the mark has only the bits of its mask. `blocks`: they are dropped.
    `transforms`: they are to be encrypted, or to have been.
    """

    direction: IpsecDirection
    source: IPv4Network
    destination: IPv4Network
    protocol: int = 0
    port: int = 0
    port_mask: int = 0
    source_port: int = 0
    source_port_mask: int = 0
    mark: int = 0
    mark_mask: int = 0
    priority: int = 0
    blocks: bool = False
    transforms: bool = False


# --- a node ------------------------------------------------------------------------------------------------------


Part = Literal[
    "all", "links", "routes", "rules", "neighbours", "fdb", "settings", "filters", "balancing", "connections", "sockets",
    "timers", "name",
]  # fmt: skip
"""What of a namespace was not read. `filters`: nftables and iptables, `balancing`: IPVS. No way depends on the last two:
timers, and the node's own name and address."""


class Unread(msgspec.Struct, frozen=True):
    """Something that could not be read: `what` (a file or a command), why, and what can't be told without it.

    A question that needs that `part` of the namespace can't be answered.
    """

    what: str
    reason: str
    loses: str
    part: Part = "all"

    def __str__(self) -> str:
        return f"{self.what} can't be read ({self.reason}); without it {self.loses} can't be told"


ItemType = TypeVar("ItemType")


class NamespaceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in one network namespace. `path`: the file by which it can be entered, "" for the node's own.

    `items` are nodeplan's nouns: links with lo, addresses, all routes of all tables, all routing rules (of IPv4), neighbours and
    FDB entries with the dynamic ones, sysctls, nftables of every family, XtChains of every table (with the empty built-in ones
    whose policy is not ACCEPT), IPVS. A table that iptables-nft keeps is there as XtChains only. A rule of others in a built-in
    chain is part of the chain: there are no XtRules. Sysctls: see SYSCTLS.

    `only_ipv6`: processes that wait for IPv6 alone. `ipsec`: policies; none of a recording.

    `led`: of a sandbox whose connections are not all told, where they are led, else None. None for `conntrack`,
    `conntrack_count`, `conntrack_max` or `sockets`: not known, as `unread` says; not: none.
    """

    path: str
    items: tuple[Item, ...] = ()
    conntrack: tuple[ConntrackEntry, ...] | None = None
    led: tuple[Led, ...] | None = None
    conntrack_count: int | None = None
    conntrack_max: int | None = None
    sockets: tuple[Socket, ...] | None = None
    only_ipv6: tuple[Bound, ...] = ()
    ipsec: tuple[IpsecPolicy, ...] = ()
    unread: tuple[Unread, ...] = ()

    def of(self, kind: type[ItemType]) -> Iterator[ItemType]:
        """The items of one kind."""
        return (item for item in self.items if isinstance(item, kind))


SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "net/ipv4/tcp_max_tw_buckets",
    "net/ipv4/vs/conntrack",
    "net/ipv4/vs/conn_reuse_mode",
    "net/ipv4/vs/expire_nodest_conn",
    "net/ipv4/vs/expire_quiescent_template",
    "net/ipv4/vs/snat_reroute",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
)
"""Of these settings a snapshot tells the value, where the kernel has them …"""

LINK_SYSCTLS = (
    "forwarding", "rp_filter", "route_localnet", "accept_local", "proxy_arp", "arp_ignore", "arp_filter", "src_valid_mark",
)  # fmt: skip
"""… and of these below net/ipv4/conf/all, …/default and …/LINK for every link."""


class NodeSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One node. `addresses` are its own on the underlay, the advertised one first, on the link `device` of its own namespace.

    `namespaces` by name, HOST ("") the node's own; the others are those of the mesh: sandbox, overlays, tasks. A veth's Peer
    names them so. `iptables`: the variant that works there, "" for none. `at`: seconds since the epoch, 0 when unknown.
    """

    name: str
    kind: Literal["routemesh", "swarm"]
    engine: str
    addresses: tuple[IPv4Address, ...]
    device: str
    namespaces: Mapping[str, NamespaceSnapshot]
    kernel: str = ""
    iptables: Literal["nft", "legacy", ""] = ""
    at: float = 0.0
    unread: tuple[Unread, ...] = ()

    @property
    def host(self) -> NamespaceSnapshot:
        """The node's own namespace; an empty one where it was not read."""
        return self.namespaces.get(HOST, _NOTHING)


_NOTHING = NamespaceSnapshot(path="")

# --- the cluster -------------------------------------------------------------------------------------------------


class NamedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node as the manager knows it. `address` is its underlay's, `ingress_address` its sandbox's on the ingress overlay.

    `absent`: why there is no snapshot of it (it is down, its daemon does not answer), "" where there is one.
    """

    name: str
    id: str = ""
    address: IPv4Address | None = None
    ingress_address: IPv4Address | None = None
    ready: bool = True
    absent: str = ""


class NamedPort(msgspec.Struct, frozen=True, kw_only=True):
    """A published port; `host`: of the task's own node only, past the mesh (Swarm's mode=host)."""

    protocol: Protocol
    published: int
    target: int
    host: bool = False


class NamedService(msgspec.Struct, frozen=True, kw_only=True):
    """A service. `vips` by network id; `marks` by node name, where "" is for all nodes that are not named.

    `answering`: the nodes that may lead to its tasks, where it is not for all of them (None) to do so. `checked`: whether a
    health check keeps connections from tasks that do not answer; None where that is not known.
    """

    name: str
    id: str = ""
    vips: Mapping[str, IPv4Address] = msgspec.field(default_factory=dict)
    ports: tuple[NamedPort, ...] = ()
    marks: Mapping[str, int] = msgspec.field(default_factory=dict)
    scheduler: str = "rr"
    keeps_client: bool = False
    answering: tuple[str, ...] | None = None
    checked: bool | None = None

    def answers_on(self, node: str) -> bool:
        """Whether its ports are to be answered through a node."""
        return self.answering is None or node in self.answering

    def mark_on(self, node: str) -> int | None:
        """Its firewall mark on a node."""
        return self.marks.get(node, self.marks.get(""))


class NamedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that has not ended. `netns` is its namespace on its node, "" when unknown or none.

    `addresses` by network id; `gateway_address` on docker_gwbridge. `state` is SwarmKit's word (running, starting …); `serving`:
    connections may go to it. `healthy` False: its health check failed. `note` says why it serves not (the error), or "".
    """

    name: str
    id: str = ""
    service: str = ""
    node: str = ""
    netns: str = ""
    addresses: Mapping[str, IPv4Address] = msgspec.field(default_factory=dict)
    gateway_address: IPv4Address | None = None
    state: str = "running"
    serving: bool = True
    note: str = ""
    healthy: bool = True


class NamedNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A network. `netns`: the namespace of an overlay's bridge and tunnel; "" for docker_gwbridge.

    `mtu_bytes`: of the network below it, as it was made for; 0: what its engine takes by itself.
    """

    name: str
    id: str = ""
    subnet: IPv4Network | None = None
    vni: int = 0
    netns: str = ""
    mtu_bytes: int = 0


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """What the manager knows, by which numbers and addresses get their names. Empty where no manager could be asked."""

    nodes: tuple[NamedNode, ...] = ()
    services: tuple[NamedService, ...] = ()
    tasks: tuple[NamedTask, ...] = ()
    networks: tuple[NamedNetwork, ...] = ()


class ClusterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All nodes that could be read, by name, and the manager's names. A node that is in `names.nodes` alone was not read.

    `unread`: what was missing for the cluster as a whole.
    """

    nodes: Mapping[str, NodeSnapshot]
    names: Names = Names()
    unread: tuple[Unread, ...] = ()
