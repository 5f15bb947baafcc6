"""The API over its real socket: what it answers, what it refuses, and that it passes on what another node knows."""

import http.client
import json
import logging
import socket
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh import names, wire
from routemesh.api.client import Client
from routemesh.api.server import serving
from routemesh.api.traces import LONGEST_ORDER_BYTES
from routemesh.ask import context
from routemesh.errors import Conflict, NotFound, RoutemeshError, Unavailable, UserError
from routemesh.model import Availability, HealthKind, Mode, Publish, Role, ServiceSpec, TaskId, Weights
from routemesh.nodeplan import HOST, Address, Change, Create, Delete, FdbEntry
from routemesh.values import replace
from tests.addresses import on_ingress
from tests.support import wait_until
from tests.unit.daemon import Daemon, cluster

WEB = ServiceSpec(name="web", command=("serve",), replicas=2, publish=(Publish(published=8080, target=80),))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Daemon]]:
    with cluster(tmp_path, ("node1", "node2", "node3")) as daemons:
        yield daemons


@pytest.fixture
def daemon(nodes: list[Daemon]) -> Daemon:
    return nodes[0]


def raw(daemon: Daemon, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str, Any]:
    """Status, content type and JSON of an answer, without the client's help."""
    connection = http.client.HTTPConnection("test")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    connection.sock.connect(str(daemon.socket))
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], json.loads(answer.read())
    finally:
        connection.close()


# --- services ----------------------------------------------------------------------------------------------------


def test_a_service_from_creation_to_removal(daemon: Daemon) -> None:
    client = daemon.client
    created = client.create_service(WEB)
    assert (created.name, created.spec, created.version, created.running, created.wanted) == ("web", WEB, 1, 0, 2)
    daemon.settle()
    assert client.services() == [client.service("web")] == [client.service(created.id[:5])]
    assert (client.service("web").running, client.service("web").vip, client.service("web").fwmark) == (2, "10.0.0.5", 256)

    three = replace(WEB, replicas=3)
    updated = client.update_service("web", wire.ServiceUpdate(version=1, spec=three))
    assert (updated.spec, updated.previous_spec, updated.version) == (three, WEB, 2)

    client.remove_service("web")
    assert client.services() == []
    with pytest.raises(NotFound, match=r"^no service named 'web'; there are no services$"):
        client.service("web")


def test_tasks_tell_their_names_nodes_and_addresses(daemon: Daemon) -> None:
    daemon.client.create_service(WEB)
    state = daemon.settle()
    tasks = daemon.client.tasks("web")
    assert [(task.name, task.node, task.state, task.desired_state) for task in tasks] == [
        ("web.1", "node1", "running", "running"),
        ("web.2", "node2", "running", "running"),
    ]
    for task in tasks:
        known = state.tasks[TaskId(task.id)]
        assert task.ports == (f"{on_ingress(known)}:8080->80/tcp",)
        assert task.container == names.container_id(known.id)
        assert task.serving


def test_each_slot_has_its_newest_task_first(daemon: Daemon) -> None:
    daemon.client.create_service(replace(WEB, replicas=1))
    daemon.settle()
    changed = replace(WEB, replicas=1, environment=("A=1",))
    daemon.client.update_service("web", wire.ServiceUpdate(version=1, spec=changed))
    for _ in range(3):
        daemon.settle()
    assert [(task.name, task.state, task.service_version) for task in daemon.client.tasks("web")] == [
        ("web.1", "running", 2),
        ("web.1", "shutdown", 1),
    ]


def test_a_global_service_has_a_task_for_every_node(daemon: Daemon) -> None:
    daemon.client.create_service(replace(WEB, mode=Mode.GLOBAL))
    daemon.settle()
    assert [task.name for task in daemon.client.tasks("web")] == ["web.node1", "web.node2", "web.node3"]
    assert (daemon.client.service("web").running, daemon.client.service("web").wanted) == (3, 3)


def test_an_update_of_a_service_that_has_changed_meanwhile_is_refused(daemon: Daemon) -> None:
    daemon.client.create_service(WEB)
    daemon.client.update_service("web", wire.ServiceUpdate(version=1, spec=replace(WEB, replicas=3)))
    with pytest.raises(Conflict, match="service web is at version 2 now, not 1: somebody else changed it"):
        daemon.client.update_service("web", wire.ServiceUpdate(version=1, spec=replace(WEB, replicas=4)))
    assert daemon.client.service("web").spec.replicas == 3


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        (replace(WEB, name="other", image="nginx"), UserError, "image 'nginx' needs the docker runtime"),
        (replace(WEB, name="other"), Conflict, "port 8080/tcp is already published by service web"),
        (WEB, Conflict, "a service named 'web' exists"),
        (replace(WEB, name="a b"), UserError, "is not a DNS label"),
        (replace(WEB, name="other", replicas=-1), UserError, "replicas is -1"),
        (replace(WEB, name="other", publish=(Publish(published=0, target=1),)), UserError, "0 is out of range"),
        (replace(WEB, name="other", labels={"routemesh.client-ip": "x"}), UserError, "routemesh.client-ip=x has an unknown"),
    ],
)
def test_a_wrong_service_is_refused_and_changes_nothing(
    daemon: Daemon, spec: ServiceSpec, kind: type[RoutemeshError], message: str
) -> None:
    daemon.client.create_service(WEB)
    before = daemon.state
    with pytest.raises(RoutemeshError, match=message) as caught:
        daemon.client.create_service(spec)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert daemon.state == before


def test_labels_become_settings(daemon: Daemon) -> None:
    spec = replace(WEB, labels={"routemesh.client-ip": "snat", "routemesh.health.http": "/health"})
    found = daemon.client.create_service(spec).spec
    assert found.client_ip == "snat"
    assert found.health is not None
    assert (found.health.kind, found.health.path, found.health.port) == (HealthKind.HTTP, "/health", 80)


# --- progress ----------------------------------------------------------------------------------------------------


def test_progress_waits_until_there_is_another_answer(daemon: Daemon) -> None:
    daemon.client.create_service(WEB)
    first = daemon.client.progress("web")
    assert (first.running, first.wanted, first.converged) == (0, 2, False)
    asked_at = time.monotonic()
    assert daemon.client.progress("web", first.seen, wait_s=0.2) == first
    assert time.monotonic() - asked_at >= 0.2
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(daemon.client.progress, "web", first.seen, 10.0)
        daemon.settle()
        second = waiting.result(timeout=5)
    assert second != first
    while not second.converged:
        second = daemon.client.progress("web", second.seen, 10.0)
    assert (second.running, second.message) == (2, "converged: 2 of 2 tasks running")


def test_progress_of_a_service_that_is_removed_ends(daemon: Daemon) -> None:
    daemon.client.create_service(WEB)
    first = daemon.client.progress("web")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(daemon.client.progress, "web", first.seen, 10.0)
        daemon.client.remove_service("web")
        with pytest.raises(NotFound, match=r"was removed meanwhile|no service named"):
            waiting.result(timeout=5)


# --- logs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def talking(nodes: list[Daemon]) -> list[TaskId]:
    """web with a task on node1 and one on node2, each of which has said something."""
    nodes[0].client.create_service(WEB)
    nodes[0].settle()
    tasks = [TaskId(task.id) for task in nodes[0].client.tasks("web")]
    for node, task in zip(nodes, tasks, strict=False):
        node.lines[task] = [b"hello\n", b"\xff" * 70_000 + b"\n", b"bye"]
    return tasks


def prefix(tasks: list[TaskId], slot: int) -> bytes:
    """What tells the lines of a slot's task from those of all others."""
    return f"web.{slot}.{tasks[slot - 1][:12]}@node{slot}".encode()


def test_logs_are_those_of_all_tasks_on_all_nodes(nodes: list[Daemon], talking: list[TaskId]) -> None:
    for node in nodes:
        lines = list(node.client.logs("web"))
        assert [line.partition(b"|")[0].rstrip() for line in lines if b"hello" in line] == [
            prefix(talking, 1),
            prefix(talking, 2),
        ]
        assert lines[-1] == prefix(talking, 2) + b"    | bye\n"
        assert sum(line.count(b"\xff") for line in lines) == 2 * 70_000


def test_tasks_that_the_runtime_does_not_know_have_no_lines(nodes: list[Daemon], talking: list[TaskId]) -> None:
    for node in nodes:
        node.lines.clear()
    assert list(nodes[0].client.logs("web")) == []


def test_logs_of_the_last_lines(nodes: list[Daemon], talking: list[TaskId]) -> None:
    assert list(nodes[0].client.logs("web", tail=1)) == [prefix(talking, slot) + b"    | bye\n" for slot in (1, 2)]
    assert list(nodes[0].client.logs("web", tail=0)) == []


def test_logs_say_which_node_can_not_be_asked(nodes: list[Daemon], talking: list[TaskId]) -> None:
    nodes[1].socket.unlink()
    lines = list(nodes[0].client.logs("web", tail=1))
    assert lines[0] == prefix(talking, 1) + b"    | bye\n"
    assert lines[1].startswith(prefix(talking, 2) + b"    | (routemesh: node node2's daemon can't be asked at unix://")
    assert len(lines) == 2


def test_followed_logs_go_on_with_new_tasks_until_the_service_is_gone(nodes: list[Daemon], talking: list[TaskId]) -> None:
    lines = nodes[0].client.logs("web", follow=True, tail=1)
    assert {next(lines), next(lines)} == {prefix(talking, slot) + b"    | bye\n" for slot in (1, 2)}
    nodes[0].client.update_service("web", wire.ServiceUpdate(version=1, spec=replace(WEB, replicas=3)))
    nodes[2].lines = defaultdict(lambda: [b"one\n", b"two\n"])
    nodes[0].settle()
    talking = [TaskId(task.id) for task in nodes[0].client.tasks("web")]
    assert [next(lines), next(lines)] == [prefix(talking, 3) + b"    | one\n", prefix(talking, 3) + b"    | two\n"]
    nodes[0].client.remove_service("web")
    for node in nodes:
        node.end_logs()
    assert list(lines) == []


def test_a_stalled_reader_of_a_flood_elsewhere_holds_little(nodes: list[Daemon], talking: list[TaskId]) -> None:
    flood = Flood()
    nodes[1].lines[talking[1]] = flood  # type: ignore[assignment]
    with ExitStack() as readers:
        for _ in range(STALLED):
            reader = readers.enter_context(socket.socket(socket.AF_UNIX))
            reader.connect(str(nodes[0].socket))
            reader.sendall(f"GET {wire.PREFIX}/services/web/logs HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        wait_until(lambda: flood.rests_for(1.5), what="all buffers to be full")
        assert 0 < flood.told_bytes < STALLED * 2 << 20


def test_no_more_outputs_are_read_at_a_time_than_fit_into_a_daemon(
    nodes: list[Daemon], talking: list[TaskId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "MOST_OUTPUTS", 0)
    with cluster(nodes[0].socket.parent, ("node4",)) as (full,):
        full.client.create_service(replace(WEB, replicas=1))
        full.settle()
        (line,) = full.client.logs("web")
        assert b"(routemesh: the output of 0 tasks is being read through this daemon already" in line


def test_a_seat_is_free_again_when_its_taker_leaves() -> None:
    seats = context.Seats(1, "too many")
    for _ in range(3):
        with seats.taken(), pytest.raises(Unavailable, match="too many"), seats.taken():
            pass


STALLED = 20


class Flood:
    """A log without end, that knows how much of it was read, and when last."""

    def __init__(self) -> None:
        self.told_bytes, self._last = 0, 0.0

    def __iter__(self) -> Iterator[bytes]:
        line = b"y\n" * 8192
        while True:
            self.told_bytes += len(line)
            self._last = time.monotonic()
            yield line

    def rests_for(self, seconds: float) -> bool:
        """Whether something was read, and nothing for so long."""
        return self.told_bytes > 0 and time.monotonic() - self._last > seconds


def test_logs_of_a_task_that_is_elsewhere_are_not_passed_on_twice(nodes: list[Daemon], talking: list[TaskId]) -> None:
    status, _, answer = raw(nodes[2], "GET", f"{wire.PREFIX}/tasks/{talking[0]}/logs")
    assert (status, answer["message"]) == (404, f"task {talking[0]} is not on this node but on node1; ask there")


# --- nodes -------------------------------------------------------------------------------------------------------


def test_nodes_tell_who_is_asked_and_who_leads(nodes: list[Daemon]) -> None:
    nodes[0].run(nodes[0].store.renew("leader", nodes[2].node_id, 1e9))
    found = nodes[1].client.nodes()
    assert [(node.name, node.asked, node.leader, node.address) for node in found] == [
        ("node1", False, False, "192.168.200.10"),
        ("node2", True, False, "192.168.200.11"),
        ("node3", False, True, "192.168.200.12"),
    ]
    assert nodes[1].client.node("self") == found[1]
    assert nodes[0].client.node("node2") == msgspec.structs.replace(found[1], asked=False)
    assert {node.applied for node in found} == {nodes[0].state.revision}


def test_a_node_is_changed(daemon: Daemon) -> None:
    change = wire.NodeUpdate(availability=Availability.DRAIN, role=Role.WORKER, labels_add={"disk": "fast", "a": "b"})
    found = daemon.client.update_node("node2", change)
    assert (found.availability, found.role, found.labels) == ("drain", "worker", {"disk": "fast", "a": "b"})
    found = daemon.client.update_node("node2", wire.NodeUpdate(labels_remove=("a",)))
    assert (found.availability, found.labels) == ("drain", {"disk": "fast"})
    with pytest.raises(NotFound, match="no node named 'node9'; nodes are: node1, node2, node3"):
        daemon.client.update_node("node9", change)


def test_the_plan_of_any_node_from_any_node(nodes: list[Daemon]) -> None:
    nodes[0].client.create_service(WEB)
    nodes[0].settle()
    for asked in nodes:
        plan = asked.client.plan("node2")
        assert plan.node == "node2"
        own = {namespace.name: namespace for namespace in plan.namespaces}
        assert own[HOST].name == ""
        assert "ip address add 172.18.0.1/16 dev docker_gwbridge" in own[HOST].commands
        assert "tcp . 8080" in own[HOST].ruleset
        assert {"item": "Address", "link": "eth0", "address": "10.0.0.3/24"} in own[names.SANDBOX].items


def test_the_diff_of_any_node_from_any_node(nodes: list[Daemon]) -> None:
    address = Address("eth0", IPv4Interface("10.0.0.3/24"))
    entry = FdbEntry("vxlan0", "02:42:0a:00:00:05")
    nodes[1].ops = (Create(names.SANDBOX, address), Change("", entry, entry), Delete("", address))
    for asked in nodes:
        diff = asked.client.diff("node2")
        assert (diff.node, [op.kind for op in diff.ops]) == ("node2", ["create", "change", "delete"])
        assert diff.ops[0].command.endswith("ip address add 10.0.0.3/24 dev eth0")
        assert diff.ops[0].item == {"item": "Address", "link": "eth0", "address": "10.0.0.3/24"}
        assert diff.ops[1].old == {"item": "FdbEntry", "link": "vxlan0", "mac": "02:42:0a:00:00:05", "dst": None}
        assert asked.client.diff("node1").ops == ()


def test_a_node_whose_daemon_is_gone_can_not_be_asked(nodes: list[Daemon]) -> None:
    nodes[1].socket.unlink()
    with pytest.raises(Unavailable, match=r"^node node2's daemon can't be asked at unix://.*: No such file"):
        nodes[0].client.diff("node2")


def test_a_request_is_never_passed_on_in_a_circle(nodes: list[Daemon]) -> None:
    """On hosts of their own, all daemons have the same path: what is meant for node2 comes back to node1."""
    nodes[1].socket.unlink()
    nodes[1].socket.symlink_to(nodes[0].socket)
    with pytest.raises(Unavailable, match=r"node node2 can't be asked from here: unix://.* is another node's"):
        nodes[0].client.diff("node2")


# --- networks ----------------------------------------------------------------------------------------------------

COMMON_KEYS = {
    "Name", "Id", "Created", "Scope", "Driver", "EnableIPv6", "IPAM", "Internal", "Attachable", "Ingress", "ConfigFrom",
    "ConfigOnly", "Containers", "Options", "Labels",
}  # fmt: skip
"""Of `docker network inspect` 20.10.24."""


def test_docker_gwbridge_is_as_docker_shows_it(nodes: list[Daemon]) -> None:
    nodes[0].client.create_service(WEB)
    nodes[0].settle()
    found = nodes[1].client.network("docker_gwbridge")
    assert found.keys() == COMMON_KEYS
    assert (found["Driver"], found["Scope"], found["Ingress"], len(found["Id"])) == ("bridge", "local", False, 64)
    assert found["IPAM"]["Config"] == [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]
    (task,) = [task for task in nodes[1].client.tasks("web") if task.node == "node2"]
    (key,) = found["Containers"].keys() - {"ingress-sbox"}
    assert key.startswith(task.container)
    assert len(key) == 64
    shown = found["Containers"][key]
    assert shown["Name"] == f"gateway_{task.container}"
    assert shown["IPv4Address"] == f"{task.gateway_address}/16"
    sandbox = found["Containers"]["ingress-sbox"]
    assert sandbox.pop("EndpointID")
    assert sandbox == {
        "Name": "gateway_ingress-sbox",
        "MacAddress": "02:42:ac:12:00:02",
        "IPv4Address": "172.18.0.2/16",
        "IPv6Address": "",
    }


def test_ingress_is_as_docker_shows_it(nodes: list[Daemon]) -> None:
    nodes[0].client.create_service(WEB)
    nodes[0].settle()
    found = nodes[1].client.network("ingress")
    assert found.keys() == COMMON_KEYS | {"Peers"}
    assert (found["Driver"], found["Scope"], found["Ingress"], len(found["Id"])) == ("overlay", "swarm", True, 25)
    assert found["Options"] == {"com.docker.network.driver.overlay.vxlanid_list": "4096"}
    assert [peer["IP"] for peer in found["Peers"]] == ["192.168.200.11", "192.168.200.10", "192.168.200.12"]
    assert found["Containers"]["ingress-sbox"]["Name"] == "ingress-endpoint"
    assert found["Containers"]["ingress-sbox"]["IPv4Address"] == "10.0.0.3/24"
    (task,) = [task for task in nodes[1].client.tasks("web") if task.node == "node2"]
    (key,) = found["Containers"].keys() - {"ingress-sbox"}
    assert found["Containers"][key]["Name"] == f"web.2.{task.id}"
    assert found["Containers"][key]["IPv4Address"] == f"{task.address}/24"

    web = nodes[1].client.network("ingress", verbose=True)["Services"]["web"]
    assert (web["VIP"], web["Ports"], web["LocalLBIndex"]) == ("10.0.0.5", ["Target: 80, Publish: 8080"], 256)
    assert [each["Info"]["Host IP"] for each in web["Tasks"]] == ["192.168.200.10", "192.168.200.11"]


def test_networks_by_id_and_unknown_ones(daemon: Daemon) -> None:
    for network in daemon.client.networks():
        assert daemon.client.network(network["Id"][:7])["Name"] == network["Name"]
    with pytest.raises(NotFound, match="no network named 'bridge'; networks are: docker_gwbridge and ingress"):
        daemon.client.network("bridge")


def test_weights_of_slots_travel_both_ways(daemon: Daemon) -> None:
    made = daemon.client.create_service(replace(WEB, labels={"routemesh.weight": "2,node1=5,.3=0"}))
    assert made.spec.balancing.weights == Weights(default=2, nodes={"node1": 5}, slots={3: 0})
    changed = daemon.client.update_service("web", wire.ServiceUpdate(version=1, spec=replace(made.spec, replicas=3)))
    assert changed.spec.balancing == made.spec.balancing


# --- requests that are wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/nowhere", b"", 404, "/nowhere: there is no such path; the API is below /routemesh/v1/"),
        ("GET", "/v1.41/services", b"", 404, "/v1.41/services: there is no such path"),
        ("PUT", "/routemesh/v1/services", b"", 405, "PUT is not possible; use GET or HEAD or POST"),
        ("POST", "/routemesh/v1/services", b"{", 400, "the request's body is not what this path takes: Input data was truncated"),
        ("POST", "/routemesh/v1/services", b"", 400, "the request's body is not what this path takes"),
        ("POST", "/routemesh/v1/services", b"\xff\xfe", 400, "the request's body is not what this path takes"),
        ("POST", "/routemesh/v1/services", b"[" * 100_000, 400, "the request's body is not what this path takes"),
        ("POST", "/routemesh/v1/services", b"{}", 400, "missing required field `name`"),
        ("POST", "/routemesh/v1/services", b'{"name": "a", "replicas": "2"}', 400, "Expected `int`, got `str` - at `$.replicas`"),
        ("POST", "/routemesh/v1/services", b'{"name": "a", "replica": 2}', 400, "has an unknown field: $.replica"),
        ("POST", "/routemesh/v1/services", b"{" + b" " * 2_000_000, 413, "body is longer than 1048576 bytes"),
        ("POST", "/routemesh/v1/nodes/node1", b'{"availabilty": "drain"}', 400, "unknown field `availabilty`|$.availabilty"),
        ("GET", "/routemesh/v1/services/web/progress?wait=soon", b"", 400, "wait=soon in the query is not a number of 0 or more"),
        ("GET", "/routemesh/v1/services/web/progress?wait=nan", b"", 400, "wait=nan in the query is not a number of 0 or more"),
        ("GET", "/routemesh/v1/services/web/logs?tail=-1", b"", 400, "tail=-1 in the query is not a number of 0 or more"),
        ("GET", "/routemesh/v1/tasks/nix/logs", b"", 404, "no task with id 'nix' runs on a node"),
    ],
)
def test_a_wrong_request_gets_one_line(daemon: Daemon, method: str, path: str, body: bytes, status: int, message: str) -> None:
    daemon.client.create_service(WEB)
    before = daemon.state
    found, content_type, answer = raw(daemon, method, path, body)
    assert (found, content_type, list(answer)) == (status, "application/json", ["message"])
    assert any(part in answer["message"] for part in message.split("|"))
    assert "\n" not in answer["message"]
    assert daemon.state == before


@pytest.mark.parametrize(
    ("path", "headers", "body", "message"),
    [
        ("/services", {"Content-Encoding": "gzip"}, b"no gzip at all", "the request's body can't be read: Can not decode"),
        ("/nodes/node1/watch", {"Content-Encoding": "deflate"}, b"\xff\xff", "the request's body can't be read: Can not decode"),
        ("/nodes/node1/watch", {}, b"x" * (LONGEST_ORDER_BYTES + 500_000), f"a line is longer than {LONGEST_ORDER_BYTES} bytes"),
        ("/nodes/node1/watch", {}, b"[" * 100_000, "the request's body is not what this path takes"),
        ("/services", {}, b'{"name": "a", "balancing": {"scheduler": "sh"}}', "field balancing can't be set: labels say it"),
        ("/services", {}, b'{"name": "a", "http": {"hosts": ["a.b"], "port": 80}}', "field http can't be set: labels say it"),
    ],
)
def test_what_can_not_be_read_or_set_is_named(
    daemon: Daemon, path: str, headers: dict[str, str], body: bytes, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, _, answer = raw(daemon, "POST", wire.PREFIX + path, body, **headers)
    assert (status, daemon.state.services) == (400, {})
    assert message in answer["message"]
    # The daemon has looked at what is left of a body before it takes the next connection.
    assert raw(daemon, "GET", wire.PREFIX + "/services")[0] == 200
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_spec_may_be_sent_back_with_other_labels_but_not_with_other_balancing(daemon: Daemon) -> None:
    made = daemon.client.create_service(replace(WEB, labels={"routemesh.lb": "sh"}))
    other = replace(made.spec, labels={"routemesh.lb": "rr"})
    assert daemon.client.update_service("web", wire.ServiceUpdate(version=1, spec=other)).spec.balancing.scheduler == "rr"
    wrong = replace(other, balancing=replace(made.spec.balancing, affinity_s=7))
    with pytest.raises(UserError, match="field balancing can't be set"):
        daemon.client.update_service("web", wire.ServiceUpdate(version=2, spec=wrong))


def test_a_bug_is_one_line_and_its_traceback_is_in_the_log(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    daemon.ops = (1,)  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR), pytest.raises(RoutemeshError, match="a bug in routemesh") as caught:
        daemon.client.diff("node1")
    assert "\n" not in str(caught.value)
    assert "Traceback" in caplog.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "labels", "publish", "x"]), inner),
    max_leaves=10,
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=50))
def test_any_body_is_a_spec_or_a_user_error(body: bytes) -> None:
    try:
        spec = wire.parse(ServiceSpec, body)
    except UserError as exc:
        assert str(exc).startswith("the request's body ")
    else:
        assert wire.parse(ServiceSpec, wire.encode(spec)) == spec


# --- the socket --------------------------------------------------------------------------------------------------


def test_the_socket_is_its_owners_alone_and_goes_with_the_daemon(tmp_path: Path) -> None:
    with cluster(tmp_path) as (daemon,):
        assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o600
        daemon.client.ping()
    assert not daemon.socket.exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "node1"))
    with cluster(tmp_path) as (daemon,):
        daemon.client.ping()


def _listen(daemon: Daemon, path: Path) -> None:
    async def briefly() -> None:
        async with serving(daemon.context(), path):
            pass

    daemon.run(briefly())


def test_a_second_daemon_does_not_take_the_socket(daemon: Daemon) -> None:
    with pytest.raises(Unavailable, match=f"^can't listen on {daemon.socket}: another daemon answers there: stop it first"):
        _listen(daemon, daemon.socket)
    daemon.client.ping()


def test_a_socket_that_can_not_be_made_is_one_line(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(Unavailable, match="it is not a socket: move it away"):
        _listen(daemon, file)
    assert file.read_text() == "precious"
    with pytest.raises(Unavailable, match="No such file or directory: choose another directory with --run-dir"):
        _listen(daemon, tmp_path / "nowhere" / "socket")
    with pytest.raises(Unavailable, match="path too long: choose another directory with --run-dir"):
        _listen(daemon, tmp_path / ("x" * 120))


# --- the client --------------------------------------------------------------------------------------------------


def test_no_daemon_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no daemon answers at .*/none: there is no such socket; start one"):
        Client(tmp_path / "none").services()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    with pytest.raises(Unavailable, match=r"no daemon answers at .*/dead: the one that made it is gone"):
        Client(tmp_path / "dead").services()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "went away while it was asked"),
        (b"garbage\r\n\r\n", "went away while it was asked"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[", "went away while it was asked"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n[", "answer is not understood"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n[{}]", "answer is not understood"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "answered 500 without an explanation"),
    ],
)
def test_a_daemon_that_answers_nonsense_is_one_line(tmp_path: Path, answer: bytes, message: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "odd"))
        server.listen()
        thread = threading.Thread(target=_answer_once, args=(server, answer))
        thread.start()
        with pytest.raises(RoutemeshError, match=message):
            Client(tmp_path / "odd").services()
        thread.join()


def _answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer)


def test_names_are_taken_literally(daemon: Daemon) -> None:
    for name in ("a/b", "a?b", "a b", "..", "%2e", "ä"):
        with pytest.raises(NotFound):
            daemon.client.service(name)
    with pytest.raises(UserError, match="an empty name names nothing"):
        daemon.client.service("")
