"""File systems that are full, nearly full or read-only. PURE."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from routemesh.doctor import Finding, State
from routemesh.doctor.facts import Facts
from routemesh.sightings import Disk

SUBJECT = "disk"
"""How lines about disks begin among what is wrong with a node."""
_NEARLY = 0.9
_LEAST_BYTES, _LEAST_INODES = 1 << 20, 16
"""With less than that nothing of use can be written."""


class Shortage(StrEnum):
    """What a file system is short of, in words that follow its name."""

    READ_ONLY = "is read-only"
    FULL = "is full"
    NO_INODES = "has no inodes left"
    NEARLY_FULL = "is nearly full"
    FEW_INODES = "has few inodes left"


_WRONG = frozenset({Shortage.READ_ONLY, Shortage.FULL, Shortage.NO_INODES})


def shortage(disk: Disk) -> Shortage | None:
    """The worst of what is wrong with it. One that does not count inodes, or bytes (0 of them), is short of none."""
    if disk.read_only:
        return Shortage.READ_ONLY
    if disk.size_bytes and disk.free_bytes < min(_LEAST_BYTES, disk.size_bytes):
        return Shortage.FULL
    if disk.inodes and disk.free_inodes < min(_LEAST_INODES, disk.inodes):
        return Shortage.NO_INODES
    if disk.free_bytes < (1 - _NEARLY) * disk.size_bytes:
        return Shortage.NEARLY_FULL
    return Shortage.FEW_INODES if disk.free_inodes < (1 - _NEARLY) * disk.inodes else None


def lines(disks: Iterable[Disk]) -> str:
    """The same of several for a list of nodes, always the same for the same shortages; "" for none."""
    return "; ".join(_line(disk, short) for disk in disks if (short := shortage(disk)) is not None)


def is_told(failure: str, disks: Iterable[Disk]) -> bool:
    """Whether a node tells by that line among its failures what it tells of its disks."""
    return failure == f"{SUBJECT}: {lines(disks)}"


def _line(disk: Disk, short: Shortage) -> str:
    return f"the file system of {disk.path} {short}"


def findings(facts: Facts) -> Iterator[Finding]:
    """Of all nodes."""
    for name, node in facts.nodes.items():
        for disk in node.disks:
            if (short := shortage(disk)) is not None:
                yield _finding(name, disk, short)


def _finding(node: str, disk: Disk, short: Shortage) -> Finding:
    numbers = f"{_bytes(disk.free_bytes)} of {_bytes(disk.size_bytes)} are free"
    effect = "the cluster's state can't be written, tasks may not start, and what they write is lost"
    match short:
        case Shortage.READ_ONLY:
            numbers, fix = "", f"see why (dmesg), then mount -o remount,rw $(findmnt -nT {disk.path} -o TARGET)"
        case Shortage.FULL | Shortage.NEARLY_FULL:
            fix = f"make room (df -h {disk.path}), or keep less of what tasks write (--log-opt max-size=…, max-file=…)"
        case Shortage.NO_INODES | Shortage.FEW_INODES:
            numbers, fix = f"{disk.free_inodes} of {disk.inodes} are free", f"delete small files (df -i {disk.path})"
    return Finding(
        what="disk",
        where=node,
        state=State.WRONG if short in _WRONG else State.OPTIONAL,
        found=_line(disk, short) + (f": {numbers}" if numbers else ""),
        effect=effect if short in _WRONG else f"when nothing is left, {effect}",
        fix=f"on {node}: {fix}",
    )


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
