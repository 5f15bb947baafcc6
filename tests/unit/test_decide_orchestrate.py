"""Slots are filled, emptied and refilled."""

from typing import Any

import pytest

from routemesh.decide import admit, step
from routemesh.model import (
    Availability,
    Mode,
    RestartCondition,
    RestartPolicy,
    TaskState,
)
from routemesh.values import replace
from tests.addresses import on_ingress
from tests.simulation import WEB, Simulation


def restart(**changes: Any) -> RestartPolicy:
    return replace(RestartPolicy(), **changes)


def states(simulation: Simulation) -> list[tuple[int, str, str]]:
    return [(task.slot, task.desired.name, task.status.state.name) for task in simulation.tasks()]


def test_one_step_creates_allocates_and_assigns() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    assert states(simulation) == [(1, "RUNNING", "ASSIGNED"), (2, "RUNNING", "ASSIGNED")]
    assert simulation.node_names(simulation.tasks()) == ["node1", "node2"]
    assert [str(on_ingress(task)) for task in simulation.tasks()] == ["10.0.0.6", "10.0.0.7"]
    assert [str(task.gateway_address) for task in simulation.tasks()] == ["172.18.0.3", "172.18.0.3"]


def test_a_step_with_nothing_to_do_returns_the_same_state() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    state = simulation.state
    assert step(state, simulation.now + 1, frozenset(simulation.live)) is state


def test_a_task_is_created_once_however_often_the_step_runs_before_its_commit() -> None:
    simulation = Simulation()
    state = admit.create_service(simulation.state, WEB, simulation.now)
    once = step(state, simulation.now, simulation.live)
    assert step(once, simulation.now, simulation.live) is once
    assert step(state, simulation.now, simulation.live) == once


def test_scaling_up_keeps_what_runs_and_fills_the_next_slots() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    before = {task.id for task in simulation.tasks()}
    simulation.update(replicas=4)
    simulation.settle()
    assert [task.slot for task in simulation.serving()] == [1, 2, 3, 4]
    assert before < {task.id for task in simulation.serving()}


def test_scaling_down_takes_from_the_fullest_node() -> None:
    simulation = Simulation(nodes=2)
    simulation.create(replace(WEB, constraints=("node.hostname==node1",)))
    simulation.update(constraints=(), replicas=3)
    simulation.settle()
    assert simulation.node_names(simulation.serving()) == ["node1", "node1", "node2"]
    simulation.update(replicas=2)
    assert [task.slot for task in simulation.tasks() if task.desired is TaskState.REMOVE] == [2]
    simulation.settle()
    assert simulation.node_names(simulation.serving()) == ["node1", "node2"]


def test_scaling_down_takes_what_does_not_serve_first() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=3))
    simulation.settle()
    simulation.report(simulation.tasks()[0], TaskState.RUNNING, healthy=False)
    simulation.update(replicas=2)
    assert [task.slot for task in simulation.wanted()] == [2, 3]


def test_scaling_up_again_uses_the_lowest_free_slot() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=3))
    simulation.settle()
    simulation.report(simulation.tasks()[0], TaskState.RUNNING, healthy=False)
    simulation.update(replicas=2)
    simulation.update(replicas=3)
    assert sorted(task.slot for task in simulation.wanted()) == [1, 2, 3]
    simulation.settle()
    assert sorted(task.slot for task in simulation.serving()) == [1, 2, 3]


def test_scaling_to_nothing_and_removing_leave_no_task() -> None:
    for change in (lambda simulation: simulation.update(replicas=0), Simulation.remove):
        simulation = Simulation()
        simulation.create(WEB)
        simulation.settle()
        change(simulation)
        assert {task.desired for task in simulation.tasks()} == {TaskState.REMOVE}
        assert not simulation.serving()
        simulation.settle()
        assert simulation.tasks() == []


def test_removing_a_service_forgets_tasks_that_never_had_a_node() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, constraints=("node.hostname==nowhere",)))
    assert len(simulation.tasks()) == 2
    simulation.remove()
    assert simulation.tasks() == []


def test_a_failed_task_is_followed_by_another_after_the_delay() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    simulation.report(simulation.tasks()[0], TaskState.FAILED, error="non-zero exit (1)")
    simulation.settle()
    assert states(simulation) == [(1, "SHUTDOWN", "FAILED"), (1, "READY", "ASSIGNED"), (2, "RUNNING", "RUNNING")]
    assert simulation.deadline() == 5.0
    simulation.wait(4.9)
    assert len(simulation.serving()) == 1
    simulation.wait(0.1)
    assert len(simulation.serving()) == 2
    assert simulation.deadline() is None


def test_a_node_whose_clock_is_ahead_does_not_prolong_the_delay() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    simulation.now += 3600
    simulation.report(simulation.tasks()[0], TaskState.FAILED)
    simulation.now -= 3600
    simulation.step()
    assert simulation.deadline() == 5.0


def test_a_leader_whose_clock_is_behind_still_knows_the_newest_task() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=1, restart=restart(delay_s=0.0)))
    simulation.settle()
    simulation.now -= 3600
    simulation.report(simulation.tasks()[0], TaskState.FAILED)
    simulation.settle()
    old, new = simulation.tasks()
    assert (old.status.state, new.status.state) == (TaskState.FAILED, TaskState.RUNNING)


@pytest.mark.parametrize(
    ("condition", "end", "followed"),
    [
        (RestartCondition.ANY, TaskState.COMPLETE, True),
        (RestartCondition.ON_FAILURE, TaskState.COMPLETE, False),
        (RestartCondition.ON_FAILURE, TaskState.FAILED, True),
        (RestartCondition.ON_FAILURE, TaskState.REJECTED, True),
        (RestartCondition.NONE, TaskState.FAILED, False),
        (RestartCondition.NONE, TaskState.COMPLETE, False),
    ],
)
def test_the_restart_condition_decides(condition: RestartCondition, end: TaskState, followed: bool) -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=1, restart=restart(condition=condition)))
    simulation.settle()
    simulation.report(simulation.tasks()[0], end)
    simulation.wait(10)
    assert [task.status.state for task in simulation.tasks()] == ([end, TaskState.RUNNING] if followed else [end])
    assert simulation.tasks()[0].desired is TaskState.SHUTDOWN


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_attempts_are_limited_also_beyond_the_history(limit: int) -> None:
    simulation = Simulation()
    simulation.fails = lambda task: True
    simulation.create(replace(WEB, replicas=1, restart=restart(max_attempts=limit, delay_s=1.0)))
    created = {task.id for task in simulation.tasks()}
    for _ in range(2 * limit + 10):
        simulation.wait(1)
        created |= {task.id for task in simulation.tasks()}
    assert len(created) == limit + 1
    assert simulation.deadline() is None


def test_attempts_outside_the_window_do_not_count() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=1, restart=restart(max_attempts=1, window_s=60.0, delay_s=0.0)))
    for _ in range(4):
        simulation.wait(100)
        simulation.report(simulation.serving()[0], TaskState.FAILED)
        simulation.settle()
    assert len(simulation.serving()) == 1
    simulation.wait(10)
    simulation.report(simulation.serving()[0], TaskState.FAILED)
    simulation.settle()
    assert simulation.serving() == []


def test_a_new_version_has_its_own_attempts() -> None:
    simulation = Simulation()
    simulation.fails = lambda task: True
    simulation.create(replace(WEB, replicas=1, restart=restart(max_attempts=2, delay_s=0.0)))
    simulation.settle()
    assert len(simulation.tasks()) == 3
    simulation.update(environment=("V=2",))
    simulation.settle()
    assert sum(task.spec.environment == ("V=2",) for task in simulation.tasks()) == 3
    assert not simulation.wanted()


def test_five_tasks_of_a_slot_are_kept() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=1, restart=restart(delay_s=0.0)))
    for _ in range(9):
        simulation.settle()
        simulation.report(simulation.serving()[0], TaskState.FAILED)
        simulation.wait(1)
    tasks = simulation.tasks()
    assert [task.status.state.name for task in tasks] == ["FAILED"] * 4 + ["RUNNING"]
    assert [task.created_at for task in tasks] == sorted(task.created_at for task in tasks)


def test_draining_moves_the_tasks_when_they_have_ended() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    simulation.commit(admit.update_node(simulation.state, "node1", availability=Availability.DRAIN))
    simulation.step()
    assert states(simulation) == [(1, "SHUTDOWN", "RUNNING"), (2, "RUNNING", "RUNNING")]
    simulation.settle()
    assert simulation.node_names(simulation.serving()) == ["node3", "node2"]


def test_a_drained_task_that_fails_while_it_stops_is_replaced_without_delay() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, restart=restart(condition=RestartCondition.NONE)))
    simulation.settle()
    simulation.commit(admit.update_node(simulation.state, "node1", availability=Availability.DRAIN))
    simulation.step()
    simulation.report(simulation.tasks()[0], TaskState.FAILED, error="killed")
    assert simulation.tasks()[0].status.state is TaskState.SHUTDOWN
    simulation.settle()
    assert simulation.node_names(simulation.serving()) == ["node3", "node2"]


def test_a_paused_node_keeps_its_tasks_and_gets_no_more() -> None:
    simulation = Simulation(nodes=2)
    simulation.create(WEB)
    simulation.settle()
    simulation.commit(admit.update_node(simulation.state, "node1", availability=Availability.PAUSE))
    simulation.update(replicas=4)
    simulation.settle()
    assert simulation.node_names(simulation.serving()) == ["node1", "node2", "node2", "node2"]


class TestGlobal:
    SPEC = replace(WEB, mode=Mode.GLOBAL)

    def test_one_task_on_every_node_also_on_a_new_one(self) -> None:
        simulation = Simulation()
        simulation.create(self.SPEC)
        simulation.settle()
        assert simulation.node_names(simulation.serving()) == ["node1", "node2", "node3"]
        assert {task.slot for task in simulation.serving()} == {0}
        simulation.join("node4")
        simulation.settle()
        assert simulation.node_names(simulation.serving()) == ["node1", "node2", "node3", "node4"]

    def test_only_where_the_constraints_hold(self) -> None:
        simulation = Simulation()
        simulation.create(replace(self.SPEC, constraints=("node.labels.disk==ssd",)))
        assert simulation.tasks() == []
        simulation.commit(admit.update_node(simulation.state, "node2", labels_add={"disk": "ssd"}))
        simulation.settle()
        assert simulation.node_names(simulation.serving()) == ["node2"]
        simulation.commit(admit.update_node(simulation.state, "node2", labels_remove=["disk"]))
        simulation.step()
        assert simulation.serving() == []
        simulation.settle()
        assert [task.status.state for task in simulation.tasks()] == [TaskState.SHUTDOWN]

    def test_not_on_a_drained_node_until_it_is_active_again(self) -> None:
        simulation = Simulation()
        simulation.create(self.SPEC)
        simulation.settle()
        simulation.commit(admit.update_node(simulation.state, "node2", availability=Availability.DRAIN))
        simulation.settle()
        assert simulation.node_names(simulation.serving()) == ["node1", "node3"]
        simulation.commit(admit.update_node(simulation.state, "node2", availability=Availability.ACTIVE))
        simulation.settle()
        assert simulation.node_names(simulation.serving()) == ["node1", "node2", "node3"]

    def test_a_paused_node_keeps_its_task_but_gets_no_successor(self) -> None:
        simulation = Simulation()
        simulation.create(self.SPEC)
        simulation.settle()
        simulation.commit(admit.update_node(simulation.state, "node2", availability=Availability.PAUSE))
        simulation.settle()
        assert len(simulation.serving()) == 3
        simulation.report(next(task for task in simulation.serving() if task.node_id == "id-node2"), TaskState.FAILED)
        simulation.wait(10)
        assert simulation.node_names(simulation.serving()) == ["node1", "node3"]

    def test_a_failed_task_is_restarted_on_its_node(self) -> None:
        simulation = Simulation()
        simulation.create(self.SPEC)
        simulation.settle()
        simulation.report(simulation.serving()[1], TaskState.FAILED)
        simulation.settle()
        assert simulation.deadline() == 5.0
        simulation.wait(5)
        assert simulation.node_names(simulation.serving()) == ["node1", "node2", "node3"]

    def test_a_node_that_comes_back_gets_its_task_again(self) -> None:
        simulation = Simulation()
        simulation.create(self.SPEC)
        simulation.settle()
        simulation.live.remove(simulation.state.tasks[simulation.tasks()[0].id].node_id)  # type: ignore[arg-type]
        simulation.settle()
        assert simulation.node_names(simulation.serving()) == ["node2", "node3"]
        simulation.live = set(simulation.state.nodes)
        simulation.settle()
        assert simulation.node_names(simulation.serving()) == ["node1", "node2", "node3"]
