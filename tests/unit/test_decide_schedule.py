"""Which node a task gets."""

from importlib import import_module

import pytest

from routemesh.decide import admit
from routemesh.decide.constraints import parse
from routemesh.errors import UserError
from routemesh.model import Availability, Role, ServiceSpec, TaskState
from routemesh.values import replace
from tests.simulation import WEB, Simulation


def pending_error(simulation: Simulation) -> str:
    (task,) = simulation.tasks()
    assert task.status.state is TaskState.PENDING
    return task.status.error


ONE = replace(WEB, replicas=1)


def test_a_services_tasks_are_spread_before_nodes_are_filled_evenly() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=4))
    assert simulation.node_names(simulation.tasks()) == ["node1", "node2", "node3", "node1"]
    simulation.create(ServiceSpec(name="api", replicas=2))
    assert simulation.node_names(simulation.tasks("api")) == ["node2", "node3"]


def test_nothing_moves_when_a_node_returns() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=3))
    simulation.settle()
    simulation.live.discard(next(node.id for node in simulation.state.nodes.values() if node.name == "node3"))
    simulation.settle()
    before = [task.id for task in simulation.serving()]
    simulation.live = set(simulation.state.nodes)
    simulation.settle()
    assert [task.id for task in simulation.serving()] == before
    assert simulation.node_names(simulation.serving()) == ["node1", "node2", "node1"]


@pytest.mark.parametrize(
    ("constraint", "nodes"),
    [
        ("node.hostname==node2", {"node2"}),
        ("node.hostname!=node2", {"node1", "node3"}),
        ("NODE.Hostname == NODE2", {"node2"}),
        ("node.role==worker", {"node3"}),
        ("node.role!=WORKER", {"node1", "node2"}),
        ("node.labels.disk==ssd", {"node1"}),
        ("node.labels.disk==SSD", {"node1"}),
        ("node.labels.Disk==ssd", set()),
        ("node.labels.disk!=ssd", {"node2", "node3"}),
        ("node.id==id-node3", {"node3"}),
    ],
)
def test_constraints_choose_nodes(constraint: str, nodes: set[str]) -> None:
    simulation = Simulation()
    simulation.commit(admit.update_node(simulation.state, "node1", labels_add={"disk": "ssd"}))
    simulation.commit(admit.update_node(simulation.state, "node2", labels_add={"disk": "hdd"}))
    simulation.commit(admit.update_node(simulation.state, "node3", role=Role.WORKER))
    simulation.create(replace(WEB, replicas=6, constraints=(constraint,)))
    assert set(simulation.node_names(simulation.tasks())) == (nodes or {"-"})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("node.role", "constraint 'node.role' has no operator; write KEY==VALUE or KEY!=VALUE"),
        ("node.role=manager", "constraint 'node.role=manager' has no operator; write KEY==VALUE or KEY!=VALUE"),
        (
            "node.os==linux",
            "constraint 'node.os==linux' is about 'node.os', which nodes don't have; "
            "use one of: node.id, node.hostname, node.role, node.labels.KEY",
        ),
        (
            "node.role==",
            "constraint 'node.role==' compares with '', which is not a value; use letters, digits and . - _ : /",
        ),
        ("a\nb", r"constraint 'a\nb' has no operator; write KEY==VALUE or KEY!=VALUE"),
    ],
)
def test_a_constraint_that_is_none_is_refused(text: str, error: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert str(caught.value) == error


def test_a_constraint_that_no_node_meets_is_told_of() -> None:
    simulation = Simulation()
    simulation.create(replace(ONE, constraints=("node.labels.disk == ssd",)))
    assert pending_error(simulation) == "no suitable node (constraint node.labels.disk==ssd not met on 3 nodes)"
    simulation.commit(admit.update_node(simulation.state, "node2", labels_add={"disk": "ssd"}))
    simulation.settle()
    assert simulation.node_names(simulation.serving()) == ["node2"]
    assert simulation.serving()[0].status.error == ""


def test_nodes_that_are_not_available_are_counted() -> None:
    simulation = Simulation()
    for name, availability in (("node1", Availability.DRAIN), ("node2", Availability.PAUSE)):
        simulation.commit(admit.update_node(simulation.state, name, availability=availability))
    simulation.live.discard(next(node.id for node in simulation.state.nodes.values() if node.name == "node3"))
    simulation.create(ONE)
    assert pending_error(simulation) == "no suitable node (3 nodes not available: 1 down, 1 drained, 1 paused)"


def test_both_reasons_are_told() -> None:
    simulation = Simulation()
    simulation.commit(admit.update_node(simulation.state, "node1", availability=Availability.DRAIN))
    simulation.create(replace(ONE, constraints=("node.hostname!=node2", "node.hostname!=node3")))
    assert pending_error(simulation) == (
        "no suitable node (1 node not available: 1 drained; constraint node.hostname!=node2 not met on 1 node; "
        "constraint node.hostname!=node3 not met on 1 node)"
    )


def test_a_node_with_a_fault_of_its_own_gets_no_tasks() -> None:
    simulation = Simulation(nodes=1)
    node_id = next(iter(simulation.state.nodes))
    simulation.commit(admit.node_report(simulation.state, node_id, error="no nf_tables"))
    simulation.create(ONE)
    assert pending_error(simulation) == "no suitable node (1 node not available: 1 faulty)"
    simulation.commit(admit.node_report(simulation.state, node_id, error=""))
    simulation.settle()
    assert len(simulation.serving()) == 1


def test_a_node_gets_a_further_bridge_where_the_others_have_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("routemesh.decide.schedule"), "TASKS_A_BRIDGE", 2)
    simulation = Simulation(nodes=1)
    simulation.create(replace(WEB, replicas=5))
    simulation.settle()
    assert [task.bridge for task in simulation.serving()] == [0, 0, 1, 1, 2]
    first, *others = simulation.serving()
    simulation.report(first, TaskState.FAILED)
    simulation.settle()
    simulation.wait(10)
    assert sorted(task.bridge for task in simulation.serving()) == [0, 0, 1, 1, 2]
    assert {task.id: task.bridge for task in others}.items() <= {task.id: task.bridge for task in simulation.serving()}.items()
