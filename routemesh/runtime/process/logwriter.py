"""Writes what tasks say into their logs: one process for all tasks of a node, which outlives its daemon as they do.

    python -I -S logwriter.py TASKS LOGS  <CONTROL

A task's output comes through the named pipe TASKS/ID/output. Its init holds that open for reading too, so no task ever gets a
SIGPIPE; what is in a pipe when a writer dies is written by the next. TASKS/ID/logging.new says how much is kept, "BYTES FILES";
it is called logging once the pipe has a reader. A log is the files LOGS/ID/1, 2, 3 … of BYTES each, of which the last FILES are
kept. At the output's end the pipe is unlinked.

CONTROL is a pipe from the daemon: a line there is the id of a new task, its end is the daemon's. One without a daemon ends with
the last task. Who holds the lock of TASKS is the writer. What a disk does not take is passed over, so that no task waits for it
or fails by it; the log says how much that was as soon as it can. Standard library only: it is to be small and to start fast.
Source: fifo(7), pipe(7), splice(2), epoll(7), flock(2).
"""

import errno
import fcntl
import os
import resource
import select
import sys
from contextlib import suppress

BLOCK_BYTES = 1 << 16
_OOM_SCORE = "-500"
"""Many tasks wait for this process if it is killed while there is no daemon that starts another."""


class Log:
    """The log of one task. What the disk does not take raises nothing: it is counted, and told in the log later."""

    def __init__(self, directory: str, limit_bytes: int, files: int) -> None:
        self._directory, self._limit_bytes, self._files = directory, limit_bytes, files
        self._file = -1
        self._number = max(_numbers(directory), default=1)
        self._size = 0
        self._lost_bytes, self._why = 0, ""

    def move(self, pipe: int) -> bool:
        """Move a block from a pipe, which does not block, to the log; False at the pipe's end.

        The kernel moves it: nothing is in this process's hands, and so lost, when that is killed.
        """
        try:
            self._tell()
            moved = os.splice(pipe, self._file, min(BLOCK_BYTES, self._room()))
            self._size += moved
            return moved > 0
        except BlockingIOError:
            return True
        except OSError as exc:
            block = _block(pipe)
            if block and exc.errno == errno.EINVAL:  # a file system that can't splice
                self.write(block)
            elif block:
                self._lose(len(block), exc)
            return block != b""

    def write(self, data: bytes) -> None:
        """Append to the log."""
        view = memoryview(data)
        try:
            self._tell()
            while view:
                view = view[self._put(view) :]
        except OSError as exc:
            self._lose(len(view), exc)

    def _tell(self) -> None:
        """Begin the log's file; say what was lost before, if anything."""
        if self._file < 0:
            self._open()
        if self._lost_bytes:
            note = f"\n(routemesh: {self._lost_bytes} bytes of output could not be written: {self._why})\n"
            view = memoryview(note.encode())
            while view:
                view = view[self._put(view) :]
            self._lost_bytes = 0

    def _put(self, view: memoryview) -> int:
        written = os.write(self._file, view[: self._room()])
        self._size += written
        return written

    def _lose(self, size: int, why: OSError) -> None:
        self.close()
        self._lost_bytes += size
        self._why = why.strerror or str(why)

    def _room(self) -> int:
        """How much the file still takes; of a new one where it is full."""
        if self._size >= self._limit_bytes:
            self._next()
        return self._limit_bytes - self._size

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
        self._file = -1

    def end(self) -> None:
        """The task has said all; what was lost is told if that is possible now."""
        if self._lost_bytes:
            self.write(b"")
        self.close()

    def _open(self) -> None:
        with suppress(FileExistsError):
            os.mkdir(self._directory, 0o700)
        path = f"{self._directory}/{self._number}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.lseek(self._file, 0, os.SEEK_END)

    def _next(self) -> None:
        """Go on in a new file, before the oldest goes."""
        self.close()
        self._number += 1
        self._open()
        for number in _numbers(self._directory):
            if number <= self._number - self._files:
                with suppress(FileNotFoundError):
                    os.unlink(f"{self._directory}/{number}")


class Writer:
    """All pipes and logs. `run` returns when there is nothing left to do."""

    def __init__(self, tasks: str, logs: str, control: int) -> None:
        self._tasks, self._logs, self._control = tasks, logs, control
        self._poll = select.epoll()
        self._open: dict[int, tuple[str, Log]] = {}
        self._daemon = True
        self._rest = b""

    def run(self) -> None:
        """Write until neither tasks nor a daemon are there."""
        os.set_blocking(self._control, False)
        # By its edges: the end of a daemon is not a reason to wake up again and again until the next one comes.
        self._poll.register(self._control, select.EPOLLIN | select.EPOLLET)
        for task in os.listdir(self._tasks):
            self._take(task)
        while self._daemon or self._open:
            for fd, _ in self._poll.poll():
                if fd == self._control:
                    self._hear()
                elif fd in self._open:
                    self._copy(fd)

    def _hear(self) -> None:
        """New tasks, or that the daemon has ended."""
        self._daemon = True
        while True:
            try:
                block = os.read(self._control, BLOCK_BYTES)
            except BlockingIOError:
                return
            if not block:
                self._daemon = False
                return
            *lines, self._rest = (self._rest + block).split(b"\n")
            for line in lines:
                self._take(os.fsdecode(line))

    def _take(self, task: str) -> None:
        """Begin with a task's pipe, if it has one that is not known yet."""
        directory = f"{self._tasks}/{task}"
        if any(task == known for known, _ in self._open.values()):
            return
        try:
            pipe = os.open(f"{directory}/output", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return  # it has none, or had
        try:
            with suppress(FileNotFoundError):
                os.rename(f"{directory}/logging.new", f"{directory}/logging")
            with open(f"{directory}/logging") as file:
                log = Log(f"{self._logs}/{task}", *map(int, file.read().split()))
        except (OSError, ValueError):
            os.close(pipe)
            return
        self._open[pipe] = (task, log)
        self._poll.register(pipe, select.EPOLLIN)
        self._copy(pipe)

    def _copy(self, pipe: int) -> None:
        """One block, and then it is the next task's turn."""
        task, log = self._open[pipe]
        if log.move(pipe):
            return
        log.end()
        del self._open[pipe]
        os.close(pipe)
        with suppress(OSError):
            os.unlink(f"{self._tasks}/{task}/output")


def _block(pipe: int) -> bytes | None:
    """What is in a pipe; None where nothing is, b"" at its end."""
    try:
        return os.read(pipe, BLOCK_BYTES)
    except BlockingIOError:
        return None


def _numbers(directory: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(directory) if name.isdecimal()]
    except OSError:
        return []


def main(tasks: str, logs: str) -> None:
    """Be the writer, unless there is one."""
    lock = os.open(tasks, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE)
    Writer(tasks, logs, sys.stdin.fileno()).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
