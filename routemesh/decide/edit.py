"""Small changes that several decisions make. PURE."""

from collections.abc import Iterable

from routemesh.model import State, Task, TaskId, TaskState, TaskStatus
from routemesh.values import replace


def with_tasks(state: State, changed: Iterable[Task], gone: Iterable[TaskId] = ()) -> State:
    """`state` with tasks put in and taken out; `state` itself when there is nothing to change."""
    edits = {task.id: task for task in changed if state.tasks.get(task.id) is not task}
    removed = set(gone)
    if not edits and not removed:
        return state
    merged = {**state.tasks, **edits}
    return replace(state, tasks={task_id: task for task_id, task in merged.items() if task_id not in removed})


def retire(task: Task, desired: TaskState, now: float) -> Task:
    """The task, wanted to end. One that no node ever had ends here, since no agent would end it."""
    if task.desired < desired:
        task = replace(task, desired=desired)
    if task.status.state < TaskState.ASSIGNED:
        task = replace(task, status=TaskStatus(state=TaskState.SHUTDOWN, at=now, message="ended before it had a node"))
    return task


def blocked(task: Task, error: str, now: float) -> Task:
    """The task, pending for a reason that its status gives."""
    if task.status.state is TaskState.PENDING and task.status.error == error:
        return task
    return replace(task, status=TaskStatus(state=TaskState.PENDING, at=now, error=error))
