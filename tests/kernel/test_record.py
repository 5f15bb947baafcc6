"""A recording of real namespaces tells what looking at them tells, and a Docker engine is asked as it wants to be asked."""

import http.server
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from routemesh.errors import Unavailable, UserError
from routemesh.kernel.listeners import is_stopped
from routemesh.nodeplan import HOST, Link, Neighbour, Peer
from routemesh.recording import swarm
from routemesh.recording.node import DOCKER_NETNS, About
from routemesh.recording.read import read
from routemesh.recording.write import Target, record
from routemesh.sight.observe import observe
from routemesh.snapshot import NamespaceSnapshot
from routemesh.values import replace
from tests.kernel.private import Private, private_netns
from tests.support import wait_until

RECORDED = Path(__file__).parent.parent / "data" / "swarm" / "2-service"
ABOUT = About(name="one", kind="routemesh", engine="nftables", address=IPv4Address("10.9.0.1"), kernel="6", netns="/n", at=7.5)


@pytest.fixture
def outer() -> Iterator[Private]:
    with private_netns() as space:
        yield space


@pytest.fixture
def inner(outer: Private) -> Iterator[Private]:
    """Has eth0, a veth to a bridge of the other; and in the other all that a mesh may have."""
    with private_netns() as space:
        outer.run("ip", "link", "add", "br0", "type", "bridge")
        outer.run("ip", "link", "add", "port", "type", "veth", "peer", "name", "eth0", "netns", space.name)
        outer.run("ip", "link", "set", "port", "master", "br0", "up")
        outer.run("ip", "address", "add", "10.9.0.1/24", "dev", "br0")
        outer.run("ip", "link", "set", "br0", "up")
        outer.run("ip", "link", "add", "vxlan0", "type", "vxlan", "id", "4096", "dstport", "4789", "nolearning", "proxy")
        outer.run("bridge", "fdb", "add", "02:42:0a:09:00:07", "dev", "vxlan0", "dst", "192.0.2.7", "self", "permanent")
        outer.run("ip", "neighbour", "add", "10.9.0.7", "lladdr", "02:42:0a:09:00:07", "dev", "vxlan0", "nud", "permanent")
        outer.run("ip", "route", "add", "10.8.0.0/16", "via", "10.9.0.2", "metric", "7", "table", "82")
        outer.run("ip", "route", "add", "blackhole", "10.7.0.0/16")
        outer.run("ip", "rule", "add", "fwmark", "0x52/0xff", "lookup", "82", "pref", "82")
        outer.nft("table ip mine { chain in { type filter hook input priority 0; policy drop; tcp dport 22 accept; }; }")
        outer.nft('table netdev far { chain out { type filter hook egress device "port" priority 0; }; }')
        space.run("ip", "link", "set", "eth0", "address", "02:42:0a:09:00:02", "up")
        space.run("ip", "address", "add", "10.9.0.2/24", "dev", "eth0")
        yield space


def target(outer: Private, inner: Private) -> Target:
    return Target(about=ABOUT, namespaces={HOST: outer.path, "ingress_sbox": inner.path})


def steady(space: NamespaceSnapshot) -> NamespaceSnapshot:
    """Without what changes by itself, without where it was read, and in no order."""
    items = (item for item in space.items if not isinstance(item, Neighbour) or item.state == "permanent")
    return replace(space, path="", items=tuple(sorted(items, key=repr)), conntrack=None, conntrack_count=None)


def test_a_recording_tells_what_is_there(outer: Private, inner: Private, tmp_path: Path) -> None:
    report = record(tmp_path / "case", target(outer, inner))
    (node,) = read([tmp_path / "case"]).nodes.values()
    seen = observe({HOST: outer.path, "ingress_sbox": inner.path})
    assert report.missing == {}
    assert (node.name, node.kind, node.engine, node.at, node.device) == ("one", "routemesh", "nftables", 7.5, "br0")
    for name, space in seen.items():
        assert steady(node.namespaces[name]) == steady(space)
        assert node.namespaces[name].conntrack is not None


def test_a_stopped_server_is_recorded_as_one_and_no_argument_is(outer: Private, inner: Private, tmp_path: Path) -> None:
    program = "import socket, time; s = socket.create_server(('', 8000)); time.sleep(1000)"
    command = ["nsenter", f"--net={outer.path}", sys.executable, "-c", program, "secret"]
    with subprocess.Popen(command) as server:
        try:
            wait_until(
                lambda: any(each.port == 8000 for each in observe({HOST: outer.path})[HOST].sockets or ()), what="a server"
            )
            server.send_signal(signal.SIGSTOP)
            wait_until(lambda: is_stopped(server.pid), what="a stopped process")
            record(tmp_path / "case", target(outer, inner))
        finally:
            server.kill()
    (node,) = read([tmp_path / "case"]).nodes.values()
    assert [(each.pid, each.stopped) for each in node.host.sockets or () if each.port == 8000] == [(server.pid, True)]
    assert "secret" not in (tmp_path / "case" / "host" / "ps.txt").read_text()


def test_the_namespace_that_one_is_in_stays_the_nodes_own(outer: Private, inner: Private, tmp_path: Path) -> None:
    with outer.enter():
        own = Path(f"/proc/{os.getpid()}/ns/net")
        record(tmp_path / "case", Target(about=ABOUT, namespaces={HOST: own, "ingress_sbox": inner.path}))
    (node,) = read([tmp_path / "case"]).nodes.values()
    peers = {link.name: link.peer for space in node.namespaces.values() for link in space.of(Link) if link.kind == "veth"}
    assert peers == {"port": Peer("ingress_sbox", "eth0"), "eth0": Peer(HOST, "port")}


def test_a_namespace_that_is_gone_is_told(outer: Private, inner: Private, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.write_text("")
    spaces = {HOST: outer.path, "ingress_sbox": nothing, "other": tmp_path / "nowhere"}
    report = record(tmp_path / "case", Target(about=ABOUT, namespaces=spaces))
    assert report.missing == {
        f"{nothing} can't be entered: Invalid argument": ["netns/ingress_sbox"],
        f"{tmp_path / 'nowhere'} can't be entered: No such file or directory": ["netns/other"],
    }


def test_a_missing_tool_is_told_and_so_is_what_it_costs(
    outer: Private, inner: Private, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        report = record(tmp_path / "case", target(outer, inner))
    assert "ip is not installed (Debian package iproute2)" in report.missing
    (node,) = read([tmp_path / "case"]).nodes.values()
    assert {unread.loses for unread in node.host.unread} >= {"which way packets are routed", "what iptables does to a packet"}


def test_a_command_that_fails_is_told(outer: Private, inner: Private, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin" / "bridge"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no such thing >&2\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    report = record(tmp_path / "case", target(outer, inner))
    assert report.missing == {"bridge fdb show: no such thing": ["host/bridge-fdb.txt", "netns/ingress_sbox/bridge-fdb.txt"]}


def test_a_directory_with_something_in_it_is_refused(outer: Private, inner: Private, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        record(tmp_path, target(outer, inner))


# --- a Docker engine ---------------------------------------------------------------------------------------------

INFO = {"Name": "swarm1", "KernelVersion": "6.1", "Swarm": {"LocalNodeState": "active", "NodeAddr": "10.9.0.1"}}


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers as it is told to, by path; to a path that it was not told about with 503, as a worker does."""

    daemon_threads = True

    def __init__(self, path: Path, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        super().__init__(str(path), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Engine

    def do_GET(self) -> None:
        found = self.server.answers.get(self.path)
        body = json.dumps({"message": "not a manager"} if found is None else found).encode()
        self.send_response(503 if found is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return ""

    def log_message(self, format: str, *args: object) -> None:
        pass


def docker_files(name: str) -> Any:
    return json.loads((RECORDED / "node1" / "docker" / f"{name}.json").read_text())


def answers() -> dict[str, Any]:
    ingress, bridge = docker_files("network-ingress")[0], docker_files("network-docker_gwbridge")[0]
    sandbox = {"SandboxKey": f"{DOCKER_NETNS}/4f1fb3667fce"}
    return {
        "/info": INFO,
        "/networks": [ingress, bridge, {"Name": "host", "Driver": "host", "Id": "h"}],
        f"/networks/{ingress['Id']}?verbose=true": ingress,
        f"/networks/{bridge['Id']}?verbose=true": bridge,
        "/containers/json": [{"Id": "b18865"}],
        "/containers/b18865/json": {
            "Id": "b18865",
            "Name": "/web.1.4m4qb164pybtvqkx2ef5phvs3",
            "NetworkSettings": sandbox,
            "State": {"Pid": 9},
        },
    }


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    server = Engine(tmp_path / "docker.sock", answers())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def namespaces(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory in which Docker has its namespaces, with one that is the node's own."""
    if "engine" in request.fixturenames:
        directory = tmp_path / "netns"
        directory.mkdir()
        (directory / "default").write_text("")
        for space in [request.getfixturevalue("outer")]:
            (directory / "4f1fb3667fce").symlink_to(space.path)
        monkeypatch.setattr(swarm, "DOCKER_NETNS", str(directory))


def test_a_manager_tells_everything_but_the_values_of_variables(engine: Engine, outer: Private, tmp_path: Path) -> None:
    services = docker_files("services")
    services[0]["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] = ["PASSWORD=hunter2"]
    engine.answers = {
        **answers(), "/services": services, "/tasks": docker_files("tasks"), "/nodes": docker_files("nodes"),
    }  # fmt: skip
    found = swarm.live(tmp_path / "docker.sock")
    assert [(task.name, task.netns) for task in found.names.tasks] == [("web.1", "4f1fb3667fce"), ("web.2", "")]
    assert found.unread == ()
    assert {node.name: node.absent.partition(";")[0] for node in found.names.nodes} == {
        "swarm1": "",
        "swarm2": "only this node can be read from here",
    }
    assert set(found.nodes["swarm1"].namespaces) == {HOST, "4f1fb3667fce"}
    assert "hunter2" not in json.dumps(dict(swarm.target(tmp_path / "docker.sock").files))


def test_a_worker_tells_what_it_knows(engine: Engine, outer: Private, tmp_path: Path) -> None:
    found = swarm.live(tmp_path / "docker.sock")
    assert [service.name for service in found.names.services] == ["web"]
    assert ["manager" in unread.what for unread in found.unread] == [True]


def test_without_an_engine_or_a_swarm_there_is_nothing(engine: Engine, outer: Private, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no Docker Engine answers on"):
        swarm.target(tmp_path / "nothing.sock")
    engine.answers = {"/info": {**INFO, "Swarm": {"LocalNodeState": "inactive"}}}
    with pytest.raises(UserError, match="is not in a swarm"):
        swarm.target(tmp_path / "docker.sock")
