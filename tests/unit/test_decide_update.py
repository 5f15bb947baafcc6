"""A service moves to a new spec one slot at a time."""

from typing import Any

import pytest

from routemesh.decide import admit
from routemesh.model import (
    Availability,
    Mode,
    Publish,
    RestartCondition,
    RestartPolicy,
    ServiceSpec,
    Task,
    TaskState,
    UpdateConfig,
    UpdateOrder,
)
from routemesh.values import replace
from tests.simulation import WEB, Simulation

STOP_FIRST = replace(WEB, replicas=3, environment=("V=1",), restart=RestartPolicy(delay_s=1.0))
START_FIRST = replace(STOP_FIRST, update=UpdateConfig(order=UpdateOrder.START_FIRST))


def running(spec: ServiceSpec) -> Simulation:
    simulation = Simulation()
    simulation.create(spec)
    simulation.settle()
    return simulation


def version(task: Task) -> int:
    return int(task.spec.environment[0].removeprefix("V="))


def slots(tasks: list[Task]) -> list[tuple[int, int]]:
    return [(task.slot, version(task)) for task in tasks]


def steps(simulation: Simulation) -> list[list[tuple[int, int]]]:
    """What serves after each of the agents' moves until the update is through."""
    seen: list[list[tuple[int, int]]] = []
    for _ in range(30):
        before = simulation.state
        simulation.agents()
        simulation.step()
        if slots(simulation.serving()) not in seen[-1:]:
            seen.append(slots(simulation.serving()))
        if simulation.state is before:
            return seen
    raise AssertionError("no end")


def test_stop_first_takes_one_slot_after_the_other() -> None:
    simulation = running(STOP_FIRST)
    simulation.update(environment=("V=2",))
    assert slots(simulation.serving()) == [(2, 1), (3, 1)]
    assert steps(simulation) == [
        [(2, 1), (3, 1)],
        [(1, 2), (3, 1)],
        [(1, 2), (2, 2)],
        [(1, 2), (2, 2), (3, 2)],
    ]


def test_stop_first_creates_the_new_task_when_the_old_one_has_ended() -> None:
    simulation = running(STOP_FIRST)
    simulation.update(environment=("V=2",))
    simulation.step()
    assert slots(simulation.wanted()) == [(2, 1), (3, 1)]
    simulation.agents()
    simulation.step()
    assert slots(simulation.wanted()) == [(1, 2), (2, 1), (3, 1)]


def test_start_first_never_has_less_than_all_serving() -> None:
    simulation = running(START_FIRST)
    simulation.update(environment=("V=2",))
    assert slots(simulation.wanted()) == [(1, 1), (1, 2), (2, 1), (3, 1)]
    assert all(len(serving) >= 3 for serving in steps(simulation))
    assert slots(simulation.serving()) == [(1, 2), (2, 2), (3, 2)]
    assert simulation.node_names(simulation.serving()) == ["node1", "node2", "node3"]


def test_the_delay_lies_between_two_slots() -> None:
    simulation = running(replace(STOP_FIRST, replicas=2, update=UpdateConfig(delay_s=10.0)))
    simulation.now += 100
    simulation.update(environment=("V=2",))
    simulation.settle()
    assert slots(simulation.serving()) == [(1, 2), (2, 1)]
    assert simulation.deadline() == 10.0
    simulation.wait(9.9)
    assert slots(simulation.serving()) == [(1, 2), (2, 1)]
    simulation.wait(0.1)
    assert slots(simulation.serving()) == [(1, 2), (2, 2)]
    assert simulation.deadline() is None


@pytest.mark.parametrize("spec", [STOP_FIRST, START_FIRST], ids=["stop-first", "start-first"])
def test_a_spec_that_fails_stops_the_update_at_its_first_slot(spec: ServiceSpec) -> None:
    simulation = running(spec)
    simulation.fails = lambda task: version(task) == 2
    simulation.update(environment=("V=2",))
    for _ in range(4):
        simulation.wait(1)
    old = [(2, 1), (3, 1)]
    assert slots(simulation.serving()) == (old if spec is STOP_FIRST else [(1, 1), *old])
    assert {task.slot for task in simulation.tasks() if version(task) == 2} == {1}
    simulation.fails = lambda task: False
    for _ in range(4):
        simulation.wait(1)
    assert slots(simulation.serving()) == [(1, 2), (2, 2), (3, 2)]


@pytest.mark.parametrize("spec", [STOP_FIRST, START_FIRST], ids=["stop-first", "start-first"])
def test_a_failing_update_can_be_taken_back(spec: ServiceSpec) -> None:
    simulation = running(spec)
    simulation.fails = lambda task: version(task) == 2
    untouched = {task.id for task in simulation.serving()[1:]}
    simulation.update(environment=("V=2",))
    simulation.wait(1)
    simulation.update(environment=("V=1",))
    simulation.wait(1)
    assert slots(simulation.serving()) == [(1, 1), (2, 1), (3, 1)]
    assert untouched < {task.id for task in simulation.serving()}


@pytest.mark.parametrize("spec", [STOP_FIRST, START_FIRST], ids=["stop-first", "start-first"])
def test_a_third_spec_replaces_one_that_is_under_way(spec: ServiceSpec) -> None:
    simulation = running(spec)
    simulation.update(environment=("V=2",))
    simulation.agents()
    simulation.step()
    simulation.update(environment=("V=3",))
    assert len(simulation.wanted()) <= 4
    simulation.settle()
    assert slots(simulation.serving()) == [(1, 3), (2, 3), (3, 3)]


def test_a_replacement_that_is_not_healthy_does_not_end_the_old_task() -> None:
    simulation = running(replace(START_FIRST, replicas=1))
    simulation.update(environment=("V=2",))
    simulation.report(simulation.wanted()[1], TaskState.RUNNING, healthy=False)
    simulation.step()
    assert slots(simulation.serving()) == [(1, 1)]
    simulation.report(simulation.wanted()[1], TaskState.RUNNING)
    simulation.step()
    assert slots(simulation.serving()) == [(1, 2)]


def test_a_replacement_that_gives_up_leaves_the_old_task() -> None:
    policy = RestartPolicy(condition=RestartCondition.ANY, delay_s=0.0, max_attempts=6)
    simulation = running(replace(START_FIRST, replicas=1, restart=policy))
    simulation.fails = lambda task: version(task) == 2
    simulation.update(environment=("V=2",))
    simulation.settle(passes=100)
    assert slots(simulation.serving()) == [(1, 1)]
    assert sum(version(task) == 2 for task in simulation.tasks()) == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"replicas": 4},
        {"update": UpdateConfig(delay_s=3.0)},
        {"restart": RestartPolicy(delay_s=9.0)},
        {"labels": {"team": "a"}},
        {"labels": {"routemesh.weight": "2,.1=0"}},
        {"labels": {"routemesh.affinity": "client-ip", "routemesh.locality": "prefer-local"}},
        {"constraints": ("node.hostname!=node9",)},
    ],
)
def test_what_does_not_concern_a_running_task_leaves_it(changes: dict[str, Any]) -> None:
    simulation = running(STOP_FIRST)
    before = {task.id for task in simulation.serving()}
    simulation.update(**changes)
    simulation.settle()
    assert before <= {task.id for task in simulation.serving()}


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": ("V=2",)},
        {"command": ("true",)},
        {"publish": (Publish(published=9090, target=80),)},
        {"stop_grace_s": 1.0},
    ],
)
def test_what_concerns_a_running_task_replaces_it(changes: dict[str, Any]) -> None:
    simulation = running(STOP_FIRST)
    before = {task.id for task in simulation.serving()}
    simulation.update(**changes)
    simulation.settle()
    assert before.isdisjoint({task.id for task in simulation.serving()})


def test_a_task_whose_node_no_longer_meets_the_constraints_moves() -> None:
    simulation = running(STOP_FIRST)
    stays = simulation.serving()[1].id
    simulation.update(constraints=("node.hostname==node2",))
    simulation.settle()
    assert simulation.node_names(simulation.serving()) == ["node2"] * 3
    assert stays in {task.id for task in simulation.serving()}


def test_a_constraint_that_no_node_meets_costs_one_slot_only() -> None:
    simulation = running(STOP_FIRST)
    simulation.update(constraints=("node.hostname==nowhere",))
    simulation.settle()
    assert len(simulation.serving()) == 2
    simulation.update(constraints=())
    simulation.settle()
    assert len(simulation.serving()) == 3


def test_a_service_that_never_ran_need_not_wait_for_turns() -> None:
    simulation = Simulation()
    simulation.create(replace(STOP_FIRST, constraints=("node.hostname==nowhere",)))
    simulation.settle()
    simulation.update(environment=("V=2",), constraints=())
    assert slots(simulation.wanted()) == [(1, 2), (2, 2), (3, 2)]


def test_a_finished_task_counts_as_updated_and_a_failed_one_does_not() -> None:
    never = RestartPolicy(condition=RestartCondition.NONE)
    for end, expected in ((TaskState.COMPLETE, [(2, 2)]), (TaskState.FAILED, [(2, 1)])):
        simulation = running(replace(STOP_FIRST, replicas=2, restart=never))
        simulation.update(environment=("V=2",))
        simulation.agents()
        simulation.step()
        simulation.report(next(task for task in simulation.wanted() if version(task) == 2), end)
        simulation.settle()
        assert slots(simulation.serving()) == expected


def test_removing_during_an_update_leaves_nothing() -> None:
    simulation = running(START_FIRST)
    simulation.update(environment=("V=2",))
    simulation.commit(admit.remove_service(simulation.state, "web"))
    simulation.settle()
    assert simulation.tasks() == []


def test_pausing_a_node_in_the_middle_lets_its_slot_finish_and_others_wait_for_it() -> None:
    simulation = running(replace(START_FIRST, mode=Mode.GLOBAL))
    simulation.update(environment=("V=2",))
    old, new = sorted((task for task in simulation.wanted() if task.node_id == "id-node1"), key=version)
    simulation.commit(admit.update_node(simulation.state, "node1", availability=Availability.PAUSE))
    simulation.step()
    assert len(simulation.wanted()) == 4
    simulation.report(new, TaskState.RUNNING)
    simulation.step()
    assert simulation.state.tasks[old.id].desired is TaskState.SHUTDOWN
    simulation.settle()
    assert [version(task) for task in simulation.serving()] == [2, 2, 2]
