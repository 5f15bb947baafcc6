"""The SQLite store as a file: several processes, crashes, and files that can't be used."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from routemesh.errors import Unavailable
from routemesh.model import Cluster, NetworkId, State
from routemesh.store import sqlite
from routemesh.store.sqlite import SqliteStore
from tests.store.daemon import COUNTER, INCREMENTS, count, increment
from tests.support import require

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
PROCESSES = 4
CRASHES = 5
COUNTS_BEFORE_CRASH = 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cluster.db"


def command(role: str, path: Path) -> list[str]:
    return [sys.executable, "-m", "tests.store.daemon", role, str(path)]


@contextmanager
def daemon(role: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in that role; killed at the end."""
    with subprocess.Popen(command(role, path), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said_by(argv: list[str]) -> list[str]:
    """What a process prints that must end well."""
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S, check=True)
    return done.stdout.splitlines()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path)
    try:
        yield store
    finally:
        await store.close()


def state_of(path: Path) -> State:
    """What a new process would see."""

    async def read() -> State:
        async with opened(path) as store:
            return await store.snapshot()

    return asyncio.run(read())


def counted(path: Path) -> int:
    """Count once more; what the counter then stands at."""

    async def write() -> int:
        async with opened(path) as store:
            return count(await store.update(increment))

    return asyncio.run(write())


def refusal(path: Path) -> str:
    """The message of the error that opening the file must raise."""
    with pytest.raises(Unavailable) as refused:
        state_of(path)
    message = str(refused.value)
    assert str(path) in message and "\n" not in message
    return message


def test_processes_that_start_together_lose_no_increment(path: Path) -> None:
    with ExitStack() as stack:
        for process in [stack.enter_context(daemon("counts", path)) for _ in range(PROCESSES)]:
            assert process.wait(DEADLINE_S) == 0
    assert count(state_of(path)) == PROCESSES * INCREMENTS


def test_a_killed_writer_loses_nothing_and_leaves_no_lock(path: Path) -> None:
    committed = 0
    for _ in range(CRASHES):
        with daemon("counts_for_ever", path) as process:
            for _ in range(COUNTS_BEFORE_CRASH):
                committed = int(line(process))
            process.kill()
        assert counted(path) > committed
        with closing(sqlite3.connect(path)) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_writer_killed_within_a_transaction_leaves_no_trace(path: Path) -> None:
    counted(path)
    with daemon("hangs_while_writing", path) as process:
        assert line(process) == "inside"
    assert counted(path) == 2


def test_watchers_wake_when_the_writer_dies_right_after_its_commit(path: Path) -> None:
    async def follow() -> None:
        async with opened(path) as store, asyncio.timeout(DEADLINE_S):
            wakeups = store.watch()
            await anext(wakeups)
            with daemon("dies_after_commit", path) as process:
                while count(await store.snapshot()) == 0:
                    await anext(wakeups)
                assert process.wait(DEADLINE_S) == -signal.SIGKILL

    asyncio.run(follow())


def another_cluster(state: State) -> State:
    """A change that removes an object and adds one."""
    return replace(state, cluster=Cluster(id=f"c{state.revision}", ingress_id=NetworkId(""), created_at=0.0))


def test_who_is_far_behind_reads_everything_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "KEPT_REVISIONS", 3)

    async def fall_behind() -> None:
        async with opened(path) as mine, opened(path) as other:
            await mine.update(increment)
            await other.update(lambda state: replace(state, services={}))
            for _ in range(10):
                await other.update(another_cluster)
            assert await mine.snapshot() == await other.snapshot()

    asyncio.run(fall_behind())
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT count(*) FROM objects WHERE body IS NULL").fetchone() == (3,)


def test_only_the_owner_may_read_the_files(path: Path) -> None:
    async def modes() -> set[int]:
        async with opened(path) as store:
            await store.update(increment)
            return {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    umask = os.umask(0)
    try:
        assert asyncio.run(modes()) == {0o600}
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_locked_file_can_be_read_and_says_who_to_look_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.01)

    async def meet_the_lock() -> None:
        async with opened(path) as store:
            with closing(sqlite3.connect(path, isolation_level=None)) as raw:
                raw.execute("BEGIN IMMEDIATE")
                with pytest.raises(Unavailable, match=f"{path} has been locked .*fuser {path}"):
                    await store.update(increment)
                assert count(await store.snapshot()) == 0
            assert count(await store.update(increment)) == 1

    asyncio.run(meet_the_lock())


def test_what_is_not_ours_is_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE songs (title TEXT)")
    for content in (path.read_bytes(), b"no database at all" * 100, b""):
        path.write_bytes(content)
        assert "is not a routemesh database: move it away or restore a backup" in refusal(path)
        assert path.read_bytes() == content


def test_a_newer_schema_is_refused(path: Path) -> None:
    counted(path)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 2")
    assert "is a newer routemesh's (schema 2; known is 1): upgrade this one" in refusal(path)


def test_a_damaged_object_is_named(path: Path) -> None:
    counted(path)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE objects SET body = '{\"id\": 7}'")
    assert f"is damaged in service {COUNTER} (Expected `str`, got `int` - at `$.id`): move it away" in refusal(path)


def test_damage_appears_as_such(path: Path) -> None:
    counted(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    assert "is damaged (database disk image is malformed): move it away or restore a backup" in refusal(path)


def test_objects_of_a_kind_that_is_not_known_yet_are_left_alone(path: Path) -> None:
    counted(path)
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("INSERT INTO objects VALUES ('volume', 'n', 2, '{}')")
    assert (state_of(path).revision, counted(path), state_of(path).revision) == (2, 2, 3)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT body FROM objects WHERE kind = 'volume'").fetchone() == ("{}",)


def test_a_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    Path(tmp_path, "file").touch()
    assert f"(File exists: {tmp_path}/file): choose another place" in refusal(tmp_path / "file" / "cluster.db")
    Path(tmp_path, "cluster.db").mkdir()
    assert "can't be opened (unable to open database file): check the permissions" in refusal(tmp_path / "cluster.db")


def test_without_permission_the_message_says_so() -> None:
    require("root")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory, "cluster.db")
        (missing,) = said_by(command("has_no_privilege", path))
        assert f"can't make {path} (Permission denied" in missing
        counted(path)
        path.chmod(0o644)
        (unwritable,) = said_by(command("has_no_privilege", path))
        assert f"{path} can't be" in unwritable and "check the permissions of the file and of its directory" in unwritable


def test_a_full_disk_costs_nothing_that_was_committed(tmp_path: Path) -> None:
    require("root")
    script = 'mount -t tmpfs -o size=2M,mode=0700 tmpfs "$1" && shift && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), *command("fills_the_disk", tmp_path / "cluster.db")]
    before, error, after, at_last = said_by(argv)
    assert (before, after, at_last) == ("1", "1 1", "2")
    assert error == f"{tmp_path}/cluster.db can't grow: its disk is full; nothing was written: free some space"
