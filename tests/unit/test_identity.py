"""There is one daemon of a network namespace, of a data directory and of a run directory; a node knows itself again."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from routemesh import identity
from routemesh.errors import Conflict, Unavailable
from tests.support import require

HOLD = """
import sys; from pathlib import Path; from routemesh.identity import alone
with alone(Path(sys.argv[1]), Path(sys.argv[2])) as known_as:
    print(known_as, flush=True); sys.stdin.read()
"""
FLOCK = """
import fcntl, os, sys
os.setuid(65534); fcntl.flock(os.open("/proc/self/ns/net", os.O_RDONLY), fcntl.LOCK_EX)
print("held", flush=True); sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _needs() -> None:
    require("root", "netns")


@contextmanager
def other(code: str, *args: object, namespace: tuple[str, ...] = ()) -> Iterator[tuple[int, str]]:
    """Another process that holds what it says; its pid and its first line."""
    command = [*namespace, sys.executable, "-c", code, *map(str, args)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.kill()


def directories(place: Path, name: str) -> tuple[Path, Path]:
    run, data = place / name / "run", place / name / "data"
    for directory in (run, data):
        directory.mkdir(parents=True, exist_ok=True)
    return run, data


IN_A_NAMESPACE = ("unshare", "--net")


def refused(run: Path, data: Path, namespace: tuple[str, ...] = IN_A_NAMESPACE) -> str:
    """What a daemon is told."""
    done = subprocess.run(
        [*namespace, sys.executable, "-c", HOLD, run, data], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 1, done
    return done.stderr.strip().splitlines()[-1]


def test_an_identity_is_made_once_and_kept(tmp_path: Path) -> None:
    run, data = directories(tmp_path, "a")
    seen = set()
    for _ in range(2):
        with other(HOLD, run, data, namespace=IN_A_NAMESPACE) as (_, known_as):
            seen.add(known_as)
    assert len(seen) == 1 and len(seen.pop()) == 32
    assert (data / "identity").stat().st_mode & 0o777 == 0o600


def test_two_daemons_share_neither_directory(tmp_path: Path) -> None:
    (run, data), (other_run, other_data) = directories(tmp_path, "a"), directories(tmp_path, "b")
    with other(HOLD, run, data, namespace=IN_A_NAMESPACE) as (pid, _):
        assert f"a routemesh node already uses {data} (process {pid}): a machine is one node; stop that one first" in refused(
            other_run, data
        )
        assert f"a routemesh node already uses {run} (process {pid})" in refused(run, other_data)
        with other(HOLD, other_run, other_data, namespace=IN_A_NAMESPACE) as (_, known_as):
            assert known_as


def beside(pid: int, *options: str) -> tuple[str, ...]:
    """In the network namespace of a process."""
    return ("nsenter", f"--net=/proc/{pid}/ns/net", *options)


def test_two_daemons_share_no_network_namespace_whatever_their_directories(tmp_path: Path) -> None:
    (run, data), (other_run, other_data) = directories(tmp_path, "a"), directories(tmp_path, "b")
    with other("print(flush=True); input()", namespace=IN_A_NAMESPACE) as (there, _):
        with other(HOLD, run, data, namespace=beside(there)) as (pid, _):
            refusal = refused(other_run, other_data, beside(there, "unshare", "--mount"))
            assert f"a routemesh node already runs in this network namespace (process {pid}): a machine is one node" in refusal
        with other(HOLD, other_run, other_data, namespace=beside(there)) as (_, known_as):
            assert known_as, "the lock outlived its holder"


def test_a_user_who_is_not_root_keeps_nobody_from_being_a_daemon(tmp_path: Path) -> None:
    run, data = directories(tmp_path, "a")
    with other(FLOCK, namespace=IN_A_NAMESPACE) as (user, said):
        assert said == "held"
        with other(HOLD, run, data, namespace=beside(user)) as (_, known_as):
            assert len(known_as) == 32


def test_a_directory_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    run, data = directories(tmp_path, "a")
    expected = pytest.raises(Unavailable, match=f"can't open {data / 'no' / 'identity'}: No such file")
    with expected, _in_no_namespace(), identity.alone(run, data / "no"):
        pass


@contextmanager
def _in_no_namespace() -> Iterator[None]:
    """The tests' own network namespace may have a daemon; what is tested here is behind its lock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "_lock_namespace", lambda held: None)
        yield


# The cluster that it belonged to.


def test_a_cluster_is_remembered_though_one_directory_is_lost(tmp_path: Path) -> None:
    run, data = directories(tmp_path, "a")
    assert identity.past_cluster(run, data) == ""
    identity.remember_cluster("c1", run, data)
    assert identity.past_cluster(run, data) == "c1"
    for lost in (run, data):
        (lost / "cluster").rename(lost / "elsewhere")
        assert identity.past_cluster(run, data) == "c1"
        (lost / "elsewhere").rename(lost / "cluster")
    identity.remember_cluster("c2", run, data)
    assert {(directory / "cluster").read_text() for directory in (run, data)} == {"c2\n"}


@pytest.mark.parametrize(
    ("past", "known", "words"),
    [
        (identity.Past("", 0), False, "a cluster"),
        (identity.Past("c1", 0), True, "cluster c1"),
        (identity.Past("", 1), True, "a cluster, of which 1 task is here"),
        (identity.Past("c1", 2), True, "cluster c1, of which 2 tasks are here"),
    ],
)
def test_what_is_known_of_the_past_in_words(past: identity.Past, known: bool, words: str) -> None:
    assert (bool(past), str(past)) == (known, words)


def test_a_lock_is_found_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    mine, again = (os.open(path, os.O_RDONLY) for _ in range(2))
    try:
        fcntl.flock(mine, fcntl.LOCK_EX)
        assert identity._holder(again) == identity.Holder(os.getpid(), 0)
        fcntl.flock(mine, fcntl.LOCK_UN)
        assert identity._holder(again) == identity.Holder(0, 0)
    finally:
        os.close(mine)
        os.close(again)


def test_a_start_that_is_refused_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    run, data = tmp_path / "a" / "run", tmp_path / "data"

    def begin(*, refused: bool = True, going: bool = False, cluster: str = "") -> None:
        with identity.traceless(run, data) as kept:
            for directory in (run, data):
                directory.mkdir(parents=True, exist_ok=True)
            for path in (data / "identity", run / "node.lock"):
                path.touch()
            if cluster:
                identity.remember_cluster(cluster, run, data)
            if going:
                kept()
            if refused:
                raise Conflict("can't join")

    with pytest.raises(Conflict):
        begin()
    assert list(tmp_path.iterdir()) == []
    tmp_path.joinpath("data").mkdir()
    tmp_path.joinpath("data", "theirs").touch()
    with pytest.raises(Conflict):
        begin()
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "theirs"]
    with pytest.raises(Conflict):
        begin(going=True)
    assert (data / "identity").exists(), "it was a node for a while"
    with pytest.raises(Conflict):
        begin()
    assert (data / "identity").exists(), "an earlier daemon made it"
    (data / "identity").unlink()
    with pytest.raises(Conflict):
        begin(cluster="c1")
    assert (data / "identity").exists(), "the cluster knows it"


def test_a_directory_that_both_of_a_nodes_are_in_goes_as_well(tmp_path: Path) -> None:
    run, data = tmp_path / "a" / "run", tmp_path / "a" / "data"
    with pytest.raises(Conflict), identity.traceless(run, data):
        for directory in (run, data):
            directory.mkdir(parents=True)
        raise Conflict("can't join")
    assert list(tmp_path.iterdir()) == []
