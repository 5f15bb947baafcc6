"""The store of one machine: an SQLite file in WAL mode that several daemons share.

Each daemon keeps the state in memory and reads only the rows that are newer. A removed object leaves a row without a body for the
next KEPT_REVISIONS revisions; whoever is further behind reads everything again. A heartbeat (a lease that is merely prolonged) is
a commit like any other but rings no bell. A commit survives the death of any process; a power cut may take the last ones back
(synchronous=NORMAL), never a part of one. Source: sqlite.org/wal.html, sqlite.org/howtocorrupt.html.
"""

import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from routemesh.errors import Unavailable
from routemesh.model import Lease, State
from routemesh.store import Change, codec
from routemesh.store.bell import FileBell
from routemesh.store.changes import KINDS, Edit, apply, committed
from routemesh.threads import in_thread

BUSY_TIMEOUT_S = 5.0
KEPT_REVISIONS = 1000

_APPLICATION_ID = 0x726D7368  # "rmsh", what tells our files from other programs'
_SCHEMA_VERSION = 1
_SCHEMA = f"""
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {_SCHEMA_VERSION};
    CREATE TABLE objects (kind TEXT, id TEXT, revision INTEGER NOT NULL, body TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE INDEX objects_by_revision ON objects (revision);
    CREATE INDEX removed_objects ON objects (revision) WHERE body IS NULL;
    CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires_at REAL NOT NULL, value INTEGER NOT NULL)
        WITHOUT ROWID;
"""
_MOVE_AWAY = "move it away or restore a backup"
_EXPLANATIONS = {
    sqlite3.SQLITE_BUSY: f"has been locked for more than {BUSY_TIMEOUT_S:.0f} s: end the program that does it (`fuser {{path}}`)",
    sqlite3.SQLITE_FULL: "can't grow: its disk is full; nothing was written: free some space",
    sqlite3.SQLITE_NOTADB: f"is not a routemesh database: {_MOVE_AWAY}",
    sqlite3.SQLITE_CORRUPT: f"is damaged ({{reason}}): {_MOVE_AWAY}",
    sqlite3.SQLITE_ERROR: f"is damaged ({{reason}}): {_MOVE_AWAY}",
    sqlite3.SQLITE_READONLY: "can't be written ({reason}): check the permissions of the file and of its directory",
    sqlite3.SQLITE_CANTOPEN: "can't be opened ({reason}): check the permissions of the file and of its directory",
}
_OTHERWISE = "can't be used ({reason}): check its disk and the kernel's log"

_PRIMARY_CODE = 0xFF  # the rest of an error code is detail

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
    async def open(cls, path: Path, clock: Callable[[], float] = time.time) -> "SqliteStore":
        """Open the file; make it first if need be (0600, its directory 0700). `clock`: seconds since the epoch, all daemons'."""
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
        self._clock = clock
        self._state = State()
        self._sql = _open(path)
        # SQLite holds no lock on the WAL file, and keeps it as long as any process has the database open. (To open and close the
        # database file itself would drop this process's locks on it: howtocorrupt.html, section 2.2.)
        self.bell = FileBell(path.with_name(path.name + "-wal"))
        try:
            self.load()
        except BaseException:
            self._sql.close()
            raise

    def load(self) -> State:
        with _explained(self._path):
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
        return state

    def renew(self, name: str, holder: str, ttl_s: float, value: int) -> bool:
        now = self._clock()
        with self._transaction() as on_exit:
            self._sql.execute("DELETE FROM leases WHERE expires_at <= ?", (now,))
            present = self._sql.execute("SELECT holder, value FROM leases WHERE name = ?", (name,)).fetchone()
            if present is not None and present[0] != holder:
                return False
            if present != (holder, value):
                on_exit.enter_context(self.bell.ringing())
            self._sql.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", (name, holder, now + ttl_s, value))
        return True

    def release(self, name: str, holder: str) -> None:
        with self._transaction() as on_exit:
            if self._sql.execute("DELETE FROM leases WHERE name = ? AND holder = ?", (name, holder)).rowcount:
                on_exit.enter_context(self.bell.ringing())

    def leases(self) -> dict[str, Lease]:
        with _explained(self._path):
            rows = self._sql.execute("SELECT name, holder, expires_at, value FROM leases WHERE expires_at > ?", (self._clock(),))
            return {name: Lease(name=name, holder=holder, expires_at=until, value=value) for name, holder, until, value in rows}

    def close(self) -> None:
        with _explained(self._path):
            self._sql.close()

    @contextmanager
    def _transaction(self) -> Iterator[ExitStack]:
        """All or nothing; what the block puts on the stack is left after the commit."""
        with _explained(self._path), ExitStack() as on_exit:
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
                raise Unavailable(f"{self._path} is damaged in {kind} {key} ({exc}): {_MOVE_AWAY}") from exc


def _open(path: Path) -> sqlite3.Connection:
    with _explained(path):
        try:
            if not path.exists():
                _create(path)
        except OSError as exc:
            raise Unavailable(f"can't make {path} ({exc.strerror}: {exc.filename}): choose another place or repair it") from exc
        sql = sqlite3.connect(path.as_uri() + "?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            _recognise(sql, path)
            sql.execute("PRAGMA journal_mode = WAL")  # a restored backup may have lost it
            sql.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            sql.close()
            raise
        return sql


def _create(path: Path) -> None:
    """Make the file complete under another name first: two daemons that start at once, or a crash, can't leave half of one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
        draft = Path(directory, path.name)
        draft.touch(mode=0o600)
        with closing(sqlite3.connect(draft, isolation_level=None)) as sql:
            sql.executescript(_SCHEMA)
        with suppress(FileExistsError):
            path.hardlink_to(draft)


def _recognise(sql: sqlite3.Connection, path: Path) -> None:
    (application,) = sql.execute("PRAGMA application_id").fetchone()
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise Unavailable(f"{path} is not a routemesh database: {_MOVE_AWAY}")
    if version > _SCHEMA_VERSION:
        raise Unavailable(f"{path} is a newer routemesh's (schema {version}; known is {_SCHEMA_VERSION}): upgrade this one")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a line that says what to do. Python's own (text that is not UTF-8) have no code: damage."""
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & _PRIMARY_CODE
        raise Unavailable(f"{path} {_EXPLANATIONS.get(code, _OTHERWISE).format(reason=exc, path=path)}") from exc
