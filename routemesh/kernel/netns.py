"""Network namespaces: making, finding, entering, removing them. A namespace's name is a file on which it is mounted.

As `ip netns` does it, in a directory of our own; the namespace lives as long as the file, a process or a socket in it does.
Python 3.11 has no os.setns, hence ctypes. Source: namespaces(7), setns(2), iproute2 ip/ipnetns.c.
"""

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ESTALE
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2
_THIS_THREAD = "/proc/thread-self/ns/net"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NO_IPV6 = tuple(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6" for which in ("all", "default"))


def is_valid_name(name: str) -> bool:
    """Whether a namespace can bear this name: one component of a path."""
    return _NAME.fullmatch(name) is not None


def open_current() -> int:
    """A file descriptor of the calling thread's namespace."""
    return os.open(_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A file descriptor of the namespace at `path`. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def entered(path: Path, identity: int | None = None) -> Iterator[None]:
    """The calling thread is in the namespace at `path`, afterwards where it was.

    Raises OSError when it can't enter, and ESTALE when the namespace has another number than `identity`.
    """
    with opened(path) as target, _returning():
        if identity is not None and os.fstat(target).st_ino != identity:
            raise OSError(ESTALE, f"another namespace is at {path} now")
        _setns(target)
        yield


@contextmanager
def created(path: Path, given: int | None = None) -> Iterator[None]:
    """Make a namespace at `path`, or give that name to the one of the descriptor `given`; the calling thread is in it, afterwards
    where it was.

    IPv6 is off there, so that no link-local address or router solicitation appears. Raises OSError.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        with _returning():
            if given is None:
                _check(_libc.unshare(_CLONE_NEWNET))
            else:
                _setns(given)
            _switch_ipv6_off()
            _check(_libc.mount(_THIS_THREAD.encode(), bytes(path), None, _MS_BIND, None))
            yield
    except BaseException:
        remove(path)
        raise


@contextmanager
def thrown_away() -> Iterator[None]:
    """The calling thread is in a new namespace, afterwards where it was; then that is no more. Raises OSError."""
    with _returning():
        _check(_libc.unshare(_CLONE_NEWNET))
        yield


def remove(path: Path) -> None:
    """Take the namespace's name away; fine when it is gone.

    Removing the file also undoes the mounts that other mount namespaces have of it (kernel >= 3.18).
    """
    unmount(path)
    path.unlink(missing_ok=True)


def unmount(path: Path) -> None:
    """Undo what is mounted there, at once for those who look for it, even where it is in use; fine when nothing is."""
    while _libc.umount2(bytes(path), _MNT_DETACH) == 0:
        pass


def identities(directory: Path) -> dict[str, int]:
    """The namespaces below `directory` by name, each with the number that the kernel gave it.

    A mere file is none, nor is what bears a name that none of ours can have.
    """
    found = {}
    device = os.stat(_THIS_THREAD).st_dev
    names = filter(is_valid_name, os.listdir(directory) if directory.exists() else ())
    for name in names:
        with suppress(FileNotFoundError):  # gone since
            status = os.stat(directory / name)
            if status.st_dev == device:
                found[name] = status.st_ino
    return found


@contextmanager
def _returning() -> Iterator[None]:
    with opened(Path(_THIS_THREAD)) as home:
        try:
            yield
        finally:
            _setns(home)


def _switch_ipv6_off() -> None:
    for setting in _NO_IPV6:
        try:
            Path(setting).write_text("1")
        except FileNotFoundError:
            return  # a kernel without IPv6


def _setns(file: int) -> None:
    _check(_libc.setns(file, _CLONE_NEWNET))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
