"""Nodes that join, report and are changed."""

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from routemesh.decide import admit, step
from routemesh.errors import Conflict, NotFound, UserError
from routemesh.model import (
    Availability,
    Listener,
    Node,
    NodeId,
    NodeState,
    Protocol,
    Role,
    State,
    TaskId,
    TaskState,
    TaskStatus,
)
from routemesh.values import replace
from tests.simulation import WEB, Simulation

NODE = Node(id=NodeId("n1"), name="node1", address=IPv4Address("192.0.2.1"), api="unix:///run/a.sock")


def refused(state: State, node: Node, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        admit.join(state, node, 1.0, **options)
    return str(caught.value)


def test_the_first_node_makes_the_cluster_and_later_subnets_do_not_count() -> None:
    subnet = IPv4Network("10.9.0.0/16")
    state = admit.join(State(), NODE, 5.0, ingress_subnet=subnet)
    assert state.cluster is not None and state.ingress is not None
    assert (state.ingress.subnet, state.cluster.gwbridge_subnet) == (subnet, IPv4Network("172.18.0.0/16"))
    assert (state.cluster.created_at, state.nodes[NODE.id].created_at) == (5.0, 5.0)
    second = admit.join(state, replace(NODE, id=NodeId("n2"), name="node2", address=IPv4Address("192.0.2.2")), 6.0)
    assert second.cluster is state.cluster
    assert set(second.nodes) == {"n1", "n2"}


def test_the_same_join_again_changes_nothing() -> None:
    state = admit.join(State(), NODE, 5.0)
    assert admit.join(state, NODE, 6.0) is state


@pytest.mark.parametrize(
    ("node", "subnets", "error"),
    [
        (replace(NODE, name=""), {}, "node name '' is not a host name; use at most 63 letters, digits and . - _"),
        (replace(NODE, name="a b"), {}, "node name 'a b' is not a host name; use at most 63 letters, digits and . - _"),
        (
            NODE,
            {"ingress_subnet": IPv4Network("10.0.0.0/30")},
            "ingress subnet 10.0.0.0/30 is too small; use a /29 or larger",
        ),
        (
            NODE,
            {"gwbridge_subnet": IPv4Network("10.0.0.0/30")},
            "docker_gwbridge subnet 10.0.0.0/30 is too small; use a /29 or larger",
        ),
        (
            NODE,
            {"ingress_subnet": IPv4Network("172.18.4.0/24"), "gwbridge_subnet": IPv4Network("172.18.0.0/16")},
            "ingress subnet 172.18.4.0/24 overlaps docker_gwbridge's 172.18.0.0/16; choose another for one of them",
        ),
        (
            replace(NODE, address=IPv4Address("10.0.0.9")),
            {},
            "node node1: its address 10.0.0.9 is inside the cluster's ingress subnet 10.0.0.0/24; "
            "use another address, or make the cluster with another subnet",
        ),
        (
            replace(NODE, address=IPv4Address("172.18.0.9")),
            {},
            "node node1: its address 172.18.0.9 is inside the cluster's docker_gwbridge subnet 172.18.0.0/16; "
            "use another address, or make the cluster with another subnet",
        ),
    ],
)
def test_a_node_that_can_not_be_one_is_refused(node: Node, subnets: dict[str, IPv4Network], error: str) -> None:
    assert refused(State(), node, **subnets) == error


def test_a_returning_node_keeps_what_was_set_and_updates_what_it_is() -> None:
    simulation = Simulation(nodes=1)
    simulation.commit(admit.update_node(simulation.state, "node1", availability=Availability.PAUSE, labels_add={"disk": "ssd"}))
    simulation.live.clear()
    simulation.step()
    (old,) = simulation.state.nodes.values()
    back = replace(
        old,
        id=NodeId("other"),
        address=IPv4Address("192.0.2.7"),
        api="unix:///b.sock",
        engine="ipvs",
        mtu_bytes=9000,
        labels={},
        availability=Availability.ACTIVE,
        attachments=(),
        failures=("x",),
    )
    state = admit.join(simulation.state, back, 2000.0)
    assert state.nodes == {
        old.id: replace(
            back,
            id=old.id,
            labels={"disk": "ssd"},
            availability=Availability.PAUSE,
            attachments=old.attachments,
            created_at=old.created_at,
            state=NodeState.READY,
        )
    }


def test_a_live_nodes_name_and_address_are_its_own() -> None:
    state = admit.join(State(), NODE, 1.0)
    elsewhere = replace(NODE, address=IPv4Address("192.0.2.2"))
    assert refused(state, elsewhere) == (
        "node name node1 is taken: a live node at 192.0.2.1 has it; choose another, or stop that node first"
    )
    other = replace(NODE, id=NodeId("n2"), name="node2")
    assert refused(state, other) == (
        "node node2: its address 192.0.2.1 is that of the live node node1; use another address, or stop that node first"
    )
    down = replace(state, nodes={NODE.id: replace(state.nodes[NODE.id], state=NodeState.DOWN)})
    assert admit.join(down, elsewhere, 2.0).nodes[NODE.id].address == elsewhere.address
    assert set(admit.join(down, other, 2.0).nodes) == {"n1", "n2"}


def test_whether_a_node_is_live_is_its_lease_and_not_what_the_last_leader_wrote() -> None:
    state = admit.join(State(), NODE, 1.0)
    elsewhere = replace(NODE, address=IPv4Address("192.0.2.2"))
    assert admit.join(state, elsewhere, 2.0, live=frozenset()).nodes[NODE.id].address == elsewhere.address
    down = replace(state, nodes={NODE.id: replace(state.nodes[NODE.id], state=NodeState.DOWN)})
    assert "is taken: a live node at 192.0.2.1 has it" in refused(down, elsewhere, live={NODE.id})


KNOWN = replace(NODE, identity="a1")


def test_the_same_node_at_another_address_is_the_same_node_at_once() -> None:
    state = step(admit.join(State(), KNOWN, 1.0), 1.0, {NODE.id})
    moved = replace(KNOWN, address=IPv4Address("192.0.2.9"))
    joined = admit.join(state, moved, 2.0, live={NODE.id}).nodes[NODE.id]
    assert joined == replace(state.nodes[NODE.id], address=moved.address)
    assert joined.attachments


def test_another_machine_of_the_same_name_is_refused_wherever_it_is() -> None:
    state = admit.join(State(), KNOWN, 1.0)
    for address in (NODE.address, IPv4Address("192.0.2.2")):
        assert "name node1 is taken" in refused(state, replace(KNOWN, identity="b2", address=address))


def test_one_that_joined_by_an_older_version_is_known_by_name_and_address() -> None:
    state = admit.join(State(), NODE, 1.0)
    assert admit.join(state, KNOWN, 2.0).nodes[NODE.id].identity == "a1"
    assert "is taken" in refused(state, replace(KNOWN, address=IPv4Address("192.0.2.2")))


def test_a_machine_under_another_name_leaves_its_old_one_behind() -> None:
    state = admit.join(State(), KNOWN, 1.0)
    renamed = replace(KNOWN, id=NodeId("n2"), name="node2")
    states = {node.name: node.state for node in admit.join(state, renamed, 2.0).nodes.values()}
    assert states == {"node1": NodeState.DOWN, "node2": NodeState.READY}


def test_a_node_that_belongs_to_a_cluster_joins_no_other() -> None:
    state = admit.join(State(), NODE, 1.0)
    assert state.cluster is not None
    admit.check_past(state, state.cluster.id, "it")
    admit.check_past(state, "", "a cluster, of which 2 tasks are here")
    for found, cluster, says in (
        (State(), "x", "the store is empty, but this node belongs to P: mount or restore"),
        (State(), "", "the store is empty, but this node belongs to P: mount or restore"),
        (state, "x", f"the store holds cluster {state.cluster.id}, but this node belongs to P"),
    ):
        with pytest.raises(Conflict, match=says) as refusal:
            admit.check_past(found, cluster, "P")
        assert "--new-cluster leaves the old one" in str(refusal.value)


def test_a_full_pool_takes_no_further_node() -> None:
    simulation = Simulation(nodes=2, ingress=IPv4Network("10.0.0.0/29"))
    simulation.create(WEB)
    with pytest.raises(Conflict) as caught:
        simulation.join("node3")
    assert str(caught.value) == (
        "node node3: all addresses of the ingress pool 10.0.0.0/29 (5 addresses) are in use; "
        "scale a service down or remove one first"
    )


def test_a_node_is_found_by_name_or_id() -> None:
    simulation = Simulation(nodes=2)
    assert admit.find_node(simulation.state, "node2").name == "node2"
    assert admit.find_node(simulation.state, "id-node2").name == "node2"
    with pytest.raises(NotFound) as caught:
        admit.find_node(simulation.state, "x")
    assert str(caught.value) == "no node named 'x'; nodes are: node1, node2"
    with pytest.raises(UserError, match="node id 'id-' is ambiguous: id-node1, id-node2; give more of it, or the name"):
        admit.find_node(simulation.state, "id-")


def test_an_operator_changes_role_availability_and_labels() -> None:
    simulation = Simulation(nodes=2)
    state = admit.update_node(simulation.state, "node2", availability=Availability.DRAIN, labels_add={"a": "1", "b": "2"})
    state = admit.update_node(state, "node2", role=Role.WORKER, labels_add={"b": "3"}, labels_remove=["a"])
    node = admit.find_node(state, "node2")
    assert (node.role, node.availability, node.labels) == (Role.WORKER, Availability.DRAIN, {"b": "3"})
    assert admit.update_node(state, "node2", role=Role.WORKER) is state


def test_changes_of_a_node_that_make_no_sense_are_refused() -> None:
    state = Simulation(nodes=1).state
    with pytest.raises(NotFound) as missing:
        admit.update_node(state, "node1", labels_remove=["disk"])
    assert str(missing.value) == "node node1 has no label 'disk'; its labels are: none"
    with pytest.raises(UserError) as name:
        admit.update_node(state, "node1", labels_add={"a b": ""})
    assert str(name.value) == "node node1: label name 'a b' is empty or has a space or '=' in it; write KEY=VALUE"
    with pytest.raises(Conflict) as last:
        admit.update_node(state, "node1", role=Role.WORKER)
    assert str(last.value) == "node node1 is the last manager; make another node a manager first"


def test_a_nodes_report_changes_what_it_names() -> None:
    state = Simulation(nodes=1).state
    node_id = next(iter(state.nodes))
    listener = Listener(protocol=Protocol.TCP, port=22, process="sshd")
    reported = admit.node_report(state, node_id, listeners=(listener,))
    reported = admit.node_report(reported, node_id, failures=("nft: no",), error="x")
    node = reported.nodes[node_id]
    assert (node.listeners, node.failures, node.error) == ((listener,), ("nft: no",), "x")
    assert admit.node_report(reported, node_id, listeners=(listener,)) is reported
    assert admit.node_report(reported, NodeId("unknown"), error="y") is reported


class TestTaskReport:
    @staticmethod
    def status(state: TaskState, **fields: Any) -> TaskStatus:
        return replace(TaskStatus(state=state, at=2000.0), **fields)

    def test_states_do_not_go_backwards(self) -> None:
        simulation = Simulation()
        simulation.create(WEB)
        task = simulation.tasks()[0]
        state = admit.task_report(simulation.state, task.id, self.status(TaskState.RUNNING, pid=7))
        assert state.tasks[task.id].status.pid == 7
        assert admit.task_report(state, task.id, self.status(TaskState.STARTING)) is state

    def test_an_end_is_final(self) -> None:
        simulation = Simulation()
        simulation.create(WEB)
        task = simulation.tasks()[0]
        state = admit.task_report(simulation.state, task.id, self.status(TaskState.COMPLETE, exit_code=0))
        assert admit.task_report(state, task.id, self.status(TaskState.FAILED)) is state

    def test_the_same_again_is_no_change_though_time_has_passed(self) -> None:
        simulation = Simulation()
        simulation.create(WEB)
        task = simulation.tasks()[0]
        state = admit.task_report(simulation.state, task.id, self.status(TaskState.RUNNING))
        assert admit.task_report(state, task.id, self.status(TaskState.RUNNING, at=3000.0)) is state
        unhealthy = admit.task_report(state, task.id, self.status(TaskState.RUNNING, healthy=False))
        assert not unhealthy.tasks[task.id].serving

    def test_a_task_that_was_asked_to_end_is_shut_down_however_it_ended(self) -> None:
        simulation = Simulation()
        simulation.create(WEB)
        simulation.settle()
        task = simulation.tasks()[0]
        simulation.update(replicas=0)
        state = admit.task_report(simulation.state, task.id, self.status(TaskState.FAILED, exit_code=137, error="killed"))
        status = state.tasks[task.id].status
        assert (status.state, status.exit_code, status.error) == (TaskState.SHUTDOWN, 137, "killed")

    def test_an_unknown_task_changes_nothing(self) -> None:
        state = Simulation().state
        assert admit.task_report(state, TaskId("gone"), self.status(TaskState.RUNNING)) is state
