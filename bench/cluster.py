"""A lab of three nodes for a benchmark: its client's view, its API, programs on its machines."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from bench.machine import processor_s, require_root
from routemesh import names
from routemesh.api.client import Client
from routemesh.errors import Unavailable
from routemesh.kernel import netns
from routemesh.lab import control, daemons, topology
from routemesh.lab.find import NAME_VARIABLE, Lab
from routemesh.model import ServiceSpec
from routemesh.options import NodeOptions
from routemesh.wire import ServiceInfo

T = TypeVar("T")

NODES = 3
_DEADLINE_S = 30.0
_POLL_S = 0.002
_CONNECT_TIMEOUT_S = 0.1


@contextmanager
def lab(*tools: str, engine: str = "auto", nodes: int = NODES, subnet: str = "") -> Iterator[Lab]:
    """A lab, gone afterwards; `subnet`: of the ingress network.

    Raises Unavailable when one of `tools` is missing, Conflict when there is a lab of that name.
    """
    require_root()
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        raise Unavailable(f"this needs {', '.join(missing)}; install the Debian packages of these names")
    made = Lab(name="bench", nodes=nodes, managers=nodes, engine=engine, mtu_bytes=1500, ingress_subnet=subnet)
    control.up(made)
    try:
        yield made
    finally:
        control.down(made.name)


def client(lab: Lab) -> Client:
    """The API of the first node."""
    return Client(lab.node("node1").socket)


def addresses(lab: Lab) -> dict[str, str]:
    """The nodes' names and underlay addresses."""
    return {name: str(topology.address(name)) for name in lab.node_names}


def timed(lab: Lab, *words: str, statuses: Collection[int] = (0,)) -> tuple[float, bytes]:
    """How many seconds a command of routemesh takes, and what it prints. Raises Unavailable for any other exit status."""
    command = [sys.executable, "-m", "routemesh", *words]
    started = time.perf_counter()
    done = subprocess.run(command, env={NAME_VARIABLE: lab.name, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}, capture_output=True)
    took = time.perf_counter() - started
    if done.returncode not in statuses:
        raise Unavailable(f"{' '.join(command)}: status {done.returncode}: {done.stderr.decode()}{done.stdout.decode()[-300:]}")
    return took, done.stdout


def daemons_processor_s(lab: Lab) -> float:
    """What all its daemons have had of a processor so far."""
    pids = (daemons.daemon_pid(lab.node(name)) for name in lab.node_names)
    return sum(processor_s(pid) for pid in pids if pid is not None)


def run_service(api: Client, spec: ServiceSpec) -> ServiceInfo:
    """Make a service and return it when all its tasks serve."""
    service = api.create_service(spec)
    until(lambda: api.progress(service.id).converged, f"service {spec.name} converged")
    return service


def remove_service(lab: Lab, name: str) -> None:
    """Remove the only service and return when nothing is left of it, not even a task that still ends."""
    client(lab).remove_service(name)
    until(lambda: not any(_task_namespaces(lab.node(node)) for node in lab.node_names), f"the tasks of {name} were gone")


def _task_namespaces(node: NodeOptions) -> list[str]:
    """Those that are neither the sandbox nor the overlay."""
    found = (path.name for path in (node.run_dir / "netns").iterdir())
    return [name for name in found if name != names.SANDBOX and not name.startswith("1-")]


def until(condition: Callable[[], T | None], what: str) -> T:
    """The first true value of `condition`, asked every 2 ms. Raises Unavailable when none comes in 30 s."""
    deadline = time.monotonic() + _DEADLINE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Unavailable(f"it took more than {_DEADLINE_S:.0f} s until {what}")
        time.sleep(_POLL_S)
    return value


def answer(address: str, port: int) -> str | None:
    """The body of a web server's good answer on a connection of its own; None for any other outcome. Asked from where we are."""
    try:
        with socket.create_connection((address, port), _CONNECT_TIMEOUT_S) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with connection.makefile("rb") as stream:
                head, _, body = stream.read().partition(b"\r\n\r\n")
    except OSError:
        return None
    return body.decode() if b" 200 " in head.partition(b"\r\n")[0] else None


def as_client(lab: Lab) -> AbstractContextManager[None]:
    """The calling thread is on the client's machine; its unix sockets are where they were."""
    return netns.entered(lab.netns(topology.CLIENT))


@contextmanager
def program(lab: Lab, machine: str, command: Sequence[str]) -> Iterator[None]:
    """A program runs on a machine of the lab, without its output."""
    enter = ("nsenter", f"--net={lab.netns(machine)}", "--", *command)
    process = subprocess.Popen(enter, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(_DEADLINE_S)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that everybody may enter, for configuration files."""
    with TemporaryDirectory(prefix="routemesh-bench-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)
