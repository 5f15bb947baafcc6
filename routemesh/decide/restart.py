"""When a slot whose task has ended gets its next one. PURE.

Attempts are counted over the slot's history, so that a new leader counts them alike; that is why `kept_tasks` keeps enough of it.
Source: moby/swarmkit manager/orchestrator/restart/restart.go (ShouldRestart).
"""

from collections.abc import Sequence

from routemesh.model import TASK_HISTORY_PER_SLOT, RestartCondition, RestartPolicy, Task, TaskState

_BY_ITSELF = frozenset({TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED})


def ended_by_itself(task: Task) -> bool:
    """Whether the task ended unasked, in contrast to one that the manager shut down or that went with its node."""
    return task.status.state in _BY_ITSELF


def restart_at(policy: RestartPolicy, tasks: Sequence[Task], now: float) -> float | None:
    """When the next task may start after `tasks` (newest first), the newest of which ended by itself; None for never."""
    last = tasks[0]
    if policy.condition is RestartCondition.NONE:
        return None
    if policy.condition is RestartCondition.ON_FAILURE and last.status.state is TaskState.COMPLETE:
        return None
    if policy.max_attempts and _attempts(policy, tasks) >= policy.max_attempts:
        return None
    # A node whose clock is ahead must not prolong the delay.
    return min(last.status.at, now) + policy.delay_s


def _attempts(policy: RestartPolicy, tasks: Sequence[Task]) -> int:
    """How often the slot was restarted already, with this version of the service and within the window before the last end."""
    last, *earlier = tasks
    since = last.status.at - policy.window_s if policy.window_s else float("-inf")
    return sum(
        task.service_version == last.service_version and ended_by_itself(task) and task.status.at > since for task in earlier
    )


def kept_tasks(policy: RestartPolicy, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """A slot's tasks (newest first) without the oldest ended ones: as Swarm, TASK_HISTORY_PER_SLOT together with those alive."""
    if len(tasks) <= TASK_HISTORY_PER_SLOT:
        return tasks
    alive = sum(not task.status.state.ended for task in tasks)
    attempts = policy.max_attempts + 1 if policy.max_attempts else 0
    room = max(TASK_HISTORY_PER_SLOT - alive, attempts)
    ended = [task.id for task in tasks if task.status.state.ended]
    surplus = set(ended[room:])
    return tuple(task for task in tasks if task.id not in surplus)
