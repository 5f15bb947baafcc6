"""Kernel settings below /proc/sys/net, of the namespace that the calling thread is in.

Source: sysctl(8), Linux Documentation/networking/ip-sysctl.rst.
"""

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from errno import EINVAL
from functools import cache

from routemesh.legible import decoded

_PATH = re.compile(r"net(/(?!\.\.?(/|$))[^/\s\0]+)+")
"""A device's name in it may be anything without a slash, a colon or a space. Source: the kernel's dev_valid_name."""
_ROOT = "/proc/sys"
_LONGEST_BYTES = 4096


def read(path: str) -> str | None:
    """A setting's value, its fields separated by single spaces; None when there is no such setting."""
    try:
        file = opened(path)
    except OSError:
        return None
    return _value(file)


def read_all(paths: Iterable[str]) -> dict[str, str]:
    """The values of those settings that there are; each directory is opened once.

    The kernel looks for a name among those of all namespaces: with two thousand of them a whole path costs 0.3 ms, a name in an
    open directory a quarter of that. Source: the kernel's proc_sys_compare.
    """
    with ExitStack() as undo:

        @cache
        def directory(path: str) -> int | None:
            above, _, name = path.rpartition("/")
            file = _opened_in(directory(above), name, os.O_PATH | os.O_DIRECTORY) if path else os.open(_ROOT, os.O_PATH)
            if file is not None:
                undo.callback(os.close, file)
            return file

        return {
            path: value for path in paths if (value := _read_in(directory(_checked(path).rpartition("/")[0]), path)) is not None
        }


def _read_in(directory: int | None, path: str) -> str | None:
    file = _opened_in(directory, path.rpartition("/")[2], os.O_RDONLY)
    return None if file is None else _value(file)


def _opened_in(directory: int | None, name: str, flags: int) -> int | None:
    if directory is not None:
        with suppress(OSError):
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=directory)
    return None


def opened(path: str) -> int:
    """A descriptor by which the setting of this namespace can be read from any. Raises OSError."""
    return os.open(_file(path), os.O_RDONLY | os.O_CLOEXEC)


def exists(path: str) -> bool:
    """Whether there is such a setting."""
    try:
        return os.path.exists(_file(path))
    except OSError:
        return False


def write(path: str, value: str) -> None:
    """Set a value. Raises OSError."""
    file = os.open(_file(path), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, value.encode())
    finally:
        os.close(file)


def _value(file: int) -> str:
    """Its fields; the file is closed."""
    try:
        return " ".join(decoded(os.read(file, _LONGEST_BYTES)).split())
    finally:
        os.close(file)


def _file(path: str) -> str:
    return f"{_ROOT}/{_checked(path)}"


def _checked(path: str) -> str:
    if _PATH.fullmatch(path) is None:
        raise OSError(EINVAL, "only settings below net/ belong to a namespace")
    return path
