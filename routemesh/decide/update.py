"""How a service moves to a new spec: one slot at a time, each gated by its new task serving. PURE.

stop-first: the old task is shut down, the slot is filled anew when it has ended. start-first: a second task starts beside the old
one, which is shut down when the new one serves. A new task that fails is tried again as the restart policy has it, and no other
slot is touched meanwhile; in start-first the old one goes on serving. A slot in which nothing runs need not wait for its turn.
"""

from enum import Enum, auto

from routemesh.decide.edit import retire
from routemesh.decide.slots import Scope, SlotKey, Slots, SlotTasks, is_leaving, wanted
from routemesh.model import TaskState, UpdateOrder


class Standing(Enum):
    """Where a slot is on its way to the present spec."""

    OUTDATED = auto()
    UNDER_WAY = auto()
    SETTLED = auto()


def standing(scope: Scope, tasks: SlotTasks) -> Standing:
    """Where a slot is. One whose task of the present spec has finished its work counts as settled."""
    if not tasks or any(map(is_leaving, tasks)):
        return Standing.UNDER_WAY
    alive = list(wanted(tasks))
    if not alive:
        done = tasks[0].status.state is TaskState.COMPLETE and scope.same_spec(tasks[0])
        return Standing.SETTLED if done else Standing.UNDER_WAY
    if not any(map(scope.current, alive)):
        return Standing.UNDER_WAY if replacement_failed(scope, tasks) else Standing.OUTDATED
    return Standing.SETTLED if len(alive) == 1 and alive[0].serving else Standing.UNDER_WAY


def replacement_failed(scope: Scope, tasks: SlotTasks) -> bool:
    """Whether the slot's newest task was made for the present version, and has ended."""
    return tasks[0].service_version == scope.service.version and tasks[0].status.state.ended


def next_update_at(scope: Scope, slots: Slots) -> float | None:
    """When the next outdated slot has its turn (0: at once); None when there is none or another slot is under way."""
    if all(scope.current(task) for tasks in slots.values() for task in wanted(tasks)):
        return None
    standings = {key: standing(scope, tasks) for key, tasks in slots.items()}
    if Standing.UNDER_WAY in standings.values() or Standing.OUTDATED not in standings.values():
        return None
    settled = (slots[key] for key, where in standings.items() if where is Standing.SETTLED)
    latest = max((task.status.at for tasks in settled for task in tasks), default=None)
    return 0.0 if latest is None else latest + scope.service.spec.update.delay_s


def advance(scope: Scope, slots: dict[SlotKey, SlotTasks]) -> dict[SlotKey, SlotTasks]:
    """Begin with the next outdated slot, if it has its turn."""
    turn = next_update_at(scope, slots)
    if turn is None or turn > scope.now:
        return slots
    key = next(key for key, tasks in slots.items() if standing(scope, tasks) is Standing.OUTDATED)
    tasks = slots[key]
    if scope.service.spec.update.order is UpdateOrder.START_FIRST:
        return {**slots, key: (scope.create(key, tasks, scope.now), *tasks)}
    return {**slots, key: tuple(retire(task, TaskState.SHUTDOWN, scope.now) for task in tasks)}
