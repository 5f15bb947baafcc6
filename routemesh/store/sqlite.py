"""The store of one machine: an SQLite file in WAL mode that several daemons share.

Each daemon keeps the state in memory and reads only the rows that are newer. A removed object leaves a row without a body for the
next KEPT_REVISIONS revisions; a watcher further behind reads everything again. A heartbeat (a lease that is just prolonged) is
a commit like any other but rings no bell. A commit survives the death of any process; a power cut may take the last ones back
(synchronous=NORMAL), never a part of one. Source: sqlite.org/wal.html, sqlite.org/howtocorrupt.html.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import randbits
from typing import TypeVar, TypeVarTuple

from routemesh.errors import Unavailable
from routemesh.model import Lease, State
from routemesh.store import Change, codec
from routemesh.store.bell import FileBell
from routemesh.store.changes import KINDS, SECRET, Edit, apply, committed
from routemesh.store.sightings import Beat, Sightings
from routemesh.store.sqlitefile import BEAT_BITS, BUSY_TIMEOUT_S, MOVE_AWAY, explained, open_file
from routemesh.threads import in_thread

KEPT_REVISIONS = 1000
_WIPE_TIMEOUT_MS = 100

_Row = tuple[str, str, int, bytes | None]
Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class SqliteStore:
    """A Store in a file; `open` makes one. One thread does all its work in order, so the event loop never waits for a disk."""

    def __init__(self, database: "_Database", thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread
        self._closed = False

    @classmethod
    async def open(cls, path: Path, clock: Callable[[], float] = time.monotonic) -> "SqliteStore":
        """Open the file; make it first if need be (0600, its directory 0700). `clock`: seconds of a clock that does not leap."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        try:
            return cls(await in_thread(thread, _Database, path, clock), thread)
        except BaseException:
            thread.shutdown(wait=False)
            raise

    async def snapshot(self) -> State:
        """See Store. The same object as before when nothing was written."""
        return await self._run(self._database.load)

    async def update(self, change: Change) -> State:
        """See Store. `change` runs once, in the store's thread, while no other process can write."""
        return await self._run(self._database.update, change)

    def watch(self) -> AsyncIterator[None]:
        """See Store; `close` ends it."""
        return self._database.bell.watch()

    async def renew(self, name: str, holder: str, ttl_s: float, value: int = 0) -> bool:
        """See Store."""
        return await self._run(self._database.renew, name, holder, ttl_s, value)

    async def release(self, name: str, holder: str) -> None:
        """See Store."""
        await self._run(self._database.release, name, holder)

    async def leases(self) -> Mapping[str, Lease]:
        """See Store."""
        return await self._run(self._database.leases)

    async def close(self) -> None:
        """See Store. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._database.bell.close()
        await self._run(self._database.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        return await in_thread(self._thread, work, *args)


class _Database:
    """The SQL. Lives in one thread, but for its bell, which belongs to the event loop."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path = path.resolve()
        self._sightings = Sightings(clock)
        self._state = State()
        self._sql = open_file(path)
        self._file = _identity(path)
        self._holds_secrets = True
        # SQLite holds no lock on the WAL file, and keeps it as long as any process has the database open. (To open and close the
        # database file itself would drop this process's locks on it: howtocorrupt.html, section 2.2.)
        self.bell = FileBell(path.with_name(path.name + "-wal"))
        try:
            self.load()
        except BaseException:
            self._sql.close()
            raise

    def load(self) -> State:
        with explained(self._path):
            self._check_place()
            rows = self._rows_after(self._state.revision)
            if self._newest(rows) - self._state.revision > KEPT_REVISIONS:
                self._state = State()
                rows = self._rows_after(0)
            if rows:
                self._state = apply(self._state, self._decoded(rows), self._newest(rows))
            return self._state

    def update(self, change: Change) -> State:
        with self._transaction() as on_exit:
            before = self.load()
            state, edits = committed(before, change(before))
            if edits:
                on_exit.enter_context(self.bell.ringing())
                self._write(edits, state.revision)
        self._state = state
        if any(edit.kind in SECRET for edit in edits):
            self._holds_secrets = True
            self._wipe()
        return state

    def renew(self, name: str, holder: str, ttl_s: float, value: int) -> bool:
        with self._transaction() as on_exit:
            stored = self._stored()
            live = self._sightings.live(stored)
            present = live.get(name)
            if present is not None and present.holder != holder:
                return False
            if present is None or present.value != value:
                on_exit.enter_context(self.bell.ringing())
            self._sql.executemany("DELETE FROM leases WHERE name = ?", [(lapsed,) for lapsed in stored.keys() - live.keys()])
            row = (name, holder, ttl_s, value, randbits(BEAT_BITS))
            self._sql.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)", row)
        with explained(self._path):
            self._sightings.live(self._stored())
            self._wipe()
        return True

    def release(self, name: str, holder: str) -> None:
        with self._transaction() as on_exit:
            if self._sql.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (name, holder)).rowcount:
                on_exit.enter_context(self.bell.ringing())

    def leases(self) -> dict[str, Lease]:
        with explained(self._path):
            self._check_place()
            return self._sightings.live(self._stored())

    def _stored(self) -> dict[str, Beat]:
        rows = self._sql.execute("SELECT name, holder, ttl_s, value, beat FROM leases")
        return {
            name: Beat(Lease(name=name, holder=holder, ttl_s=ttl_s, value=value), beat)
            for name, holder, ttl_s, value, beat in rows
        }

    def _check_place(self) -> None:
        """A file that was moved away or replaced is no longer what other daemons, or the next of this node, would open."""
        if _identity(self._path) != self._file:
            raise Unavailable(
                f"{self._path} is gone, or another file than this daemon opened: put it back, or restart the daemon"
            )

    def _wipe(self) -> None:
        """Empty the write-ahead log when it may hold a secret that was removed; while somebody reads, at the next call."""
        if self._holds_secrets:
            self._sql.execute(f"PRAGMA busy_timeout = {_WIPE_TIMEOUT_MS}")
            try:
                (is_busy, _, _) = self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._holds_secrets = bool(is_busy)
            finally:
                self._sql.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")

    def close(self) -> None:
        with explained(self._path):
            self._sql.close()

    @contextmanager
    def _transaction(self) -> Iterator[ExitStack]:
        """All or nothing; what the block puts on the stack is left after the commit."""
        with explained(self._path), ExitStack() as on_exit:
            self._check_place()
            self._sql.execute("BEGIN IMMEDIATE")
            try:
                yield on_exit
                self._sql.execute("COMMIT")
            finally:
                if self._sql.in_transaction:
                    self._sql.execute("ROLLBACK")

    def _write(self, edits: tuple[Edit, ...], revision: int) -> None:
        rows = ((kind, key, revision, codec.encode(kind, value).decode() if value else None) for kind, key, value in edits)
        self._sql.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", rows)
        self._sql.execute("DELETE FROM objects WHERE body IS NULL AND revision <= ?", (revision - KEPT_REVISIONS,))

    def _rows_after(self, revision: int) -> list[_Row]:
        query = "SELECT kind, id, revision, CAST(body AS BLOB) FROM objects WHERE revision > ? ORDER BY revision"
        return self._sql.execute(query, (revision,)).fetchall()

    def _newest(self, rows: list[_Row]) -> int:
        return rows[-1][2] if rows else self._state.revision

    def _decoded(self, rows: list[_Row]) -> Iterator[Edit]:
        for kind, key, _, body in rows:
            if kind not in KINDS:  # a newer routemesh's
                continue
            try:
                yield Edit(kind, key, None if body is None else codec.decode(kind, body))
            except codec.CodecError as exc:
                raise Unavailable(f"{self._path} is damaged in {kind} {key} ({exc}): {MOVE_AWAY}") from exc


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
