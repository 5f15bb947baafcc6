"""What was stored under a clock that has leapt since, brought back to the present one. PURE.

A leader's clock may be set back by an hour, and the next leader's may be another's: a stored moment that is further away than it
can be by its own making is not waited for.
"""

from routemesh.decide.edit import with_tasks
from routemesh.model import State, Task, TaskState
from routemesh.values import replace

TOLERANCE_S = 5.0
"""By how much nodes' clocks may differ without a word."""


def in_bounds(state: State, now: float) -> State:
    """No task waits longer from now on than its delay, and none was seen later than now; `state` itself where that is so."""
    return with_tasks(state, (_in_bounds(task, now) for task in state.tasks.values()))


def _in_bounds(task: Task, now: float) -> Task:
    latest = now + task.spec.restart.delay_s
    if task.desired is TaskState.READY and task.start_after > latest:
        return _seen(replace(task, start_after=latest), now)
    return _seen(task, now)


def _seen(task: Task, now: float) -> Task:
    return replace(task, status=replace(task.status, at=now)) if task.status.at > now + TOLERANCE_S else task
