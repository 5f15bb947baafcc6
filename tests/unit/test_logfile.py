import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.runtime.process import logfile
from routemesh.runtime.process.logfile import LineReader, seek_tail, trim

LINES = st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b" ") + b"\n"), max_size=12)


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _tail(path: Path, lines: int | None) -> list[bytes]:
    with open(path, "rb", buffering=0) as file:
        seek_tail(file, lines)
        reader = LineReader(file)
        return [*reader.lines(), *filter(None, [reader.rest()])]


@given(LINES, st.binary(max_size=8).map(lambda rest: rest.replace(b"\n", b" ")), st.integers(0, 14), st.integers(1, 20))
def test_the_tail_is_the_end_of_all_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], rest: bytes, tail: int, block: int
) -> None:
    everything = [*lines, rest] if rest else lines
    path = _write(tmp_path_factory.getbasetemp() / "tail.log", b"".join(everything))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfile, "_BLOCK_BYTES", block)
        assert _tail(path, tail) == everything[len(everything) - min(tail, len(everything)) :]
        assert _tail(path, None) == everything


def test_the_tail_of_a_large_log_reads_little_of_it(tmp_path: Path) -> None:
    path = _write(tmp_path / "log", b"x" * 79 + b"\n")
    os.truncate(path, 1 << 40)
    with open(path, "ab") as file:
        file.write(b"\nlast but one\nlast\n")
    assert _tail(path, 2) == [b"last but one\n", b"last\n"]


def test_a_line_comes_when_it_is_complete(tmp_path: Path) -> None:
    path = _write(tmp_path / "log", b"one\ntw")
    with open(path, "rb", buffering=0) as file, open(path, "ab", buffering=0) as writer:
        reader = LineReader(file)
        assert list(reader.lines()) == [b"one\n"]
        assert list(reader.lines()) == []
        writer.write(b"o\nthree")
        assert list(reader.lines()) == [b"two\n"]
        assert reader.rest() == b"three"


def test_a_line_without_end_comes_in_pieces() -> None:
    pieces = list(LineReader(io.BytesIO(b"x" * (1 << 20) + b"\nend\n")).lines())
    assert b"".join(pieces) == b"x" * (1 << 20) + b"\nend\n"
    assert max(map(len, pieces)) <= 2 * logfile.LONGEST_LINE_BYTES


def test_a_log_within_its_limit_is_left_alone(tmp_path: Path) -> None:
    path = _write(tmp_path / "log", b"line\n" * 1000)
    trim(path, 1 << 20)
    assert path.read_bytes() == b"line\n" * 1000


def test_of_a_log_beyond_its_limit_whole_lines_at_the_end_are_kept(tmp_path: Path) -> None:
    lines = [b"%07d\n" % number for number in range(100_000)]
    path = _write(tmp_path / "log", b"".join(lines))
    with open(path, "ab", buffering=0) as writer:
        trim(path, 1 << 18)
        writer.write(b"after\n")
    kept = _tail(path, None)
    assert path.stat().st_blocks * 512 <= 1 << 18
    assert kept == [*lines, b"after\n"][-len(kept) :]
    assert len(b"".join(kept)) + len(lines[0]) >= 1 << 17
    assert _tail(path, 200_000) == kept
    assert _tail(path, 2) == [lines[-1], b"after\n"]


def test_a_log_that_is_gone_is_no_error(tmp_path: Path) -> None:
    trim(tmp_path / "log", 1)
