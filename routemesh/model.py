"""The nouns of the cluster: what people ask for and what was seen of it. PURE.

Vocabulary is SwarmKit's: a Service (spec) is carried out by Tasks (slots), which run on Nodes. `desired`
is written by the manager alone, `status` is what the node's agent observed; states never go backwards.
All values are immutable; a change is a new value (`values.replace`). Times are seconds since the epoch.

Source: moby/swarmkit design/task_model.md, design/nomenclature.md.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Literal, NewType

import msgspec

ServiceId = NewType("ServiceId", str)
NodeId = NewType("NodeId", str)
TaskId = NewType("TaskId", str)
SecretId = NewType("SecretId", str)
NetworkId = NewType("NetworkId", str)

FIRST_FWMARK, LAST_FWMARK = 0x100, 0x7FFF
"""A service has one mark; above them are the marks of ports that differ in their tasks for a while (plan.pools)."""
INGRESS_VNI = 4096
VXLAN_PORT = 4789
VXLAN_OVERHEAD_BYTES = 50
LEAST_UNDERLAY_MTU_BYTES = 576 + VXLAN_OVERHEAD_BYTES
"""What every IPv4 host must accept (RFC 791) has room in a tunnel; an overlay below that would be of no use."""
TASK_HISTORY_PER_SLOT = 5
MAX_HEADER_BYTES = 16 * 1024
"""How large the head of a service's answer may be behind the gateway, unless its label says otherwise."""


class Protocol(StrEnum):
    """Layer-4 protocols that a port can be published for."""

    TCP = "tcp"
    UDP = "udp"


class NetworkKind(StrEnum):
    """What a network is for. `ingress`: published ports lead to it; every node has it, and a cluster has one."""

    INGRESS = "ingress"


class Mode(StrEnum):
    """How many tasks a service has: `replicas` of them, or one on every eligible node."""

    REPLICATED = "replicated"
    GLOBAL = "global"


class Role(StrEnum):
    """What a node may do; only managers compete for the leader's lease."""

    MANAGER = "manager"
    WORKER = "worker"


class Availability(StrEnum):
    """What an operator allows a node: new tasks; only those it has; none."""

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class NodeState(StrEnum):
    """What the manager knows of a node: it renews its lease, or it does not."""

    READY = "ready"
    DOWN = "down"


class TaskState(IntEnum):
    """SwarmKit's task states in their order; from COMPLETE on the task has ended.

    Of an ORPHANED one that is presumed: its node is not heard, and may only have lost its daemon.
    """

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832

    @property
    def ended(self) -> bool:
        """Whether nothing of the task runs any more, as far as the cluster knows."""
        return self >= TaskState.COMPLETE

    @property
    def may_live(self) -> bool:
        """Whether something of the task may run: its end was neither seen nor does it lie before its beginning."""
        return not self.ended or self is TaskState.ORPHANED


class HealthKind(StrEnum):
    """How a task is asked whether it is healthy."""

    CMD = "cmd"
    CMD_SHELL = "cmd-shell"
    HTTP = "http"
    TCP = "tcp"


class RestartCondition(StrEnum):
    """After which exits a slot gets a new task."""

    ANY = "any"
    ON_FAILURE = "on-failure"
    NONE = "none"


class LogDriver(StrEnum):
    """Who keeps a task's output: its node, whatever the first two are called; nobody."""

    LOCAL = "local"
    JSON_FILE = "json-file"
    NONE = "none"


class UpdateOrder(StrEnum):
    """Whether the old task of a slot stops before or after its replacement runs."""

    STOP_FIRST = "stop-first"
    START_FIRST = "start-first"


class ClientIp(StrEnum):
    """What a task sees as peer: the client itself, or (as in Swarm) the node that the client hit."""

    KEEP = "keep"
    SNAT = "snat"


class Scheduler(StrEnum):
    """How new connections are shared out among a service's tasks. Names are IPVS's, see ipvsadm(8); `random` is nftables'."""

    RR = "rr"
    WRR = "wrr"
    LC = "lc"
    WLC = "wlc"
    SH = "sh"
    MH = "mh"
    SED = "sed"
    NQ = "nq"
    RANDOM = "random"


class GatewayDriver(StrEnum):
    """Which program the gateway's tasks run."""

    HAPROXY = "haproxy"
    NGINX = "nginx"


class HttpProtocol(StrEnum):
    """What a task speaks to the gateway: HTTP/1.1, or HTTP/2 without TLS, which gRPC needs."""

    HTTP = "http"
    GRPC = "grpc"


class HttpBalance(StrEnum):
    """How the gateway shares out requests that no stickiness decides."""

    ROUNDROBIN = "roundrobin"
    LEASTCONN = "leastconn"
    RANDOM = "random"


class Sticky(StrEnum):
    """By what the gateway keeps a client with its task: a cookie of the gateway's, its address, or a header that it sends."""

    COOKIE = "cookie"
    SOURCE = "source"
    HEADER = "header"


class Locality(StrEnum):
    """Which tasks a node may lead connections to: all; its own while it has any; only its own."""

    ANY = "any"
    PREFER_LOCAL = "prefer-local"
    LOCAL_ONLY = "local-only"


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """An overlay network: tasks, the nodes' sandboxes and virtual addresses are attached to it.

    `mtu_bytes` 0: what each node's underlay leaves of its MTU.
    """

    id: NetworkId
    name: str
    kind: NetworkKind
    subnet: IPv4Network
    created_at: float
    vni: int = INGRESS_VNI
    mtu_bytes: int = 0
    revision: int = 0


class Attachment(msgspec.Struct, frozen=True):
    """An address on a network: a task's, a node's sandbox's, or a service's virtual one."""

    network_id: NetworkId
    address: IPv4Address


def address_on(attachments: tuple[Attachment, ...], network_id: NetworkId) -> IPv4Address | None:
    """The address on that network; None where nothing is attached to it."""
    for each in attachments:
        if each.network_id == network_id:
            return each.address
    return None


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of a service's tasks: `default`, other ones on some nodes (by name), and others still in some slots.

    A task of weight 0 gets no new connections.
    """

    default: int = 1
    nodes: Mapping[str, int] = msgspec.field(default_factory=dict)
    slots: Mapping[int, int] = msgspec.field(default_factory=dict)

    def of(self, slot: int, node_name: str) -> int:
        """The weight of a task."""
        return self.slots.get(slot, self.nodes.get(node_name, self.default))


class Balancing(msgspec.Struct, frozen=True, kw_only=True):
    """How a service's connections are shared out.

    `affinity_s`: a client stays with its task until it was idle for so long; 0: every connection is shared out.
    """

    scheduler: Scheduler = Scheduler.RR
    affinity_s: int = 0
    weights: Weights = Weights()
    locality: Locality = Locality.ANY


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """One published port: every node's `published` leads to `target` in a task."""

    published: int
    target: int
    protocol: Protocol = Protocol.TCP

    def __str__(self) -> str:
        return f"{self.published}->{self.target}/{self.protocol}"


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How, how often and how patiently a task is probed.

    `command`: argv for CMD, one string for CMD_SHELL; `path` for HTTP; `port` for HTTP and TCP (the target port).
    Defaults of interval, timeout and retries are Docker's.
    """

    kind: HealthKind
    command: tuple[str, ...] = ()
    path: str = "/"
    port: int = 0
    interval_s: float = 30.0
    timeout_s: float = 30.0
    retries: int = 3
    start_period_s: float = 0.0


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a task's output: the last `max_files` files of `max_bytes` each. Defaults are those of Docker's `local`."""

    driver: LogDriver = LogDriver.LOCAL
    max_bytes: int = 20_000_000
    max_files: int = 5


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What follows a task's end. `max_attempts` 0 means no limit; `window_s` 0 counts for ever."""

    condition: RestartCondition = RestartCondition.ANY
    delay_s: float = 5.0
    max_attempts: int = 0
    window_s: float = 0.0


class UpdateConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a service moves to a new spec."""

    order: UpdateOrder = UpdateOrder.STOP_FIRST
    delay_s: float = 0.0


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A header that the gateway adds: to requests on their way to a task, or to responses on their way back."""

    name: str
    value: str
    to_response: bool = False


class Http(msgspec.Struct, frozen=True, kw_only=True):
    """How a service is reached through the gateway: what its labels routemesh.http.* say (labels.http).

    `hosts` are in lower case; `*.example.com` stands for one label more, `*` for every name. `path` is `/` or has no slash at its
    end; it covers itself and all that is below it. `port` is the task's own. `certificate` names a secret, "" means the gateway's
    own; `redirect` sends HTTP to HTTPS; `passthrough` leaves TLS to the task. `health` is a path, "" for no check by the gateway.
    `allow` empty: everybody. `maxconn` 0: no limit per task. `proxy_protocol` 0, 1 or 2: the version sent to tasks.
    """

    hosts: tuple[str, ...]
    port: int
    path: str = "/"
    protocol: HttpProtocol = HttpProtocol.HTTP
    balance: HttpBalance = HttpBalance.ROUNDROBIN
    sticky: Sticky | None = None
    sticky_header: str = ""
    certificate: str = ""
    redirect: bool = False
    passthrough: bool = False
    health: str = ""
    timeout_s: float = 60.0
    maxconn: int = 0
    retries: int = 3
    max_header_bytes: int = MAX_HEADER_BYTES
    compress: bool = False
    allow: tuple[IPv4Network, ...] = ()
    proxy_protocol: int = 0
    headers: tuple[Header, ...] = ()


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """What the tasks of the gateway's service run. Ports are both the published and the tasks' own; `https_port` 0: no TLS.

    Connections from `accept_proxy` must begin with a PROXY protocol header, whose client is believed.
    """

    driver: GatewayDriver = GatewayDriver.HAPROXY
    http_port: int = 80
    https_port: int = 443
    accept_proxy: tuple[IPv4Network, ...] = ()


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for. `environment` is KEY=VALUE strings, as docker's.

    `force` counts the updates that were to replace the tasks though nothing else changed. `http`: how the gateway leads to it;
    `gateway`: set for the gateway's own service, of which there is one at most.
    """

    name: str
    image: str = "host"
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    workdir: str = "/"
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    mode: Mode = Mode.REPLICATED
    replicas: int = 1
    publish: tuple[Publish, ...] = ()
    constraints: tuple[str, ...] = ()
    health: HealthCheck | None = None
    restart: RestartPolicy = RestartPolicy()
    update: UpdateConfig = UpdateConfig()
    stop_signal: str = "SIGTERM"
    stop_grace_s: float = 10.0
    logs: LogConfig = LogConfig()
    client_ip: ClientIp = ClientIp.KEEP
    balancing: Balancing = Balancing()
    http: Http | None = None
    gateway: Gateway | None = None
    force: int = 0

    @property
    def on_overlay(self) -> bool:
        """Whether its tasks are reached through the ingress overlay, and so have an address there."""
        return bool(self.publish) or self.http is not None


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A spec under a name, with what the manager allocated for it.

    `version` counts the specs: a task whose `service_version` is lower and whose spec differs is out of date.
    `vips` (one per network) and `fwmark` are missing until allocated, and for a service that publishes nothing. `mark_port` is
    the published port by which the pool of ports with that very mark is known (plan.pools).
    `error` is why it can't be allocated (an exhausted pool), "" normally.
    """

    id: ServiceId
    spec: ServiceSpec
    version: int
    created_at: float
    updated_at: float
    previous_spec: ServiceSpec | None = None
    vips: tuple[Attachment, ...] = ()
    fwmark: int | None = None
    mark_port: tuple[Protocol, int] | None = None
    error: str = ""
    revision: int = 0

    def vip_on(self, network_id: NetworkId) -> IPv4Address | None:
        """Its virtual address on a network."""
        return address_on(self.vips, network_id)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A proxy does not take the configuration of a service's `version`, for the proxy's own `reason`; it is left out of it."""

    service: ServiceId
    version: int
    reason: str


class ProxyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far one of the gateway's proxies follows: `error` is why it has not the newest configuration, "" if it has."""

    error: str = ""
    refused: tuple[Refusal, ...] = ()


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the node's agent saw last. `healthy` goes False before an unhealthy task is stopped.

    `proxy`: how far one of the gateway's follows; None for other tasks, and until it is known.
    """

    state: TaskState
    at: float
    message: str = ""
    error: str = ""
    exit_code: int | None = None
    pid: int | None = None
    healthy: bool = True
    proxy: ProxyStatus | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One try at one slot of a service. A task never moves and never restarts: its slot gets a new one.

    `slot` counts from 1; 0 in global services, whose slot is the node. `attachments`: to the ingress network when a port or the
    gateway leads to it. `gateway_address` is on its node's docker_gwbridge; `bridge` counts, from 0, the
    bridges that carry this and each overlay there (see plan/bridges.py). `start_after` delays a restart.
    """

    id: TaskId
    service_id: ServiceId
    service_version: int
    spec: ServiceSpec
    slot: int
    desired: TaskState
    status: TaskStatus
    created_at: float
    node_id: NodeId | None = None
    attachments: tuple[Attachment, ...] = ()
    gateway_address: IPv4Address | None = None
    bridge: int = 0
    start_after: float = 0.0
    revision: int = 0

    @property
    def prepared(self) -> bool:
        """Whether its node may make its network: its driver has nothing to prepare, or has done so."""
        return self.status.state not in (TaskState.ACCEPTED, TaskState.PREPARING)

    @property
    def serving(self) -> bool:
        """Whether new connections may go to it (rule 10)."""
        return self.desired == TaskState.RUNNING == self.status.state and self.status.healthy

    def address_on(self, network_id: NetworkId) -> IPv4Address | None:
        """Its address on a network."""
        return address_on(self.attachments, network_id)


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """A process that has a port of the node: what `ss -lntup` shows. `process` is "" when unknown."""

    protocol: Protocol
    port: int
    process: str = ""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of the cluster. `address` is on the underlay; `attachments` are its sandboxes', one per network.

    `api` is the URL of its daemon (unix://PATH). `mtu_bytes` is the underlay's. `failures` are the operations that
    its kernel refused in the last pass, each with its command, and what its daemon's loops are in trouble with (rule 9). `error`
    is why it can't be reached by the others just now, "" normally. `identity` is what its data directory knows it by.
    `lost`: of one that is down, that another node's packets to its sandbox were not answered either. `certified_until`: the end
    of its newest certificate, 0 if it has none, and `signed_by` the name of the root that signed it.
    """

    id: NodeId
    name: str
    address: IPv4Address
    role: Role = Role.MANAGER
    availability: Availability = Availability.ACTIVE
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    state: NodeState = NodeState.READY
    engine: str = "nftables"
    mtu_bytes: int = 1500
    api: str = ""
    attachments: tuple[Attachment, ...] = ()
    listeners: tuple[Listener, ...] = ()
    failures: tuple[str, ...] = ()
    error: str = ""
    identity: str = ""
    lost: bool = False
    certified_until: float = 0.0
    signed_by: str = ""
    created_at: float = 0.0
    revision: int = 0

    @property
    def reachable(self) -> bool:
        """Whether others may lead connections to it."""
        return self.state is NodeState.READY and not self.error

    def sandbox_on(self, network_id: NetworkId) -> IPv4Address | None:
        """Its sandbox's address on a network; None until the manager has allocated it."""
        return address_on(self.attachments, network_id)


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """What all nodes share. `ingress_id`: the network that every node has; `gwbridge_subnet`: each node's own docker_gwbridge."""

    id: str
    ingress_id: NetworkId
    created_at: float
    gwbridge_subnet: IPv4Network = IPv4Network("172.18.0.0/16")
    vxlan_port: int = VXLAN_PORT
    revision: int = 0


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """By what the nodes of a cluster that others can join know one another; texts are PEM. `cluster`: its id.

    `roots`: the certificates that all believe, the one that signs first. `key`: that one's; `bridge`: the first root as the last
    one signs it, while there are two. `tokens`: the secrets by which one joins. Key and tokens are the managers' alone.
    `one_manager`: their store is a file of one machine.
    """

    cluster: str
    roots: tuple[str, ...]
    key: str = ""
    bridge: str = ""
    tokens: Mapping[Role, str] = msgspec.field(default_factory=dict)
    one_manager: bool = True
    revision: int = 0

    def __repr__(self) -> str:
        return f"Trust(cluster={self.cluster!r}, one_manager={self.one_manager!r}, revision={self.revision!r})"


Amiss = Literal["early", "expired", "soon", "name"]
"""It is not valid yet; it has expired; it will soon; it is for other names. All but `soon` are refused by clients now."""


class CertificateWarning(msgspec.Struct, frozen=True):
    """What is amiss with a service's certificate, and in words."""

    amiss: Amiss
    text: str


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the cluster keeps for its services, under a name: a certificate with its key, in PEM. `data` is secret."""

    id: SecretId
    name: str
    created_at: float
    data: bytes
    revision: int = 0

    def __repr__(self) -> str:
        return f"Secret(id={self.id!r}, name={self.name!r}, created_at={self.created_at!r}, revision={self.revision!r})"


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that lapses when it was not renewed for `ttl_s`: `node/<id>` (value: the revision it has applied), `leader`."""

    name: str
    holder: str
    ttl_s: float
    value: int = 0


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cluster at one revision. Treat the mappings as immutable. `trust`: None where nobody can join by network."""

    revision: int = 0
    cluster: Cluster | None = None
    nodes: Mapping[NodeId, Node] = msgspec.field(default_factory=dict)
    services: Mapping[ServiceId, Service] = msgspec.field(default_factory=dict)
    tasks: Mapping[TaskId, Task] = msgspec.field(default_factory=dict)
    secrets: Mapping[SecretId, Secret] = msgspec.field(default_factory=dict)
    networks: Mapping[NetworkId, Network] = msgspec.field(default_factory=dict)
    trust: Trust | None = None

    @property
    def ingress(self) -> Network | None:
        """The ingress network; None before there is a cluster."""
        return None if self.cluster is None else self.networks.get(self.cluster.ingress_id)

    def on_ingress(self, attachments: tuple[Attachment, ...]) -> IPv4Address | None:
        """Which of a task's, a node's or a service's addresses is on the ingress network."""
        return None if self.cluster is None else address_on(attachments, self.cluster.ingress_id)
