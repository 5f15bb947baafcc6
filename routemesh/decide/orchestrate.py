"""Gives every service the tasks that it should have. PURE.

Desired states: RUNNING (READY while a restart is delayed); SHUTDOWN for a task that was replaced, kept as its slot's history;
REMOVE for one whose slot or service is gone, forgotten as soon as it has ended.
"""

from collections.abc import Collection, Iterable, Iterator

from routemesh.decide.clock import in_bounds
from routemesh.decide.edit import retire, with_tasks
from routemesh.decide.restart import kept_tasks
from routemesh.decide.scale import is_frozen, wanted_slots
from routemesh.decide.slots import Scope, SlotKey, Slots, SlotTasks, by_service, slots_of, wanted
from routemesh.decide.tend import keep_up, tend, without_rivals
from routemesh.decide.update import advance, next_update_at
from routemesh.model import Mode, State, Task, TaskId, TaskState


def orchestrate(state: State, now: float) -> State:
    """Create, retire and forget tasks; `state` itself when all is as it should be."""
    groups = by_service(state.tasks.values())
    changed: list[Task] = []
    gone: list[TaskId] = []
    for service_id in {**groups, **state.services}:
        before = groups.get(service_id, [])
        service = state.services.get(service_id)
        after = _removed(before, now) if service is None else _tended(Scope.of(state, service, now), before)
        changed += after
        gone += {task.id for task in before}.difference(task.id for task in after)
    return with_tasks(state, changed, gone)


def next_deadline(state: State, now: float) -> float | None:
    """The earliest time at which a step does something with nothing else changed: a restart or an update was delayed until then.

    `now` when that time has passed already, or the clock has leapt back since; None when nothing waits.
    """
    if in_bounds(state, now) is not state:
        return now
    earliest = min(_waiting(state, now), default=None)
    return None if earliest is None else max(earliest, now)


def _waiting(state: State, now: float) -> Iterator[float]:
    groups = by_service(state.tasks.values())
    for service in state.services.values():
        tasks = groups.get(service.id, [])
        yield from (task.start_after for task in wanted(tasks) if task.desired is TaskState.READY)
        scope = Scope.of(state, service, now)
        if all(map(scope.current, wanted(tasks))):
            continue
        slots = slots_of(service.spec.mode, _staying(tasks))
        turn = next_update_at(scope, _in_update(scope, slots, wanted_slots(scope, slots)))
        if turn is not None:
            yield turn


def _staying(tasks: Iterable[Task]) -> list[Task]:
    return [task for task in tasks if task.desired is not TaskState.REMOVE]


def _removed(tasks: Iterable[Task], now: float) -> list[Task]:
    retired = (retire(task, TaskState.REMOVE, now) for task in tasks)
    return [task for task in retired if not task.status.state.ended]


def _tended(scope: Scope, tasks: list[Task]) -> list[Task]:
    """All tasks of one service as they should be."""
    policy = scope.service.spec.restart
    after = _removed((task for task in tasks if task.desired is TaskState.REMOVE), scope.now)
    slots = slots_of(scope.service.spec.mode, _staying(tasks))
    due: dict[SlotKey, SlotTasks] = dict.fromkeys(wanted_slots(scope, slots), ())
    tended = {key: _tended_slot(scope, key, own, due) for key, own in {**due, **slots}.items()}
    tended |= advance(scope, _in_update(scope, tended, due))
    for slot in tended.values():
        after += kept_tasks(policy, slot)
    return after


def _tended_slot(scope: Scope, key: SlotKey, tasks: SlotTasks, due: Collection[SlotKey]) -> SlotTasks:
    if key in due:
        return tend(scope, key, tasks)
    if scope.service.spec.mode is Mode.REPLICATED:
        return tuple(_removed(tasks, scope.now))
    if is_frozen(scope, key):
        return without_rivals(scope, keep_up(scope, tasks))
    return tuple(retire(task, TaskState.SHUTDOWN, scope.now) for task in tasks)


def _in_update(scope: Scope, slots: Slots, due: Collection[SlotKey]) -> dict[SlotKey, SlotTasks]:
    """The slots that an update goes through: those due, and a frozen one in which it was about to replace a task."""
    frozen = (key for key, tasks in slots.items() if key not in due and len(list(wanted(tasks))) > 1)
    return {key: slots.get(key, ()) for key in (*due, *frozen)}
