"""A clock that is set, back or forth, moves nobody's end and nobody's turn."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from routemesh import manager
from routemesh.agent import agent
from routemesh.decide.clock import in_bounds
from routemesh.model import NodeState, RestartPolicy, TaskState, UpdateConfig
from routemesh.values import replace
from tests.simulation import WEB, Simulation
from tests.unit import test_agent
from tests.unit.daemons import Cluster, cluster
from tests.unit.test_agent import serving, two_tasks

LEAPS = (-3600.0, 3600.0)
TTL_S = 0.4


@pytest.fixture(params=LEAPS, ids=["back", "forth"])
def leap(request: pytest.FixtureRequest) -> float:
    return float(request.param)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leases last a moment, so that a test need not wait for seconds."""
    for module in (agent, manager):
        monkeypatch.setattr(module, "LEASE_TTL_S", TTL_S)
    monkeypatch.setattr(agent, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(manager, "RENEW_S", 0.05)
    monkeypatch.setattr(manager, "GRACE_S", TTL_S)
    yield


def set_clocks(running: Cluster, leap: float) -> None:
    for daemon in running.daemons:
        daemon.clock = lambda: time.time() + leap


def test_a_waiting_slot_waits_no_longer_than_its_delay() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=1, restart=RestartPolicy(delay_s=5.0)))
    simulation.settle()
    simulation.report(simulation.serving()[0], TaskState.FAILED)
    simulation.step()
    assert simulation.deadline() == 5.0
    simulation.now -= 3600
    assert simulation.deadline() == 0.0
    simulation.step()
    assert simulation.deadline() == 5.0
    simulation.wait(5)
    assert len(simulation.serving()) == 1


def test_an_update_waits_no_longer_than_its_delay() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, update=UpdateConfig(delay_s=7.0), restart=RestartPolicy(delay_s=0.0)))
    simulation.settle()
    simulation.update(environment=("V=2",))
    simulation.settle()
    assert simulation.deadline() == 7.0
    simulation.now -= 3600
    simulation.step()
    assert simulation.deadline() == 7.0
    simulation.wait(7)
    assert simulation.deadline() is None
    assert {task.spec.environment for task in simulation.serving()} == {("V=2",)}


def test_a_failure_counts_for_its_window_after_a_leap_at_most() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=1, restart=RestartPolicy(delay_s=1.0, max_attempts=1, window_s=60.0)))
    simulation.settle()
    simulation.report(simulation.serving()[0], TaskState.FAILED)
    simulation.step()
    simulation.now -= 3600
    simulation.wait(1)
    simulation.wait(60)
    simulation.report(simulation.serving()[0], TaskState.FAILED)
    simulation.step()
    simulation.wait(1)
    assert len(simulation.serving()) == 1


def test_a_clock_that_is_a_little_behind_writes_nothing() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    assert in_bounds(simulation.state, simulation.now - 4) is simulation.state
    assert in_bounds(simulation.state, simulation.now + 3600) is simulation.state


@pytest.mark.usefixtures("hasty")
def test_nobody_is_given_up_because_clocks_leap(leap: float) -> None:
    async def scenario(running: Cluster) -> None:
        tasks = await two_tasks(running)
        set_clocks(running, leap)
        seen = set()
        for _ in range(30):
            state = await running.store.snapshot()
            seen |= {node.state for node in state.nodes.values()}
            assert {task.id for task in serving(state)} == {task.id for task in tasks}
            await asyncio.sleep(TTL_S / 10)
        assert seen == {NodeState.READY}

    test_agent.play(scenario)


@pytest.mark.usefixtures("hasty")
def test_a_dead_leader_is_followed_though_clocks_leap(leap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(running: Cluster) -> None:
        await two_tasks(running)
        holder = await test_agent._leader(running)

        async def no_goodbye(name: str, holder: str) -> None:
            pass

        monkeypatch.setattr(running.store, "release", no_goodbye)
        dead = next(daemon for daemon in running.daemons if daemon.id == holder)
        await dead.kill()
        set_clocks(running, leap)
        state = await running.until(lambda state: state.nodes[dead.id].state is NodeState.DOWN and len(serving(state)) == 2)
        assert all(task.node_id != dead.id for task in serving(state))

    test_agent.play(scenario)


@pytest.mark.usefixtures("hasty")
def test_a_failed_task_is_followed_by_another_though_clocks_leap_while_it_waits(leap: float) -> None:
    async def scenario() -> None:
        async with cluster(2) as running:
            task, _ = await two_tasks(running, replace(test_agent.WEB, restart=RestartPolicy(delay_s=0.5)))
            await test_agent.host_of(running, task).runtime.end(task.id, 1)
            await running.until(lambda state: any(each.desired is TaskState.READY for each in state.tasks.values()))
            set_clocks(running, leap)
            await running.until(lambda state: len(serving(state)) == 2)

    asyncio.run(scenario())
