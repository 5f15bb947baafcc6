"""Faults that an operator meets and the other tests do not make: clients that stay, ports that clash, daemons that pause."""

import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.lab.cluster import ADDRESSES, Cluster, parse
from tests.support import wait_until

PAUSE_S = 7.0
"""Longer than a node's lease."""
SEND_EVERY_S = 0.05
_REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"


@contextmanager
def _sender(mesh: Cluster, address: str, port: int) -> Iterator[list[str]]:
    """A UDP client that never stops sending from one port; who has answered it so far."""
    answers: list[str] = []
    stop = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(SEND_EVERY_S)
            while not stop.is_set():
                client.sendto(b"hello", (address, port))
                with suppress(TimeoutError):
                    answers.append(parse(client.recv(65536).decode()).hostname)
                stop.wait(SEND_EVERY_S)

    thread = threading.Thread(target=mesh.at, args=("client", send))
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join()


def _ids(mesh: Cluster, service: str) -> set[str]:
    return {task["id"] for task in mesh.serving(service)}


def _daemons(mesh: Cluster) -> list[int]:
    return [int(node["pid"]) for node in mesh.json("lab", "status", "--name", mesh.name)]


def _pause(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        threading.Event().wait(PAUSE_S)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
            threading.Event().wait(0.3)  # they do not wake in one moment


def _lock_the_store(mesh: Cluster) -> None:
    with closing(sqlite3.connect(mesh.directory / "state.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        threading.Event().wait(PAUSE_S)
        database.execute("ROLLBACK")


def _crash(mesh: Cluster) -> None:
    task = mesh.serving("steady")[0]
    children = Path(f"/proc/{task['pid']}/task/{task['pid']}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)


def _to_zero_and_back(mesh: Cluster) -> None:
    mesh.cli("service", "scale", "steady=0")
    mesh.cli("service", "scale", "steady=1")


@pytest.mark.parametrize("fault", [_crash, _to_zero_and_back])
def test_a_udp_client_that_never_stops_reaches_the_only_tasks_successor(mesh: Cluster, fault: Callable[[Cluster], None]) -> None:
    with mesh.service("steady", "-p", "8300:80/udp", "--restart-delay", "1s"):
        before = mesh.serving("steady")[0]["container"]
        with _sender(mesh, ADDRESSES["node1"], 8300) as answers:
            wait_until(lambda: before in answers)
            fault(mesh)
            wait_until(lambda: set(answers) - {before}, 8, "an answer of the successor")


def test_a_udp_client_that_was_there_before_the_first_task_is_answered(mesh: Cluster) -> None:
    with mesh.service("early", "--replicas", "0", "-p", "8301:80/udp"), _sender(mesh, ADDRESSES["node1"], 8301) as answers:
        threading.Event().wait(4 * SEND_EVERY_S)
        mesh.cli("service", "scale", "early=1")
        wait_until(lambda: answers, 5, "an answer")


def test_a_node_whose_daemon_pauses_goes_on_forwarding(own_mesh: Cluster) -> None:
    mesh = own_mesh
    with mesh.service("lame", "--replicas", "2", "-p", "8304:80", "--constraint", "node.hostname!=node2"):
        pid = next(int(node["pid"]) for node in mesh.json("lab", "status", "--name", mesh.name) if node["name"] == "node2")
        with mesh.connect(ADDRESSES["node2"], 8304) as kept:
            os.kill(pid, signal.SIGSTOP)
            try:
                wait_until(lambda: any(node["state"] == "down" for node in mesh.json("node", "ls")), 10, "the end of its lease")
                assert len({answer.hostname for answer in mesh.ask(ADDRESSES["node2"], 8304, times=4)}) == 2
                kept.sendall(_REQUEST)
                assert b"200 OK" in kept.recv(65536)
            finally:
                os.kill(pid, signal.SIGCONT)


def test_a_machine_that_was_suspended_keeps_its_tasks(own_mesh: Cluster) -> None:
    mesh = own_mesh
    with mesh.service("asleep", "--replicas", "3", "-p", "8305:80"):
        before = _ids(mesh, "asleep")
        for _ in range(2):
            _pause(list(reversed(_daemons(mesh))))
        wait_until(lambda: len(_ids(mesh, "asleep")) == 3, 10, "three tasks")
        assert _ids(mesh, "asleep") == before


def test_a_store_that_is_locked_for_longer_than_a_lease_costs_no_task(own_mesh: Cluster) -> None:
    mesh = own_mesh
    with mesh.service("locked", "--replicas", "3", "-p", "8306:80"):
        before = _ids(mesh, "locked")
        _lock_the_store(mesh)
        wait_until(lambda: len(_ids(mesh, "locked")) == 3, 10, "three tasks")
        assert _ids(mesh, "locked") == before


def _forbid_forwarding(mesh: Cluster) -> None:
    mesh.inside("node1", "sysctl", "-qw", "net.ipv4.ip_forward=0")


def _forbid_forwarding_on_the_bridge(mesh: Cluster) -> None:
    mesh.inside("node1", "sysctl", "-qw", "net.ipv4.conf.docker_gwbridge.forwarding=0")


def _switch_arp_off(mesh: Cluster) -> None:
    mesh.inside("node1/ingress_sbox", "ip", "link", "set", "eth0", "arp", "off")


BREAKAGES = [_forbid_forwarding, _forbid_forwarding_on_the_bridge, _switch_arp_off]


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_a_person_breaks_in_less_usual_ways_is_mended(mesh: Cluster, breakage: Callable[[Cluster], None]) -> None:
    with mesh.service("hurt", "--replicas", "3", "-p", "8307:80"):
        breakage(mesh)
        wait_until(lambda: _all_answer(mesh, 8307), 5, "answers of every task through every node")


def _all_answer(mesh: Cluster, port: int) -> bool:
    try:
        return all(len({answer.hostname for answer in mesh.ask(address, port, times=3)}) == 3 for address in ADDRESSES.values())
    except OSError:
        return False
