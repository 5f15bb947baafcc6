"""What is mounted below a directory: the namespaces of a lab, whoever gave them their names, and what else there may be.

Source: proc_pid_mountinfo(5).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from routemesh.kernel import netns

_MOUNTS = Path("/proc/self/mountinfo")
_ROOT, _POINT = 3, 4
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class _Mount(NamedTuple):
    root: str
    point: Path


def network_namespaces(directory: Path) -> list[Path]:
    """The files below the directory that are names of network namespaces."""
    return [mount.point for mount in _below(directory) if mount.root.startswith("net:[")]


def detach(directory: Path) -> None:
    """Undo all mounts below the directory, which can be removed then without harm to what was mounted there."""
    for mount in reversed(list(_below(directory))):  # the latest first
        netns.unmount(mount.point)


def _below(directory: Path) -> Iterator[_Mount]:
    place = directory.resolve()
    for line in _MOUNTS.read_bytes().splitlines():
        fields = line.split(b" ")
        mount = _Mount(_text(fields[_ROOT]), Path(_text(fields[_POINT])))
        if place in mount.point.parents:
            yield mount


def _text(field: bytes) -> str:
    """Blanks in a path are written as octal numbers."""
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field).decode(errors="surrogateescape")
