"""One slot, looked at on its own: what must go goes, what may start starts, and an empty slot gets a task. PURE."""

from routemesh.decide.edit import retire
from routemesh.decide.restart import ended_by_itself, restart_at
from routemesh.decide.slots import Scope, SlotKey, SlotTasks, is_leaving, is_wanted, wanted
from routemesh.decide.update import replacement_failed
from routemesh.model import Task, TaskState
from routemesh.values import replace


def tend(scope: Scope, key: SlotKey, tasks: SlotTasks) -> SlotTasks:
    """The slot's tasks (newest first) after everything that does not depend on other slots."""
    tasks = without_rivals(scope, keep_up(scope, tasks))
    start_at = _next_start(scope, tasks)
    return tasks if start_at is None else (scope.create(key, tasks, start_at), *tasks)


def keep_up(scope: Scope, tasks: SlotTasks) -> SlotTasks:
    """Bring each task's desired state up to date, without replacing any."""
    return tuple(_kept_up(scope, task) for task in tasks)


def _kept_up(scope: Scope, task: Task) -> Task:
    if task.desired > TaskState.RUNNING:
        return task
    if task.status.state.ended or scope.drained(task):
        return retire(task, TaskState.SHUTDOWN, scope.now)
    # Nobody is served by a task of an older spec that was not even started: it need not wait for its turn.
    if not _may_serve(task) and not scope.same_spec(task):
        return retire(task, TaskState.SHUTDOWN, scope.now)
    if task.desired is TaskState.READY and task.start_after <= scope.now:
        return replace(task, desired=TaskState.RUNNING)
    return task


def _may_serve(task: Task) -> bool:
    return task.desired is TaskState.RUNNING and task.status.state >= TaskState.ASSIGNED


def without_rivals(scope: Scope, tasks: SlotTasks) -> SlotTasks:
    """At most one task of the present spec and one older are wanted in a slot, and none older once the present one serves."""
    alive = sorted(wanted(tasks), key=lambda task: (not task.serving, -task.created_at, task.id))
    if len(alive) < 2:
        return tasks
    present = next((task for task in alive if scope.current(task)), None)
    older = next((task for task in alive if not scope.current(task)), None)
    kept = (present,) if present is not None and present.serving else (present, older)
    return tuple(retire(task, TaskState.SHUTDOWN, scope.now) if is_wanted(task) and task not in kept else task for task in tasks)


def _next_start(scope: Scope, tasks: SlotTasks) -> float | None:
    """When a further task of the slot may start; None when there must be none."""
    if not tasks:
        return scope.now
    alive = list(wanted(tasks))
    if any(map(scope.current, alive)):
        return None
    if alive and not replacement_failed(scope, tasks):
        return None
    if not alive and any(map(is_leaving, tasks)):
        return None
    last = tasks[0]
    if ended_by_itself(last) and scope.same_spec(last):
        return restart_at(scope.service.spec.restart, tasks, scope.now)
    return scope.now
