"""Clients that only read hear at once when the task that they read from is no more: a FIN or a reset, not silence."""

import os
import signal
import socket
import time

from routemesh.api.client import Client
from tests.lab.cluster import ADDRESSES, Cluster
from tests.support import wait_until

HEARD_S = 5.0
STREAM = """
import socketserver, time
class Stream(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            self.request.sendall(b"x" * 1000)
            time.sleep(0.02)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 80), Stream).serve_forever()
"""
LAST = """
import os, signal, socketserver, threading, time
ending = threading.Event()
class Stream(socketserver.BaseRequestHandler):
    def handle(self):
        while not ending.wait(0.02):
            self.request.sendall(b"x" * 1000)
        self.request.sendall(b"last words")
signal.signal(signal.SIGTERM, lambda *_: ending.set())
server = socketserver.ThreadingTCPServer(("", 80), Stream)
threading.Thread(target=server.serve_forever, daemon=True).start()
ending.wait()
server.server_close()
"""
"""Asked to end, it says so to everybody first: server_close waits for that."""
FLOOD = STREAM.replace('b"x" * 1000', 'b"x" * 1_000_000').replace("time.sleep(0.02)", "pass")
ON_NODE1 = ("--replicas", "1", "--constraint", "node.hostname==node1", "--label", "routemesh.health.tcp")


def last_words(connection: socket.socket) -> bytes:
    """The end of what comes until somebody ends the connection; "" when that takes too long, or is not by a FIN."""
    connection.settimeout(HEARD_S)
    end, said = time.monotonic() + 4 * HEARD_S, b""
    try:
        while time.monotonic() < end:
            if not (block := connection.recv(65536)):
                return said[-10:]
            said = (said + block)[-100:]
    except OSError:
        pass
    return b""


def end_of(connection: socket.socket) -> str:
    """How a download ends, and "silence" if nobody says that it has."""
    connection.settimeout(HEARD_S)
    end = time.monotonic() + 4 * HEARD_S
    try:
        while time.monotonic() < end:
            if not connection.recv(65536):
                return "fin"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "silence"
    return "it goes on"


def test_a_removed_services_downloads_end(mesh: Cluster) -> None:
    """One that keeps up, and one that does not read, to which more is to be sent than it takes."""
    with mesh.service("flood", *ON_NODE1, "-p", "8113:80", command=("python3", "-c", FLOOD)):
        stalled = [mesh.connect(address, 8113) for address in ADDRESSES.values()]
        with mesh.service("stream", *ON_NODE1, "-p", "8114:80", command=("python3", "-c", STREAM)):
            reading = [mesh.connect(address, 8114) for address in ADDRESSES.values()]
            assert all(each.recv(1000) for each in reading)
        assert {end_of(each) for each in reading} <= {"fin", "reset"}
    assert {end_of(each) for each in stalled} <= {"fin", "reset"}
    for each in (*stalled, *reading):
        each.close()


def test_downloads_end_when_their_service_is_scaled_to_none(mesh: Cluster) -> None:
    with mesh.service("fewer", *ON_NODE1, "-p", "8116:80", command=("python3", "-c", STREAM)):
        reading = [mesh.connect(address, 8116) for address in ADDRESSES.values()]
        assert all(each.recv(1000) for each in reading)
        mesh.cli("service", "scale", "--detach", "fewer=0")
        assert {end_of(each) for each in reading} <= {"fin", "reset"}
    for each in reading:
        each.close()


def test_a_task_that_was_given_up_with_its_silent_node_keeps_its_connections_and_is_drained(own_mesh: Cluster) -> None:
    """Through its own node and through another one: a node's data plane works on without its daemon."""
    mesh = own_mesh
    mesh.cli("service", "create", "--name", "given", *ON_NODE1, "-p", "8115:80", "host", "python3", "-c", LAST)
    downloads = [mesh.connect(ADDRESSES[node], 8115) for node in ("node1", "node2")]
    assert all(each.recv(1000) for each in downloads)
    other = Client(mesh.directory / "node2" / "routemesh.sock")
    (task,) = other.tasks("given")
    pid = next(node["pid"] for node in mesh.json("lab", "status", "--name", mesh.name) if node["name"] == "node1")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(task.state != "running" for task in other.tasks("given")), 40, "the end that was decided elsewhere")
    assert all(each.recv(1000) for each in downloads), "the data plane goes on without the daemon"
    mesh.lab("start", "node1")
    assert {last_words(each) for each in downloads} == {b"last words"}
    wait_until(lambda: next(old.state for old in other.tasks("given") if old.id == task.id) == "shutdown", 10, "its known end")
    wait_until(lambda: not mesh.netns(f"node1/{task.container}").exists(), 10, "its network's end")
    for each in downloads:
        each.close()
