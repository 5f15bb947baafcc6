"""Which task `lab exec --task` means."""

from ipaddress import IPv4Address

import pytest

from routemesh.errors import NotFound
from routemesh.lab.enter import task_on
from routemesh.model import Node, NodeId, ServiceId, ServiceSpec, State, Task, TaskId, TaskState, TaskStatus


def task(ident: str, node: str, *, slot: int = 1, state: TaskState = TaskState.RUNNING, at: float = 0.0) -> Task:
    return Task(
        id=TaskId(ident),
        service_id=ServiceId("s"),
        service_version=1,
        spec=ServiceSpec(name="web"),
        slot=slot,
        desired=TaskState.RUNNING,
        status=TaskStatus(state=state, at=at),
        created_at=at,
        node_id=NodeId(node),
    )


def state(*tasks: Task) -> State:
    nodes = (Node(id=NodeId(f"n{number}"), name=f"node{number}", address=IPv4Address("192.168.200.10")) for number in (1, 2))
    return State(nodes={node.id: node for node in nodes}, tasks={task.id: task for task in tasks})


def test_a_task_is_found_by_name_and_by_id() -> None:
    first, second = task("a", "n1"), task("b", "n1", slot=2)
    assert task_on(state(first, second), "node1", "web.1") is first
    assert task_on(state(first, second), "node1", "b") is second


def test_a_global_task_bears_its_nodes_name() -> None:
    own = task("a", "n2", slot=0)
    assert task_on(state(own), "node2", "web.node2") is own


def test_one_that_runs_goes_before_a_newer_one_that_has_ended() -> None:
    running, ended = task("a", "n1", at=1), task("b", "n1", at=2, state=TaskState.FAILED)
    assert task_on(state(running, ended), "node1", "web.1") is running


def test_of_those_that_have_ended_the_newest_is_meant() -> None:
    old, new = (task(ident, "n1", at=at, state=TaskState.FAILED) for ident, at in (("b", 1), ("a", 2)))
    assert task_on(state(new, old), "node1", "web.1") is new


def test_a_task_elsewhere_is_refused_with_its_place() -> None:
    with pytest.raises(NotFound, match=r"^task web\.1 is on node2, not on node1$"):
        task_on(state(task("a", "n2")), "node1", "web.1")


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(NotFound, match=r"^there is no task web\.2; 'routemesh service ps' lists them$"):
        task_on(state(task("a", "n1")), "node1", "web.2")
