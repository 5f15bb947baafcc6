"""Snapshots over the API: every node's from any node, with the names that a manager has."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from routemesh import names
from routemesh.ask import patience
from routemesh.doctor import Severity
from routemesh.doctor.mesh import Look
from routemesh.errors import UserError
from routemesh.model import NodeState, Protocol, Publish, ServiceSpec
from routemesh.nodeplan import Change, Create, Sysctl
from routemesh.values import replace
from tests.unit.daemon import Daemon, cluster
from tests.unit.test_api import raw

WEB = ServiceSpec(name="web", replicas=2, publish=(Publish(published=8080, target=80),))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Daemon]]:
    with cluster(tmp_path, ("node1", "node2")) as daemons:
        yield daemons


def test_a_cluster_is_read_from_any_node(nodes: list[Daemon]) -> None:
    for asked in nodes:
        found = asked.client.snapshot()
        assert found.nodes.keys() == {"node1", "node2"}
        assert found.nodes["node2"].name == "node2"
        assert found.nodes["node2"].host.items == (Sysctl("net/ipv4/ip_forward", "1"),)


def test_a_snapshot_has_the_managers_names(nodes: list[Daemon]) -> None:
    nodes[0].client.create_service(WEB)
    nodes[0].settle()
    known = nodes[1].client.snapshot().names
    (service,) = known.services
    assert (service.name, service.mark_on("node1"), len(service.vips)) == ("web", 0x100, 1)
    assert [(port.protocol, port.published, port.target) for port in service.ports] == [(Protocol.TCP, 8080, 80)]
    tasks = sorted(known.tasks, key=lambda task: task.name)
    assert [(task.name, task.serving, task.note) for task in tasks] == [("web.1", True, ""), ("web.2", True, "")]
    assert {task.netns for task in tasks} == {names.container_id(task) for task in nodes[0].state.tasks}
    assert [network.name for network in known.networks] == ["ingress", "docker_gwbridge"]


def test_a_node_that_does_not_answer_is_named_with_the_reason(nodes: list[Daemon]) -> None:
    nodes[1].socket.unlink()
    found = nodes[0].client.snapshot()
    assert found.nodes.keys() == {"node1"}
    absent = {node.name: node.absent for node in found.names.nodes}
    assert absent["node1"] == ""
    assert absent["node2"].startswith("node node2's daemon can't be asked at unix://")


def test_a_node_that_is_slow_is_waited_for_as_long_as_it_lives(nodes: list[Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "ANSWER_WITHIN_S", 0.01)
    monkeypatch.setattr(patience, "_LOOK_S", 0.01)
    nodes[1].takes_s = 0.2
    assert nodes[0].client.snapshot().nodes.keys() == {"node1", "node2"}
    down = replace(nodes[1].state.nodes[nodes[1].node_id], state=NodeState.DOWN)
    nodes[0].run(nodes[0].store.update(lambda state: replace(state, nodes={**state.nodes, down.id: down})))
    found = nodes[0].client.snapshot()
    assert found.nodes.keys() == {"node1"}
    (absent,) = (node.absent for node in found.names.nodes if node.name == "node2")
    assert absent.endswith(": no answer; is it running?")


def test_a_port_that_is_none_is_refused(nodes: list[Daemon]) -> None:
    status, _, body = raw(nodes[0], "GET", "/routemesh/v1/snapshot?port=80/carrots")
    assert (status, body["message"]) == (400, "port=80/carrots in the query is none: 8080/tcp is one")
    with pytest.raises(UserError):
        nodes[0].client.plan("no-such-node")
    assert nodes[0].client.snapshot([(Protocol.UDP, 53)]).nodes.keys() == {"node1", "node2"}


# --- the doctor --------------------------------------------------------------------------------------------------


def test_what_every_node_says_of_itself_is_judged_where_it_is_asked(nodes: list[Daemon]) -> None:
    nodes[1].ops = (Change("", Sysctl("net/ipv4/ip_forward", "0"), Sysctl("net/ipv4/ip_forward", "1")),)
    nodes[1].fault("ip link add …: no")
    for asked in nodes:
        found = asked.client.doctor()
        assert (found.version, found.outcome, found.status) == (2, "findings", 3)
        wrong = [(each.what, each.where, each.found) for each in found.findings if each.state is Severity.WRONG]
        assert wrong == [
            ("plan", "node2", "net/ipv4/ip_forward is 0 instead of 1"),
            ("node", "node2", "ip link add …: no"),
        ]


def test_nobody_thinks_for_an_asker_who_has_left(nodes: list[Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    def thinks_for_ever(_: object, __: object, ___: object, stop: Callable[[], None]) -> Look:
        begun.set()
        try:
            while not ended.wait(0.01):
                stop()
        finally:
            ended.set()
        raise AssertionError("it was not told to stop")

    with monkeypatch.context() as patched, socket.socket(socket.AF_UNIX) as asker:
        patched.setattr("routemesh.doctor.mesh.look", thinks_for_ever)
        asker.connect(str(nodes[0].socket))
        asker.sendall(b"GET /routemesh/v1/doctor HTTP/1.1\r\nHost: node\r\n\r\n")
        assert begun.wait(20)
        assert not ended.is_set()
        asker.close()
        assert ended.wait(20)
    assert nodes[0].client.doctor().outcome == "clean", "the next asker's turn has come"


def test_every_node_repairs_what_is_ours_and_says_so(nodes: list[Daemon]) -> None:
    nodes[1].ops = (Create("", Sysctl("net/ipv4/ip_forward", "1")),)
    assert [(each.node, each.mended) for each in nodes[0].client.repair()] == [
        ("node1", ()),
        ("node2", ("net/ipv4/ip_forward can't be read",)),
    ]
    assert nodes[0].client.doctor().outcome == "clean"
