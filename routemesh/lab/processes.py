"""Finding and ending processes: those of a lab are the ones in its network namespaces, whatever they are called.

A pidfd stays with its process, so that no signal can reach a later one with the same number. Source: pidfd_open(2).
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Set
from contextlib import suppress

from routemesh.runtime.process.supervision import send

Namespaces = Set[int]
"""Network namespaces by the numbers that the kernel gave them."""

_KILL_DEADLINE_S = 10.0
_AT_ONCE = 500
"""Each takes a file descriptor, of which a process has 1024."""


def is_inside(namespaces: Namespaces) -> bool:
    """Whether the calling process is in one of them."""
    return _namespace(os.getpid()) in namespaces


def kill_inside(namespaces: Callable[[], Namespaces]) -> None:
    """SIGKILL everything in these namespaces, asked for anew until nothing is left: what dies may just have made another."""
    deadline = time.monotonic() + _KILL_DEADLINE_S
    while pids := _inside(present := namespaces()):
        end(pids[:_AT_ONCE], signal.SIGKILL, deadline - time.monotonic(), present)
        if time.monotonic() > deadline:
            return


def end(pids: Iterable[int], number: signal.Signals, wait_s: float, namespaces: Namespaces) -> None:
    """Send a signal to those that are in the namespaces; return when they have ended or after `wait_s`."""
    files = {}
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                files[pid] = os.pidfd_open(pid)
                if _namespace(pid) in namespaces:
                    send(files[pid], number)
        _wait(files.values(), wait_s)
    finally:
        for pid, file in files.items():
            os.close(file)
            with suppress(ChildProcessError):  # only where one process makes and ends a lab are they its children
                os.waitpid(pid, os.WNOHANG)


def _inside(namespaces: Namespaces) -> list[int]:
    own = os.getpid()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdecimal())
    return [pid for pid in pids if pid != own and _namespace(pid) in namespaces]


def _wait(files: Iterable[int], wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    running = set(files)
    poll = select.poll()
    for file in running:
        poll.register(file, select.POLLIN)
    while running and (left_s := deadline - time.monotonic()) > 0:
        for file, _ in poll.poll(left_s * 1000):
            poll.unregister(file)
            running.remove(file)


def _namespace(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None  # gone, or a zombie, or none of root's business and so none of a lab's
