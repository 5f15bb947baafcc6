"""What one node may see of the cluster: the input of `plan`. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass

from routemesh.errors import NotFound
from routemesh.model import Cluster, Node, NodeId, NodeState, Service, ServiceId, State, Task, TaskState


@dataclass(frozen=True, slots=True)
class NodeView:
    """The cluster as a node needs it.

    `peers`: the other nodes that have an ingress address, silent ones too: the data plane of a node works on without its daemon,
    and replies to what came through it must find back. `tasks`: this node's own, until they have ended. `remote`: tasks
    with an overlay address on live peers, until they have ended. `backends`: per service, the tasks that new connections may go
    to, in slot order; each has an overlay address. All are sorted, so that equal states give equal views.
    """

    cluster: Cluster
    node: Node
    peers: tuple[Node, ...]
    tasks: tuple[Task, ...]
    remote: tuple[Task, ...]
    services: tuple[Service, ...]
    backends: Mapping[ServiceId, tuple[Task, ...]]


def view(state: State, node_id: NodeId) -> NodeView:
    """Project the state on one node. Raises NotFound before the cluster or the node exists."""
    if state.cluster is None or node_id not in state.nodes:
        raise NotFound(f"node {node_id} has not joined the cluster; is a manager running?")
    node = state.nodes[node_id]
    peers = {other.id: other for other in state.nodes.values() if other.id != node_id and other.ingress_address is not None}
    own, remote = [], []
    for task in sorted(state.tasks.values(), key=_by_slot):
        if task.status.state.ended or task.status.state < TaskState.ASSIGNED:
            continue
        if task.node_id == node_id:
            own.append(task)
        elif task.address is not None and task.node_id in peers and peers[task.node_id].state is NodeState.READY:
            remote.append(task)
    serving: dict[ServiceId, list[Task]] = {}
    for task in sorted((*own, *remote), key=_by_slot):
        if task.serving and task.address is not None:
            serving.setdefault(task.service_id, []).append(task)
    return NodeView(
        cluster=state.cluster,
        node=node,
        peers=tuple(sorted(peers.values(), key=lambda peer: peer.id)),
        tasks=tuple(own),
        remote=tuple(remote),
        services=tuple(sorted(state.services.values(), key=lambda service: service.id)),
        backends={service: tuple(tasks) for service, tasks in serving.items()},
    )


def _by_slot(task: Task) -> tuple[int, str]:
    return (task.slot, task.id)
