"""Nodes that join, report and are changed. PURE."""

from collections.abc import Collection, Iterable, Mapping, Set
from ipaddress import IPv4Network

from routemesh.decide.admit.engines import check_services
from routemesh.decide.admit.find import find_node
from routemesh.decide.admit.trust import check_promotion
from routemesh.decide.pool import network_pool
from routemesh.decide.ranges import GWBRIDGE_POOLS, INGRESS_POOLS, clashes, free, ranges_of
from routemesh.errors import Conflict, NotFound, UserError
from routemesh.legible import storable
from routemesh.model import (
    Availability,
    Cluster,
    Listener,
    Network,
    NetworkId,
    NetworkKind,
    Node,
    NodeId,
    NodeState,
    Role,
    State,
    TaskId,
    TaskState,
    TaskStatus,
    Trust,
)
from routemesh.names import NODE_NAME, derive_id
from routemesh.nodeplan.ranges import Occupied
from routemesh.values import replace

_LONGEST_PREFIX = 29


def join(
    state: State,
    node: Node,
    now: float,
    *,
    ingress_subnet: IPv4Network | None = None,
    gwbridge_subnet: IPv4Network | None = None,
    occupied: Collection[Occupied] = (),
    live: Set[NodeId] | None = None,
) -> State:
    """Take a node in; the first one makes the cluster, with these subnets (later they do not count; None: the first free one).

    A node whose name is known is the same node come back: what an operator set and its addresses on networks stay. By its
    identity a node is the same one at another address, too. `occupied`: what its machine has besides. `live`: the nodes whose
    daemons run (None: all that are not down). Raises Taken when another live node has the name or the address, Conflict when the
    node's engine can't do what a service asks for, or when a new node's machine has a range of the cluster otherwise.
    """
    if not NODE_NAME.fullmatch(node.name):
        raise UserError(f"node name {node.name!r} is not a host name; use at most 63 letters, digits and . - _")
    if state.cluster is None:
        cluster, ingress = _new_cluster(node, now, ingress_subnet, gwbridge_subnet, occupied, state.trust)
        state = replace(state, cluster=cluster, networks={**state.networks, ingress.id: ingress})
    _check_address(state, node)
    if live is None:
        live = {other.id for other in state.nodes.values() if other.state is not NodeState.DOWN}
    _check_rivals(state, node, live)
    check_services(state, node)
    old = next((known for known in state.nodes.values() if known.name == node.name), None)
    if old is None and (found := clashes(ranges_of(state), occupied)):
        raise Conflict(f"{node.name} can't join: {'; '.join(found)}")
    joined = _returned(old, node) if old is not None else _new(state, node, now)
    renamed = [other for other in state.nodes.values() if other.name != node.name and _is_same(other, node)]
    changed = {other.id: replace(other, state=NodeState.DOWN) for other in renamed if other.state is not NodeState.DOWN}
    return state if joined == old and not changed else replace(state, nodes={**state.nodes, **changed, joined.id: joined})


def _new_cluster(
    node: Node,
    now: float,
    ingress: IPv4Network | None,
    gwbridge: IPv4Network | None,
    occupied: Collection[Occupied],
    trust: Trust | None,
) -> tuple[Cluster, Network]:
    if ingress is None:
        ingress = free("ingress", INGRESS_POOLS, occupied, () if gwbridge is None else (gwbridge,))
    if gwbridge is None:
        gwbridge = free("docker_gwbridge", GWBRIDGE_POOLS, occupied, (ingress,))
    for what, subnet in (("ingress", ingress), ("docker_gwbridge", gwbridge)):
        if subnet.prefixlen > _LONGEST_PREFIX:
            raise UserError(f"{what} subnet {subnet} is too small; use a /{_LONGEST_PREFIX} or larger")
    if ingress.overlaps(gwbridge):
        raise UserError(f"ingress subnet {ingress} overlaps docker_gwbridge's {gwbridge}; choose another for one of them")
    cluster_id = trust.cluster if trust is not None else derive_id("cluster", node.name, now)
    ingress_id = NetworkId(derive_id("ingress", cluster_id))
    return (
        Cluster(id=cluster_id, ingress_id=ingress_id, created_at=now, gwbridge_subnet=gwbridge),
        Network(id=ingress_id, name="ingress", kind=NetworkKind.INGRESS, subnet=ingress, created_at=now),
    )


def _check_address(state: State, node: Node) -> None:
    assert state.cluster is not None
    networks = [(network.name, network.subnet) for network in state.networks.values()]
    for what, subnet in (*networks, ("docker_gwbridge", state.cluster.gwbridge_subnet)):
        if node.address in subnet:
            raise Conflict(
                f"node {node.name}: its address {node.address} is inside the cluster's {what} subnet {subnet}; "
                "use another address, or make the cluster with another subnet"
            )


class Taken(Conflict):
    """Another live node has the name or the address of one that wants to join."""


def _check_rivals(state: State, node: Node, live: Set[NodeId]) -> None:
    for other in sorted(state.nodes.values(), key=lambda other: other.name):
        if other.id not in live or _is_same(other, node):
            continue
        if other.name == node.name:
            raise Taken(
                f"node name {node.name} is taken: a live node at {other.address} has it; choose another, or stop that node first"
            )
        if other.address == node.address:
            raise Taken(
                f"node {node.name}: its address {node.address} is that of the live node {other.name}; "
                "use another address, or stop that node first"
            )


def _is_same(known: Node, node: Node) -> bool:
    """Whether it is the same machine; one that joined by an older version is known by name and address."""
    if known.identity and node.identity:
        return known.identity == node.identity
    return (known.name, known.address) == (node.name, node.address)


def check_past(state: State, cluster: str, past: str) -> None:
    """Raises Conflict when a node that belonged to `cluster` ("": to one whose id it does not know) finds none or another.

    `past`: what it knows of it, in words.
    """
    begin_anew = "--new-cluster leaves the old one: what runs here of it is ended, and its logs are deleted"
    if state.cluster is None:
        raise Conflict(f"the store is empty, but this node belongs to {past}: mount or restore the cluster's store; {begin_anew}")
    if cluster and state.cluster.id != cluster:
        raise Conflict(
            f"the store holds cluster {state.cluster.id}, but this node belongs to {past}: give it that one's store; {begin_anew}"
        )


def _returned(old: Node, node: Node) -> Node:
    return replace(
        node,
        id=old.id,
        role=old.role,
        availability=old.availability,
        labels=old.labels,
        attachments=old.attachments,
        created_at=old.created_at,
        certified_until=old.certified_until or node.certified_until,
        signed_by=old.signed_by or node.signed_by,
        revision=old.revision,
        state=NodeState.READY,
    )


def _new(state: State, node: Node, now: float) -> Node:
    assert state.ingress is not None
    pool = network_pool(state, state.ingress)
    if not pool.free:
        raise Conflict(
            f"node {node.name}: all addresses of the {state.ingress.name} pool {pool} are in use; "
            "scale a service down or remove one first"
        )
    return replace(node, attachments=(), state=NodeState.READY, created_at=now)


def update_node(
    state: State,
    node: str,
    *,
    availability: Availability | None = None,
    role: Role | None = None,
    labels_add: Mapping[str, str] | None = None,
    labels_remove: Iterable[str] = (),
) -> State:
    """Change what an operator may change of a node; None leaves it as it is."""
    old = find_node(state, node)
    labels = dict(old.labels)
    for label in labels_remove:
        if labels.pop(label, None) is None:
            known = ", ".join(sorted(old.labels)) or "none"
            raise NotFound(f"node {old.name} has no label {label!r}; its labels are: {known}")
    for label in labels_add or ():
        if not label or "=" in label or any(map(str.isspace, label)):
            raise UserError(f"node {old.name}: label name {label!r} is empty or has a space or '=' in it; write KEY=VALUE")
    _check_role(state, old, role)
    if role is Role.MANAGER and old.role is Role.WORKER:
        check_promotion(state, old)
    new = replace(
        old, availability=availability or old.availability, role=role or old.role, labels=labels | dict(labels_add or {})
    )
    return state if new == old else replace(state, nodes={**state.nodes, new.id: new})


def _check_role(state: State, node: Node, role: Role | None) -> None:
    others = (other for other in state.nodes.values() if other.id != node.id)
    if role is Role.WORKER and node.role is Role.MANAGER and all(other.role is Role.WORKER for other in others):
        raise Conflict(f"node {node.name} is the last manager; make another node a manager first")


def node_report(
    state: State,
    node_id: NodeId,
    *,
    listeners: tuple[Listener, ...] | None = None,
    failures: tuple[str, ...] | None = None,
    error: str | None = None,
) -> State:
    """Take down what a node's agent saw of its machine; None leaves it as it is. An unknown node changes nothing.

    What others named there may be no text; it is taken down as one that can be stored.
    """
    old = state.nodes.get(node_id)
    if old is None:
        return state
    new = replace(
        old,
        listeners=old.listeners if listeners is None else tuple(map(_storable, listeners)),
        failures=old.failures if failures is None else tuple(map(storable, failures)),
        error=old.error if error is None else storable(error),
    )
    return state if new == old else replace(state, nodes={**state.nodes, node_id: new})


def node_lost(state: State, node_id: NodeId) -> State:
    """Take down that a node that is down does not answer packets either; of one that is not down nothing."""
    old = state.nodes.get(node_id)
    if old is None or old.state is not NodeState.DOWN or old.lost:
        return state
    return replace(state, nodes={**state.nodes, node_id: replace(old, lost=True)})


def _may_follow(state: TaskState, seen: TaskState) -> bool:
    return seen.ended if state is TaskState.ORPHANED else not state.ended and state <= seen


def _storable(listener: Listener) -> Listener:
    return replace(listener, process=storable(listener.process))


def task_report(state: State, task_id: TaskId, status: TaskStatus) -> State:
    """Take down what a node's agent saw of a task.

    States never go backwards and an end is final, so a late or repeated report changes nothing; nor does one of an unknown task.
    A task that was asked to end is SHUTDOWN however it ended: no restart follows from it. Of one that was given up with its
    silent node (ORPHANED) the end was only presumed, and is taken down when the node has seen it.
    """
    task = state.tasks.get(task_id)
    if task is None or not _may_follow(task.status.state, status.state):
        return state
    status = replace(status, message=storable(status.message), error=storable(status.error))
    if status.state.ended and task.desired > TaskState.RUNNING:
        status = replace(status, state=TaskState.SHUTDOWN)
    if task.status.state is TaskState.ORPHANED:
        status = replace(status, error=task.status.error)
    if replace(status, at=task.status.at) == task.status:
        return state
    return replace(state, tasks={**state.tasks, task_id: replace(task, status=status)})
