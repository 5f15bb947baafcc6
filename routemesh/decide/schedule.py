"""Gives tasks their nodes. PURE.

A task goes to the node that has the fewest wanted tasks of its service (not counting another task of its own slot, which is about
to go), then the fewest in all, then the first name. Nothing is moved when a node returns.
"""

from collections import Counter
from dataclasses import replace

from routemesh.decide.allocate import task_order
from routemesh.decide.constraints import Constraint, no_suitable_node, obstacle, parse
from routemesh.decide.edit import blocked, with_tasks
from routemesh.decide.pool import gateway_pools
from routemesh.decide.slots import wanted
from routemesh.model import Cluster, Node, NodeId, Service, ServiceId, State, Task, TaskState, TaskStatus

MOST_TASKS = 1_021
"""Each is a port of docker_gwbridge, as the sandbox is, and of the overlay's bridge, as the tunnel and the sandbox are.

Linux gives a bridge 1,023 ports. Source: net/bridge/br_private.h (BR_PORT_BITS), br_if.c (find_portno).
"""


def schedule(state: State, now: float) -> State:
    """Assign the tasks that wait for a node; one for which there is none says why in its status."""
    waiting = [task for task in state.tasks.values() if task.status.state is TaskState.PENDING and _has_address(task)]
    if not waiting or state.cluster is None:
        return state
    board = _Board(state, state.cluster)
    return with_tasks(state, [board.place(task, now) for task in sorted(waiting, key=lambda task: task_order(state, task))])


def _has_address(task: Task) -> bool:
    return bool(task.attachments) or not task.spec.on_overlay


class _Board:
    """How many tasks each node has, counted on while tasks are placed."""

    def __init__(self, state: State, cluster: Cluster) -> None:
        self._state = state
        self._pools = gateway_pools(state, cluster.gwbridge_subnet)
        self._all: Counter[NodeId] = Counter()
        self._of_service: Counter[tuple[ServiceId, NodeId]] = Counter()
        self._of_slot: Counter[tuple[ServiceId, int, NodeId]] = Counter()
        self._suitable: dict[ServiceId, list[Node]] = {}
        self._places = Counter(task.node_id for task in state.tasks.values() if not task.status.state.ended)
        for task in wanted(state.tasks.values()):
            if task.node_id is not None and task.status.state >= TaskState.ASSIGNED:
                self._count(task, task.node_id)

    def place(self, task: Task, now: float) -> Task:
        """The task with its node and its address there, or with the reason why it has none."""
        service = self._state.services[task.service_id]
        suitable = self._suitable_nodes(service)
        if task.node_id is not None:
            suitable = [node for node in suitable if node.id == task.node_id]
        if not suitable:
            return blocked(task, no_suitable_node(self._state.nodes.values(), _constraints(service)), now)
        roomy = [node for node in suitable if self._places[node.id] < MOST_TASKS]
        if not roomy:
            full = f"no room on {', '.join(node.name for node in suitable)}: {MOST_TASKS} tasks are the most that a node can have"
            return blocked(task, f"{full}; add a node or scale a service down", now)
        node = min(roomy, key=lambda node: self._load(task, node))
        address = self._pools[node.id].take()
        if address is None:
            full = f"no address: all of docker_gwbridge's {self._pools[node.id]} on {node.name} are in use; scale a service down"
            return blocked(task, full, now)
        self._count(task, node.id)
        self._places[node.id] += task.node_id is None
        return replace(task, node_id=node.id, gateway_address=address, status=TaskStatus(state=TaskState.ASSIGNED, at=now))

    def _suitable_nodes(self, service: Service) -> list[Node]:
        if service.id not in self._suitable:
            constraints = _constraints(service)
            nodes = self._state.nodes.values()
            self._suitable[service.id] = [node for node in nodes if obstacle(node, constraints) == ""]
        return self._suitable[service.id]

    def _load(self, task: Task, node: Node) -> tuple[int, int, str]:
        of_service = self._of_service[task.service_id, node.id] - self._of_slot[task.service_id, task.slot, node.id]
        return (of_service, self._all[node.id], node.name)

    def _count(self, task: Task, node_id: NodeId) -> None:
        self._all[node_id] += 1
        self._of_service[task.service_id, node_id] += 1
        self._of_slot[task.service_id, task.slot, node_id] += 1


def _constraints(service: Service) -> tuple[Constraint, ...]:
    return tuple(map(parse, service.spec.constraints))
