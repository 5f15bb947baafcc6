import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.runtime.process import logfile
from routemesh.runtime.process.logfile import GAP, LogReader, last_line
from routemesh.runtime.process.logwriter import Log

LINES = st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b" ") + b"\n"), max_size=12)


def _read(directory: Path, tail: int | None = None) -> bytes:
    reader = LogReader(directory, tail)
    try:
        return b"".join(iter(reader.read, b"")) + reader.rest()
    finally:
        reader.close()


def _files(directory: Path) -> list[int]:
    return sorted(int(path.name) for path in directory.iterdir())


@given(
    LINES,
    st.binary(max_size=8).map(lambda rest: rest.replace(b"\n", b" ")),
    st.integers(0, 14),
    st.integers(1, 20),
    st.integers(1, 30),
    st.integers(1, 30),
)
def test_the_tail_is_the_end_of_all_lines_wherever_files_and_blocks_end(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], rest: bytes, tail: int, block: int, limit: int, piece: int
) -> None:
    everything = [*lines, rest] if rest else lines
    written = b"".join(everything)
    directory = tmp_path_factory.mktemp("log")
    log = Log(str(directory), limit, 1000)
    for begin in range(0, len(written), piece):
        log.write(written[begin : begin + piece])
    log.close()
    assert all((directory / str(number)).stat().st_size == limit for number in _files(directory)[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "_BLOCK_BYTES", block)
        assert _read(directory) == written
        assert _read(directory, tail) == b"".join(everything[len(everything) - min(tail, len(everything)) :])
        assert last_line(directory) == (everything[-1].decode(errors="replace").strip() if everything else "")


@given(st.integers(10, 60), st.integers(1, 5))
def test_a_log_takes_no_more_than_its_limit_and_loses_nothing_below_it(
    tmp_path_factory: pytest.TempPathFactory, limit: int, files: int
) -> None:
    directory = tmp_path_factory.mktemp("log")
    log = Log(str(directory), limit, files)
    lines = [b"%07d\n" % number for number in range(60)]
    for line in lines:
        log.write(line)
        assert len(_files(directory)) <= files
        assert sum(path.stat().st_size for path in directory.iterdir()) <= limit * files
    log.close()
    kept = _read(directory).splitlines(keepends=True)
    assert kept == lines[len(lines) - len(kept) :]
    assert 8 * len(lines) <= limit * files or 8 * (len(kept) + 1) > limit * (files - 1)


def test_a_line_comes_when_it_is_complete(tmp_path: Path) -> None:
    log, reader = Log(str(tmp_path), 6, 10), LogReader(tmp_path, None)
    log.write(b"one\ntw")
    assert reader.read() == b"one\n"
    assert reader.read() == b""
    log.write(b"o\nthree")
    assert reader.read() + reader.read() == b"two\n"
    assert reader.rest() == b"three"
    log.close()
    reader.close()


def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"x" * (1 << 20) + b"\nend\n")
    reader = LogReader(tmp_path, None)
    pieces = list(iter(reader.read, b""))
    reader.close()
    assert b"".join(pieces) == b"x" * (1 << 20) + b"\nend\n"
    assert max(map(len, pieces)) <= 2 * logfile.LONGEST_LINE_BYTES


def test_who_reads_too_slowly_is_told_that_something_is_missing(tmp_path: Path) -> None:
    log = Log(str(tmp_path), 16, 2)
    log.write(b"0000000\n1")
    reader = LogReader(tmp_path, None)
    assert reader.read() == b"0000000\n"
    for number in range(2, 9):
        log.write(b"%d\n" % number * 4)
    log.close()
    rest = b"".join(iter(reader.read, b""))
    reader.close()
    assert rest.startswith(b"12\n2\n2\n2\n" + GAP)
    assert rest.endswith(GAP + b"7\n7\n7\n7\n8\n8\n8\n8\n")


def test_a_full_disk_fails_nobody_and_the_log_tells_what_was_lost(tmp_path: Path) -> None:
    log = Log(str(tmp_path), 1 << 20, 2)
    log.write(b"before\n")
    log.close()
    os.rename(tmp_path / "1", tmp_path / "kept")
    (tmp_path / "1").symlink_to("/dev/full")
    log.write(b"x" * 1000)
    log.write(b"y" * 24)
    os.rename(tmp_path / "kept", tmp_path / "1")
    log.write(b"after\n")
    log.close()
    why = os.strerror(errno.ENOSPC)
    assert _read(tmp_path) == f"before\n\n(routemesh: 1024 bytes of output could not be written: {why})\nafter\n".encode()
