"""How a store wakes those who watch it: within this process, and through a file across processes.

A wake-up says only that something was written; a woken watcher looks for itself. So any number of them is as good as one.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from asyncinotify import Inotify, Mask

from routemesh.errors import Unavailable

_READ_BYTES = 4096


class Wakeups:
    """The watchers of one store in one event loop."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Event] = set()
        self._closed = False

    async def watch(self) -> AsyncIterator[None]:
        """Yield at once, then after each `ring`; rings that come while the consumer is busy are one. `close` ends it."""
        woken = asyncio.Event()
        self._watchers.add(woken)
        try:
            while not self._closed:
                woken.clear()
                yield
                await woken.wait()
        finally:
            self._watchers.discard(woken)

    def ring(self) -> None:
        """Wake every watcher."""
        for woken in self._watchers:
            woken.set()

    def close(self) -> None:
        """End every `watch`."""
        self._closed = True
        self.ring()


class FileBell:
    """Wakes the watchers in all processes that hold a bell on the same file, which must exist.

    The signal is that a file opened for writing is closed. The kernel closes it for a process that is killed, so a writer that
    opens it before its commit can't die in between and leave the others asleep. Source: inotify(7), IN_CLOSE_WRITE.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wakeups = Wakeups()
        self._inotify: Inotify | None = None
        self._unrung: int | None = None

    @contextmanager
    def ringing(self) -> Iterator[None]:
        """Ring when the block is left, unless it raises: nothing was written then, and a woken watcher would only try again."""
        file = self._open()
        try:
            yield
        except BaseException:
            self._unrung = file  # to close it would ring
            raise
        os.close(file)

    def _open(self) -> int:
        if self._unrung is not None:
            file, self._unrung = self._unrung, None
            return file
        try:
            return os.open(self._path, os.O_WRONLY)
        except OSError as exc:
            raise Unavailable(f"can't open {self._path}: {exc.strerror}: restart the daemons that use it") from exc

    def watch(self) -> AsyncIterator[None]:
        """Wakeups.watch for the rings of all processes. All watchers share one inotify instance: the kernel allows a user 128."""
        if self._inotify is None:
            self._inotify = self._listen()
        return self._wakeups.watch()

    def close(self) -> None:
        """End every `watch` and let go of the kernel's part; a second call does nothing."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        if self._unrung is not None:
            os.close(self._unrung)
            self._unrung = None
        self._wakeups.close()

    def _listen(self) -> Inotify:
        try:
            inotify = Inotify()
            inotify.add_watch(self._path, Mask.CLOSE_WRITE)
        except OSError as exc:
            advice = "raise fs.inotify.max_user_instances (sysctl) if it is exhausted"
            raise Unavailable(f"can't watch {self._path}: {exc.strerror}: {advice}") from exc
        asyncio.get_running_loop().add_reader(inotify.fd, self._rung, inotify.fd)
        return inotify

    def _rung(self, inotify: int) -> None:
        os.read(inotify, _READ_BYTES)
        self._wakeups.ring()
