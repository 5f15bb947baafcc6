"""Which node this daemon is: what it holds so that there is one of it, and which cluster it belonged to.

A node is known by an identity that its first daemon makes and its data directory keeps. It holds three locks (flock(2)): of the
network namespace, of the data directory and of the run directory. A namespace's lock is on the file by which the kernel shows it
(nsfs), one and the same whatever is mounted where, and gone with the process.
"""

import fcntl
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from routemesh.errors import Conflict, RoutemeshError, Unavailable

log = logging.getLogger(__name__)

_NAMESPACE = Path("/proc/self/ns/net")
_IDENTITY, _CLUSTER, _RUN_LOCK = "identity", "cluster", "node.lock"


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a lock: pid 0 where it can't be seen."""

    pid: int
    user: int

    def __str__(self) -> str:
        return f"process {self.pid}" if self.pid else "a process that can't be seen from here"


@contextmanager
def alone(run_dir: Path, data_dir: Path) -> Iterator[str]:
    """Be the only daemon of the network namespace and of both directories, which must exist; yields the node's identity.

    Raises Conflict that names who is there already, and Unavailable where a directory can't be written.
    """
    with ExitStack() as held:
        _lock_namespace(held)
        identity = data_dir / _IDENTITY
        for path in (identity, run_dir / _RUN_LOCK):
            _lock(held, path, f"a routemesh node already uses {path.parent}")
        try:
            yield _identity(identity)
        except OSError as exc:
            raise Unavailable(f"can't write {identity}: {exc.strerror}: the node's identity is kept there") from exc


@contextmanager
def traceless(run_dir: Path, data_dir: Path) -> Iterator[Callable[[], None]]:
    """Remove what was not there before of a node's own files and directories, if the block ends by a RoutemeshError.

    Not once what it yields was called, nor when the node has joined a cluster; what holds anything else stays.
    """
    files = (data_dir / _IDENTITY, run_dir / _RUN_LOCK)
    directories = dict.fromkeys(each for directory in (run_dir, data_dir) for each in (directory, *directory.parents))
    made = (path for path in (*files, *directories) if not path.exists())
    fresh = sorted(made, key=lambda path: -len(path.parts))  # what is in a directory goes first
    keep = False

    def kept() -> None:
        nonlocal keep
        keep = True

    try:
        yield kept
    except RoutemeshError:
        if not keep and not past_cluster(run_dir, data_dir):
            for path in fresh:
                with suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()
        raise


def _lock_namespace(held: ExitStack) -> None:
    """A user who is not root can hold this lock, too, but can't be a daemon: he keeps nobody from being one."""
    try:
        _lock(held, _NAMESPACE, "a routemesh node already runs in this network namespace")
    except _Taken as taken:
        if not taken.by.pid or taken.by.user == 0:
            raise
        log.warning("%s of user %d holds the lock of the network namespace (%s)", taken.by, taken.by.user, _NAMESPACE)


class _Taken(Conflict):
    def __init__(self, what: str, by: Holder) -> None:
        super().__init__(f"{what} ({by}): a machine is one node; stop that one first")
        self.by = by


def _lock(held: ExitStack, path: Path, what: str) -> None:
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if path.exists() else os.O_CREAT)
    try:
        file = os.open(path, flags, 0o600)
    except OSError as exc:
        raise Unavailable(f"can't open {path}: {exc.strerror}") from exc
    held.callback(os.close, file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _Taken(what, _holder(file)) from None


def _holder(file: int) -> Holder:
    """The holder of a lock on an open file. Source: proc_locks(5)."""
    status = os.fstat(file)
    where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5] == where and int(words[4]) > 0:
            pid = int(words[4])
            try:
                return Holder(pid, os.stat(f"/proc/{pid}").st_uid)
            except OSError:
                break  # gone since
    return Holder(0, 0)


def _identity(path: Path) -> str:
    known = path.read_text().strip()
    if known:
        return known
    made = secrets.token_hex(16)
    path.write_text(f"{made}\n")
    return made


@dataclass(frozen=True, slots=True)
class Past:
    """What a node knows of before: the cluster that it belonged to ("": none is known), and how many tasks of it are here."""

    cluster: str
    tasks: int

    def __bool__(self) -> bool:
        return bool(self.cluster) or self.tasks > 0

    def __str__(self) -> str:
        of = f"cluster {self.cluster}" if self.cluster else "a cluster"
        return f"{of}, of which {self.tasks} {'task is' if self.tasks == 1 else 'tasks are'} here" if self.tasks else of


def past_cluster(run_dir: Path, data_dir: Path) -> str:
    """The id of the cluster that the node belonged to, as either directory has it; "" where none does."""
    for directory in (data_dir, run_dir):
        try:
            return (directory / _CLUSTER).read_text().strip()
        except OSError:
            continue
    return ""


def remember_cluster(cluster: str, run_dir: Path, data_dir: Path) -> None:
    """Leave the cluster's id in both directories: the disk of one may not be there the next time. Raises Unavailable."""
    for directory in (data_dir, run_dir):
        path = directory / _CLUSTER
        try:
            if not path.exists() or path.read_text().strip() != cluster:
                path.write_text(f"{cluster}\n")
        except OSError as exc:
            raise Unavailable(f"can't write {path}: {exc.strerror}") from exc


def forget_cluster(run_dir: Path, data_dir: Path) -> None:
    """Take away the cluster's id and the node's identity: a node that joins again is another one. A second call does nothing."""
    for path in (data_dir / _CLUSTER, run_dir / _CLUSTER, data_dir / _IDENTITY):
        path.unlink(missing_ok=True)
