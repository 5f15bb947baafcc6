"""What is left of tasks on a node that the cluster has done with: it goes, and where it can't, it is in nobody's way."""

import errno

import pytest

from routemesh.agent import agent
from routemesh.errors import Unavailable
from routemesh.model import TaskId
from routemesh.runtime import Exit, Running
from tests.unit.daemons import Cluster
from tests.unit.test_agent import play, two_tasks


def test_a_log_that_can_not_be_deleted_keeps_the_kernel_from_nothing_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(running: Cluster) -> None:
        (daemon,) = running.daemons
        await daemon.kill()
        daemon.runtime.known.update({TaskId("first"): Exit(None), TaskId("second"): Exit(None)})
        remove, stuck = daemon.runtime.remove, {"first"}

        async def removed(task_id: TaskId) -> None:
            if task_id in stuck:
                raise OSError(errno.EROFS, "Read-only file system", f"/var/lib/{task_id}")
            await remove(task_id)

        monkeypatch.setattr(daemon.runtime, "remove", removed)
        await daemon.start()
        state = await running.until(lambda state: bool(state.nodes[daemon.id].failures))
        assert state.nodes[daemon.id].failures == ("removal: /var/lib/first: Read-only file system",)
        await two_tasks(running)
        assert "first" in daemon.runtime.known and "second" not in daemon.runtime.known
        stuck.clear()
        await running.until(lambda state: "first" not in daemon.runtime.known and not state.nodes[daemon.id].failures)

    play(scenario, nodes=1)


def test_a_process_that_does_not_die_keeps_the_kernel_from_nothing_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_LAST_BACKOFF_S", 0.1)

    async def scenario(running: Cluster) -> None:
        (daemon,) = running.daemons
        await daemon.kill()
        daemon.runtime.known.update({TaskId("stuck"): Running(pid=7), TaskId("other"): Running(pid=8)})
        stop, stuck = daemon.runtime.stop, {"stuck"}

        async def stopped(task_id: TaskId, signal: str, grace_s: float) -> Exit:
            if task_id in stuck:
                raise Unavailable(f"task {task_id} did not die of SIGKILL")
            return await stop(task_id, signal, grace_s)

        monkeypatch.setattr(daemon.runtime, "stop", stopped)
        await daemon.start()
        state = await running.until(lambda state: bool(state.nodes[daemon.id].failures))
        assert any("task stuck did not die of SIGKILL" in line for line in state.nodes[daemon.id].failures)
        await two_tasks(running)
        assert "other" not in daemon.runtime.known
        stuck.clear()
        await running.until(lambda state: "stuck" not in daemon.runtime.known and not state.nodes[daemon.id].failures)

    play(scenario, nodes=1)
