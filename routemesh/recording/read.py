"""Recordings on the disk."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from routemesh.errors import UserError
from routemesh.recording import cluster
from routemesh.recording.namespace import HOST_DIRECTORY
from routemesh.snapshot import ClusterSnapshot

_MAX_BYTES = 64 << 20
_SUFFIXES = frozenset({".txt", ".json"})


def read(directories: Sequence[Path]) -> ClusterSnapshot:
    """The cluster that is recorded in directories: each a node's (with host/ in it) or one with such directories in it.

    Raises UserError for a directory that is neither, or that can't be read.
    """
    found: dict[str, Mapping[str, str]] = {}
    for directory in directories:
        for node in _nodes(directory):
            found[_name(node, found)] = _texts(node)
    return cluster(found)


def _nodes(directory: Path) -> list[Path]:
    if (directory / HOST_DIRECTORY).is_dir():
        return [directory]
    try:
        inside = sorted(entry for entry in directory.iterdir() if (entry / HOST_DIRECTORY).is_dir())
    except OSError as error:
        raise UserError(f"recording {directory} can't be read: {error.strerror}") from error
    if not inside:
        raise UserError(f"{directory} is not a recording: neither it nor a directory in it has a directory {HOST_DIRECTORY}")
    return inside


def _name(node: Path, taken: Mapping[str, object]) -> str:
    """The directory's own name, as much of its path as makes it different from the others'."""
    parts = node.resolve().parts
    return next(
        (name for length in range(1, len(parts)) if (name := "/".join(parts[-length:])) not in taken),
        str(node),
    )


def _texts(node: Path) -> Mapping[str, str]:
    return dict(_read(node))


def _read(node: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(node.rglob("*")):
        if path.suffix in _SUFFIXES and path.is_file():
            try:
                if path.stat().st_size > _MAX_BYTES:
                    raise UserError(f"{path} is larger than {_MAX_BYTES >> 20} MiB: no file of a recording")
                yield str(path.relative_to(node)), path.read_text(errors="replace")
            except OSError as error:
                raise UserError(f"{path} can't be read: {error.strerror}") from error
