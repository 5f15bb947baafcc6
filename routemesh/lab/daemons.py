"""The daemons of a lab's nodes: starting them, each in its namespace, and watching them get ready.

The file `daemon` in a node's run directory says which process is its daemon, for good: see runtime.process.supervision.Init.
"""

import os
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import routemesh
from routemesh.errors import Unavailable
from routemesh.lab.find import Lab
from routemesh.options import NodeOptions
from routemesh.runtime.process.supervision import Init, living

_READY_DEADLINE_S = 60.0
_READY_DEADLINE_PER_NODE_S = 1.0
_POLL_S = 0.01
_POLL_SHARE = 0.1
"""How long a pause is, of what was waited until then: asking must not take the processor from those who are asked."""
_PING_TIMEOUT_S = 1.0
PACKAGE_PARENT = Path(routemesh.__file__).parents[1]
_LAB_VARIABLES = ("ROUTEMESH_HOST", "ROUTEMESH_LAB")


def log_path(node: NodeOptions) -> Path:
    """What the daemon writes to standard output and error."""
    return node.data_dir / "daemon.log"


def spawn(lab: Lab, name: str) -> None:
    """Start a node's daemon."""
    node = lab.node(name)
    run_on(lab, name, _command(lab, node), log_path(node), _note(node))


def run_on(lab: Lab, name: str, command: Sequence[str], log_file: Path, note: Path) -> None:
    """Start a program in a node's namespace and a session of its own; it outlives the caller. `note` says which it is."""
    node = lab.node(name)
    for directory in (node.run_dir, node.data_dir):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(log_file, "ab") as log, open(os.devnull, "rb") as nothing:
        streams = ((os.POSIX_SPAWN_DUP2, source.fileno(), target) for target, source in enumerate((nothing, log, log)))
        words = ("nsenter", f"--net={lab.netns(name)}", f"--wd={PACKAGE_PARENT}", "--", *command)
        pid = os.posix_spawnp("nsenter", words, environment(), file_actions=tuple(streams), setsid=True)
    boot, stat = Path("/proc/sys/kernel/random/boot_id"), Path(f"/proc/{pid}/stat")
    note.write_bytes(boot.read_bytes() + stat.read_bytes())


def daemon_pid(node: NodeOptions) -> int | None:
    """The node's daemon, if it runs."""
    return noted_pid(_note(node))


def noted_pid(note: Path) -> int | None:
    """The process that was noted by run_on, if it runs."""
    try:
        found = Init.parse(note.read_text(errors="replace"))
    except FileNotFoundError:
        return None
    if found is None:
        return None
    with living(found) as file:
        return None if file is None else found.pid


def is_ready(node: NodeOptions) -> bool:
    """Whether the daemon answers GET /_ping."""
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(_PING_TIMEOUT_S)
        try:
            connection.connect(str(node.socket))
            connection.sendall(b"GET /routemesh/v1/_ping HTTP/1.0\r\nHost: lab\r\n\r\n")
            return b" 200 " in connection.recv(64)
        except OSError:
            return False


def wait_ready(nodes: Iterable[NodeOptions]) -> None:
    """Return when all daemons answer. Raises Unavailable with the reason of the first that ended or took too long."""
    waiting = list(nodes)
    start = time.monotonic()
    patience_s = _READY_DEADLINE_S + _READY_DEADLINE_PER_NODE_S * len(waiting)
    while waiting := [node for node in waiting if not is_ready(node)]:
        for node in waiting:
            if daemon_pid(node) is None:
                raise Unavailable(f"{node.name} did not start: {_last_words(node)}")
        waited_s = time.monotonic() - start
        if waited_s > patience_s:
            raise Unavailable(f"{waiting[0].name} was not ready in time; the last line of its log: {_last_words(waiting[0])}")
        time.sleep(max(_POLL_S, _POLL_SHARE * waited_s))


def environment() -> dict[str, str]:
    """What programs on a lab's machine are given: nothing that leads to a daemon of this one."""
    return {name: value for name, value in os.environ.items() if name not in _LAB_VARIABLES}


def _command(lab: Lab, node: NodeOptions) -> tuple[str, ...]:
    places = {"--run-dir": node.run_dir, "--data-dir": node.data_dir}
    options = {
        "--name": node.name,
        "--advertise": node.advertise,
        "--store": node.store,
        "--store-ca": node.keys.ca,
        "--store-cert": node.keys.certificate,
        "--store-key": node.keys.key,
        "--engine": node.engine,
        "--role": node.role,
        "--ingress-subnet": node.ingress_subnet,
        "--gwbridge-subnet": node.gwbridge_subnet,
    }
    flags = places if lab.joined else {**places, **options}  # one that has joined knows the rest
    given = (pair for pair in flags.items() if pair[1] is not None)
    return (sys.executable, "-m", "routemesh", "node", *(str(word) for pair in given for word in pair))


def _note(node: NodeOptions) -> Path:
    return node.run_dir / "daemon"


def _last_words(node: NodeOptions) -> str:
    return last_line(log_path(node))


def last_line(log: Path) -> str:
    """What a program wrote last."""
    with suppress(FileNotFoundError):
        lines = log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("routemesh: ") if lines else "it wrote nothing to its log"
    return "it has no log"
