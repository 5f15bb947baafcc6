"""What becomes of connections when tasks, nodes and daemons go, with the engine ipvs and real packets."""

import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.lab.cluster import ADDRESSES, ANSWER_S, Cluster, ask_by, parse
from tests.support import wait_until

NODE1 = ADDRESSES["node1"]
REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n"
MAY_BE_LOST = 2
"""Datagrams: an answer that is on its way when the connection is forgotten, and the question by which IPVS finds that it is."""
NOT_NODE1 = ("--constraint", "node.hostname!=node1")
HEALTHY = ("--label", "routemesh.health.tcp=80")
ASK_AGAIN_S, PAUSE_S = 0.5, 0.05
STEADY = 5
"""So many answers of the same task, one after the other, and a client has moved."""


@contextmanager
def client_of(mesh: Cluster, container: str, port: int) -> Iterator[socket.socket]:
    """A UDP socket in the client's namespace that a certain task answers."""
    for _ in range(10):
        sender = mesh.at("client", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sender:
            sender.connect((NODE1, port))  # so that it hears nobody else
            if ask_by(sender, NODE1, port).hostname == container:
                yield sender
                return
    pytest.fail(f"{container} answers nobody")


def connection_to(mesh: Cluster, container: str, port: int) -> socket.socket:
    """A TCP connection that a certain task has taken."""
    for _ in range(10):
        connection = mesh.connect(NODE1, port)
        if container in speak(connection):
            return connection
        connection.close()
    pytest.fail(f"{container} takes no connection")


def speak(connection: socket.socket) -> str:
    connection.sendall(REQUEST)
    return connection.recv(65536).decode()


def test_a_udp_client_moves_while_its_task_still_runs(mesh: Cluster) -> None:
    with mesh.service("dns", "--replicas", "2", "-p", "8053:80", "-p", "8053:80/udp", *HEALTHY):
        leaving = max(mesh.serving("dns"), key=lambda task: int(task["slot"]))["container"]
        with client_of(mesh, leaving, 8053) as sender:
            scaling = threading.Thread(target=mesh.cli, args=("service", "scale", "dns=1"))
            scaling.start()
            asked, answers = 0, []
            while scaling.is_alive():
                asked += 1
                with suppress(TimeoutError):
                    answers.append(ask_by(sender, NODE1, 8053, ASK_AGAIN_S).hostname)
                scaling.join(PAUSE_S)
            (left,) = (task["container"] for task in mesh.serving("dns"))
            while asked - len(answers) > MAY_BE_LOST:
                answers.append(parse(sender.recv(65536).decode()).hostname)
            answers.append(ask_by(sender, NODE1, 8053).hostname)
        assert set(answers) == {leaving, left} and left != leaving
        assert answers == sorted(answers, key=[leaving, left].index), "it moves once"


def test_a_udp_client_of_a_task_that_crashed_moves(mesh: Cluster) -> None:
    """No task takes the place of the one that crashed: it would get the client as well as the other does, if that asks late."""
    with mesh.service("web", "--replicas", "2", "-p", "8080:80/udp", "--restart-delay", "1h", *HEALTHY):
        task, other = mesh.serving("web")
        with client_of(mesh, task["container"], 8080) as sender:
            children = Path(f"/proc/{task['pid']}/task/{task['pid']}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
            answered: list[str] = []

            def moved() -> bool:
                """Asks often, as a resolver does; each question renews what connection tracking and IPVS know of the client."""
                with suppress(TimeoutError, ConnectionRefusedError):
                    answered.append(ask_by(sender, NODE1, 8080, ASK_AGAIN_S).hostname)
                return answered[-STEADY:] == [other["container"]] * STEADY

            try:
                wait_until(moved, 4 * ANSWER_S, "the client's move to the other task")
            finally:
                print("answers of", Counter(answered), "connections:", mesh.inside("node1/ingress_sbox", "ipvsadm", "-Lnc"))
            assert set(answered) <= {task["container"], other["container"]}


def test_a_restart_of_the_daemon_disturbs_nobody(mesh: Cluster) -> None:
    with mesh.service("web", "--replicas", "2", "-p", "8080:80", "-p", "8080:80/udp", *NOT_NODE1, *HEALTHY):
        containers = [task["container"] for task in mesh.serving("web")]
        connections = [connection_to(mesh, container, 8080) for container in containers]
        before = mesh.inside("node1/ingress_sbox", "ipvsadm", "-S", "-n")
        with client_of(mesh, containers[0], 8080) as one, client_of(mesh, containers[1], 8080) as two:
            pid = next(node["pid"] for node in mesh.json("lab", "status", "--name", mesh.name) if node["name"] == "node1")
            os.kill(int(pid), signal.SIGKILL)
            mesh.lab("start", "node1")
            mesh.cli("service", "scale", "web=2")
            assert [ask_by(sender, NODE1, 8080).hostname for sender in (one, two)] == containers
        for connection, container in zip(connections, containers, strict=True):
            with connection:
                assert container in speak(connection)
        assert mesh.inside("node1/ingress_sbox", "ipvsadm", "-S", "-n") == before


def test_a_client_of_a_node_without_power_hears_a_reset_and_the_others_nothing(mesh: Cluster) -> None:
    with mesh.service("web", "--replicas", "2", "-p", "8080:80", "--constraint", "node.hostname!=node3", *HEALTHY):
        tasks = {task["node"]: task["container"] for task in mesh.serving("web")}
        with connection_to(mesh, tasks["node2"], 8080) as lost, connection_to(mesh, tasks["node1"], 8080) as kept:
            mesh.lab("kill", "node2")

            def is_reset() -> bool:
                with suppress(TimeoutError):
                    speak(lost)
                return False

            try:
                with pytest.raises(ConnectionResetError):
                    wait_until(is_reset, 60, "the end of the node's lease")
                assert tasks["node1"] in speak(kept)
            finally:
                mesh.lab("start", "node2")
                wait_until(lambda: all(node["state"] == "ready" for node in mesh.json("node", "ls")), 60, "the node's return")


def test_a_packet_is_traced_on_links_alone(mesh: Cluster) -> None:
    """Here rules are not traced; IPVS and the rules of iptables show in what becomes of the packet."""
    with mesh.service("web", "--replicas", "2", "-p", "8080:80", *NOT_NODE1, *HEALTHY):
        found = mesh.json("trace", "--http", "/", "node1:8080")
        assert (found["agrees"], found["arrives"]) == (True, True), found["verdict"]
        assert {hop["mark"] for hop in found["hops"]} <= {"seen", "passed"}
        assert any("its rules can't be traced" in note for note in found["notes"])
        drop = ("iptables-legacy", "FORWARD", "-p", "tcp", "--dport", "8080", "-j", "DROP")
        mesh.inside("node1", drop[0], "-I", *drop[1:])
        try:
            done = mesh.run("trace", "--timeout", "0.5", "--format", "json", "node1:8080")
        finally:
            mesh.inside("node1", drop[0], "-D", *drop[1:])
        broken = json.loads(done.stdout)
        assert (done.returncode, broken["agrees"], broken["last"]["place"]) == (3, True, "node1"), broken["verdict"]
