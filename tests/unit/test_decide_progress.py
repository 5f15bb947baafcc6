"""What people who wait are told."""

from dataclasses import replace

from routemesh.decide import admit
from routemesh.decide.liveness import lease_name
from routemesh.decide.progress import Progress, progress
from routemesh.model import Availability, Lease, Mode, RestartCondition, RestartPolicy, TaskState, UpdateConfig, UpdateOrder
from tests.simulation import WEB, Simulation


def look(simulation: Simulation, **applied: int) -> Progress:
    """Progress of web while the nodes have applied the newest revision, or the one that is given."""
    leases = {}
    for node in simulation.state.nodes.values():
        name = lease_name(node.id)
        leases[name] = Lease(name=name, holder=node.id, expires_at=0, value=applied.get(node.name, simulation.state.revision))
    return progress(simulation.state, simulation.service(), leases)


def test_converged_when_all_serve_and_all_nodes_know() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    assert look(simulation) == Progress(wanted=2, running=0, converged=False, message="0 of 2 tasks running", errors=())
    simulation.settle()
    assert look(simulation) == Progress(wanted=2, running=2, converged=True, message="converged: 2 of 2 tasks running", errors=())
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


def test_a_finished_task_is_not_running() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=1, restart=RestartPolicy(condition=RestartCondition.NONE)))
    simulation.settle()
    simulation.report(simulation.tasks()[0], TaskState.FAILED, error="non-zero exit (3)")
    simulation.settle()
    assert look(simulation).errors == ("web.1: non-zero exit (3)",)
    assert not look(simulation).converged


def test_a_global_service_wants_one_task_per_suitable_node() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, mode=Mode.GLOBAL, constraints=("node.hostname!=node1",)))
    simulation.settle()
    assert look(simulation) == Progress(wanted=2, running=2, converged=True, message="converged: 2 of 2 tasks running", errors=())
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
