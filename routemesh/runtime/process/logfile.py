"""A task's log: one file that the task appends to, read by lines from its end or as it grows, and kept from growing for ever.

Nobody copies the output: the task's standard output and error are the file itself, opened for appending, so both are
in the order in which they were written, and it goes on while no daemon runs. Therefore the file can't be rotated either.
`trim` gives its older part back to the file system instead: the file then begins with a hole, and its offsets stay.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

LIMIT_BYTES = 64 << 20
"""How much of a log is kept: at least half of it."""
LONGEST_LINE_BYTES = 64 << 10
"""A longer line comes in pieces, of which only the last one ends with a newline."""

_BLOCK_BYTES = 64 << 10
_PAGE_BYTES = 4096
_PUNCH_HOLE_KEEP_SIZE = 0x03
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE (linux/falloc.h)."""


class LineReader:
    """The lines of a file that grows, from its present position on. `file` is unbuffered."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """The lines that have been completed since the last call, each with its newline."""
        while block := self._file.read(_BLOCK_BYTES):
            *complete, self._rest = (self._rest + block).split(b"\n")
            for line in complete:
                yield line + b"\n"
            if len(self._rest) >= LONGEST_LINE_BYTES:
                yield self._rest
                self._rest = b""

    def rest(self) -> bytes:
        """What has been read of a line that is not complete."""
        return self._rest


def seek_tail(file: BinaryIO, lines: int | None) -> None:
    """Go to where the last `lines` lines of the file begin, or to the first one that it still has (None).

    Reads the file backwards, no more of it than is asked for.
    """
    first = _first_line(file)
    end = file.seek(0, os.SEEK_END)
    file.seek(first if lines is None else _tail_start(file, first, end, lines))


def _first_line(file: BinaryIO) -> int:
    """Where the first whole line begins: behind the hole that `trim` made, if any."""
    try:
        start = os.lseek(file.fileno(), 0, os.SEEK_DATA)
    except OSError:
        return 0
    if start == 0:
        return 0
    file.seek(start)
    return start + file.read(_BLOCK_BYTES).find(b"\n") + 1


def _tail_start(file: BinaryIO, first: int, end: int, lines: int) -> int:
    if lines <= 0:
        return end
    position, wanted = end, lines
    while position > first:
        begin = max(first, position - _BLOCK_BYTES)
        file.seek(begin)
        block = file.read(position - begin)
        # The newline that ends the file ends its last line; it begins no further one.
        found = position - begin - 1 if position == end and block.endswith(b"\n") else len(block)
        while wanted and (found := block.rfind(b"\n", 0, found)) >= 0:
            wanted -= 1
        if not wanted:
            return begin + found + 1
        position = begin
    return first


def trim(path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
    """Give the older part of a log that takes more than `limit_bytes` back to the file system, all but half the limit.

    Where the file system can't do that (fallocate(2): EOPNOTSUPP) the log stays as it is.
    """
    with suppress(FileNotFoundError), open(path, "r+b", buffering=0) as file:
        status = os.fstat(file.fileno())
        if status.st_blocks * 512 <= limit_bytes:
            return
        length = (status.st_size - limit_bytes // 2) // _PAGE_BYTES * _PAGE_BYTES
        libc = ctypes.CDLL(None)
        libc.fallocate(file.fileno(), _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(length))
