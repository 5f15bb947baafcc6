"""Disks that are short of something: which, what that costs, and that a node tells it once."""

from pathlib import Path

import pytest

from routemesh.doctor import Severity
from routemesh.doctor.disks import findings, is_told
from routemesh.doctor.facts import Facts, NodeFacts
from routemesh.sight.disks import disks
from routemesh.sightings import Disk, Shortage, shortages

GB = 10**9


def disk(
    free: int = 50 * GB, free_inodes: int = 1000, *, read_only: bool = False, size: int = 100 * GB, inodes: int = 2000
) -> Disk:
    return Disk(path="/data", size_bytes=size, free_bytes=free, inodes=inodes, free_inodes=free_inodes, read_only=read_only)


@pytest.mark.parametrize(
    ("found", "short", "state"),
    [
        (disk(), None, None),
        (disk(read_only=True, free=0), Shortage.READ_ONLY, Severity.WRONG),
        (disk(free=0), Shortage.FULL, Severity.WRONG),
        (disk(free=4096), Shortage.FULL, Severity.WRONG),
        (disk(free_inodes=0), Shortage.NO_INODES, Severity.WRONG),
        (disk(free=9 * GB), Shortage.NEARLY_FULL, Severity.OPTIONAL),
        (disk(free=11 * GB), None, None),
        (disk(free_inodes=199), Shortage.FEW_INODES, Severity.OPTIONAL),
        (disk(inodes=0, free_inodes=0), None, None),  # btrfs counts none
        (disk(size=0, free=0, inodes=0, free_inodes=0), None, None),
        (disk(size=4096, free=4096), None, None),
    ],
)
def test_what_a_disk_is_short_of(found: Disk, short: Shortage | None, state: Severity | None) -> None:
    assert found.shortage is short
    told = list(findings(Facts(nodes={"node1": NodeFacts(node="node1", disks=(found,))})))
    assert [each.state for each in told] == ([] if state is None else [state])
    assert shortages([found]) == ("" if short is None else f"the file system of /data {short}")
    assert is_told(f"disk: the file system of /data {short}", [found]) == (short is not None)


def test_file_systems_are_told_once_and_missing_directories_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (found,) = disks([tmp_path, tmp_path / "a", tmp_path / "none"])
    assert (found.path, found.read_only) == (str(tmp_path), False)
    assert 0 < found.free_bytes <= found.size_bytes


def test_a_kernels_own_file_system_that_nobody_can_write_is_read_only_or_counts_nothing() -> None:
    assert [each.shortage for each in disks([Path("/proc")])] == [None]
