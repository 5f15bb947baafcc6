"""How far a service is on its way to its spec, for people who wait. PURE."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from routemesh.decide.constraints import no_suitable_node
from routemesh.decide.liveness import lease_name
from routemesh.decide.restart import ended_by_itself
from routemesh.decide.scale import is_frozen, wanted_slots
from routemesh.decide.slots import Scope, SlotKey, Slots, SlotTasks, slots_of
from routemesh.model import Lease, Mode, NodeState, Service, State, Task, TaskState
from routemesh.names import task_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`wanted` and `running` count slots; `running` those that serve the present spec. `errors` are what stands in the way."""

    wanted: int
    running: int
    converged: bool
    message: str
    errors: tuple[str, ...]


def progress(state: State, service: Service, leases: Mapping[str, Lease]) -> Progress:
    """How far the service is: converged when all its tasks serve the present spec, no other task serves, and every live node has
    applied that. The newest state of the service counts, not the one that is passed.
    """
    scope = Scope.of(state, state.services.get(service.id, service), now=0.0)
    tasks = [task for task in state.tasks.values() if task.service_id == service.id]
    slots = slots_of(scope.service.spec.mode, (task for task in tasks if task.desired is not TaskState.REMOVE))
    due = {key: slots.get(key, ()) for key in wanted_slots(scope, slots)}
    running = sum(any(_serves(scope, task) for task in own) for own in due.values())
    to_stop = sum(task.serving for key, own in slots.items() for task in own if not _may_serve(scope, key, task, due))
    revision = max(scope.service.revision, *(task.revision for task in tasks), 0)
    behind = sorted(_behind(state, leases, revision))
    return Progress(
        wanted=len(due),
        running=running,
        converged=running == len(due) and not to_stop and not behind,
        message=_message(running, len(due), to_stop, behind),
        errors=tuple(dict.fromkeys(_errors(scope, due))),
    )


def _serves(scope: Scope, task: Task) -> bool:
    return task.serving and scope.current(task)


def _may_serve(scope: Scope, key: SlotKey, task: Task, due: Slots) -> bool:
    """Whether a task is no older one and not surplus; a paused node may keep what it has of a global service."""
    if scope.service.spec.mode is Mode.GLOBAL and is_frozen(scope, key):
        return True
    return key in due and scope.current(task)


def _behind(state: State, leases: Mapping[str, Lease], revision: int) -> Iterator[str]:
    for node in state.nodes.values():
        lease = leases.get(lease_name(node.id))
        if node.state is NodeState.READY and (lease is None or lease.value < revision):
            yield node.name


def _message(running: int, wanted: int, to_stop: int, behind: list[str]) -> str:
    if running < wanted:
        return f"{running} of {wanted} tasks running"
    if to_stop:
        return f"{running} of {wanted} tasks running, {to_stop} more to stop"
    if behind:
        return f"{running} of {wanted} tasks running, waiting for {', '.join(behind)} to know"
    return f"converged: {running} of {wanted} tasks running"


def _errors(scope: Scope, slots: Slots) -> Iterator[str]:
    if scope.service.error:
        yield scope.service.error
    if scope.service.spec.mode is Mode.GLOBAL and not slots:
        yield no_suitable_node(scope.state.nodes.values(), scope.constraints)
    for tasks in slots.values():
        if not any(_serves(scope, task) for task in tasks):
            yield from _slot_errors(scope, tasks)


def _slot_errors(scope: Scope, tasks: SlotTasks) -> Iterator[str]:
    """What the newest task says, and why the one before it ended, if that was of the present spec too."""
    ended = (task for task in tasks if ended_by_itself(task) and scope.same_spec(task))
    for task in _unique((*tasks[:1], *list(ended)[:1])):
        if task.status.error:
            node = None if task.node_id is None else scope.state.nodes.get(task.node_id)
            yield f"{task_name(scope.service.spec.name, task.slot, node.name if node else '?')}: {task.status.error}"


def _unique(tasks: Iterable[Task]) -> Iterable[Task]:
    return {task.id: task for task in tasks}.values()
