"""Restart and repair: a daemon may die at any time; what a person breaks is mended; what is not ours is left alone."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster import ADDRESSES, Cluster
from tests.lab.load import load
from tests.support import patience, wait_until

REPAIRED_S = 2.0
WEB = ("--replicas", "3", "-p", "8200:80", "-p", "8200:80/udp")


def _daemon(mesh: Cluster, name: str) -> dict[str, Any]:
    return next(node for node in mesh.json("lab", "status", "--name", mesh.name) if node["name"] == name)


def _rules(mesh: Cluster, node: str) -> str:
    """Every rule of the node and of its namespaces, with its handle and without counts: a rule made anew has another handle."""
    places = [node, *(f"{node}/{path.name}" for path in sorted((mesh.directory / node / "netns").iterdir()))]
    text = "".join(mesh.nft(place, "-a", "list", "ruleset") for place in places)
    return re.sub(r"packets \d+ bytes \d+", "", text)


SLOW = """
import sys, time
class Slow:
    def find_spec(name, path, target=None):
        if name == "routemesh.node":
            time.sleep(7)
sys.meta_path.insert(0, Slow)
"""
"""Makes a daemon take longer to load than its lease lasts, as a busy machine does."""


def test_a_killed_daemon_breaks_no_connection_and_touches_no_rule(
    own_mesh: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = own_mesh
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    with mesh.service("lasting", *WEB):
        connections = [mesh.connect(address, 8200) for address in ADDRESSES.values()]
        before = {node: _rules(mesh, node) for node in ADDRESSES}
        tasks = {task["id"]: task["pid"] for task in mesh.serving("lasting")}
        with load(mesh, 8200) as witness:
            for node, known in {node: _daemon(mesh, node) for node in ADDRESSES}.items():
                if node == "node3":
                    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
                os.kill(known["pid"], signal.SIGKILL)
                mesh.lab("start", node)
                wait_until(lambda node=node: _daemon(mesh, node)["ready"], 10, "the daemon")  # type: ignore[misc]
            seen = witness.total
            wait_until(lambda: witness.total > seen + 30)
        assert witness.failures == []
        assert {node: _rules(mesh, node) for node in ADDRESSES} == before
        assert {task["id"]: task["pid"] for task in mesh.serving("lasting")} == tasks
        for connection in connections:
            with connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
                assert b"200 OK" in connection.recv(65536)


def test_a_task_that_ended_while_the_daemon_was_away_is_noticed(own_mesh: Cluster) -> None:
    mesh = own_mesh
    with mesh.service("orphan", "--replicas", "1", "--constraint", "node.hostname==node2", "--restart-delay", "200ms"):
        task = mesh.serving("orphan")[0]
        os.kill(_daemon(mesh, "node2")["pid"], signal.SIGKILL)
        os.kill(task["pid"], signal.SIGKILL)
        mesh.lab("start", "node2")
        wait_until(lambda: [new for new in mesh.serving("orphan") if new["id"] != task["id"]], 15, "the replacement")
        assert next(old for old in mesh.tasks("orphan") if old["id"] == task["id"])["state"] == "failed"


def _delete_rule(mesh: Cluster) -> None:
    mesh.nft("node1", "flush", "chain", "ip", "routemesh", "DOCKER-INGRESS")


def _delete_table(mesh: Cluster) -> None:
    mesh.nft("node1/ingress_sbox", "delete", "table", "ip", "routemesh")


def _delete_element(mesh: Cluster) -> None:
    mesh.nft("node1", "delete", "element", "ip", "routemesh", "published", "{ tcp . 8200 }")


def _delete_return_path(mesh: Cluster) -> None:
    task = mesh.serving("broken")[0]
    mesh.inside(f"{task['node']}/{task['container']}", "ip", "route", "flush", "table", "82")


def _delete_rule_of_the_task(mesh: Cluster) -> None:
    task = mesh.serving("broken")[0]
    mesh.nft(f"{task['node']}/{task['container']}", "flush", "chain", "ip", "routemesh", "nat-prerouting")


def _delete_fdb_entry(mesh: Cluster) -> None:
    shown = mesh.inside(mesh.overlay(), "bridge", "fdb", "show", "dev", "vxlan0").splitlines()
    entry = next(line for line in shown if " dst " in line)
    mesh.inside(mesh.overlay(), "bridge", "fdb", "del", entry.split()[0], "dev", "vxlan0", "self")


def _delete_neighbour(mesh: Cluster) -> None:
    # Not `ip neigh flush`, which looks again until nothing is left: entries come back meanwhile, and it gives up with an error.
    listed = mesh.inside(mesh.overlay(), "ip", "-json", "neigh", "show", "dev", "vxlan0", "nud", "permanent")
    for entry in json.loads(listed):
        mesh.inside(mesh.overlay(), "ip", "neigh", "del", entry["dst"], "dev", "vxlan0")


def _delete_gateway_veth(mesh: Cluster) -> None:
    mesh.inside("node1/ingress_sbox", "ip", "link", "delete", "eth1")


def _delete_overlay_veth_of_a_task(mesh: Cluster) -> None:
    task = mesh.serving("broken")[0]
    mesh.inside(f"{task['node']}/{task['container']}", "ip", "link", "delete", "eth0")


def _delete_vxlan(mesh: Cluster) -> None:
    mesh.inside(mesh.overlay(), "ip", "link", "delete", "vxlan0")


def _delete_bridge(mesh: Cluster) -> None:
    mesh.inside("node1", "ip", "link", "delete", "docker_gwbridge")


def _delete_address(mesh: Cluster) -> None:
    mesh.inside("node1/ingress_sbox", "ip", "address", "flush", "dev", "eth0")


def _set_link_down(mesh: Cluster) -> None:
    mesh.inside("node1", "ip", "link", "set", "docker_gwbridge", "down")


def _take_out_of_the_bridge(mesh: Cluster) -> None:
    mesh.inside(mesh.overlay(), "ip", "link", "set", "vxlan0", "nomaster")


def _add_a_drop(mesh: Cluster) -> None:
    mesh.nft("node1/ingress_sbox", "insert", "rule", "ip", "routemesh", "filter-forward", "drop")


BREAKAGES = [
    _delete_rule, _delete_table, _delete_element, _delete_return_path, _delete_rule_of_the_task, _delete_fdb_entry,
    _delete_neighbour,
    _delete_gateway_veth, _delete_overlay_veth_of_a_task, _delete_vxlan, _delete_bridge, _delete_address, _set_link_down,
    _take_out_of_the_bridge, _add_a_drop,
]  # fmt: skip


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_a_person_breaks_by_hand_is_mended(mesh: Cluster, breakage: Callable[[Cluster], None]) -> None:
    with mesh.service("broken", *WEB):
        breakage(mesh)
        wait_until(lambda: not any(mesh.json("diff", node)["ops"] for node in ADDRESSES), REPAIRED_S + 1, "the repair")
        for address in ADDRESSES.values():
            assert len({answer.hostname for answer in mesh.ask(address, 8200, times=3)}) == 3
            assert len({answer.hostname for answer in mesh.ask_udp(address, 8200, times=3)}) == 3


def test_what_is_not_ours_is_left_alone(mesh: Cluster) -> None:
    mesh.nft("node1", "add", "table", "ip", "theirs")
    mesh.nft("node1", "add", "chain", "ip", "theirs", "forward", "{ type filter hook forward priority 0; }")
    mesh.inside("node1", "ip", "link", "add", "theirs0", "type", "bridge")
    mesh.inside("node1", "ip", "address", "add", "10.99.0.1/24", "dev", "theirs0")
    mesh.inside("node1", "ip", "route", "add", "10.98.0.0/24", "via", "192.168.200.100")
    try:
        with mesh.service("beside", "-p", "8201:80"):
            assert mesh.ask(ADDRESSES["node1"], 8201)
        assert "chain forward" in mesh.nft("node1", "list", "table", "ip", "theirs")
        assert "10.99.0.1/24" in mesh.inside("node1", "ip", "address", "show", "dev", "theirs0")
        assert "10.98.0.0/24" in mesh.inside("node1", "ip", "route")
    finally:
        mesh.nft("node1", "delete", "table", "ip", "theirs")
        mesh.inside("node1", "ip", "link", "delete", "theirs0")
        mesh.inside("node1", "ip", "route", "delete", "10.98.0.0/24")


def test_a_steady_cluster_changes_nothing(mesh: Cluster) -> None:
    with mesh.service("steady", "-p", "8202:80"):
        assert all(mesh.json("diff", node)["ops"] == [] for node in ADDRESSES)
        log = Path(mesh.directory / "disk/node1/daemon.log")
        passes = log.read_text().count("reconciled")
        mesh.nft("node1", "add", "table", "ip", "elsewhere")
        mesh.nft("node1", "delete", "table", "ip", "elsewhere")
        mesh.json("diff", "node1")
        assert log.read_text().count("reconciled") == passes


def test_power_cut_and_return(own_mesh: Cluster) -> None:
    mesh = own_mesh
    with mesh.service("spread", "--replicas", "3", "-p", "8203:80"):
        lost = next(task for task in mesh.serving("spread") if task["node"] == "node1")
        connection = _connection_to(mesh, lost["container"], ADDRESSES["node2"], 8203)
        mesh.lab("kill", "node1")
        wait_until(lambda: _nodes_of(mesh, "spread", host="node2") == ["node2", "node3"], 30, "the replacement of node1's task")
        with connection, pytest.raises(ConnectionResetError):
            _ask_until_it_is_over(connection)
        for node in ("node2", "node3"):
            assert len({answer.hostname for answer in mesh.ask(ADDRESSES[node], 8203, times=3)}) == 3
        mesh.lab("start", "node1")
        wait_until(lambda: not mesh.is_refused(ADDRESSES["node1"], 8203), 10, "node1's answer")
        assert len({answer.hostname for answer in mesh.ask(ADDRESSES["node1"], 8203, times=3)}) == 3


def test_a_cut_cable_and_its_repair(own_mesh: Cluster) -> None:
    mesh = own_mesh
    with mesh.service("cable", "--replicas", "1", "-p", "8204:80", "--constraint", "node.hostname==node2"):
        mesh.lab("cut", "node2")
        with pytest.raises(OSError):
            mesh.ask(ADDRESSES["node1"], 8204)
        mesh.lab("heal", "node2")
        wait_until(lambda: _answers(mesh, ADDRESSES["node1"], 8204), 10, "the way to node2")


def _connection_to(mesh: Cluster, container: str, address: str, port: int) -> socket.socket:
    """A connection that is kept, to this task of several."""
    for _ in range(20):
        connection = mesh.connect(address, port)
        if container in _asked(connection):
            return connection
        connection.close()
    raise AssertionError(f"none of 20 connections led to {container}")


def _asked(connection: socket.socket) -> str:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
    return connection.recv(65536).decode()


def _ask_until_it_is_over(connection: socket.socket) -> None:
    """A client that sends, to a task whose machine is no more, hears a reset."""
    connection.settimeout(0.5)
    end = time.monotonic() + 30 * patience()
    while time.monotonic() < end:
        with suppress(TimeoutError):
            _asked(connection)


def _nodes_of(mesh: Cluster, service: str, host: str) -> list[str]:
    tasks = mesh.json("service", "ps", service, host=host)
    nodes = [task["node"] for task in tasks if task["serving"]]
    return sorted(set(nodes)) if len(nodes) == 3 else []


def _answers(mesh: Cluster, address: str, port: int) -> bool:
    try:
        return bool(mesh.ask(address, port))
    except OSError:
        return False
