"""One task from its assignment to its end, as its node carries it out (rules 7 and 10).

    ASSIGNED ─ [PREPARING ─ READY] ─ namespace there ─ start ─ [STARTING ─ healthy] ─ RUNNING
    RUNNING ─┬─ exits by itself ───────────────── COMPLETE | FAILED
             ├─ unhealthy: out of every map ─ stop ─ FAILED
             └─ desired SHUTDOWN: out of every map ─ stop ─ SHUTDOWN

PREPARING and READY are told where the driver of its image has something to prepare: then the node makes no namespace before
READY, since the driver may hand one over.

`out of every map` is known, not hoped: every live node has acknowledged the revision in which the task no longer serves.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import assert_never

from routemesh import loops, names
from routemesh.agent.health import watch_health
from routemesh.agent.preparation import News
from routemesh.agent.surroundings import Surroundings
from routemesh.errors import UserError
from routemesh.model import Task, TaskState, TaskStatus
from routemesh.runtime import Exit, Found, Prepared, Running
from routemesh.values import replace

log = logging.getLogger(__name__)

LOST = "the task is gone: its node was restarted"


class TaskRunner:
    """Carries out one task; `see` tells it what the manager wants now."""

    def __init__(self, task: Task, around: Surroundings, found: Found | None) -> None:
        """`found`: what the runtime already has of it, after a restart of the daemon."""
        self._task = task
        self._around = around
        self._found = found
        self._seen = asyncio.Event()
        self._is_begun = isinstance(found, Prepared) or TaskState.PREPARING <= task.status.state <= TaskState.READY

    def see(self, task: Task) -> None:
        """Take note of the task's newest version."""
        if task is not self._task:
            self._task = task
            self._seen.set()

    async def run(self) -> None:
        """Bring the task to its end, whatever that is; returns when it is reported."""
        await loops.persist(f"task {self._name()} ({self._task.id})", self._attempt, self._around.troubles)

    async def _attempt(self) -> None:
        try:
            await self._run()
        except Exception as exc:
            if isinstance(self._found, Running):
                raise  # it may run still, so the next attempt takes it over as it is then
            await self._undo()
            state = TaskState.REJECTED if isinstance(exc, UserError) else TaskState.FAILED
            await self._report(state, error=loops.said(exc))

    async def _run(self) -> None:
        match self._found:
            case Exit() as ended:
                await self._exited(ended)
                return
            case None | Prepared():
                if self._is_lost():
                    await self._report(TaskState.FAILED, error=LOST)
                    return
                if not await self._start():
                    return
            case Running():
                pass
            case _:
                assert_never(self._found)
        if not self._task.status.healthy:
            await self._drain_and_stop(self._task.revision, TaskState.FAILED, error=self._task.status.error)
        elif await self._becomes_healthy():
            await self._serve()

    def _is_lost(self) -> bool:
        """Whether it was further than it is; a preparation that was not told as done may be begun anew."""
        reached = self._task.status.state
        return reached >= TaskState.STARTING or (reached is TaskState.READY and self._found is None)

    async def _start(self) -> bool:
        """Prepare the task and start its process once it is wanted; False if it never is."""
        task, around = self._task, self._around
        netns = names.container_id(task.id)
        slow = around.runtime.prepares(task.spec)
        if slow and task.desired == TaskState.READY:
            await self._report(TaskState.ACCEPTED, message="waiting for its restart")
        await self._until(lambda task: task.desired != TaskState.READY)
        if self._leaving() or not await self._prepare(netns, slow=slow):
            await self._end_before_start()
            return False
        first, _ = await _first(self._until_leaving(), self._namespace_ready(netns))
        if first == 0:
            await self._end_before_start()
            return False
        running = await around.runtime.start(task.id, self._name(), task.spec, netns, around.netns_path(netns))
        self._found, self._is_begun = running, False
        if task.spec.health is not None:
            await self._report(TaskState.STARTING, message="waiting for its health check", pid=running.pid)
        return True

    async def _prepare(self, netns: str, *, slow: bool) -> bool:
        """Have its driver prepare it, and hand over what it made; False if the task is not wanted any more."""
        if self._found is None:
            self._around.runtime.check(self._task.spec)
            news = News()
            if slow:
                self._is_begun = True
                await self._report(TaskState.PREPARING, message="preparing")
            first, _ = await _first(self._until_leaving(), self._prepared(netns, news), news.told(self._tell))
            if first == 0:
                return False
        assert isinstance(self._found, Prepared)
        if self._found.netns is not None:
            await self._around.hand_over(netns, self._found.netns)
        if slow and self._task.status.state < TaskState.READY:
            await self._report(TaskState.READY, message="prepared")
        return True

    async def _prepared(self, netns: str, news: News) -> str:
        task = self._task
        self._found = await self._around.runtime.prepare(task.id, self._name(), task.spec, netns, news.note)
        return ""

    async def _tell(self, progress: str) -> None:
        await self._report(TaskState.PREPARING, message=progress, at=self._task.status.at)

    async def _end_before_start(self) -> None:
        await self._undo()
        await self._report(TaskState.SHUTDOWN, message="shut down before it started")

    async def _undo(self) -> None:
        """Take away what was prepared, or was about to be."""
        if self._is_begun:
            await self._around.hand_over(names.container_id(self._task.id), None)
            await self._around.runtime.remove(self._task.id)
            self._found, self._is_begun = None, False

    def _name(self) -> str:
        return names.task_name(self._task.spec.name, self._task.slot, self._task.node_id or "")

    async def _becomes_healthy(self) -> bool:
        """Gate the entry to the mesh; False if the task ended before."""
        if self._task.status.state >= TaskState.RUNNING:
            return True
        reason = ""
        if self._task.spec.health is not None:
            first, reason = await _first(self._wait_exit(), self._until_leaving(), self._health(until_healthy=True))
            if first == 0:
                return False
            if first == 1:
                await self._stop(TaskState.SHUTDOWN)
                return False
            if reason:
                await self._stop(TaskState.FAILED, error=f"unhealthy: {reason}")
                return False
        assert isinstance(self._found, Running)
        await self._report(TaskState.RUNNING, message="started", pid=self._found.pid)
        return True

    async def _serve(self) -> None:
        first, reason = await _first(self._wait_exit(), self._until_leaving(), self._health(until_healthy=False))
        if first == 1:
            await self._drain_and_stop(self._task.revision, TaskState.SHUTDOWN)
        elif first == 2:
            revision = await self._report(TaskState.RUNNING, error=f"unhealthy: {reason}", healthy=False)
            await self._drain_and_stop(revision, TaskState.FAILED, error=f"unhealthy: {reason}")

    async def _drain_and_stop(self, revision: int, end: TaskState, error: str = "") -> None:
        first, _ = await _first(self._wait_exit(), self._acknowledged(revision))
        if first == 1:
            await self._stop(end, error)

    async def _stop(self, end: TaskState, error: str = "") -> None:
        spec = self._task.spec
        ended = await self._around.runtime.stop(self._task.id, spec.stop_signal, spec.stop_grace_s)
        await self._report(end, error=error, exit_code=ended.code)

    async def _exited(self, ended: Exit) -> None:
        if self._leaving():
            await self._report(TaskState.SHUTDOWN, exit_code=ended.code)
        elif ended.code == 0:
            await self._report(TaskState.COMPLETE, message="finished", exit_code=0)
        else:
            await self._report(TaskState.FAILED, error=f"non-zero exit ({ended.code})", exit_code=ended.code)

    async def _wait_exit(self) -> str:
        await self._exited(await self._around.runtime.wait(self._task.id))
        return ""

    async def _until_leaving(self) -> str:
        await self._until(lambda _: self._leaving())
        return ""

    async def _namespace_ready(self, netns: str) -> str:
        await self._around.namespace_ready(netns)
        return ""

    async def _acknowledged(self, revision: int) -> str:
        await self._around.acknowledged(revision)
        return ""

    async def _health(self, *, until_healthy: bool) -> str:
        """Return "" when it has become healthy, the reason when it has become unhealthy."""
        task = self._task
        if task.spec.health is None or task.gateway_address is None:
            await asyncio.Event().wait()
        assert task.spec.health is not None and task.gateway_address is not None
        return await watch_health(
            task.spec.health, task.id, self._around.runtime, task.gateway_address, until_healthy=until_healthy
        )

    def _leaving(self) -> bool:
        """Also where the cluster has given the task up, since its node was thought dead, and it runs on."""
        return self._task.desired > TaskState.RUNNING or self._task.status.state.ended

    async def _until(self, condition: Callable[[Task], bool]) -> None:
        while not condition(self._task):
            self._seen.clear()
            await self._seen.wait()

    async def _report(
        self,
        state: TaskState,
        message: str = "",
        error: str = "",
        exit_code: int | None = None,
        pid: int | None = None,
        healthy: bool = True,
        at: float | None = None,
    ) -> int:
        """Commit; returns the revision that holds it. A task's end is its network's end too: first its clients hear of it."""
        if state.ended and isinstance(self._found, Running | Exit):
            await self._around.hang_up(names.container_id(self._task.id))
        status = TaskStatus(
            state=state,
            at=self._around.now() if at is None else at,
            message=message,
            error=error,
            exit_code=exit_code,
            pid=pid or (None if state.ended else self._task.status.pid),
            healthy=healthy,
        )
        log.info("task=%s.%s state=%s %s", self._task.spec.name, self._task.slot, state.name, error or message)
        committed = await self._around.report(self._task, status)
        self._task = replace(self._task, status=status)
        return committed.revision


async def _first(*works: Awaitable[str]) -> tuple[int, str]:
    """Run all until one is done; the others are cancelled. Returns which it was (the lowest of several) and its result.

    What a work raises passes through.
    """
    running = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        winner = next(index for index, work in enumerate(running) if work.done())
        return winner, running[winner].result()
    finally:
        for work in running:
            work.cancel()
        await asyncio.gather(*running, return_exceptions=True)
