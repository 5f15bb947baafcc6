"""Which nodes are there, and what becomes of the tasks of those that are not. PURE."""

from collections.abc import Iterator, Set

from routemesh.decide.edit import with_tasks
from routemesh.model import NodeId, NodeState, State, Task, TaskState, TaskStatus
from routemesh.values import replace

LEADER = "leader"
"""The lease of the manager that leads."""


def lease_name(node_id: NodeId) -> str:
    """The lease that a node renews while it lives; its value is the revision that the node has applied."""
    return f"node/{node_id}"


def liveness(state: State, now: float, live: Set[NodeId]) -> State:
    """Nodes outside `live` are DOWN and their tasks orphaned, so that they leave every map and their slots are filled elsewhere.

    Connections that they have are left alone until the node is found lost: its data plane works on without its daemon. A node
    that comes back is READY; its orphans stay orphans until its agent, which drains and stops them, has seen their end.
    """
    states = {node_id: NodeState.READY if node_id in live else NodeState.DOWN for node_id in state.nodes}
    if any(node.state is not states[node.id] for node in state.nodes.values()):
        nodes = {
            node.id: node if node.state is states[node.id] else replace(node, state=states[node.id], lost=False)
            for node in state.nodes.values()
        }
        state = replace(state, nodes=nodes)
    return with_tasks(state, _orphans(state, now))


def _orphans(state: State, now: float) -> Iterator[Task]:
    for task in state.tasks.values():
        if task.node_id is None or task.status.state.ended:
            continue
        node = state.nodes.get(task.node_id)
        if node is None or node.state is NodeState.DOWN:
            name = task.node_id if node is None else node.name
            lost = TaskStatus(state=TaskState.ORPHANED, at=now, error=f"{name} is down")
            yield replace(task, desired=max(task.desired, TaskState.SHUTDOWN), status=lost)
