"""Run a command for a limited time and keep the end of what it says."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from routemesh.runtime.process.supervision import ends_within, is_readable, until_readable

TIMED_OUT = 124
"""The exit code of timeout(1)."""
OUTPUT_LIMIT_BYTES = 4096
_REAP_TIMEOUT_S = 1.0
_PIPE_BYTES = 65536
"""What a pipe holds (pipe(7))."""


async def run(argv: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> tuple[int, str]:
    """The exit code (128 + signal for a signal, TIMED_OUT after `timeout_s`) and the last OUTPUT_LIMIT_BYTES of the output.

    After the timeout, or when cancelled, the command's whole process group is killed. What it leaves in the background
    otherwise stays, and its output is lost. Raises OSError when `argv` can't be started.
    """
    tail = bytearray()
    with _process(argv, environment) as (process, pidfd, output):
        try:
            async with asyncio.timeout(timeout_s):
                await _follow(pidfd, output, tail)
        except TimeoutError:
            return TIMED_OUT, _text(tail)
        finally:
            await _end(process, pidfd)
        _read(output, tail)
        code = process.wait()
        return (code if code >= 0 else 128 - code), _text(tail)


async def _end(process: subprocess.Popen[bytes], pidfd: int) -> None:
    """Kill the children of a process that has not ended, and so let it reap them before its group is killed.

    Where the process is nsenter, its child is in another pid namespace. Orphaned, that would be left to the node's own init,
    and the namespace could not end before it has been reaped (pid_namespaces(7)); in a container nobody may ever do that.
    """
    if is_readable(pidfd) or not (children := _children(process.pid)):
        return
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    await ends_within(pidfd, _REAP_TIMEOUT_S)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN.
        return []


async def _follow(pidfd: int, output: int, tail: bytearray) -> None:
    """Collect the output until the process has ended; of what is in the pipe then, a last read gets all."""
    waiting_for = [pidfd, output]
    while not is_readable(pidfd):
        await until_readable(*waiting_for)
        if output in waiting_for and not _read(output, tail):
            waiting_for.remove(output)


@contextmanager
def _process(argv: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A process, its pidfd and its output; nothing of the three is left."""
    process = subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        os.set_blocking(output.fileno(), False)
        pidfd = os.pidfd_open(process.pid)
        try:
            yield process, pidfd, output.fileno()
        finally:
            os.close(pidfd)
            # Not waited for yet, so its id, which is its group's, can't be anybody else's.
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _read(fd: int, tail: bytearray) -> bool:
    """Read as much as a pipe holds and keep the end of it; False when no more will come."""
    try:
        block = os.read(fd, _PIPE_BYTES)
    except BlockingIOError:
        return True
    tail += block
    del tail[:-OUTPUT_LIMIT_BYTES]
    return bool(block)


def _text(tail: bytearray) -> str:
    return tail.decode(errors="replace")
