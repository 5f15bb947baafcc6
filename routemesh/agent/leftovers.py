"""What a node's runtime has beside what the cluster's state says: taken over, stopped or removed."""

import asyncio
import logging
from collections.abc import Container, Mapping

from routemesh import loops
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
) -> tuple[str, ...]:
    """Stop what has ended for the cluster and what it has forgotten, which is then removed, unless it is still carried out.

    That is done before their networks go, so that their clients hear of it, and for all at once: each may take seconds. Returns
    what could not be done, a line for each: a process that hangs in the kernel keeps nothing else from going on.
    """
    ends = []
    for task_id, what in found.items():
        task = mine.get(task_id)
        if task is None and task_id not in carried_out:
            ends.append(_give_up(runtime, dataplane, task_id, what, removal))
        elif task is not None and not task.status.state.may_live:
            if isinstance(what, Running):
                ends.append(_stop(runtime, dataplane, task_id, task.spec.stop_signal))
            elif isinstance(what, Prepared):
                ends.append(runtime.remove(task_id))
    outcomes = await asyncio.gather(*ends, return_exceptions=True)
    if bugs := [each for each in outcomes if isinstance(each, BaseException) and not isinstance(each, OSError | RoutemeshError)]:
        raise bugs[0]
    return tuple(loops.said(each) for each in outcomes if each is not None)


async def _give_up(runtime: Runtime, dataplane: Dataplane, task_id: TaskId, what: Found, removal: Removal) -> None:
    if isinstance(what, Running):
        await _stop(runtime, dataplane, task_id, "SIGKILL")
    removal.add(task_id)


async def _stop(runtime: Runtime, dataplane: Dataplane, task_id: TaskId, signal: str) -> None:
    await runtime.stop(task_id, signal, 0)
    await dataplane.hang_up(container_id(task_id))


def adoptable(found: Found | None) -> Found | None:
    """None as well where only a log is left: its runner knows from the task's state whether it was lost or is yet to start."""
    return None if found == Exit(None) else found
