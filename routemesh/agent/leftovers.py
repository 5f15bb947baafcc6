"""What a node's runtime has beside what the cluster's state says: taken over, stopped or removed."""

import asyncio
import logging
from collections.abc import Container, Mapping
from typing import assert_never

from routemesh.agent.dataplane import Dataplane
from routemesh.errors import KernelError, RoutemeshError
from routemesh.model import Task, TaskId
from routemesh.names import container_id
from routemesh.runtime import Exit, Found, Prepared, Running, Runtime

log = logging.getLogger(__name__)

_NOTHING_ELSE_S = 60.0


async def take_over(dataplane: Dataplane, mine: Mapping[TaskId, Task], found: Mapping[TaskId, Found]) -> None:
    """Hand over again what drivers handed to the daemon before, which may not have come to take it."""
    for task_id, what in found.items():
        task = mine.get(task_id)
        if isinstance(what, Prepared) and what.netns is not None and task is not None and not task.status.state.ended:
            try:
                await dataplane.hand_over(container_id(task_id), what.netns)
            except KernelError as refusal:  # its runner meets it, too, and tells it
                log.warning("task=%s: its namespace can't be taken: %s", task_id, refusal)


class Removal:
    """Removes what was stopped and is forgotten, apart from the passes: no slow or broken disk may keep the kernel waiting."""

    def __init__(self, runtime: Runtime) -> None:
        self.wake = asyncio.Event()
        self._runtime = runtime
        self._tasks: dict[TaskId, None] = {}

    def add(self, task_id: TaskId) -> None:
        """Have a task removed."""
        self._tasks[task_id] = None
        self.wake.set()

    async def carry_out(self) -> float:
        """Remove them all. Raises what the last one raised that could not be; they are kept for the next time."""
        refusal: Exception | None = None
        for task_id in list(self._tasks):
            try:
                await self._runtime.remove(task_id)
            except (OSError, RoutemeshError) as exc:
                refusal = exc
            else:
                del self._tasks[task_id]
        if refusal is not None:
            raise refusal
        return _NOTHING_ELSE_S


async def forget(
    runtime: Runtime,
    dataplane: Dataplane,
    mine: Mapping[TaskId, Task],
    found: Mapping[TaskId, Found],
    carried_out: Container[TaskId],
    removal: Removal,
) -> None:
    """Stop what has ended for the cluster and what it has forgotten, which is then removed, unless it is still carried out.

    That is done before their networks go, so that their clients hear of it.
    """
    for task_id, what in found.items():
        task = mine.get(task_id)
        if task is None and task_id not in carried_out:
            if isinstance(what, Running):
                await runtime.stop(task_id, "SIGKILL", 0)
                await dataplane.hang_up(container_id(task_id))
            removal.add(task_id)
        elif task is not None and not task.status.state.may_live:
            await _end(runtime, dataplane, task, what)


async def _end(runtime: Runtime, dataplane: Dataplane, task: Task, what: Found) -> None:
    match what:
        case Running():
            await runtime.stop(task.id, task.spec.stop_signal, 0)
            await dataplane.hang_up(container_id(task.id))
        case Prepared():
            await runtime.remove(task.id)
        case Exit():
            pass
        case _:
            assert_never(what)


def adoptable(found: Found | None) -> Found | None:
    """None as well where only a log is left: its runner knows from the task's state whether it was lost or is yet to start."""
    return None if found == Exit(None) else found
