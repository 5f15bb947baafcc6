"""The SQLite store as a file: several processes, crashes, and files that can't be used."""

import asyncio
import base64
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from routemesh.errors import Unavailable
from routemesh.model import Cluster, NetworkId, Secret, SecretId, State
from routemesh.store import format as form
from routemesh.store import sqlite, sqlitefile
from routemesh.store.codec import encode
from routemesh.store.format import FORMAT
from routemesh.store.sqlite import SqliteStore
from routemesh.values import replace
from tests.store.daemon import COUNTER, INCREMENTS, count, increment
from tests.support import patience, require, wait_until

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
def daemon(role: str, path: Path, stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another process in that role; killed at the end."""
    with subprocess.Popen(command(role, path), cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said_by(argv: list[str]) -> list[str]:
    """What a process prints that must end well."""
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S * patience(), check=True)
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
            assert process.wait(DEADLINE_S * patience()) == 0
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
        async with opened(path) as store, asyncio.timeout(DEADLINE_S * patience()):
            wakeups = store.watch()
            await anext(wakeups)
            with daemon("dies_after_commit", path) as process:
                while count(await store.snapshot()) == 0:
                    await anext(wakeups)
                assert process.wait(DEADLINE_S * patience()) == -signal.SIGKILL

    asyncio.run(follow())


def test_leases_are_prolonged_while_their_daemon_is_loaded_and_no_others(path: Path) -> None:
    beats = "SELECT name, value, beat FROM leases ORDER BY name"

    async def two_leases() -> None:
        async with opened(path) as store:
            assert await store.renew("node/mine", "me", 5.0, 7)
            assert await store.renew("node/other", "them", 5.0, 8)

    asyncio.run(two_leases())
    with closing(sqlite3.connect(path)) as raw:
        before = raw.execute(beats).fetchall()
        with daemon("prolongs", path, stdin=subprocess.PIPE) as process:
            assert line(process) == "prolongs"
            for _ in range(2):
                mine, other = before
                wait_until(lambda: raw.execute(beats).fetchone() != mine, DEADLINE_S)  # noqa: B023
                before = raw.execute(beats).fetchall()
                assert before[0][:2] == ("node/mine", 7)
                assert before[1] == other
            process.communicate(timeout=DEADLINE_S * patience())
            assert process.returncode == 0


@pytest.mark.parametrize("what", ["nothing", "text", "older"])
def test_only_what_is_ours_and_of_this_format_is_opened_to_prolong(path: Path, what: str) -> None:
    if what == "text":
        path.parent.mkdir()
        path.write_text("not a database")
    if what == "older":
        make_format_1(path)
    before = {each.name: each.read_bytes() for each in path.parent.glob("*")}
    with daemon("prolongs", path, stdin=subprocess.PIPE) as process:
        process.communicate(timeout=DEADLINE_S * patience())
        assert process.returncode == 0
    assert {each.name: each.read_bytes() for each in path.parent.glob("*")} == before


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
    monkeypatch.setattr(sqlitefile, "BUSY_TIMEOUT_S", 0.01)

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


def test_a_newer_format_is_refused(path: Path) -> None:
    counted(path)
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA user_version = 3")
    assert "is a newer routemesh's (format 3; known is 2): upgrade this one" in refusal(path)


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


# A file that is not what it was.


def test_a_file_that_was_moved_away_or_replaced_is_told_and_used_again_when_it_is_back(path: Path) -> None:
    async def lose() -> None:
        async with opened(path) as store, opened(path) as other:
            await store.update(increment)
            path.rename(path.with_name("moved"))
            for _ in range(2):
                for attempt in (store.snapshot(), store.update(increment), store.renew("a", "b", 1.0), store.leases()):
                    with pytest.raises(Unavailable, match="is gone, or another file than this daemon opened"):
                        await attempt
                path.touch()
            path.with_name("moved").rename(path)
            assert count(await store.update(increment)) == count(await other.snapshot()) == 2

    asyncio.run(lose())


def test_nothing_is_left_of_a_removed_secret(path: Path) -> None:
    key = b"-----BEGIN PRIVATE KEY-----"
    secret = Secret(id=SecretId("s"), name="cert", created_at=0.0, data=key * 2000)
    stored = base64.b64encode(key * 3)[:60]

    def files() -> bytes:
        return b"".join(file.read_bytes() for file in path.parent.iterdir())

    async def come_and_go() -> None:
        async with opened(path) as store, opened(path) as other:
            await store.update(lambda state: replace(state, secrets={secret.id: secret}))
            assert stored in files()
            with closing(sqlite3.connect(path, isolation_level=None)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM objects").fetchone()
                await other.update(lambda state: replace(state, secrets={}))
                assert (await store.snapshot()).secrets == {}
            await other.renew("node/a", "a", 5.0)
            assert stored not in files()
            assert (await store.update(increment)).revision == 3

    asyncio.run(come_and_go())


# Formats.

FORMAT_1 = ROOT / "tests/data/store/format-1.sql"
"""What the last version before the second format left: its cluster, with every kind of object."""


def make_format_1(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(FORMAT_1.read_text())
        raw.execute("PRAGMA journal_mode = WAL")


def raw_objects(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    with closing(sqlite3.connect(path)) as raw:
        rows = raw.execute("SELECT kind, id, body FROM objects WHERE body IS NOT NULL")
        return {(kind, key): json.loads(body) for kind, key, body in rows}


MOVED = {
    "cluster": {"ingress_subnet", "vni"},
    "node": {"ingress_address"},
    "service": {"vip"},
    "task": {"address"},
    "secret": set[str](),
}
"""What the first format had elsewhere."""


def as_before(now: Any, before: Any) -> Any:
    """A value without the fields that came later."""
    if isinstance(now, dict) and isinstance(before, dict):
        return {field: as_before(now[field], value) for field, value in before.items() if field in now}
    return now


def test_a_state_of_the_first_format_is_read_whole(path: Path) -> None:
    make_format_1(path)
    stored = raw_objects(path)
    state = state_of(path)
    assert {kind for kind, _ in stored} == set(MOVED)
    assert state.ingress is not None and state.cluster is not None
    assert (state.ingress.name, str(state.ingress.subnet), state.ingress.vni) == ("ingress", "10.0.0.0/24", 4096)
    tables: dict[str, Mapping[Any, Any]] = {
        "cluster": {state.cluster.id: state.cluster},
        "node": state.nodes,
        "service": state.services,
        "task": state.tasks,
        "secret": state.secrets,
    }
    assert sum(map(len, tables.values())) == len(stored)
    for (kind, key), body in stored.items():
        value = tables[kind][key]
        read = json.loads(encode(kind, value))
        stayed = {field: body[field] for field in body.keys() - MOVED[kind] - {"revision"}}
        assert as_before(read, stayed) == stayed, f"{kind} {key}"
        if kind in ("node", "service", "task"):
            (field,) = MOVED[kind]
            address = state.on_ingress(value.vips if kind == "service" else value.attachments)
            assert body[field] == (None if address is None else str(address)), f"{kind} {key}"
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    assert counted(path) == 1


def test_leases_of_the_first_format_do_not_count_and_are_taken_anew(path: Path) -> None:
    make_format_1(path)

    async def take() -> None:
        async with opened(path) as store:
            assert await store.leases() == {}
            assert await store.renew("leader", "id-node2", 4.0)

    asyncio.run(take())


def test_there_is_a_step_from_every_format() -> None:
    assert sorted(form.STEPS) == list(range(1, FORMAT))


def test_each_step_is_taken_once_and_what_it_changed_has_a_new_revision(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invented format, in which nodes have no engine and secrets are gone."""
    make_format_1(path)

    def to_3(objects: form.Objects) -> form.Objects:
        nodes = {key: {**node, "engine": "invented"} for key, node in objects["node"].items()}
        return {**objects, "node": nodes, "secret": {}}

    monkeypatch.setattr(form, "STEPS", {**form.STEPS, FORMAT: to_3})
    for module in (form, sqlitefile):
        monkeypatch.setattr(module, "FORMAT", FORMAT + 1)
    for _ in range(2):
        state = state_of(path)
        assert {node.engine for node in state.nodes.values()} == {"invented"} and state.secrets == {}
        assert state.revision == 12 == next(iter(state.nodes.values())).revision


def test_what_a_step_leaves_as_it_was_keeps_its_revision(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_format_1(path)
    monkeypatch.setattr(form, "STEPS", {1: lambda objects: {**objects, "node": {}}})
    state = state_of(path)
    assert state.nodes == {} and state.revision == 12
    assert {service.revision for service in state.services.values()} == {5}


def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_format_1(path)
    before = raw_objects(path)

    def fail(objects: form.Objects) -> form.Objects:
        raise RuntimeError("no")

    monkeypatch.setattr(form, "STEPS", {1: fail})
    with pytest.raises(RuntimeError):
        state_of(path)
    monkeypatch.undo()
    assert raw_objects(path) == before
    assert len(state_of(path).nodes) == 3


def test_a_file_that_older_daemons_use_is_not_upgraded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlitefile, "BUSY_TIMEOUT_S", 0.05)
    make_format_1(path)
    with closing(sqlite3.connect(path)) as older:
        older.execute("SELECT count(*) FROM leases").fetchone()
        message = refusal(path)
        assert "is of an older routemesh (format 1; this one writes 2), whose daemons still use it: stop them all" in message
        assert older.execute("PRAGMA user_version").fetchone() == (1,)
        assert older.execute("SELECT expires_at FROM leases").fetchall()
    assert len(state_of(path).nodes) == 3


def test_daemons_that_start_together_upgrade_once(path: Path) -> None:
    make_format_1(path)
    with ExitStack() as stack:
        for process in [stack.enter_context(daemon("counts", path)) for _ in range(PROCESSES)]:
            assert process.wait(DEADLINE_S * patience()) == 0
    assert count(state_of(path)) == PROCESSES * INCREMENTS
