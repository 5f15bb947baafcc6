"""What people who wait are told."""

import pytest

from routemesh.decide import admit
from routemesh.decide.liveness import lease_name
from routemesh.decide.progress import Progress, progress
from routemesh.model import Availability, Lease, Mode, RestartCondition, RestartPolicy, TaskState, UpdateConfig, UpdateOrder
from routemesh.values import replace
from tests.simulation import WEB, Simulation

NOTHING_YET = Progress(wanted=2, running=0, finished=0, converged=False, message="0 of 2 tasks running", errors=(), failed="")
CONVERGED = replace(NOTHING_YET, running=2, converged=True, message="converged: 2 of 2 tasks running")
JOB = replace(WEB, restart=RestartPolicy(condition=RestartCondition.ON_FAILURE, max_attempts=1))


def look(simulation: Simulation, **applied: int) -> Progress:
    """Progress of web while the nodes have applied the newest revision, or the one that is given."""
    leases = {}
    for node in simulation.state.nodes.values():
        name = lease_name(node.id)
        leases[name] = Lease(name=name, holder=node.id, ttl_s=5, value=applied.get(node.name, simulation.state.revision))
    return progress(simulation.state, simulation.service(), leases)


def test_converged_when_all_serve_and_all_nodes_know() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    assert look(simulation) == NOTHING_YET
    simulation.settle()
    assert look(simulation) == CONVERGED
    behind = look(simulation, node2=simulation.state.revision - 1, node3=0)
    assert not behind.converged
    assert behind.message == "2 of 2 tasks running, waiting for node2, node3 to know"


def test_a_node_without_a_lease_does_not_know_and_a_node_that_is_down_need_not() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    assert not progress(simulation.state, simulation.service(), {}).converged
    simulation.live.discard(admit.find_node(simulation.state, "node3").id)
    simulation.settle()
    assert look(simulation, node3=0).converged


def test_a_write_that_does_not_concern_the_service_need_not_be_known() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    known = simulation.state.revision
    simulation.commit(admit.update_node(simulation.state, "node1", labels_add={"a": "b"}))
    assert look(simulation, node1=known, node2=known, node3=known).converged


def test_old_tasks_do_not_count_and_must_be_gone() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, update=UpdateConfig(order=UpdateOrder.START_FIRST)))
    simulation.settle()
    simulation.update(environment=("V=2",))
    assert look(simulation).message == "0 of 2 tasks running"
    new = next(task for task in simulation.wanted() if task.spec.environment)
    simulation.report(new, TaskState.RUNNING)
    assert (look(simulation).running, look(simulation).converged) == (1, False)
    simulation.settle()
    assert look(simulation).converged


def test_scaling_down_ends_when_the_surplus_is_out() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    simulation.commit(admit.update_service(simulation.state, "web", lambda spec: replace(spec, replicas=1), simulation.now))
    assert look(simulation).message == "1 of 1 tasks running, 1 more to stop"
    assert not look(simulation).converged
    simulation.step()
    assert look(simulation).converged


def test_errors_name_the_task() -> None:
    simulation = Simulation()
    simulation.fails = lambda task: task.slot == 1
    simulation.create(WEB)
    simulation.settle()
    assert look(simulation).errors == ("web.1: non-zero exit (1)",)
    simulation.update(constraints=("node.hostname==nowhere",))
    simulation.wait(5)
    assert "web.1: no suitable node (constraint node.hostname==nowhere not met on 3 nodes)" in look(simulation).errors


def ended(simulation: Simulation, slot: int, state: TaskState) -> None:
    """End the slot's newest task and settle."""
    newest = [task for task in simulation.tasks() if task.slot == slot][-1]
    simulation.report(newest, state, error="" if state is TaskState.COMPLETE else "non-zero exit (3)")
    simulation.settle()


@pytest.mark.parametrize(
    "policy",
    [
        RestartPolicy(condition=RestartCondition.NONE),
        RestartPolicy(condition=RestartCondition.ON_FAILURE),
        RestartPolicy(condition=RestartCondition.ON_FAILURE, max_attempts=3),
    ],
)
def test_tasks_that_have_finished_are_converged(policy: RestartPolicy) -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, restart=policy))
    simulation.settle()
    ended(simulation, 1, TaskState.COMPLETE)
    assert look(simulation) == replace(
        CONVERGED, running=1, finished=1, message="converged: 1 of 2 tasks running, 1 task has finished"
    )
    ended(simulation, 2, TaskState.COMPLETE)
    assert look(simulation) == replace(CONVERGED, running=0, finished=2, message="converged: 2 tasks have finished")
    assert look(simulation, node2=0).message == "2 tasks have finished, waiting for node2 to know"


def test_a_finished_task_that_is_started_again_is_not_converged() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    ended(simulation, 1, TaskState.COMPLETE)
    assert look(simulation) == replace(NOTHING_YET, running=1, message="1 of 2 tasks running")


def test_a_task_that_finishes_when_the_attempts_are_used_up_is_converged() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=1, restart=RestartPolicy(max_attempts=1)))
    simulation.settle()
    ended(simulation, 1, TaskState.FAILED)
    simulation.wait(5)
    ended(simulation, 1, TaskState.COMPLETE)
    assert look(simulation) == replace(CONVERGED, wanted=1, running=0, finished=1, message="converged: 1 task has finished")


def test_what_finished_by_an_older_spec_does_not_count() -> None:
    simulation = Simulation()
    simulation.create(replace(JOB, replicas=1))
    simulation.settle()
    ended(simulation, 1, TaskState.COMPLETE)
    simulation.commit(admit.update_service(simulation.state, "web", lambda spec: replace(spec, command=("new",)), simulation.now))
    assert (look(simulation).finished, look(simulation).converged) == (0, False)


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.REJECTED])
def test_a_task_that_failed_for_good_is_named(state: TaskState) -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, restart=RestartPolicy(condition=RestartCondition.NONE)))
    simulation.settle()
    ended(simulation, 2, state)
    said = "web.2: non-zero exit (3)"
    failed = f"{said}; it is not started again"
    assert look(simulation) == replace(NOTHING_YET, running=1, message="1 of 2 tasks running", errors=(said,), failed=failed)


def test_a_task_fails_for_good_with_the_last_attempt() -> None:
    simulation = Simulation()
    simulation.create(JOB)
    simulation.settle()
    ended(simulation, 1, TaskState.FAILED)
    assert (look(simulation).errors, look(simulation).failed) == (("web.1: non-zero exit (3)",), "")
    simulation.wait(5)
    ended(simulation, 1, TaskState.FAILED)
    assert look(simulation).failed == "web.1: non-zero exit (3); it is not started again"


def test_a_global_service_wants_one_task_per_suitable_node() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, mode=Mode.GLOBAL, constraints=("node.hostname!=node1",)))
    simulation.settle()
    assert look(simulation) == CONVERGED
    simulation.fails = lambda task: True
    simulation.update(environment=("V=2",))
    simulation.settle()
    assert look(simulation).errors == ("web.node2: non-zero exit (1)",)


def test_a_global_service_without_a_suitable_node_says_so() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, mode=Mode.GLOBAL, constraints=("node.hostname==nowhere",)))
    assert look(simulation).errors == ("no suitable node (constraint node.hostname==nowhere not met on 3 nodes)",)


def test_a_paused_node_does_not_hold_an_update_of_a_global_service_up() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, mode=Mode.GLOBAL))
    simulation.settle()
    simulation.commit(admit.update_node(simulation.state, "node1", availability=Availability.PAUSE))
    simulation.update(environment=("V=2",))
    simulation.settle()
    assert len(simulation.serving()) == 3
    assert (look(simulation).wanted, look(simulation).converged) == (2, True)


@pytest.mark.parametrize(
    ("labels", "answering"),
    [
        ({}, None),
        ({"routemesh.locality": "prefer-local"}, None),
        ({"routemesh.weight": "1,.1=0"}, None),
        ({"routemesh.weight": "0"}, ()),
        ({"routemesh.locality": "local-only"}, ("node1", "node2")),
        ({"routemesh.locality": "local-only", "routemesh.weight": "1,.2=0"}, ("node1",)),
    ],
)
def test_which_nodes_answer_is_told_where_not_all_do(labels: dict[str, str], answering: tuple[str, ...] | None) -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, labels=labels))
    simulation.settle()
    assert simulation.node_names(simulation.serving()) == ["node1", "node2"]
    assert look(simulation) == replace(CONVERGED, answering=answering)
