"""Faults that an operator meets and the other tests do not make: clients that stay, ports that clash, daemons that pause."""

import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from routemesh.agent.agent import HEARTBEAT_S, LEASE_TTL_S
from tests.lab.cluster import ADDRESSES, Cluster, parse
from tests.support import wait_until

PAUSE_S = LEASE_TTL_S + 2 * HEARTBEAT_S
"""Longer than a node's lease: nobody who looks for so long has seen it renewed."""
WAKES_AFTER_S = 0.3
SEND_EVERY_S = 0.05
_REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"


@dataclass
class Talk:
    """What a UDP client has sent, and who has answered it so far."""

    sent: int = 0
    answers: list[str] = field(default_factory=list)


@contextmanager
def _sender(mesh: Cluster, address: str, port: int) -> Iterator[Talk]:
    """A UDP client that never stops sending from one port."""
    talk = Talk()
    stop = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(SEND_EVERY_S)
            while not stop.is_set():
                client.sendto(b"hello", (address, port))
                talk.sent += 1
                with suppress(TimeoutError):
                    talk.answers.append(parse(client.recv(65536).decode()).hostname)
                stop.wait(SEND_EVERY_S)

    thread = threading.Thread(target=mesh.at, args=("client", send))
    thread.start()
    try:
        yield talk
    finally:
        stop.set()
        thread.join()


def _ids(mesh: Cluster, service: str) -> set[str]:
    return {task["id"] for task in mesh.serving(service)}


def _daemons(mesh: Cluster) -> list[int]:
    return [int(node["pid"]) for node in mesh.json("lab", "status", "--name", mesh.name)]


def _beats(mesh: Cluster) -> dict[str, int]:
    """Every node's heartbeat as it is stored: another number after each renewal of its lease."""
    with closing(sqlite3.connect(f"file:{mesh.directory}/state.db?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT name, beat FROM leases WHERE name LIKE 'node/%'"))


def _outlast_the_leases(mesh: Cluster) -> None:
    """Return when every lease has gone without renewal for longer than it lasts."""
    before, begun = _beats(mesh), time.monotonic()
    wait_until(lambda: time.monotonic() > begun + PAUSE_S, 2 * PAUSE_S, "the end of the pause")
    assert len(before) == len(ADDRESSES) and _beats(mesh) == before, "a node renewed its lease: nothing was paused"


def _await_new_beats(mesh: Cluster, old: dict[str, int]) -> None:
    wait_until(lambda: all(beat != old[name] for name, beat in _beats(mesh).items()), what="a heartbeat of every node")


def _pause(mesh: Cluster, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            wait_until(lambda pid=pid: _process_state(pid) == "T", what="a stopped daemon")  # type: ignore[misc]
        _outlast_the_leases(mesh)
        old = _beats(mesh)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
            time.sleep(WAKES_AFTER_S)  # they do not wake in one moment
    _await_new_beats(mesh, old)


def _process_state(pid: int) -> str:
    """One letter (proc(5), stat, field 3)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _lock_the_store(mesh: Cluster) -> None:
    with closing(sqlite3.connect(mesh.directory / "state.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")  # nobody else writes; whoever asks after heartbeats may read
        _outlast_the_leases(mesh)
        old = _beats(mesh)
        database.execute("ROLLBACK")
    _await_new_beats(mesh, old)


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
        with _sender(mesh, ADDRESSES["node1"], 8300) as talk:
            wait_until(lambda: before in talk.answers)
            fault(mesh)
            wait_until(lambda: set(talk.answers) - {before}, 8, "an answer of the successor")


def test_a_udp_client_that_was_there_before_the_first_task_is_answered(mesh: Cluster) -> None:
    with mesh.service("early", "--replicas", "0", "-p", "8301:80/udp"), _sender(mesh, ADDRESSES["node1"], 8301) as talk:
        wait_until(lambda: talk.sent > 3, what="a client that has tried")
        assert talk.answers == []
        mesh.cli("service", "scale", "early=1")
        wait_until(lambda: talk.answers, 5, "an answer")


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
            wait_until(lambda: all(node["state"] == "ready" for node in mesh.json("node", "ls")), 10, "its return")
            assert len({answer.hostname for answer in mesh.ask(ADDRESSES["node2"], 8304, times=4)}) == 2


def test_a_machine_that_was_suspended_keeps_its_tasks(own_mesh: Cluster) -> None:
    mesh = own_mesh
    with mesh.service("asleep", "--replicas", "3", "-p", "8305:80"):
        before = _ids(mesh, "asleep")
        for _ in range(2):
            _pause(mesh, list(reversed(_daemons(mesh))))
        wait_until(lambda: len(_ids(mesh, "asleep")) == 3, 10, "three tasks")
        assert _ids(mesh, "asleep") == before


def test_a_store_that_is_locked_for_longer_than_a_lease_costs_no_task(own_mesh: Cluster) -> None:
    mesh = own_mesh
    with mesh.service("locked", "--replicas", "3", "-p", "8306:80"):
        before = _ids(mesh, "locked")
        _lock_the_store(mesh)
        wait_until(lambda: len(_ids(mesh, "locked")) == 3, 10, "three tasks")
        assert _ids(mesh, "locked") == before


FORWARDING = "net/ipv4/conf/eth0/forwarding"
BRIDGE_FORWARDING = "net/ipv4/conf/docker_gwbridge/forwarding"


@dataclass(frozen=True)
class Breakage:
    """What a person does to node1, how it looks afterwards, and what shows whether it is so still."""

    where: str
    command: tuple[str, ...]
    look: tuple[str, ...]
    broken: str


BREAKAGES = {
    "no forwarding on the underlay": Breakage("node1", ("sysctl", "-qw", f"{FORWARDING}=0"), ("sysctl", "-n", FORWARDING), "0"),
    "no forwarding on the bridge": Breakage(
        "node1", ("sysctl", "-qw", f"{BRIDGE_FORWARDING}=0"), ("sysctl", "-n", BRIDGE_FORWARDING), "0"
    ),
    "no ARP": Breakage(
        "node1/ingress_sbox", ("ip", "link", "set", "eth0", "arp", "off"), ("ip", "-o", "link", "show", "eth0"), "NOARP"
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_a_person_breaks_in_less_usual_ways_is_mended(mesh: Cluster, breakage: str) -> None:
    hurt = BREAKAGES[breakage]

    def is_broken() -> bool:
        return hurt.broken in mesh.inside(hurt.where, *hurt.look)

    pid = next(int(node["pid"]) for node in mesh.json("lab", "status", "--name", mesh.name) if node["name"] == "node1")
    with mesh.service("hurt", "--replicas", "3", "-p", "8307:80"):
        assert not is_broken()
        os.kill(pid, signal.SIGSTOP)  # or it would be mended before anybody has looked
        try:
            mesh.inside(hurt.where, *hurt.command)
            assert is_broken()
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not is_broken(), 5, "the repair")
        wait_until(lambda: _all_answer(mesh, 8307), 5, "answers of every task through every node")


def _all_answer(mesh: Cluster, port: int) -> bool:
    try:
        return all(len({answer.hostname for answer in mesh.ask(address, port, times=3)}) == 3 for address in ADDRESSES.values())
    except OSError:
        return False
