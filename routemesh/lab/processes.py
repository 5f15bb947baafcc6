"""Finding and ending processes: those of a lab are the ones in its network namespaces, whatever they are called.

Numbers are given again once they are free. A pidfd stays with its process, so that no signal reaches a later one of its number,
and a namespace is held open as long as processes are told by its number. Source: pidfd_open(2), namespaces(7).
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from routemesh.kernel import netns
from routemesh.runtime.process.supervision import send

T = TypeVar("T")
Namespaces = Set[int]
"""Network namespaces by the numbers that the kernel gave them."""

_KILL_DEADLINE_S = 10.0
_AT_ONCE = 400
"""So many namespaces, and so many processes: each takes a file descriptor, of which a process has 1024."""
_OWN = "/proc/self/ns/net"


@contextmanager
def held(files: Iterable[Path]) -> Iterator[Namespaces]:
    """The numbers of the network namespaces at these files, which nobody else is given in the block; what is gone is left out."""
    device = os.stat(_OWN).st_dev
    with ExitStack() as opened:
        numbers = set()
        for path in files:
            with suppress(OSError):
                status = os.fstat(opened.enter_context(netns.opened(path)))
                if status.st_dev == device:
                    numbers.add(status.st_ino)
        yield numbers


def is_inside(files: Iterable[Path]) -> bool:
    """Whether the calling process is in one of these namespaces: none that is gone can have its number."""
    own = os.stat(_OWN)
    for path in files:
        with suppress(OSError):
            if os.path.samestat(os.stat(path), own):
                return True
    return False


def kill_inside(files: Callable[[], Sequence[Path]]) -> None:
    """SIGKILL everything in the namespaces at these files, asked for anew until nothing is left: what dies may just have made
    another."""
    deadline = time.monotonic() + _KILL_DEADLINE_S
    while any([_kill_inside(some, deadline) for some in _batches(files())]) and time.monotonic() < deadline:
        pass


def _kill_inside(files: Iterable[Path], deadline: float) -> bool:
    """Whether there was anything."""
    with held(files) as namespaces:
        pids = _inside(namespaces)
        for some in _batches(pids):
            end(some, signal.SIGKILL, deadline - time.monotonic(), namespaces)
    return bool(pids)


def _batches(things: Sequence[T]) -> Iterator[Sequence[T]]:
    return (things[start : start + _AT_ONCE] for start in range(0, len(things), _AT_ONCE))


def end(pids: Iterable[int], number: signal.Signals, wait_s: float, namespaces: Namespaces) -> None:
    """Send a signal to those that are in the namespaces, which are held; return when they have ended or after `wait_s`."""
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
