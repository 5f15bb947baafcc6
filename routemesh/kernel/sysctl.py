"""Kernel settings below /proc/sys/net, of the namespace that the calling thread is in.

Source: sysctl(8), Linux Documentation/networking/ip-sysctl.rst.
"""

import os
import re
from errno import EINVAL

from routemesh.legible import decoded

_PATH = re.compile(r"net(/(?!\.\.?(/|$))[^/\s\0]+)+")
"""A device's name in it may be anything without a slash, a colon or a space. Source: the kernel's dev_valid_name."""
_LONGEST_BYTES = 4096


def read(path: str) -> str | None:
    """A setting's value, its fields separated by single spaces; None when there is no such setting."""
    try:
        file = opened(path)
    except OSError:
        return None
    try:
        return " ".join(decoded(os.read(file, _LONGEST_BYTES)).split())
    finally:
        os.close(file)


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


def _file(path: str) -> str:
    if _PATH.fullmatch(path) is None:
        raise OSError(EINVAL, "only settings below net/ belong to a namespace")
    return f"/proc/sys/{path}"
