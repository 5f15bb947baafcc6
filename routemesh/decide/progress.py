"""How far a service is on its way to its spec, for people who wait. PURE."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from routemesh.decide.constraints import no_suitable_node
from routemesh.decide.liveness import lease_name
from routemesh.decide.reach import answering
from routemesh.decide.refused import lagging, left_out
from routemesh.decide.restart import ended_by_itself, restart_at
from routemesh.decide.scale import is_frozen, wanted_slots
from routemesh.decide.slots import Scope, SlotKey, Slots, SlotTasks, slots_of
from routemesh.model import Lease, Mode, Service, State, Task, TaskState
from routemesh.names import task_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`wanted`, `running` and `finished` count slots: `running` those that serve the present spec, `finished` those whose task
    ended well and gets no successor. `errors` are what stands in the way; `failed` is one that stays in the way, "" if none does.
    `answering`: the live nodes that lead to a task, where it is not all of them (None) that do once the service has converged.
    """

    wanted: int
    running: int
    finished: int
    converged: bool
    message: str
    errors: tuple[str, ...]
    failed: str
    answering: tuple[str, ...] | None = None


def progress(state: State, service: Service, leases: Mapping[str, Lease]) -> Progress:
    """How far the service is: converged when all its tasks serve the present spec or have finished, no other task serves, and
    every live node has applied that. The newest state of the service counts, not the one that is passed.
    """
    scope = Scope.of(state, state.services.get(service.id, service), now=0.0)
    tasks = [task for task in state.tasks.values() if task.service_id == service.id]
    slots = slots_of(scope.service.spec.mode, (task for task in tasks if task.desired is not TaskState.REMOVE))
    due = {key: slots.get(key, ()) for key in wanted_slots(scope, slots)}
    running = sum(any(_serves(scope, task) for task in own) for own in due.values())
    last = [own[0] for own in due.values() if _is_over(scope, own)]
    finished = sum(map(_ended_well, last))
    missing = len(due) - running - finished
    to_stop = sum(task.serving for key, own in slots.items() for task in own if not _may_serve(scope, key, task, due))
    revision = max(scope.service.revision, *(task.revision for task in tasks), 0)
    behind = sorted(_behind(state, leases, revision))
    refused = left_out(state, scope.service)
    if refused:
        refused = f"service {scope.service.spec.name}: {refused}"
    lost = next((f"{_said(scope, task)}; it is not started again" for task in last if not _ended_well(task)), "")
    return Progress(
        wanted=len(due),
        running=running,
        finished=finished,
        converged=not missing and not to_stop and not behind and not refused,
        message=refused or _message(_count(running, finished, len(due)), missing, _preparing(due), to_stop, behind),
        errors=tuple(dict.fromkeys((*_errors(scope, due), *(said for node in behind for said in lagging(state, node))))),
        failed=refused or lost,
        answering=answering(state, scope.service),
    )


def _serves(scope: Scope, task: Task) -> bool:
    return task.serving and scope.current(task)


def _is_over(scope: Scope, tasks: SlotTasks) -> bool:
    """Whether the slot's newest task has ended by itself, and none will follow it."""
    if not tasks or any(_serves(scope, task) for task in tasks) or not (ended_by_itself(tasks[0]) and scope.same_spec(tasks[0])):
        return False
    return restart_at(scope.service.spec.restart, tasks, scope.now) is None


def _ended_well(task: Task) -> bool:
    return task.status.state is TaskState.COMPLETE


def _may_serve(scope: Scope, key: SlotKey, task: Task, due: Slots) -> bool:
    """Whether a task is no older one and not surplus; a paused node may keep what it has of a global service."""
    if scope.service.spec.mode is Mode.GLOBAL and is_frozen(scope, key):
        return True
    return key in due and scope.current(task)


def _behind(state: State, leases: Mapping[str, Lease], revision: int) -> Iterator[str]:
    for node in state.nodes.values():
        lease = leases.get(lease_name(node.id))
        if node.reachable and (lease is None or lease.value < revision):
            yield node.name


def _count(running: int, finished: int, wanted: int) -> str:
    ended = f"{finished} {'task has' if finished == 1 else 'tasks have'} finished"
    if finished == wanted > 0:
        return ended
    return f"{running} of {wanted} tasks running" + (f", {ended}" if finished else "")


def _preparing(slots: Slots) -> int:
    return sum(task.status.state is TaskState.PREPARING for own in slots.values() for task in own)


def _message(count: str, missing: int, preparing: int, to_stop: int, behind: list[str]) -> str:
    if missing:
        return f"{count}, {preparing} being prepared" if preparing else count
    if to_stop:
        return f"{count}, {to_stop} more to stop"
    if behind:
        return f"{count}, waiting for {', '.join(behind)} to know"
    return f"converged: {count}"


def _errors(scope: Scope, slots: Slots) -> Iterator[str]:
    if scope.service.error:
        yield scope.service.error
    if scope.service.spec.mode is Mode.GLOBAL and not slots:
        yield no_suitable_node(scope.state.nodes.values(), scope.constraints)
    for tasks in slots.values():
        if any(_serves(scope, task) for task in tasks) or (_is_over(scope, tasks) and _ended_well(tasks[0])):
            continue
        yield from _slot_errors(scope, tasks)


def _slot_errors(scope: Scope, tasks: SlotTasks) -> Iterator[str]:
    """What the newest task says, and why the one before it ended, if that was of the present spec too."""
    ended = (task for task in tasks if ended_by_itself(task) and scope.same_spec(task))
    for task in _unique((*tasks[:1], *list(ended)[:1])):
        if task.status.error:
            yield _said(scope, task)


def _said(scope: Scope, task: Task) -> str:
    node = None if task.node_id is None else scope.state.nodes.get(task.node_id)
    name = task_name(scope.service.spec.name, task.slot, node.name if node else "?")
    return f"{name}: {task.status.error or task.status.state.name.lower()}"


def _unique(tasks: Iterable[Task]) -> Iterable[Task]:
    return {task.id: task for task in tasks}.values()
