"""Telling those who follow logs that one has grown: one inotify for all, of which a user has few. Source: inotify(7)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asyncinotify import Inotify, Mask, Watch

from routemesh.errors import Unavailable


class Growth:
    """Watches directories while somebody follows what is in them; lives in one event loop."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._watches: dict[Path, Watch] = {}
        self._followers: dict[Path, set[asyncio.Event]] = {}

    @contextmanager
    def of(self, directory: Path) -> Iterator[asyncio.Event]:
        """An event that is set when a file in the directory was made or written. Raises Unavailable, FileNotFoundError."""
        grown = asyncio.Event()
        if directory not in self._watches:
            self._watch(directory)
        followers = self._followers.setdefault(directory, set())
        followers.add(grown)
        try:
            yield grown
        finally:
            followers.remove(grown)
            if not followers:
                self._forget(directory)

    def _watch(self, directory: Path) -> None:
        try:
            if self._inotify is None:
                self._inotify = Inotify(sync_timeout=0)
                asyncio.get_running_loop().add_reader(self._inotify.fd, self._tell)
            self._watches[directory] = self._inotify.add_watch(directory, Mask.MODIFY | Mask.CREATE)
        except FileNotFoundError:
            raise
        except OSError as exc:
            why = f"{exc.strerror}; raise fs.inotify.max_user_instances or max_user_watches"
            raise Unavailable(f"can't follow {directory}: {why}") from exc

    def _forget(self, directory: Path) -> None:
        del self._followers[directory]
        watch = self._watches.pop(directory)
        assert self._inotify is not None
        with suppress(OSError):  # the directory was removed, and its watch with it
            self._inotify.rm_watch(watch)
        if not self._watches:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def _tell(self) -> None:
        assert self._inotify is not None
        for event in self._inotify:
            path = event.watch.path if event.watch is not None else None
            for grown in self._followers.get(path, ()) if path is not None else ():
                grown.set()
