"""A task's log, as logwriter makes it: files of a directory, named 1, 2, 3 …, of which the oldest go. Read by lines.

Lines go on from one file to the next. Blocking: call in a thread.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

LONGEST_LINE_BYTES = 64 << 10
"""A longer line comes in pieces, of which only the last one ends with a newline."""
GAP = b"(routemesh: here output is missing: it was written faster than it was read)\n"

_BLOCK_BYTES = 64 << 10
_ATTEMPTS = 10


class LogReader:
    """Reads a log from the beginning of its last `tail` lines on, from its first line if that is None.

    Raises FileNotFoundError where there is no such log.
    """

    def __init__(self, directory: Path, tail: int | None) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._rest = b""
        self._number = 0
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):  # the oldest file went while it was looked at
                numbers = _numbers(directory)
                if not numbers:
                    return
                number, offset = _first_line(directory, numbers[0]) if tail is None else _tail(directory, numbers, tail)
                self._open(number, offset)
                return
        self._number = _numbers(directory)[-1]

    def read(self) -> bytes:
        """Whole lines that follow, some ten thousand bytes of them; b"" where there are none yet."""
        while block := self._block():
            complete, newline, rest = (self._rest + block).rpartition(b"\n")
            if newline:
                self._rest = rest
                return complete + newline
            self._rest = rest
            if len(rest) >= LONGEST_LINE_BYTES:
                self._rest = b""
                return rest
        return b""

    def rest(self) -> bytes:
        """What has been read of a line that is not complete."""
        return self._rest

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _block(self) -> bytes:
        while True:
            block = self._file.read(_BLOCK_BYTES) if self._file is not None else b""
            if block:
                return block
            following = [number for number in _numbers(self._directory) if number > self._number]
            if not following:
                return b""
            # What came behind the last block is complete now that there is another file.
            block = self._file.read(_BLOCK_BYTES) if self._file is not None else b""
            if block:
                return block
            with suppress(FileNotFoundError):
                if self._number and following[0] > self._number + 1:
                    self._open(*_first_line(self._directory, following[0]))
                    return (b"\n" if self._rest else b"") + GAP
                self._open(following[0], 0)

    def _open(self, number: int, offset: int) -> None:
        file = open(self._directory / str(number), "rb", buffering=0)  # noqa: SIM115  # `close` ends it
        file.seek(offset)
        self.close()
        self._file, self._number = file, number


def last_line(directory: Path) -> str:
    """The last line of a log, without its newline; "" where there is none."""
    try:
        reader = LogReader(directory, 1)
    except FileNotFoundError:
        return ""
    try:
        return (reader.read() or reader.rest()).decode(errors="replace").strip()
    finally:
        reader.close()


def _numbers(directory: Path) -> list[int]:
    return sorted(int(name) for name in os.listdir(directory) if name.isdecimal())


def _first_line(directory: Path, number: int) -> tuple[int, int]:
    """Where the first whole line begins: in the first file at once, in others behind what is left of a line."""
    if number == 1:
        return number, 0
    with open(directory / str(number), "rb", buffering=0) as file:
        return number, file.read(_BLOCK_BYTES).find(b"\n") + 1


def _tail(directory: Path, numbers: Sequence[int], lines: int) -> tuple[int, int]:
    """In which file and where the last `lines` lines begin. Reads backwards, no more than is asked for."""
    wanted, at_end = lines, True
    for number in reversed(numbers):
        with open(directory / str(number), "rb", buffering=0) as file:
            position = file.seek(0, os.SEEK_END)
            if lines <= 0:
                return number, position
            while position > 0:
                begin = max(0, position - _BLOCK_BYTES)
                file.seek(begin)
                block = file.read(position - begin)
                # The newline that ends the log ends its last line; it begins no further one.
                found = len(block) - (at_end and block.endswith(b"\n"))
                at_end = False
                while wanted and (found := block.rfind(b"\n", 0, found)) >= 0:
                    wanted -= 1
                if not wanted:
                    return number, begin + found + 1
                position = begin
    return _first_line(directory, numbers[0])
