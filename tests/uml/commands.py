"""The command line for a slow machine: a process that has loaded it forks for each command, instead of loading it anew.

In User-Mode Linux nearly all of a command's time is that of Python and its modules. What runs is the same, the `main` of
routemesh.__main__ in a process of its own, with its arguments, environment and outputs; that it starts by itself too, daemons,
tasks and tests/lab show. The process that forks ends with the one that started it.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

_LOADED = ("main", "container", "explain", "lab", "node", "plan", "record", "service")
_MOST_BYTES = 1 << 16


def run(args: Sequence[str], env: Mapping[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """As subprocess.run of `python -m routemesh ARGS`. Raises subprocess.TimeoutExpired; the command may then go on."""
    with socket.socket(socket.AF_UNIX) as asked, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        asked.settimeout(timeout_s)
        asked.connect(_server())
        socket.send_fds(asked, [json.dumps([args, dict(env)]).encode()], [out.fileno(), err.fileno()])
        asked.shutdown(socket.SHUT_WR)
        try:
            status = asked.recv(16)
        except TimeoutError:
            raise subprocess.TimeoutExpired(list(args), timeout_s) from None
        written = []
        for file in (out, err):
            file.seek(0)
            written.append(file.read().decode())
        return subprocess.CompletedProcess(args, int(status or b"-1"), *written)


@cache
def _server() -> str:
    """The address of the process that forks, which is started now."""
    address = str(Path(tempfile.mkdtemp()) / "commands")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    with listening:
        command = [sys.executable, "-m", "tests.uml.commands", str(listening.fileno())]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(listening.fileno(),))
    atexit.register(server.kill)
    return address


def _serve(listening: socket.socket) -> None:
    for name in _LOADED:
        import_module(f"routemesh.cli.{name}")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for its children
    while True:
        asked, _ = listening.accept()
        with asked:
            if os.fork() == 0:
                listening.close()
                _answer(asked)


def _answer(asked: socket.socket) -> None:
    """Be the command; never returns. What ends it without a status ends the connection as well."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, fds, _, _ = socket.recv_fds(asked, _MOST_BYTES, 2)
    while more := asked.recv(_MOST_BYTES):
        text += more
    args, env = json.loads(text)
    for standard, given in zip((1, 2), fds, strict=True):
        os.dup2(given, standard)
        os.close(given)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["routemesh", *args]
    from routemesh.__main__ import main

    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    asked.send(str(status).encode())
    os._exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
