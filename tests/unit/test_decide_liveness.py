"""Nodes that go and come back."""

from routemesh.decide import admit, step
from routemesh.decide.liveness import lease_name
from routemesh.model import NodeId, NodeState, TaskState, TaskStatus
from tests.simulation import WEB, Simulation


def id_of(simulation: Simulation, name: str) -> NodeId:
    return admit.find_node(simulation.state, name).id


def test_a_lease_bears_its_nodes_id() -> None:
    assert lease_name(NodeId("abc")) == "node/abc"


def test_a_silent_node_is_down_and_its_tasks_are_replaced_in_the_same_step() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    lost = simulation.tasks()[0]
    simulation.live.discard(id_of(simulation, "node1"))
    simulation.step()
    assert simulation.state.nodes[id_of(simulation, "node1")].state is NodeState.DOWN
    orphan = simulation.state.tasks[lost.id]
    assert (orphan.desired, orphan.status.state) == (TaskState.SHUTDOWN, TaskState.ORPHANED)
    assert orphan.status.error == "node1 is down"
    new = simulation.wanted()[0]
    assert (new.slot, new.desired, new.status.state) == (1, TaskState.RUNNING, TaskState.ASSIGNED)
    assert simulation.node_names([new]) == ["node3"]
    assert simulation.deadline() is None


def test_a_node_that_is_back_is_ready_and_its_orphans_stay_orphans() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    lost = simulation.tasks()[0]
    simulation.live.discard(id_of(simulation, "node1"))
    simulation.settle()
    simulation.live.add(id_of(simulation, "node1"))
    simulation.step()
    assert simulation.state.nodes[id_of(simulation, "node1")].state is NodeState.READY
    late = admit.task_report(simulation.state, lost.id, TaskStatus(state=TaskState.RUNNING, at=simulation.now))
    assert late is simulation.state
    assert simulation.state.tasks[lost.id].status.state is TaskState.ORPHANED


def test_the_end_of_an_orphan_is_known_when_its_node_has_seen_it() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    lost = simulation.tasks()[0]
    simulation.live.discard(id_of(simulation, "node1"))
    simulation.settle()
    seen = TaskStatus(state=TaskState.FAILED, at=simulation.now, exit_code=143, error="lost")
    ended = admit.task_report(simulation.state, lost.id, seen).tasks[lost.id].status
    assert (ended.state, ended.exit_code, ended.error) == (TaskState.SHUTDOWN, 143, "node1 is down")


def test_a_task_that_was_to_be_removed_goes_with_its_node() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    simulation.update(replicas=1)
    assert simulation.tasks()[1].desired is TaskState.REMOVE
    simulation.live.discard(id_of(simulation, "node2"))
    simulation.step()
    assert [task.slot for task in simulation.tasks()] == [1]


def test_without_any_node_the_tasks_wait() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.settle()
    simulation.live.clear()
    simulation.step()
    state = simulation.state
    assert [task.status.error for task in simulation.wanted()] == ["no suitable node (3 nodes not available: 3 down)"] * 2
    assert step(state, simulation.now + 5, frozenset()) is state
    simulation.live = set(state.nodes)
    simulation.settle()
    assert len(simulation.serving()) == 2
