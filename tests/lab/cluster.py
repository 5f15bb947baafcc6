"""A running lab as tests see it: commands through the CLI, packets from sockets inside its namespaces."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from routemesh import wire
from routemesh.api.client import Client
from routemesh.errors import NotFound
from routemesh.kernel import netns
from routemesh.lab.find import LABS, NAME_VARIABLE
from tests.support import patience, unique, wait_until
from tests.uml import commands
from tests.uml.machine import is_inside

T = TypeVar("T")

CLIENT = "192.168.200.100"
ADDRESSES = {"node1": "192.168.200.10", "node2": "192.168.200.11", "node3": "192.168.200.12"}
ANSWER_S = 3.0
"""So long a client waits for an answer on an idle machine; a busy one is given more (`answer_s`)."""


@dataclass(frozen=True)
class Answer:
    """What whoami said: which task, and whom it took for its peer."""

    hostname: str
    peer: str
    port: int


class Cluster:
    """A lab by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = LABS / name

    def cli(self, *args: str, status: int = 0, host: str = "") -> str:
        """Run a command; its standard output. Fails unless it ends with `status`."""
        done = self.run(*args, host=host)
        assert done.returncode == status, f"routemesh {' '.join(args)}: status {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *args: str, status: int = 1) -> str:
        """The one line by which a command is refused."""
        done = self.run(*args)
        assert done.returncode == status, f"status {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if line]
        assert len(lines) == 1, done.stderr
        return lines[0]

    def run(self, *args: str, host: str = "", timeout_s: float = 90) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever comes of it."""
        env = os.environ | {NAME_VARIABLE: self.name}
        env.pop("ROUTEMESH_HOST", None)
        if host:
            env["ROUTEMESH_HOST"] = host
        if is_inside():
            return commands.run(args, env, timeout_s * patience())
        command = [sys.executable, "-m", "routemesh", *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s * patience(), check=False)

    def json(self, *args: str, host: str = "") -> Any:
        """What a command prints with --format json."""
        return json.loads(self.cli(*args, "--format", "json", host=host))

    def lab(self, command: str, *args: str) -> str:
        """routemesh lab COMMAND of this lab."""
        return self.cli("lab", command, *args, "--name", self.name)

    def inside(self, place: str, *command: str) -> str:
        """Run a program in a namespace: `node1`, `node1/ingress_sbox`, `client`; its standard output."""
        with netns.entered(self.netns(place)):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{place}: {' '.join(command)}: {done.stderr}"
        return done.stdout

    def netns(self, place: str) -> Path:
        """The file of a namespace."""
        machine, _, name = place.partition("/")
        return self.directory / machine / "netns" / name if name else self.directory / "netns" / machine

    def overlay(self, node: str = "node1") -> str:
        """The place of a node's overlay namespace."""
        return next(f"{node}/{path.name}" for path in (self.directory / node / "netns").iterdir() if path.name.startswith("1-"))

    def at(self, place: str, work: Callable[[], T]) -> T:
        """Run Python in a namespace, in a thread of its own."""
        outcome: list[T] = []
        failure: list[BaseException] = []

        def entered() -> None:
            try:
                with netns.entered(self.netns(place)):
                    outcome.append(work())
            except BaseException as exc:
                failure.append(exc)

        thread = threading.Thread(target=entered)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def ask(self, address: str, port: int, times: int = 1, place: str = "client") -> list[Answer]:
        """Ask whoami over HTTP, by a new connection each time."""
        return self.at(place, lambda: [_ask(address, port) for _ in range(times)])

    def ask_udp(self, address: str, port: int, times: int = 1, place: str = "client") -> list[Answer]:
        """Ask whoami by datagrams, each from a port of its own."""
        return self.at(place, lambda: [_ask_udp(address, port) for _ in range(times)])

    def ask_udp_by_connection(self, address: str, port: int, place: str) -> Answer:
        """Ask by a connected datagram socket, which hears `port unreachable` as ConnectionRefusedError."""

        def ask() -> Answer:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.settimeout(answer_s())
                sender.connect((address, port))
                sender.send(b"hello")
                return parse(sender.recv(65536).decode())

        return self.at(place, ask)

    @contextmanager
    def listening(self, place: str, port: int) -> Iterator[None]:
        """A TCP socket that listens on every address of a machine."""
        with self.at(place, lambda: socket.create_server(("", port))):
            yield

    def echo_udp(self, address: str, port: int, size: int, place: str = "client") -> str:
        """What whoami answers to a datagram of `size` bytes."""

        def echo() -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.settimeout(answer_s())
                sender.sendto(b"x" * size, (address, port))
                return sender.recv(65536).decode().rstrip()

        return self.at(place, echo)

    def connect(self, address: str, port: int, place: str = "client", source_port: int = 0) -> socket.socket:
        """A TCP connection that a test keeps, from any port or from `source_port`."""

        def connect() -> socket.socket:
            connection = socket.socket()
            try:
                connection.settimeout(answer_s())
                if source_port:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    connection.bind(("", source_port))
                connection.connect((address, port))
            except BaseException:
                connection.close()
                raise
            return connection

        return self.at(place, connect)

    def is_refused(self, address: str, port: int, place: str = "client") -> bool:
        """Whether a TCP connection is refused, in so many words."""
        try:
            self.connect(address, port, place).close()
        except ConnectionRefusedError:
            return True
        return False

    @contextmanager
    def service(self, name: str, *options: str, command: tuple[str, ...] = ("routemesh", "whoami")) -> Iterator[str]:
        """A service for the length of a test."""
        self.cli("service", "create", "--name", name, *options, "host", *command)
        try:
            yield name
        finally:
            self.cli("service", "rm", name)
            wait_until(lambda: not self.containers(name), 30, f"the end of the tasks of {name}")

    @property
    def api(self) -> Client:
        """What the first node's daemon answers, without the time that a command takes to start."""
        return Client(self.directory / "node1" / "routemesh.sock")

    def tasks(self, service: str) -> list[dict[str, Any]]:
        """`service ps` as data."""
        tasks: list[dict[str, Any]] = json.loads(wire.encode(self.api.tasks(service)))
        return tasks

    def serving(self, service: str) -> list[dict[str, Any]]:
        """The tasks that run and should."""
        return [task for task in self.tasks(service) if task["serving"]]

    def containers(self, service: str) -> list[str]:
        """Processes of a service's tasks, by what is left of it in the store."""
        try:
            return [task.id for task in self.api.tasks(service)]
        except NotFound:
            return []

    def nft(self, place: str, *command: str) -> str:
        """nft in a namespace."""
        return self.inside(place, "nft", *command)


@contextmanager
def running(prefix: str, *options: str) -> Iterator[Cluster]:
    """A lab of its own, gone afterwards; `options` of routemesh lab up."""
    cluster = Cluster(unique(prefix))
    cluster.lab("up", *options)
    try:
        yield cluster
    finally:
        cluster.lab("down")


def answer_s() -> float:
    """So long a client waits for an answer, as busy as the machine is now."""
    return ANSWER_S * patience()


def _ask(address: str, port: int) -> Answer:
    with socket.create_connection((address, port), timeout=answer_s()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        return parse(b"".join(iter(lambda: connection.recv(65536), b"")).decode())


def _ask_udp(address: str, port: int) -> Answer:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        return ask_by(sender, address, port)


def ask_by(sender: socket.socket, address: str, port: int, within_s: float = 0) -> Answer:
    """Ask by a datagram from a given socket.

    `within_s`: of who asks again soon, and so may hear the answer to an earlier question.
    """
    sender.settimeout(within_s or answer_s())
    sender.sendto(b"hello", (address, port))
    data, source = sender.recvfrom(65536)
    assert source == (address, port)
    return parse(data.decode())


def parse(text: str) -> Answer:
    """An answer of whoami."""
    hostname = re.search(r"^Hostname: (\S+)", text, re.MULTILINE)
    peer = re.search(r"^RemoteAddr: (\S+):(\d+)", text, re.MULTILINE)
    assert hostname and peer, text
    return Answer(hostname[1], peer[1], int(peer[2]))
