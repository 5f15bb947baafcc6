"""Random clusters, their plans as a network that can be walked, and the connections that people may try in it."""

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from typing import NamedTuple

from hypothesis import strategies as st

from routemesh import names
from routemesh.model import (
    Attachment,
    Balancing,
    ClientIp,
    Cluster,
    Locality,
    NetworkId,
    NetworkKind,
    Node,
    NodeId,
    NodeState,
    Protocol,
    Publish,
    Service,
    ServiceId,
    ServiceSpec,
    State,
    Task,
    TaskId,
    TaskState,
    TaskStatus,
    Weights,
)
from routemesh.model import Network as OverlayNetwork
from routemesh.nodeplan import HOST, Capabilities, Item, NodePlan, namespace
from routemesh.plan import plan
from routemesh.plan.engines import ipvs
from routemesh.plan.view import view
from routemesh.values import replace
from routemesh.walk import OUTSIDE, Endpoint, Host, Network, Packet, Place, Walk, walk

CAPABILITIES = Capabilities(nf_tables=True, ip_vs=True, kernel="6.1", iptables="legacy", links=("eth0",), forwards=True)
INGRESS = OverlayNetwork(
    id=NetworkId("po75a2uo3pxkz0"),
    name="ingress",
    kind=NetworkKind.INGRESS,
    subnet=IPv4Network("10.0.0.0/24"),
    created_at=0.0,
)
CLUSTER = Cluster(id="cluster", ingress_id=INGRESS.id, created_at=0.0)
CLIENT = IPv4Address("192.168.200.100")
FIRST_NODE = IPv4Address("192.168.200.10")
GATEWAY = CLUSTER.gwbridge_subnet[1]
LOOPBACK = IPv4Address("127.0.0.1")
SOURCE_PORT = 40000
PORTS = tuple((protocol, port) for port in (53, 80, 8080) for protocol in Protocol)
TARGETS = (53, 80, 9000)

SYSCTLS = {f"net/ipv4/conf/{link}/rp_filter": "1" for link in ("all", "eth0", "eth1")}
"""What many distributions set; the plan must not count on the kernel's own default."""


class Addresses:
    """Hands out addresses one by one."""

    def __init__(self, first: IPv4Address) -> None:
        self.next = first

    def take(self) -> IPv4Address:
        self.next += 1
        return self.next - 1


# --- random states ------------------------------------------------------------------------------------------------

node_kinds = st.sampled_from(["up"] * 4 + ["down", "no address"])
port_draws = st.tuples(st.sampled_from([None, *range(12)]), st.sampled_from(TARGETS))
task_states = st.sampled_from(
    [TaskState.RUNNING] * 8 + [TaskState.PENDING, TaskState.READY, TaskState.STARTING, TaskState.COMPLETE, TaskState.FAILED]
)
desires = st.sampled_from([TaskState.RUNNING] * 5 + [TaskState.SHUTDOWN])
healths = st.sampled_from([True] * 5 + [False])
weight_draws = st.lists(st.sampled_from([1, 1, 1, 0, 2, 3]), min_size=12, max_size=12)
balancings = st.builds(
    lambda scheduler, weights, locality: Balancing(
        scheduler=scheduler, weights=Weights(slots=dict(enumerate(weights, start=1))), locality=locality
    ),
    st.sampled_from(sorted(ipvs.SCHEDULERS)),
    weight_draws,
    st.sampled_from([Locality.ANY, *Locality]),
)
task_draws = st.tuples(st.integers(0, 11), st.integers(0, 4), task_states, desires, healths, st.booleans())


@st.composite
def states(
    draw: st.DrawFn,
    *,
    engines: tuple[str, ...] = ("nftables",),
    balanced: bool = False,
    old_client_ip: Callable[[ClientIp], ClientIp] = lambda new: new,
) -> State:
    """Up to five nodes, six services and twelve tasks, in whatever condition; an ended task's address goes to another.

    `engines`: each node has one of these. `balanced`: otherwise than in turn, too. `old_client_ip`: what tasks of an older spec
    have where the service now has the argument.
    """
    ingress = Addresses(INGRESS.subnet[2])
    kinds = draw(st.lists(st.tuples(node_kinds, st.sampled_from(engines)), min_size=1, max_size=5))
    nodes = {made.id: made for number, kind in enumerate(kinds) for made in [node(number, *kind, ingress)]}
    owners = draw(st.lists(port_draws, min_size=len(PORTS), max_size=len(PORTS)))
    client_ips = draw(st.lists(st.sampled_from(ClientIp), min_size=1, max_size=6))
    services = [service(number, len(client_ips), owners, client_ip, ingress) for number, client_ip in enumerate(client_ips)]
    if balanced:
        services = [replace(of, spec=replace(of.spec, balancing=draw(balancings))) for of in services]
    gateways = {name: Addresses(CLUSTER.gwbridge_subnet[3]) for name in nodes}
    tasks = []
    lives = draw(st.lists(task_draws, min_size=draw(st.sampled_from([0, 6])), max_size=12))
    for slot, (owner, place, state, desired, healthy, outdated) in enumerate(lives, start=1):
        status = TaskStatus(state=state, at=0.0, healthy=healthy)
        of = services[owner % len(services)]
        made = task(slot, older(of, old_client_ip) if outdated else of, status, desired=desired)
        home = list(nodes)[place % len(nodes)]
        tasks.append(
            placed(replace(made, bridge=slot % 3), home, ingress, gateways[home]) if state >= TaskState.ASSIGNED else made
        )
    return State(
        cluster=CLUSTER,
        nodes=nodes,
        services={service.id: service for service in services},
        tasks={task.id: task for task in tasks},
        networks={INGRESS.id: INGRESS},
    )


def attached(address: IPv4Address | None) -> tuple[Attachment, ...]:
    return () if address is None else (Attachment(INGRESS.id, address),)


def node(number: int, kind: str, engine: str, ingress: Addresses) -> Node:
    name = NodeId(f"node{number}")
    state = NodeState.DOWN if kind == "down" else NodeState.READY
    address = None if kind == "no address" else ingress.take()
    return Node(id=name, name=name, address=FIRST_NODE + number, state=state, attachments=attached(address), engine=engine)


def service(
    number: int, services: int, owners: Sequence[tuple[int | None, int]], client_ip: ClientIp, ingress: Addresses
) -> Service:
    """One of so many services, with those of PORTS that it owns, each with its target."""
    publish = tuple(
        Publish(published=port, target=target, protocol=protocol)
        for (protocol, port), (owner, target) in zip(PORTS, owners, strict=True)
        if owner is not None and owner % services == number
    )
    spec = ServiceSpec(name=f"service{number}", publish=publish, client_ip=client_ip)
    vip, mark = (ingress.take(), 256 + number) if publish else (None, None)
    return replace(
        Service(id=ServiceId(spec.name), spec=spec, version=2, created_at=0.0, updated_at=0.0),
        vips=attached(vip),
        fwmark=mark,
        mark_port=min((port.protocol, port.published) for port in spec.publish) if spec.publish else None,
    )


def older(of: Service, old_client_ip: Callable[[ClientIp], ClientIp]) -> Service:
    """The service before its last update, when it had but the first of its ports."""
    spec = replace(of.spec, publish=of.spec.publish[:1], client_ip=old_client_ip(of.spec.client_ip))
    return replace(of, spec=spec, version=of.version - 1)


def task(slot: int, of: Service, status: TaskStatus, *, desired: TaskState = TaskState.RUNNING) -> Task:
    """A task without a node."""
    return Task(
        id=TaskId(f"task{slot}"),
        service_id=of.id,
        service_version=of.version,
        spec=of.spec,
        slot=slot,
        desired=desired,
        status=status,
        created_at=0.0,
    )


def placed(made: Task, home: NodeId, ingress: Addresses, gateway: Addresses) -> Task:
    """The task on its node, with its addresses; those of an ended one are free again."""
    if made.status.state.ended:
        return replace(made, node_id=home, attachments=attached(ingress.next), gateway_address=gateway.next)
    address = ingress.take() if made.spec.publish else None
    return replace(made, node_id=home, attachments=attached(address), gateway_address=gateway.take())


# --- the network and what is tried in it --------------------------------------------------------------------------


def network(
    state: State, *, wildcard_udp: bool = False, filters_bridges: bool = False, foreign: tuple[Item, ...] = ()
) -> Network:
    """The kernels of all nodes that are up, once each has carried out its plan; running tasks listen on their targets.

    `foreign`: what nodes have besides in their own namespaces.
    """
    up = {name: node for name, node in state.nodes.items() if node.state is NodeState.READY}
    listening: dict[tuple[str, str], frozenset[tuple[Protocol, int]]] = {
        (task.node_id, names.container_id(task.id)): frozenset((port.protocol, port.target) for port in task.spec.publish)
        for task in state.tasks.values()
        if task.status.state is TaskState.RUNNING and task.node_id in up
    }
    plans = {node.name: (plan(view(state, name), CAPABILITIES), node.address) for name, node in up.items()}
    hosts = {name: Host(with_foreign(made, foreign), (address,)) for name, (made, address) in plans.items()}
    sysctls = {**SYSCTLS, "net/bridge/bridge-nf-call-iptables": str(int(filters_bridges))}
    return Network(hosts, listening, sysctls, wildcard_udp)


def with_foreign(made: NodePlan, foreign: tuple[Item, ...]) -> NodePlan:
    host = {**made.namespaces.get(HOST, {}), **namespace(foreign)}
    return NodePlan({**made.namespaces, HOST: host})


class Attempt(NamedTuple):
    """A client somewhere asks a node. `seen_as` is its address as a task sees it that is told the client's."""

    start: Place
    source: IPv4Address
    destination: IPv4Address
    seen_as: IPv4Address


def from_outside(entry: Node) -> Attempt:
    return Attempt(OUTSIDE, CLIENT, entry.address, CLIENT)


def from_inside(state: State, entry: Node) -> Iterator[Attempt]:
    """From the node itself by every address of it, from another node, and from a task here and one elsewhere."""
    here = Place(entry.name, HOST)
    for address in (LOOPBACK, entry.address, *([GATEWAY] if entry.attachments else [])):
        yield Attempt(here, address, address, entry.address)
    others = (other for other in state.nodes.values() if other != entry and other.state is NodeState.READY)
    for other in islice(others, 1):
        yield Attempt(Place(other.name, HOST), other.address, entry.address, other.address)
    callers = {caller.node_id == entry.id: caller for caller in state.tasks.values() if has_namespace(state, caller)}
    for caller in callers.values():
        place = Place(str(caller.node_id), names.container_id(caller.id))
        home = state.nodes[NodeId(place.node)]
        assert caller.gateway_address is not None
        yield Attempt(place, caller.gateway_address, entry.address, home.address)


def has_namespace(state: State, task: Task) -> bool:
    """Whether the task's node has carried out a plan with this task in it."""
    home = None if task.node_id is None else state.nodes[task.node_id]
    return home is not None and home.state is NodeState.READY and bool(home.attachments) and not task.status.state.ended


def tried(net: Network, attempt: Attempt, protocol: Protocol, port: int) -> Walk:
    packet = Packet(
        protocol=protocol,
        source=Endpoint(attempt.source, SOURCE_PORT),
        destination=Endpoint(attempt.destination, port),
    )
    return walk(net, packet, attempt.start)
