"""How full the file systems are on which a node keeps what it needs. Source: statvfs(3)."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from routemesh.sightings import Disk


def disks(paths: Iterable[Path]) -> Iterator[Disk]:
    """The file systems of these directories, each once; one that can't be asked is left out. May block as the disk does."""
    seen: set[int] = set()
    for path in paths:
        try:
            device, found = path.stat().st_dev, os.statvfs(path)
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            yield Disk(
                path=str(path),
                size_bytes=found.f_blocks * found.f_frsize,
                free_bytes=found.f_bavail * found.f_frsize,
                inodes=found.f_files,
                free_inodes=found.f_favail,
                read_only=bool(found.f_flag & os.ST_RDONLY),
            )
