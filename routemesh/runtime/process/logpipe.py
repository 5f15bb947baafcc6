"""The daemon's side of a task's output: the pipe that a task writes into, and the process that empties it (logwriter)."""

import asyncio
import errno
import logging
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from routemesh.errors import Unavailable
from routemesh.model import TaskId

log = logging.getLogger(__name__)

CONTROL = "logwriter"
"""The pipe on which the writer hears of new tasks, beside the directory of tasks."""
_SCRIPT = Path(__file__).with_name("logwriter.py")
_ASKED = "logging.new"
_AGAIN_S = 1.0
_TAKE_S = 10.0
_DRAIN_S = 2.0
_POLL_S = 0.002


class LogWriter:
    """The node's writer of logs: found where it runs, started where it does not, also when it dies later.

    `tasks` and `logs` are the directories that logwriter is given.
    """

    def __init__(self, tasks: Path, logs: Path) -> None:
        self._tasks, self._logs = tasks, logs
        self._control = -1
        self._started = 0.0
        self._retry: asyncio.TimerHandle | None = None

    def pipe(self, task_id: TaskId, limit_bytes: int, files: int) -> int:
        """A new pipe for what a task says; the end that it writes to. Raises OSError."""
        directory = self._tasks / task_id
        with suppress(OSError):  # a full disk keeps no task from running
            (self._logs / task_id).mkdir(mode=0o700, exist_ok=True)
        (directory / _ASKED).write_text(f"{limit_bytes} {files}\n")
        made, output = directory / "output.new", directory / "output"
        made.unlink(missing_ok=True)
        os.mkfifo(made, 0o600)
        end = os.open(made, os.O_RDWR | os.O_CLOEXEC)
        # Under its name it is never without somebody who holds it: a writer would take it for one that has ended.
        made.rename(output)
        return end

    async def taken(self, task_id: TaskId) -> None:
        """Return when the writer reads the pipe: what is in one that nobody holds any more is lost.

        Raises Unavailable where there is no writer and none can be started.
        """
        self._ensure()
        try:
            os.write(self._control, os.fsencode(task_id) + b"\n")
        except BlockingIOError:
            pass  # then it is told below that it does not answer
        except BrokenPipeError:
            self._ended()  # the next one looks at all tasks
        if not await _gone(self._tasks / task_id / _ASKED, _TAKE_S):
            raise Unavailable(f"the writer of tasks' logs did not answer within {_TAKE_S:.0f} s; kill it (logwriter.py)")

    def keep(self) -> None:
        """See to it that a writer runs, from now on; where it can't be started that is logged and tried again.

        Call in the loop; costs nothing where one is known to run.
        """
        if self._control < 0 and self._retry is None:
            self._again()

    def _ensure(self) -> None:
        """The same, but raises Unavailable."""
        if self._control >= 0:
            return
        try:
            self._control = self._found()
        except OSError as exc:
            raise Unavailable(f"the writer of tasks' logs can't be started: {exc.strerror}: {exc.filename or _SCRIPT}") from exc
        # The writing end of a pipe becomes "readable" when its reader has gone (EPOLLERR).
        asyncio.get_running_loop().add_reader(self._control, self._ended)

    def close(self) -> None:
        """Leave the writer alone; it goes on as long as there are tasks."""
        control, self._control = self._control, -1
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if control >= 0:
            with suppress(RuntimeError):  # where the loop has ended
                asyncio.get_running_loop().remove_reader(control)
            os.close(control)

    def _found(self) -> int:
        """The control pipe of the running writer, or of a new one."""
        control = self._tasks.parent / CONTROL
        with suppress(FileExistsError):
            os.mkfifo(control, 0o600)
        try:
            return os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise
        self._started = time.monotonic()
        its_end = os.open(control, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            ours = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(control.with_name(f"{CONTROL}.log"), "wb") as said:
                # A child of nobody's: it outlives the daemon, which never waits for it.
                subprocess.run(
                    ["setsid", "--fork", sys.executable, "-I", "-S", str(_SCRIPT), str(self._tasks), str(self._logs)],
                    stdin=its_end,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    cwd="/",
                    check=False,
                )
        finally:
            os.close(its_end)
        return ours

    def _ended(self) -> None:
        """Start another. One that dies at once is not started in a loop."""
        log.warning("the writer of logs has ended; another one is started")
        self.close()
        if time.monotonic() - self._started < _AGAIN_S:
            self._later()
        else:
            self._again()

    def _later(self) -> None:
        self._retry = asyncio.get_running_loop().call_later(_AGAIN_S, self._again)

    def _again(self) -> None:
        self._retry = None
        try:
            self._ensure()
        except Unavailable as exc:
            log.error("%s", exc)
            self._later()


async def drained(output: Path) -> None:
    """Return when all that an ended task said is in its log (its pipe is unlinked), or after a bounded time."""
    await _gone(output, _DRAIN_S)


async def _gone(path: Path, within_s: float) -> bool:
    """Wait until there is no such file."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while path.exists():
                await asyncio.sleep(_POLL_S)
    return not path.exists()
