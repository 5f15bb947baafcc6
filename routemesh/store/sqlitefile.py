"""The file of the SQLite store: making it, telling it from others, bringing an older one to the present format."""

import fcntl
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from routemesh.errors import Unavailable
from routemesh.store.format import FORMAT, Json, upgraded

BUSY_TIMEOUT_S = 5.0
BEAT_BITS = 62
"""Of the number by which a renewal of a lease is told from the one before."""

_HEADER_BYTES, _USER_VERSION, _APPLICATION = 100, slice(60, 64), slice(68, 72)
_APPLICATION_ID = 0x726D7368  # "rmsh", what tells our files from other programs'
_LEASES = """
    CREATE TABLE leases (
        name TEXT PRIMARY KEY, holder TEXT NOT NULL, ttl_s REAL NOT NULL, value INTEGER NOT NULL, beat INTEGER NOT NULL
    ) WITHOUT ROWID;
"""
_SCHEMA = f"""
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = {_APPLICATION_ID};
    PRAGMA user_version = {FORMAT};
    CREATE TABLE objects (kind TEXT, id TEXT, revision INTEGER NOT NULL, body TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID;
    CREATE INDEX objects_by_revision ON objects (revision);
    CREATE INDEX removed_objects ON objects (revision) WHERE body IS NULL;
    {_LEASES}
"""
MOVE_AWAY = "move it away or restore a backup"
_EXPLANATIONS = {
    sqlite3.SQLITE_BUSY: f"has been locked for more than {BUSY_TIMEOUT_S:.0f} s: end the program that does it (`fuser {{path}}`)",
    sqlite3.SQLITE_FULL: "can't grow: its disk is full; nothing was written: free some space",
    sqlite3.SQLITE_NOTADB: f"is not a routemesh database: {MOVE_AWAY}",
    sqlite3.SQLITE_CORRUPT: f"is damaged ({{reason}}): {MOVE_AWAY}",
    sqlite3.SQLITE_ERROR: f"is damaged ({{reason}}): {MOVE_AWAY}",
    sqlite3.SQLITE_READONLY: "can't be written ({reason}): check the permissions of the file and of its directory",
    sqlite3.SQLITE_CANTOPEN: "can't be opened ({reason}): check the permissions of the file and of its directory",
}
_OTHERWISE = "can't be used ({reason}): check its disk and the kernel's log"

_PRIMARY_CODE = 0xFF  # the rest of an error code is detail

_LAYOUTS: Mapping[int, Sequence[str]] = {1: ("DROP TABLE leases", _LEASES)}
"""How the tables of an older format become those of the next, beside what format.STEPS makes of the objects."""


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the file, which is made first if need be and brought to the present format. Raises Unavailable."""
    with explained(path):
        try:
            if not path.exists():
                _create(path)
            return _connect(path)
        except OSError as exc:
            raise Unavailable(f"can't make {path} ({exc.strerror}: {exc.filename}): choose another place or repair it") from exc


def connected_as_it_is(path: Path, busy_timeout_s: float) -> sqlite3.Connection | None:
    """A connection to the file; None where it is not ours or in another format. Raises sqlite3.Error, OSError.

    The format is read from the file's header: while a daemon upgrades a file nobody else may have it open. Call it before
    anything else has the file open in this process (howtocorrupt.html, section 2.2). Source: sqlite.org/fileformat2.html.
    """
    with open(path, "rb") as file:
        header = file.read(_HEADER_BYTES)
    stored, application = header[_USER_VERSION], header[_APPLICATION]
    if int.from_bytes(stored, "big") != FORMAT or int.from_bytes(application, "big") != _APPLICATION_ID:
        return None
    return sqlite3.connect(path.as_uri() + "?mode=rw", uri=True, timeout=busy_timeout_s, isolation_level=None)


def _connect(path: Path) -> sqlite3.Connection:
    connect = partial(sqlite3.connect, path.as_uri() + "?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    sql = connect()
    try:
        if _format(sql, path) < FORMAT:
            sql.close()
            with _one_at_a_time(path):
                sql = connect()
                if (stored := _format(sql, path)) < FORMAT:
                    _upgrade(sql, path, stored)
        sql.execute("PRAGMA journal_mode = WAL")  # a restored backup may have lost it
        sql.execute("PRAGMA synchronous = NORMAL")
        sql.execute("PRAGMA secure_delete = ON")  # nothing is left of a removed secret
    except BaseException:
        sql.close()
        raise
    return sql


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Of daemons that start together one upgrades the file, while none of the others has it open."""
    place = path.with_name(f"{path.name}-upgrade")
    lock = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        place.unlink(missing_ok=True)
    finally:
        os.close(lock)


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


def _format(sql: sqlite3.Connection, path: Path) -> int:
    """The number of the form in which the file holds its objects. Raises Unavailable where it is not ours."""
    (application,) = sql.execute("PRAGMA application_id").fetchone()
    (stored,) = sql.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise Unavailable(f"{path} is not a routemesh database: {MOVE_AWAY}")
    if stored > FORMAT:
        raise Unavailable(f"{path} is a newer routemesh's (format {stored}; known is {FORMAT}): upgrade this one")
    return int(stored)


def _upgrade(sql: sqlite3.Connection, path: Path, stored: int) -> None:
    """Bring the file to the present format, all or nothing; it must be open nowhere else, or an older daemon would write on."""
    try:
        sql.execute("PRAGMA journal_mode = DELETE")  # refused while another process has a file in WAL mode open
        sql.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY:
            raise
        raise Unavailable(
            f"{path} is of an older routemesh (format {stored}; this one writes {FORMAT}), whose daemons still use it: "
            "stop them all, then start this one; tasks and connections go on meanwhile"
        ) from exc
    try:
        _upgrade_objects(sql, path, stored)
        for number in range(stored, FORMAT):
            for statement in _LAYOUTS.get(number, ()):
                sql.execute(statement)
        sql.execute(f"PRAGMA user_version = {FORMAT}")
        sql.execute("COMMIT")
    finally:
        if sql.in_transaction:
            sql.execute("ROLLBACK")


def _upgrade_objects(sql: sqlite3.Connection, path: Path, stored: int) -> None:
    old: dict[str, dict[str, Json]] = {}
    for kind, key, body in sql.execute("SELECT kind, id, CAST(body AS BLOB) FROM objects WHERE body IS NOT NULL"):
        try:
            old.setdefault(kind, {})[key] = json.loads(body)
        except ValueError as exc:
            raise Unavailable(f"{path} is damaged in {kind} {key} ({exc}): {MOVE_AWAY}") from exc
    new = upgraded(old, stored)
    (newest,) = sql.execute("SELECT coalesce(max(revision), 0) FROM objects").fetchone()
    for kind in {*old, *new}:
        before, after = old.get(kind, {}), new.get(kind, {})
        for key in {*before, *after}:
            if before.get(key) != after.get(key):
                body = json.dumps({**after[key], "revision": newest + 1}) if key in after else None
                sql.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", (kind, key, newest + 1, body))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a line that says what to do. Python's own (text that is not UTF-8) have no code: damage."""
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & _PRIMARY_CODE
        raise Unavailable(f"{path} {_EXPLANATIONS.get(code, _OTHERWISE).format(reason=exc, path=path)}") from exc
