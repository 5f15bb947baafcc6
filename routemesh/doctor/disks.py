"""File systems that are full, nearly full or read-only. PURE."""

from collections.abc import Iterable, Iterator

from routemesh.doctor import Finding, Severity
from routemesh.doctor.facts import Facts
from routemesh.sightings import DISK_SUBJECT, Disk, Shortage, shortages

_WRONG = frozenset({Shortage.READ_ONLY, Shortage.FULL, Shortage.NO_INODES})


def is_told(failure: str, disks: Iterable[Disk]) -> bool:
    """Whether a node tells by that line among its failures what it tells of its disks."""
    return failure == f"{DISK_SUBJECT}: {shortages(disks)}"


def findings(facts: Facts) -> Iterator[Finding]:
    """Of all nodes."""
    for name, node in facts.nodes.items():
        for disk in node.disks:
            if (short := disk.shortage) is not None:
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
        state=Severity.WRONG if short in _WRONG else Severity.OPTIONAL,
        found=disk.line(short) + (f": {numbers}" if numbers else ""),
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
