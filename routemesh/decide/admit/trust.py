"""Who may become a node over the network, by which certificates nodes are known, and who is no node any more. PURE."""

from collections.abc import Collection

from routemesh.decide.admit.find import find_node
from routemesh.decide.ranges import clashes, ranges_of
from routemesh.errors import Conflict, Forbidden, UserError
from routemesh.model import Node, NodeId, NodeState, Role, State, TaskState, TaskStatus, Trust
from routemesh.names import NODE_NAME
from routemesh.nodeplan.ranges import Occupied
from routemesh.values import replace


def trust_of(state: State) -> Trust:
    """By what nodes know one another. Raises Conflict where nobody can join."""
    if state.trust is None:
        raise Conflict("this cluster can't be joined over the network: it was not made by 'routemesh cluster init'")
    return state.trust


def begin_trust(state: State, trust: Trust) -> State:
    """Let others join from now on. Raises Conflict where they can already."""
    if state.trust is not None:
        raise Conflict(f"the store holds cluster {state.trust.cluster}, which can be joined already")
    return replace(state, trust=trust)


def register(state: State, node: Node, now: float, *, occupied: Collection[Occupied] = ()) -> State:
    """Take down a node that may join with its next start; it is down until then. `occupied`: what its machine has.

    Raises UserError and Conflict: no host name, a name or address that another node has, a range of the cluster that its machine
    has otherwise, a manager where the store takes one only.
    """
    trust = trust_of(state)
    if not NODE_NAME.fullmatch(node.name):
        raise UserError(f"node name {node.name!r} is not a host name; use at most 63 letters, digits and . - _")
    if state.cluster is None:
        raise Conflict("the cluster has no node yet: start the daemon of the machine that made it first (routemesh node)")
    for other in sorted(state.nodes.values(), key=lambda other: other.name):
        if other.name == node.name:
            raise Conflict(f"node name {node.name} is taken by the node at {other.address}: {_instead('--name', other)}")
        if other.address == node.address:
            raise Conflict(f"address {node.address} is that of node {other.name}: {_instead('--advertise-addr', other)}")
    if node.role is Role.MANAGER:
        _check_managers(trust, node.name, "; join it as a worker, with the token of 'routemesh cluster token worker'")
    if found := clashes(ranges_of(state), occupied):
        raise Conflict(f"{node.name} can't join: {'; '.join(found)}")
    return replace(state, nodes={**state.nodes, node.id: replace(node, state=NodeState.DOWN, created_at=now)})


def _instead(option: str, other: Node) -> str:
    return f"choose another with {option}, or remove that node first (routemesh node rm {other.name})"


def _check_managers(trust: Trust, name: str, instead: str = "") -> None:
    if trust.one_manager:
        raise Conflict(f"{name} can't be a manager: this cluster's store is a file of its only manager (sqlite){instead}")


def check_promotion(state: State, node: Node) -> None:
    """Raises Conflict where a node that has joined over the network can't become a manager."""
    if state.trust is not None and node.certified_until:
        _check_managers(state.trust, node.name)


def certified(state: State, node: NodeId, until: float, signed_by: str, root_name: str) -> State:
    """Take down a node's newest certificate. The last node to have one of the first root, `root_name`, ends the other's time."""
    trust, known = trust_of(state), state.nodes.get(node)
    if known is None:
        raise Forbidden(f"node {node} was removed from the cluster: 'routemesh cluster leave --force' on it, then join again")
    state = replace(state, nodes={**state.nodes, node: replace(known, certified_until=until, signed_by=signed_by)})
    if len(trust.roots) > 1 and all(each.signed_by == root_name for each in state.nodes.values() if each.certified_until):
        state = replace(state, trust=replace(trust, roots=trust.roots[:1], bridge=""))
    return state


def rotate_token(state: State, role: Role, secret: str) -> State:
    """Give a role's token another secret: nobody can join with the old one any more."""
    trust = trust_of(state)
    return replace(state, trust=replace(trust, tokens={**trust.tokens, role: secret}))


def rotate_root(state: State, root: str, key: str, bridge: str, signed_by: str) -> State:
    """Let another root sign from now on; the present one is believed until all nodes have certificates of the new one.

    `bridge`: the new root as `signed_by`, the present one, signs it. Raises Conflict while another change is under way.
    """
    trust = trust_of(state)
    if len(trust.roots) > 1:
        behind = sorted(node.name for node in state.nodes.values() if node.certified_until and node.signed_by != signed_by)
        raise Conflict(
            f"the last change of the root certificate is not over: {', '.join(behind) or 'a node'} has no new certificate yet; "
            "start its daemon, or remove the node"
        )
    return replace(state, trust=replace(trust, roots=(root, *trust.roots), key=key, bridge=bridge))


def remove_node(state: State, ref: str, now: float, *, force: bool = False) -> State:
    """Forget a node; its certificate does not count any more, and its tasks count as ended. Raises Conflict for one that is
    up, unless by `force`, and for the last manager.
    """
    node = find_node(state, ref)
    others = (other for other in state.nodes.values() if other.id != node.id)
    if node.role is Role.MANAGER and all(other.role is Role.WORKER for other in others):
        raise Conflict(f"node {node.name} is the last manager: without it there is no cluster")
    if node.state is NodeState.READY and not force:
        raise Conflict(
            f"node {node.name} is up: stop its daemon first, or use --force, which ends its part of the cluster at once"
        )
    gone = TaskStatus(state=TaskState.SHUTDOWN, at=now, error=f"{node.name} was removed")
    tasks = {
        task.id: replace(task, desired=max(task.desired, TaskState.SHUTDOWN), status=gone)
        for task in state.tasks.values()
        if task.node_id == node.id and task.status.state.may_live
    }
    nodes = {key: other for key, other in state.nodes.items() if key != node.id}
    return replace(state, nodes=nodes, tasks={**state.tasks, **tasks})
