"""Keeps one proxy running in its task: what `routemesh gateway proxy` does. Loads little, since it starts with every task.

The daemon writes the configuration, checked, into the task's directory and reloads the proxy; this process only starts it once
there is one, starts it again when it has died, and ends it gently. So a proxy comes back at once, also without a daemon.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from routemesh.proxy.rendered import HAPROXY_MAIN, HAPROXY_MASTER_SOCKET, NGINX_MAIN

RUN_DIR_VARIABLE = "ROUTEMESH_RUN_DIR"
DIRECTORY = "gateway"
_POLL_S = 0.02
_QUICK_S, _MOST_QUICK_ENDS, _PAUSE_S = 1.0, 20, 0.2
"""A proxy that dies within a second of its start so often in a row will not do better: the task fails, and says why."""
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})


@dataclass(frozen=True, slots=True)
class Program:
    """A proxy's program: its configuration's name, how it is started in a directory, the signal that ends it gently."""

    config: str
    command: Callable[[Path], tuple[str, ...]]
    gentle: signal.Signals


PROGRAMS: Mapping[str, Program] = {
    "haproxy": Program(
        HAPROXY_MAIN,
        lambda at: ("haproxy", "-W", "-db", "-S", f"{at}/{HAPROXY_MASTER_SOCKET},mode,600", "-f", f"{at}/{HAPROXY_MAIN}"),
        signal.SIGUSR1,
    ),
    "nginx": Program(
        NGINX_MAIN,
        lambda at: ("nginx", "-e", "stderr", "-c", f"{at}/{NGINX_MAIN}", "-g", "daemon off;"),
        signal.SIGQUIT,
    ),
}


def directory_of(run_dir: Path, hostname: str) -> Path:
    """Where a task's proxy has its files."""
    return run_dir / DIRECTORY / hostname


def main(driver: str) -> int:
    """Run the task's proxy until SIGTERM; the exit status."""
    program = PROGRAMS[driver]
    if shutil.which(driver) is None:
        print(f"gateway: no program '{driver}' in PATH on this node; install Debian's package {driver}", flush=True)
        return 127
    directory = directory_of(Path(os.environ[RUN_DIR_VARIABLE]), os.environ["HOSTNAME"])
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    while not (directory / program.config).exists():
        if _wait(_POLL_S) in (signal.SIGTERM, signal.SIGINT):
            return 0
    quick = 0
    while True:
        started = time.monotonic()
        status = _run(program, directory)
        if status is None:
            return 0
        quick = quick + 1 if time.monotonic() - started < _QUICK_S else 0
        if quick == _MOST_QUICK_ENDS:
            print(f"gateway: {driver} ended {quick} times in a row, the last time with status {status}", flush=True)
            return 1
        print(f"gateway: {driver} ended with status {status}; it is started again", flush=True)
        if quick > 1 and _wait(_PAUSE_S) in (signal.SIGTERM, signal.SIGINT):
            return 0


def _run(program: Program, directory: Path) -> int | None:
    """How the proxy ended by itself; None when it was asked to."""
    for socket in directory.glob("*.sock"):
        socket.unlink()  # nginx would not take the place of one that a dead process left
    # A process group of its own, so that nothing of a dead proxy stays and holds its ports. There are no threads here.
    proxy = subprocess.Popen(program.command(directory), start_new_session=True, preexec_fn=_unblock)  # noqa: PLW1509
    asked = False
    while proxy.poll() is None:
        if _wait(None) in (signal.SIGTERM, signal.SIGINT):
            asked = True
            proxy.send_signal(program.gentle)
    with suppress(ProcessLookupError):
        os.killpg(proxy.pid, signal.SIGKILL)
    return None if asked else proxy.returncode


def _wait(timeout_s: float | None) -> int | None:
    """The next of our signals; None when none comes in time."""
    if timeout_s is None:
        return signal.sigwait(_SIGNALS)
    found = signal.sigtimedwait(_SIGNALS, timeout_s)
    return None if found is None else found.si_signo


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
