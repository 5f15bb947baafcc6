"""The registry of drivers: one more is one row of it, and nobody else has to know.

The invented one runs another image, takes its time to prepare a task, tells how far it is and hands over a namespace of its own
(tests.runtime.fake.SlowRuntime). The agent, the manager and the store around it are the real ones.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from routemesh import names
from routemesh.agent.tasks import LOST
from routemesh.api.describe import task_info
from routemesh.cli.service import task_rows
from routemesh.decide import admit
from routemesh.decide.progress import progress
from routemesh.errors import Unavailable, UserError
from routemesh.model import HealthCheck, HealthKind, RestartPolicy, State, Task, TaskState
from routemesh.nodeplan import HOST, Capabilities, Netns, NodePlan, item_of
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.runtime import Prepared, Running
from routemesh.runtime.drivers import DRIVERS, Driver
from routemesh.runtime.node import NodeRuntime
from routemesh.values import replace
from tests.runtime.fake import FakeRuntime, SlowRuntime
from tests.unit.daemons import Cluster, Daemon, cluster
from tests.unit.test_agent import WEB

TEA = replace(WEB, image="tea", replicas=1, restart=RestartPolicy(delay_s=60))
CAPS = Capabilities(nf_tables=True, ip_vs=False, kernel="fake")


class Node:
    """The only node, with two drivers: `slow` is the invented one."""

    def __init__(self, running: Cluster, slow: SlowRuntime) -> None:
        self.running = running
        self.slow = slow
        (self.daemon,) = running.daemons

    async def task(self, *reached: TaskState, message: str = "") -> Task:
        """The newest task, when it is in one of these states and says so."""
        state = await self.running.until(lambda state: _newest(state) is not None and self._is(state, reached, message))
        task = _newest(state)
        assert task is not None
        return task

    def _is(self, state: State, reached: tuple[TaskState, ...], message: str) -> bool:
        task = _newest(state)
        return task is not None and task.status.state in reached and message in task.status.message

    def has_namespace(self, task: Task) -> bool:
        """Whether the node's kernel has one for a task."""
        return ("Netns", names.container_id(task.id)) in self.daemon.kernel.read(NodePlan()).namespaces.get(HOST, {})


def _newest(state: State) -> Task | None:
    return max(state.tasks.values(), key=lambda task: task.created_at, default=None)


def play(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Node], Awaitable[None]]) -> None:
    """Run a scenario on a node with both drivers."""

    async def main() -> None:
        slow = SlowRuntime()

        def opened(daemon: Daemon) -> NodeRuntime:
            for runtime in (daemon.runtime, slow):
                driver = Driver(
                    name=runtime.image,
                    images=f"image {runtime.image!r}",
                    takes=lambda image, mine=runtime.image: image == mine,  # type: ignore[misc]
                    lacks=lambda: "",
                    open=lambda _, __, runtime=runtime: runtime,  # type: ignore[misc]
                )
                monkeypatch.setitem(DRIVERS, driver.name, driver)
            return NodeRuntime(daemon.run_dir, daemon.run_dir)

        def prepare(made: Cluster) -> None:
            for daemon in made.daemons:
                daemon.drivers = opened(daemon)

        monkeypatch.delitem(DRIVERS, "process")
        async with cluster(1, prepare) as running:
            await scenario(Node(running, slow))

    asyncio.run(main())


def test_a_task_is_prepared_then_gets_the_namespace_that_was_handed_over_and_starts_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(node: Node) -> None:
        await node.running.create(TEA)
        task = await node.task(TaskState.PREPARING, message="water is boiling: 40 of 100 °C")
        state = await node.running.store.snapshot()
        (row,) = task_rows([task_info(state, task)], whole=False)
        assert row[5].startswith("Preparing")
        assert row[5].endswith("ago: water is boiling: 40 of 100 °C")
        (service,) = state.services.values()
        assert progress(state, service, {}).message == "0 of 1 tasks running, 1 being prepared"
        assert not node.has_namespace(task)
        assert names.container_id(task.id) not in plan(view(state, node.daemon.id), CAPS).namespaces

        node.slow.served.set()
        task = await node.task(TaskState.RUNNING)
        name = names.container_id(task.id)
        assert node.daemon.kernel.handed_over == {name: Path("/made/by/the/driver", name)}
        assert node.has_namespace(task)
        assert node.slow.netns == {task.id: node.daemon.kernel.netns_path(name)}
        await node.running.until(lambda _: bool(node.daemon.backends()))
        assert not node.daemon.runtime.known

    play(monkeypatch, scenario)


def test_its_tasks_are_asked_ended_and_forgotten_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        node.slow.served.set()
        check = HealthCheck(kind=HealthKind.CMD, command=("true",), interval_s=0.02)
        await node.running.create(replace(TEA, health=check))
        task = await node.task(TaskState.RUNNING)
        assert node.slow.asked
        await node.running.store.update(lambda state: admit.remove_service(state, "web"))
        await node.running.until(lambda state: not state.tasks)
        assert node.slow.stopped == [task.id]
        await node.running.until(lambda _: not node.slow.known)

    play(monkeypatch, scenario)


def test_a_task_of_a_quick_driver_is_never_told_as_being_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        told: list[TaskState] = []

        async def watch() -> None:
            async for _ in node.running.store.watch():
                told.extend(task.status.state for task in (await node.running.store.snapshot()).tasks.values())

        watching = asyncio.create_task(watch())
        await node.running.create(replace(TEA, image="host"))
        await node.task(TaskState.RUNNING)
        watching.cancel()
        assert set(told) & {TaskState.ACCEPTED, TaskState.PREPARING, TaskState.READY} == set()

    play(monkeypatch, scenario)


def test_a_daemon_that_died_meanwhile_has_it_prepared_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        await node.running.create(TEA)
        task = await node.task(TaskState.PREPARING, message="water")
        await node.daemon.kill()
        assert node.slow.spilt == [task.id]
        await node.daemon.start()
        await node.running.until(lambda _: node.slow.brewed == [task.id, task.id])
        assert not node.has_namespace(task)
        node.slow.served.set()
        assert (await node.task(TaskState.RUNNING)).id == task.id

    play(monkeypatch, scenario)


@pytest.mark.parametrize("told", [TaskState.PREPARING, TaskState.READY])
def test_a_daemon_that_died_after_it_goes_on_with_what_was_prepared(monkeypatch: pytest.MonkeyPatch, told: TaskState) -> None:
    async def scenario(node: Node) -> None:
        await node.running.create(TEA)
        task = await node.task(TaskState.PREPARING, message="water")
        await node.daemon.kill()
        made = Prepared(Path("/made/before"))
        node.slow.known[task.id] = made
        status = replace(task.status, state=told)
        await node.running.store.update(lambda state: admit.task_report(state, task.id, status))
        await node.daemon.start()
        assert (await node.task(TaskState.RUNNING)).id == task.id
        assert node.slow.brewed == [task.id]
        assert node.daemon.kernel.handed_over == {names.container_id(task.id): made.netns}

    play(monkeypatch, scenario)


def test_what_was_prepared_and_went_with_its_machine_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        await node.running.create(TEA)
        task = await node.task(TaskState.PREPARING, message="water")
        await node.daemon.kill()
        status = replace(task.status, state=TaskState.READY)
        await node.running.store.update(lambda state: admit.task_report(state, task.id, status))
        await node.daemon.start()
        state = await node.running.until(lambda state: state.tasks[task.id].status.state is TaskState.FAILED)
        assert state.tasks[task.id].status.error == LOST

    play(monkeypatch, scenario)


def test_a_task_that_is_removed_meanwhile_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        await node.running.create(TEA)
        task = await node.task(TaskState.PREPARING, message="water")
        await node.running.store.update(lambda state: admit.remove_service(state, "web"))
        await node.running.until(lambda state: not state.tasks)
        assert node.slow.spilt == [task.id]
        assert not node.slow.known
        assert not node.has_namespace(task)

    play(monkeypatch, scenario)


@pytest.mark.parametrize(
    ("refusal", "state"),
    [
        (UserError("there is no such tea; ask for another"), TaskState.REJECTED),
        (Unavailable("the kettle is broken"), TaskState.FAILED),
    ],
)
def test_a_preparation_that_fails_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, refusal: Exception, state: TaskState
) -> None:
    async def scenario(node: Node) -> None:
        node.slow.refusal = refusal
        node.slow.served.set()
        await node.running.create(TEA)
        found = await node.running.until(lambda found: any(task.status.state is state for task in found.tasks.values()))
        assert [task.status.error for task in found.tasks.values() if task.status.error] == [str(refusal)]
        assert not node.slow.known

    play(monkeypatch, scenario)


def test_a_task_that_is_removed_before_its_start_has_its_namespace_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        node.daemon.kernel.refuse = lambda op: "busy" if isinstance(item_of(op), Netns) else None
        node.slow.served.set()
        await node.running.create(TEA)
        task = await node.task(TaskState.READY)
        await node.running.until(lambda _: bool(node.daemon.kernel.handed_over))
        await node.running.store.update(lambda state: admit.remove_service(state, "web"))
        await node.running.until(lambda state: not state.tasks)
        assert not node.slow.netns
        assert not node.slow.known
        assert names.container_id(task.id) not in node.daemon.kernel.handed_over

    play(monkeypatch, scenario)


def test_a_namespace_that_can_not_be_taken_is_told_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        def refuse(name: str, namespace: Path | None) -> None:
            if namespace is not None:
                raise Unavailable(f"{namespace} is no namespace")

        node.daemon.kernel.hand_over = refuse  # type: ignore[method-assign]
        node.slow.served.set()
        await node.running.create(TEA)
        found = await node.running.until(
            lambda found: any(task.status.state is TaskState.FAILED for task in found.tasks.values())
        )
        assert any("is no namespace" in task.status.error for task in found.tasks.values())
        assert not node.slow.known

    play(monkeypatch, scenario)


def test_during_its_restart_delay_a_task_has_no_namespace_either(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        node.slow.served.set()
        await node.running.create(TEA)
        first = await node.task(TaskState.RUNNING)
        await node.slow.end(first.id, 1)
        waiting = await node.task(TaskState.ACCEPTED)
        assert waiting.desired is TaskState.READY
        assert not node.has_namespace(waiting)

    play(monkeypatch, scenario)


def test_an_image_without_a_driver_is_refused_by_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lacking = Driver(name="kettle", images="teas", takes=lambda image: image == "tea", lacks=lambda: "no water", open=_fake)
    monkeypatch.setitem(DRIVERS, lacking.name, lacking)
    runtime = NodeRuntime(tmp_path, tmp_path / "logs")
    try:
        with pytest.raises(UserError, match=r"^image 'tea' can't be run on this node: driver kettle: no water$"):
            runtime.check(TEA)
        with pytest.raises(
            UserError, match=r"^image 'milk' can't be run on this node: its drivers run image 'host' \(.*\); teas$"
        ):
            runtime.check(replace(TEA, image="milk"))
        assert not runtime.prepares(TEA)
    finally:
        runtime.close()


def _fake(_: Path, __: Path) -> FakeRuntime:
    return FakeRuntime()


def test_a_task_is_asked_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(node: Node) -> None:
        node.slow.served.set()
        await node.running.create(TEA)
        slow = await node.task(TaskState.RUNNING)
        await node.running.create(replace(TEA, name="other", image="host", publish=()))
        await node.running.until(lambda state: len([task for task in state.tasks.values() if task.serving]) == 2)
        everything = await NodeRuntime(node.daemon.run_dir, node.daemon.run_dir).tasks()
        assert everything == {**node.slow.known, **node.daemon.runtime.known}
        assert isinstance(everything[slow.id], Running)
        assert len(everything) == 2

    play(monkeypatch, scenario)
