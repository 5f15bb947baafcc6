"""PID 1 of a task as the daemon sees it: which process it is, whether it lives, waiting for its end.

A pid alone is not a name: the kernel gives it to another process later, and starts anew at a reboot. With its start time
(proc(5), stat field 22) and the boot's id it is one. A pidfd then stays with the process (pidfd_open(2)); it becomes
readable when the process has ended, and that of a pid namespace's init not before everything in the namespace has.
"""

import asyncio
import errno
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_GONE = {errno.ESRCH, errno.ENOENT, errno.EINVAL}
"""No such process; EINVAL or ENOENT (by kernel version) where the pid has become the id of a thread."""


@dataclass(frozen=True, slots=True)
class Init:
    """A process in a way that holds beyond its life; `started` is in clock ticks since `boot`."""

    boot: str
    pid: int
    started: int

    @classmethod
    def parse(cls, text: str) -> "Init | None":
        """Read the id of a boot and on the next line a /proc/PID/stat; None for anything else."""
        boot, _, stat = text.partition("\n")
        # The command's name, in parentheses, may hold spaces and parentheses itself.
        head, _, tail = stat.rpartition(")")
        fields = tail.split()
        try:
            return cls(boot, int(head.split()[0]), int(fields[19]))
        except (IndexError, ValueError):
            return None


@contextmanager
def living(init: Init) -> Iterator[int | None]:
    """A pidfd of the process; None when it has ended, though another may have its pid, or nobody may have reaped it."""
    try:
        fd = os.pidfd_open(init.pid)
    except OSError as exc:
        if exc.errno not in _GONE:
            raise
        yield None
        return
    try:
        yield fd if _now(init.pid) == init and not is_readable(fd) else None
    finally:
        os.close(fd)


def _now(pid: int) -> Init | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return Init.parse(boot + Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_readable(fd: int) -> bool:
    """Whether a read would not block; of a pidfd: whether the process has ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


async def until_readable(*fds: int) -> None:
    """Return when one of the descriptors can be read; costs nothing meanwhile. Each may be waited for once at a time."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    for fd in fds:
        loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        for fd in fds:
            loop.remove_reader(fd)


def send(fd: int, number: int) -> None:
    """Send a signal to a process by its pidfd; no error when it has ended."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)


async def ends_within(fd: int, timeout_s: float) -> bool:
    """Wait for the end of a process by its pidfd."""
    try:
        async with asyncio.timeout(timeout_s):
            await until_readable(fd)
    except TimeoutError:
        return is_readable(fd)
    return True


async def read_to_end(fd: int) -> bytes:
    """Everything that comes out of a pipe until all its writers have closed it."""
    data = b""
    while True:
        await until_readable(fd)
        block = os.read(fd, 4096)
        if not block:
            return data
        data += block
