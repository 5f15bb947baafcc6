"""Gives tasks their nodes. PURE.

A task goes to the node that has the fewest wanted tasks of its service (not counting another task of its own slot, which is about
to go), then the fewest in all, then the first name. Nothing is moved when a node returns.
"""

from collections import Counter
from itertools import count

from routemesh.decide.allocate import task_order
from routemesh.decide.constraints import Constraint, no_suitable_node, obstacle, parse
from routemesh.decide.edit import blocked, with_tasks
from routemesh.decide.pool import gateway_pools
from routemesh.decide.slots import wanted
from routemesh.model import Cluster, Node, NodeId, Service, ServiceId, State, Task, TaskState, TaskStatus
from routemesh.values import replace

TASKS_A_BRIDGE = 900
"""How many tasks have their ports on one bridge; the next ones get a further bridge behind it (plan/bridges.py).

Linux gives a bridge 1,023 ports. The first has the sandbox's, the tunnel's and one for each further bridge too: with 900 tasks on
each, all of a docker_gwbridge of 65,533 addresses fit. Source: net/bridge/br_private.h (BR_PORT_BITS), br_if.c (find_portno).
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
        self._ports: dict[NodeId, Counter[int]] = {node_id: Counter() for node_id in state.nodes}
        for task in state.tasks.values():
            if task.node_id in self._ports and task.gateway_address is not None and not task.status.state.ended:
                self._ports[task.node_id][task.bridge] += 1
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
        node = min(suitable, key=lambda node: self._load(task, node))
        address = self._pools[node.id].take()
        if address is None:
            full = f"no address: all of docker_gwbridge's {self._pools[node.id]} on {node.name} are in use; scale a service down"
            return blocked(task, full, now)
        self._count(task, node.id)
        status = TaskStatus(state=TaskState.ASSIGNED, at=now)
        return replace(task, node_id=node.id, gateway_address=address, bridge=self._bridge(task, node.id), status=status)

    def _bridge(self, task: Task, node_id: NodeId) -> int:
        """The first of the node's bridges with a port to spare; the gateway, which calls all tasks, is on the first."""
        ports = self._ports[node_id]
        number = 0 if task.spec.gateway is not None else next(each for each in count() if ports[each] < TASKS_A_BRIDGE)
        ports[number] += 1
        return number

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
