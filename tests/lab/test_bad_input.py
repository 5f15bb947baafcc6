"""Bad input gets one line that says what, where, why and what to do, and changes nothing."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from routemesh.kernel.capabilities import has_ip_vs
from tests.lab.cluster import Cluster
from tests.support import require, unique, wait_until

COMMAND = ("host", "routemesh", "whoami")


@pytest.fixture(scope="module")
def taken(mesh: Cluster) -> Iterator[str]:
    """A service that has port 8300."""
    with mesh.service("taken", "-p", "8300:80", "--replicas", "1") as name:
        yield name


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["-p", "70000:80"], 2, ["70000", "65535"]),
        (["-p", "0:80"], 2, ["0", "65535"]),
        (["-p", "8300:80"], 1, ["8300/tcp", "taken"]),
        (["-p", "8301:80/icmp"], 2, ["icmp", "tcp", "udp"]),
        (["-p", "target=80"], 2, ["published", "target=80"]),
        (["-p", "published=8301"], 2, ["target"]),
        (["-p", "8301:80", "-p", "8301:81"], 1, ["8301/tcp"]),
        (["--replicas", "-1"], 2, ["-1"]),
        (["--replicas", "two"], 2, ["two"]),
        (["--constraint", "node.colour==red"], 1, ["node.colour"]),
        (["--replicas", "300", "-p", "8301:80"], 1, ["10.0.0.0/24"]),
        (["--label", "routemesh.client-ip=maybe"], 1, ["keep", "snat"]),
        (["--label", "routemesh.unheard=of"], 1, ["routemesh.unheard"]),
        (["--label", "routemesh.lb=fastest"], 1, ["'fastest'", "rr, wrr", "maglev"]),
        (["--label", "routemesh.affinity=cookie"], 1, ["'cookie'", "client-ip;timeout=3h"]),
        (["--label", "routemesh.weight=1,node1=65536"], 1, ["'65536'", "0-65535"]),
        (["--label", "routemesh.locality=near"], 1, ["'near'", "prefer-local"]),
        (["--label", "routemesh.lb=sed", "-p", "8301:80"], 1, ["nftables", "'sed'", "use one of: "]),
        (["--stop-signal", "SIGNOTHING"], 1, ["SIGNOTHING"]),
        (["--env", "NOVALUE="], 0, []),
    ],
)  # fmt: skip
def test_service_create(mesh: Cluster, taken: str, options: list[str], status: int, says: list[str]) -> None:
    before = mesh.json("service", "ls")
    command = ["service", "create", "--detach", "--name", "bad", *options, *COMMAND]
    if status == 0:
        mesh.cli(*command)
        mesh.cli("service", "rm", "bad")
        return
    line = mesh.refused(*command, status=status)
    assert all(word in line for word in says), line
    assert [service["name"] for service in mesh.json("service", "ls")] == [service["name"] for service in before]


def test_a_duplicate_name(mesh: Cluster, taken: str) -> None:
    assert "taken" in mesh.refused("service", "create", "--name", "taken", *COMMAND)


def test_an_unknown_image_says_what_images_the_node_runs(mesh: Cluster) -> None:
    line = mesh.refused("service", "create", "--name", "bad", "nginx:latest")
    assert "nginx:latest" in line and "host" in line


def test_a_port_that_a_process_has_on_a_node(mesh: Cluster) -> None:
    listener = mesh.at("node2", lambda: subprocess.Popen([sys.executable, "-m", "http.server", "8302", "--bind", "0.0.0.0"]))
    try:
        wait_until(lambda: any(one["port"] == 8302 for one in mesh.json("node", "inspect", "node2")[0]["listeners"]), 10)
        line = mesh.refused("service", "create", "--name", "bad", "-p", "8302:80", *COMMAND)
        assert "8302/tcp" in line and "node2" in line and "python" in line
    finally:
        listener.kill()
        listener.wait()


def test_an_unknown_node_and_an_unknown_service(mesh: Cluster) -> None:
    assert "node1" in mesh.refused("node", "inspect", "node9")
    assert "node9" in mesh.refused("plan", "node9")
    assert "nothing" in mesh.refused("service", "rm", "nothing")


def test_a_lab_name_in_use(mesh: Cluster) -> None:
    assert mesh.name in mesh.refused("lab", "up", "--name", mesh.name)


def test_a_demo_leaves_a_lab_alone_that_it_did_not_make(mesh: Cluster) -> None:
    refused = mesh.refused("demo")
    assert refused.startswith(
        f"routemesh: lab {mesh.name} is there already, perhaps of a demo before; remove it with 'routemesh "
    )
    assert refused.endswith("or call this one otherwise: ROUTEMESH_LAB=NAME")
    assert mesh.json("node", "ls")


def test_a_lab_with_an_mtu_too_small(mesh: Cluster) -> None:
    refused = mesh.refused("lab", "up", "--name", unique("small"), "--mtu", "600", status=2)
    assert "600 is not in the range 626<=x<=65535" in refused


REFUSAL = (
    "engine 'ipvs' needs the ip_vs module, which kernel {} does not have (./run uml gives a shell in one that has it); "
    "use --engine nftables"
)
needs_a_kernel_without_ip_vs = pytest.mark.skipif(has_ip_vs(), reason="this kernel has IPVS")


@needs_a_kernel_without_ip_vs
def test_a_lab_with_an_engine_that_this_kernel_lacks_is_refused_before_it_is_begun(mesh: Cluster) -> None:
    name = unique("ipvs")
    assert mesh.refused("lab", "up", "--name", name, "--engine", "ipvs") == f"routemesh: {REFUSAL.format(os.uname().release)}"
    assert not [entry for entry in mesh.directory.parent.iterdir() if name in entry.name]


@needs_a_kernel_without_ip_vs
def test_a_daemon_with_an_engine_that_this_kernel_lacks_makes_nothing(tmp_path: Path) -> None:
    require("root", "netns")
    store = tmp_path / "cluster.db"
    line = _one_line(_node(tmp_path / "run", "--engine", "ipvs", "--store", f"sqlite:{store}"))
    assert line == f"routemesh: {REFUSAL.format(os.uname().release)}"
    assert list(tmp_path.iterdir()) == []


ADDRESS = "192.0.2.1"


def _node(place: Path, *options: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Start a daemon that can't start, in a network namespace of its own with ADDRESS; `before`: one more `ip` command there."""
    commands = ["ip link set lo up", f"ip address add {ADDRESS}/32 dev lo", *([before] if before else [])]
    script = (
        "import subprocess,sys,os; n=int(sys.argv[1]);"
        "[subprocess.run(c.split(), check=True) for c in sys.argv[2:2+n]]; os.execv(sys.argv[2+n], sys.argv[2+n:])"
    )
    daemon = [sys.executable, "-m", "routemesh", "node", "--name", "solo", "--advertise", ADDRESS, "--run-dir", str(place)]
    daemon += ["--data-dir", str(place), *options]
    return subprocess.run(
        ["unshare", "--net", sys.executable, "-c", script, str(len(commands)), *commands, *daemon],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("routemesh")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0]


def test_an_address_that_the_machine_does_not_have(tmp_path: Path) -> None:
    require("root", "netns", "nf_tables")
    assert "192.0.2.99" in _one_line(_node(tmp_path / "run", "--advertise", "192.0.2.99"))


def test_a_corrupt_database(tmp_path: Path) -> None:
    require("root", "netns", "nf_tables")
    store = tmp_path / "cluster.db"
    store.write_bytes(b"this is not a database" * 100)
    assert str(store) in _one_line(_node(tmp_path / "run", "--store", f"sqlite:{store}"))


def test_a_locked_database(tmp_path: Path) -> None:
    require("root", "netns", "nf_tables")
    store = tmp_path / "cluster.db"
    with closing(sqlite3.connect(store)) as other:
        other.execute("CREATE TABLE t (a)")
        other.execute("BEGIN EXCLUSIVE")
        assert str(store) in _one_line(_node(tmp_path / "run", "--store", f"sqlite:{store}"))


def test_an_etcd_that_does_not_answer_and_one_that_can_not_be(tmp_path: Path) -> None:
    require("root", "netns", "nf_tables")
    absent = _node(tmp_path / "run", "--store", f"etcd://{ADDRESS},{ADDRESS}:2389/mesh", "--new-cluster")
    reasons = f"({ADDRESS}:2379: Connection refused; {ADDRESS}:2389: Connection refused): is it running"
    assert f"etcd at {ADDRESS}:2379, {ADDRESS}:2389 can't be used {reasons}" in _one_line(absent)
    lonely = _node(tmp_path / "run", "--store", f"etcd://{ADDRESS}", "--store-cert", "/cert.pem")
    assert "--store-cert and --store-key belong together; give both or neither" in _one_line(lonely)
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()], "no file is left"


def test_an_active_swarm_on_the_host(tmp_path: Path) -> None:
    """Its docker_gwbridge is there, and not ours."""
    require("root", "netns", "nf_tables")
    store = f"sqlite:{tmp_path}/cluster.db"
    done = _node(tmp_path / "run", "--store", store, before="ip link add docker_gwbridge type bridge")
    assert "docker_gwbridge" in _one_line(done)


def test_no_privileges(tmp_path: Path) -> None:
    require("root")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "routemesh"]
    env = os.environ | {"PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    for command in (["lab", "up"], ["node", "--name", "n", "--advertise", "127.0.0.1"]):
        done = subprocess.run([*nobody, *command], capture_output=True, text=True, env=env, timeout=30, check=False)
        assert done.returncode == 1 and "root" in done.stderr and "Traceback" not in done.stderr, done.stderr


EVIL_SERVER = r"""
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, b"\xff\xfe\x1b[2J", 0, 0, 0)
with socket.create_server(("", 9099)):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_process_whose_name_is_no_text_ends_no_daemon_and_is_named_where_it_is_in_the_way(mesh: Cluster) -> None:
    daemons = {node["name"]: node["pid"] for node in mesh.json("lab", "status", "--name", mesh.name)}
    command = ["nsenter", f"--net={mesh.netns('node2')}", sys.executable, "-c", EVIL_SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        wait_until(lambda: [held for held in mesh.api.node("node2").listeners if held.port == 9099], 10, "the listener")
        said = mesh.refused("service", "create", "--name", "late", "-p", "9099:80", "host", "routemesh", "whoami")
        assert r"is taken by process \xff\xfe\x1b[2J on node2" in said
        mesh.inside("node2", "ip", "link", "add", os.fsdecode(b"\xff\x1b"), "type", "veth", "peer", "name", "fine")
        try:
            mesh.inside("node2", "nft", "add table ip other; add chain ip other c")
            mesh.inside("node2", "nft", os.fsdecode(b'add rule ip other c counter comment "\xff \x1b[2J"'))
            assert "\x1b" not in mesh.run("doctor").stdout
            with mesh.service("beside", "-p", "9098:80"):
                assert mesh.ask("192.168.200.11", 9098)
                assert "\x1b" not in mesh.run("explain", "node2:9098").stdout
        finally:
            mesh.inside("node2", "ip", "link", "delete", "fine")
            mesh.inside("node2", "nft", "delete table ip other")
    assert {node["name"]: node["pid"] for node in mesh.json("lab", "status", "--name", mesh.name)} == daemons
