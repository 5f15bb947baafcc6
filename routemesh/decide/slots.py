"""A service's tasks, slot by slot, and what the decisions about one service rest on. PURE."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from operator import attrgetter

from routemesh.decide.constraints import Constraint, parse
from routemesh.model import (
    Availability,
    Mode,
    Node,
    NodeId,
    Service,
    ServiceId,
    ServiceSpec,
    State,
    Task,
    TaskId,
    TaskState,
    TaskStatus,
)
from routemesh.names import derive_id

SlotKey = int | NodeId
"""A slot's number; in a global service the node."""

SlotTasks = tuple[Task, ...]
"""One slot's tasks, newest first."""

Slots = Mapping[SlotKey, SlotTasks]

_WITHOUT_EFFECT_ON_TASKS = {"replicas", "mode", "labels", "restart", "update", "constraints", "http", "balancing"}
_effective = attrgetter(*(name for name in ServiceSpec.__struct_fields__ if name not in _WITHOUT_EFFECT_ON_TASKS))
_LEAST_GAP_S = 1e-6


def _substance(spec: ServiceSpec) -> tuple[object, ...]:
    """What a task is made from. Of what the gateway knows of a service, only its port is in the task's own namespace."""
    return (_effective(spec), spec.http.port if spec.http is not None else None)


def by_service(tasks: Iterable[Task]) -> dict[ServiceId, list[Task]]:
    """Tasks under the service that they were made for, whether that still exists or not."""
    groups: dict[ServiceId, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.service_id, []).append(task)
    return groups


def slots_of(mode: Mode, tasks: Iterable[Task]) -> dict[SlotKey, SlotTasks]:
    """Tasks under their slot, newest first."""
    groups: dict[SlotKey, list[Task]] = {}
    for task in tasks:
        key = task.node_id if mode is Mode.GLOBAL and task.node_id is not None else task.slot
        groups.setdefault(key, []).append(task)
    return {key: tuple(sorted(group, key=lambda task: (-task.created_at, task.id))) for key, group in groups.items()}


def is_wanted(task: Task) -> bool:
    """Whether the task lives or will, and is meant to."""
    return task.desired <= TaskState.RUNNING and not task.status.state.ended


def is_leaving(task: Task) -> bool:
    """Whether the task still lives, but is meant to end."""
    return task.desired > TaskState.RUNNING and not task.status.state.ended


def wanted(tasks: Iterable[Task]) -> Iterator[Task]:
    """Those of the tasks that are meant to live."""
    return filter(is_wanted, tasks)


@dataclass(frozen=True, slots=True)
class Scope:
    """One service in one pass."""

    service: Service
    state: State
    now: float
    constraints: tuple[Constraint, ...]

    @classmethod
    def of(cls, state: State, service: Service, now: float) -> "Scope":
        """The scope of one of the state's services."""
        return cls(service, state, now, tuple(map(parse, service.spec.constraints)))

    def same_spec(self, task: Task) -> bool:
        """Whether the service's present spec would make the same task."""
        return task.service_version == self.service.version or _substance(task.spec) == _substance(self.service.spec)

    def current(self, task: Task) -> bool:
        """Whether the task is as the service now wants it, its node included."""
        if not self.same_spec(task):
            return False
        if not self.constraints:
            return True
        node = self._node(task)
        return node is None or all(constraint.matches(node) for constraint in self.constraints)

    def drained(self, task: Task) -> bool:
        """Whether the task's node is to have no tasks."""
        node = self._node(task)
        return node is not None and node.availability is Availability.DRAIN

    def create(self, key: SlotKey, before: SlotTasks, start_at: float) -> Task:
        """A new task for a slot whose tasks so far are `before`; it may run from `start_at` on.

        It counts as newer than all before it, whatever the clocks of this leader and the last one say.
        """
        created_at = max(self.now, before[0].created_at + _LEAST_GAP_S) if before else self.now
        in_global = self.service.spec.mode is Mode.GLOBAL
        return Task(
            id=self._new_id(key),
            service_id=self.service.id,
            service_version=self.service.version,
            spec=self.service.spec,
            slot=0 if in_global else int(key),
            node_id=NodeId(str(key)) if in_global else None,
            desired=TaskState.READY if start_at > self.now else TaskState.RUNNING,
            status=TaskStatus(state=TaskState.NEW, at=self.now),
            created_at=created_at,
            start_after=start_at,
        )

    def _node(self, task: Task) -> Node | None:
        return None if task.node_id is None else self.state.nodes.get(task.node_id)

    def _new_id(self, key: SlotKey) -> TaskId:
        ids = (TaskId(derive_id("task", self.service.id, key, self.state.revision, number)) for number in count())
        return next(task_id for task_id in ids if task_id not in self.state.tasks)
