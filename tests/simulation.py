"""A cluster without machines: the real decisions, and agents that carry tasks out at once."""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from routemesh.decide import admit, next_deadline, step
from routemesh.model import Node, NodeId, Publish, Service, ServiceSpec, State, Task, TaskId, TaskState, TaskStatus
from routemesh.store.changes import committed
from routemesh.values import replace

INGRESS = IPv4Network("10.0.0.0/24")
WEB = ServiceSpec(name="web", replicas=2, publish=(Publish(published=8080, target=80),))


class Simulation:
    """A cluster with its clock.

    `fails` says which tasks exit with an error instead of running; `stepped_from` is what the last step was given.
    """

    def __init__(self, nodes: int = 3, ingress: IPv4Network = INGRESS) -> None:
        self.state = State()
        self.now = 1000.0
        self.live: set[NodeId] = set()
        self.fails: Callable[[Task], bool] = lambda task: False
        for number in range(1, nodes + 1):
            self.join(f"node{number}", ingress)
        self.step()

    def commit(self, state: State) -> None:
        """Take over a state as a store would."""
        self.state, _ = committed(self.state, state)

    def join(self, name: str, ingress: IPv4Network = INGRESS) -> NodeId:
        """Bring a node into the cluster; node1 has 192.168.200.10."""
        node = Node(id=NodeId(f"id-{name}"), name=name, address=IPv4Address("192.168.200.9") + int(name.removeprefix("node")))
        self.commit(admit.join(self.state, node, self.now, ingress_subnet=ingress))
        self.live.add(node.id)
        return node.id

    def create(self, spec: ServiceSpec) -> Service:
        """Create a service and step."""
        self.commit(admit.create_service(self.state, spec, self.now))
        self.step()
        return self.service(spec.name)

    def update(self, service: str = "web", /, **changes: Any) -> None:
        """Change fields of a service's spec and step."""
        self.commit(admit.update_service(self.state, service, lambda spec: replace(spec, **changes), self.now))
        self.step()

    def remove(self, name: str = "web") -> None:
        """Remove a service and step."""
        self.commit(admit.remove_service(self.state, name))
        self.step()

    def step(self) -> None:
        """One pass of the manager."""
        self.stepped_from = self.state
        self.commit(step(self.state, self.now, frozenset(self.live)))

    def report(self, task: Task | TaskId, state: TaskState, *, error: str = "", healthy: bool = True) -> None:
        """What an agent would report of a task."""
        task_id = task.id if isinstance(task, Task) else task
        status = TaskStatus(state=state, at=self.now, error=error, healthy=healthy)
        self.commit(admit.task_report(self.state, task_id, status))

    def agents(self) -> None:
        """Every live node's agent does what the desired states ask for."""
        for task in list(self.state.tasks.values()):
            if task.node_id not in self.live or task.status.state < TaskState.ASSIGNED:
                continue
            if task.desired > TaskState.RUNNING:
                self.report(task, TaskState.SHUTDOWN)
            elif task.desired is TaskState.RUNNING and task.status.state < TaskState.RUNNING:
                if self.fails(task):
                    self.report(task, TaskState.FAILED, error="non-zero exit (1)")
                else:
                    self.report(task, TaskState.RUNNING)

    def settle(self, passes: int = 50) -> None:
        """Step and let the agents work until nothing happens any more at the present time."""
        for _ in range(passes):
            before = self.state
            self.step()
            self.agents()
            if self.state is before:
                return
        raise AssertionError(f"not settled after {passes} passes")

    def wait(self, seconds: float) -> None:
        """Let time pass and settle."""
        self.now += seconds
        self.settle()

    def deadline(self) -> float | None:
        """Seconds until the manager has something to do."""
        deadline = next_deadline(self.state, self.now)
        return None if deadline is None else round(deadline - self.now, 3)

    def service(self, name: str = "web") -> Service:
        """A service by name."""
        return admit.find_service(self.state, name)

    def tasks(self, name: str = "web") -> list[Task]:
        """A service's tasks in order of slot and age, also when the service is gone."""
        found = [task for task in self.state.tasks.values() if task.spec.name == name]
        return sorted(found, key=lambda task: (task.slot, task.node_id if task.slot == 0 else "", task.created_at))

    def wanted(self, name: str = "web") -> list[Task]:
        """The service's tasks that are meant to live."""
        return [task for task in self.tasks(name) if task.desired <= TaskState.RUNNING and not task.status.state.ended]

    def serving(self, name: str = "web") -> list[Task]:
        """The service's tasks that serve."""
        return [task for task in self.tasks(name) if task.serving]

    def node_names(self, tasks: Iterable[Task]) -> list[str]:
        """The names of the nodes that the tasks are on, in order of the tasks."""
        return [self.state.nodes[task.node_id].name if task.node_id else "-" for task in tasks]
