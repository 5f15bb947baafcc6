"""What a daemon must find at its start holds for its life: it says when it does not, leaves the others' maps, and comes back."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from routemesh import wire
from routemesh.errors import RoutemeshError
from routemesh.lab import find
from routemesh.options import NodeOptions
from routemesh.runtime.process.supervision import is_readable
from tests.lab.cluster import ADDRESSES, Cluster, running
from tests.lab.test_restart import _daemon
from tests.support import require, wait_until

PORT = 8500
WEB = ("--replicas", "3", "-p", f"{PORT}:80")


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """One lab for this module: each test leaves three nodes that serve."""
    require("root", "netns", "nf_tables")
    with running("conditions") as cluster:
        yield cluster


def node_of(mesh: Cluster, name: str) -> dict[str, Any]:
    """A node as `node ls` has it."""
    found: list[dict[str, Any]] = json.loads(wire.encode(mesh.api.nodes()))
    return next(node for node in found if node["name"] == name)


def all_answer(mesh: Cluster, entry: str, times: int = 12) -> set[str]:
    """Which tasks answer at a node; a connection that is not answered fails."""
    return {answer.hostname for answer in mesh.ask(ADDRESSES[entry], PORT, times)}


def command(mesh: Cluster, name: str, *options: str) -> list[str]:
    """What starts a daemon of the lab's node in its namespace, with other options behind."""
    node = node_options(mesh, name)
    flags = {"--store": node.store, "--run-dir": node.run_dir, "--data-dir": node.data_dir, "--advertise": node.advertise}
    start = ["nsenter", f"--net={mesh.netns(name)}", sys.executable, "-m", "routemesh", "node", "--name", name]
    return [*start, *(str(word) for pair in flags.items() for word in pair), *options]


def node_options(mesh: Cluster, name: str) -> NodeOptions:
    return find.load(mesh.name).node(name)


def refusal(argv: list[str]) -> str:
    """The line by which a daemon says that it can't start."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("routemesh: "))


def end_daemon(mesh: Cluster, name: str) -> None:
    pid = _daemon(mesh, name)["pid"]
    file = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: is_readable(file), 15, "the daemon's end")
    os.close(file)


def test_a_node_without_its_address_is_out_and_comes_back(own: Cluster) -> None:
    mesh = own
    with mesh.service("web", *WEB):
        there = next(task for task in mesh.serving("web") if task["node"] == "node2")
        assert there["container"] in all_answer(mesh, "node1")
        mesh.inside("node2", "ip", "address", "del", f"{ADDRESSES['node2']}/24", "dev", "eth0")
        wait_until(lambda: node_of(mesh, "node2")["error"], 5, "the error of node2")
        assert "no link of this machine that is up has the address 192.168.200.11" in node_of(mesh, "node2")["error"]
        wait_until(lambda: there["container"] not in _seen(mesh, "node1"), 5, "node1 to leave out the task")
        assert "192.168.200.11" in mesh.cli("node", "ls")
        for entry in ("node1", "node3"):
            assert there["container"] not in all_answer(mesh, entry, 15)
        mesh.inside("node2", "ip", "address", "add", f"{ADDRESSES['node2']}/24", "dev", "eth0")
        wait_until(lambda: not node_of(mesh, "node2")["error"], 10, "node2 without an error")
        wait_until(lambda: node_of(mesh, "node2")["state"] == "ready", 10, "node2 to be ready")
        wait_until(lambda: len(mesh.serving("web")) == 3, 20, "three tasks")
        wait_until(lambda: len(_seen(mesh, "node1")) == 3, 10, "three tasks that answer")


def _seen(mesh: Cluster, entry: str) -> set[str]:
    """The same where a connection may still fail."""
    try:
        return all_answer(mesh, entry, 3)
    except OSError:
        return {"a connection that failed"}


def test_a_link_that_is_down_and_one_that_is_too_small_are_no_way_to_a_node(own: Cluster) -> None:
    mesh = own
    for broken, mended, says in (
        (("down",), ("up",), "no link of this machine that is up has the address"),
        (("mtu", "600"), ("mtu", "1500"), "has MTU 600"),
    ):
        mesh.inside("node3", "ip", "link", "set", "eth0", *broken)
        wait_until(lambda says=says: says in node_of(mesh, "node3")["error"], 5, says)  # type: ignore[misc]
        mesh.inside("node3", "ip", "link", "set", "eth0", *mended)
        wait_until(lambda: not node_of(mesh, "node3")["error"], 5, "node3 without an error")
        wait_until(lambda: node_of(mesh, "node3")["state"] == "ready", 10, "node3 to be ready")


def test_a_tunnel_of_others_that_comes_later_is_named(own: Cluster) -> None:
    mesh = own
    mesh.inside("node3", "ip", "link", "add", "theirs", "type", "vxlan", "id", "4096", "dev", "eth0", "dstport", "8472")
    wait_until(lambda: "theirs" in node_of(mesh, "node3")["error"], 5, "the name of the other tunnel")
    mesh.inside("node3", "ip", "link", "delete", "theirs")
    wait_until(lambda: not node_of(mesh, "node3")["error"], 5, "node3 without an error")
    wait_until(lambda: node_of(mesh, "node3")["state"] == "ready", 10, "node3 to be ready")


def test_a_second_daemon_of_a_node_is_refused_whatever_its_directories(own: Cluster, tmp_path: Path) -> None:
    mesh = own
    elsewhere = ("--run-dir", str(tmp_path / "run"), "--data-dir", str(tmp_path / "data"))
    pid = _daemon(mesh, "node1")["pid"]
    for options in (elsewhere, ("--name", "other", *elsewhere), ("--store", f"sqlite:{tmp_path}/other.db", *elsewhere)):
        line = refusal(command(mesh, "node1", *options))
        assert f"a routemesh node already runs in this network namespace (process {pid})" in line
        assert "--run-dir" not in line
    assert not (tmp_path / "other.db").exists()
    there = ["unshare", "--net", "sh", "-c", 'ip address add 192.168.200.10/24 dev lo && ip link set lo up && exec "$@"', "sh"]
    line = refusal([*there, *command(mesh, "node1", *elsewhere)[2:]])
    assert "node name node1 is taken: a live node at 192.168.200.10 has it" in line
    assert _daemon(mesh, "node1")["pid"] == pid


@contextmanager
def by_hand(mesh: Cluster, name: str, *options: str) -> Iterator[None]:
    """A daemon that is not the lab's."""
    with (
        open(mesh.directory / f"{name}.by-hand.log", "ab") as log,
        subprocess.Popen(command(mesh, name, *options), stdout=log, stderr=log) as daemon,
    ):
        try:
            yield
        finally:
            daemon.terminate()


def test_the_same_node_at_another_address_is_the_same_node_at_once(own: Cluster) -> None:
    mesh = own
    with mesh.service("web", "--mode", "global", "-p", f"{PORT}:80"):
        before = node_of(mesh, "node2")
        end_daemon(mesh, "node2")
        move(mesh, "node2", "192.168.200.11", "192.168.200.21")
        with by_hand(mesh, "node2", "--advertise", "192.168.200.21"):
            wait_until(lambda: node_of(mesh, "node2")["address"] == "192.168.200.21", 10, "the new address")
            assert node_of(mesh, "node2")["id"] == before["id"]
            wait_until(lambda: answers_from(mesh, "node2"), 20, "an answer of node2 by its new address")
        move(mesh, "node2", "192.168.200.21", "192.168.200.11")
        mesh.lab("start", "node2")
        wait_until(lambda: answers_from(mesh, "node2"), 20, "an answer of node2 by its old address")
        assert node_of(mesh, "node2")["id"] == before["id"]


def move(mesh: Cluster, name: str, old: str, new: str) -> None:
    for change in (("del", f"{old}/24"), ("add", f"{new}/24")):
        mesh.inside(name, "ip", "address", *change, "dev", "eth0")


def answers_from(mesh: Cluster, name: str) -> bool:
    """Whether node1 leads to a task of that node."""
    there = {task["container"] for task in mesh.serving("web") if task["node"] == name}
    return bool(there & _seen(mesh, "node1"))


def test_a_node_whose_store_is_gone_stops_and_says_so(own: Cluster) -> None:
    """The last of this module: its cluster is another one afterwards."""
    mesh = own
    mesh.cli("service", "create", "--name", "kept", *WEB, "host", "routemesh", "whoami")
    tasks = {task["id"]: task["pid"] for task in mesh.serving("kept")}
    for name in ADDRESSES:
        end_daemon(mesh, name)
    store = Path(node_options(mesh, "node1").store.removeprefix("sqlite:"))
    away = store.with_name("away.db")
    store.rename(away)
    line = refusal(command(mesh, "node1"))
    assert f"{store} is not there, but this node belongs to cluster" in line and "--new-cluster begins anew" in line
    assert not store.exists() and all(Path(f"/proc/{pid}").exists() for pid in tasks.values())
    (node_options(mesh, "node1").data_dir / "cluster").unlink()
    (node_options(mesh, "node1").run_dir / "cluster").unlink()
    assert "belongs to a cluster, of which 1 task is here" in refusal(command(mesh, "node1"))
    away.rename(store)
    mesh.lab("start", "node1")
    wait_until(
        lambda: any(tasks.get(task["id"]) == task["pid"] for task in mesh.serving("kept")), 15, "the task of node1 as it was"
    )
    end_daemon(mesh, "node1")
    store.rename(away)
    with by_hand(mesh, "node1", "--new-cluster"):
        wait_until(lambda: _names(mesh) == ["node1"], 20, "a cluster of one node")
        wait_until(lambda: not any((mesh.directory / "node1" / "tasks").iterdir()), 20, "the end of the old task of node1")
        assert "but this node belongs to cluster" in refusal(command(mesh, "node2"))


def _names(mesh: Cluster) -> list[str]:
    try:
        return [node.name for node in mesh.api.nodes()]
    except RoutemeshError:
        return []
