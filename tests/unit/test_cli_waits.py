"""On a terminal a command that waits says so; elsewhere it prints what it finds, and no more."""

import os
import pty
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from routemesh.cli import waits


@contextmanager
def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of a terminal that is standard error; made in the test itself, for pytest puts its own there before each."""
    master, slave = pty.openpty()
    monkeypatch.setattr(waits, "_SILENT_S", 0.0)
    monkeypatch.setattr(waits, "_BEAT_S", 0.01)
    with os.fdopen(slave, "w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        yield master
        monkeypatch.undo()
    os.close(master)


def test_a_wait_is_told_on_a_terminal_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_terminal(monkeypatch) as terminal:
        with waits.waits("starting 3 nodes"):
            seen = _until(terminal, "starting 3 nodes … 0 s")
        seen += _until(terminal, "\r\x1b[K")
    assert "\n" not in seen
    assert "waits" not in {thread.name for thread in threading.enumerate()}


def _until(master: int, words: str) -> str:
    seen = b""
    while words.encode() not in seen:
        seen += os.read(master, 65536)
    return seen.decode()


def test_it_ends_with_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_terminal(monkeypatch) as terminal, pytest.raises(ValueError, match="broken"), waits.waits("reading the nodes"):
        _until(terminal, "reading the nodes")
        raise ValueError("broken")
    assert "waits" not in {thread.name for thread in threading.enumerate()}


def test_what_is_there_at_once_needs_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_terminal(monkeypatch) as terminal:
        monkeypatch.setattr(waits, "_SILENT_S", 60.0)
        with waits.waits("reading the nodes"):
            pass
        sys.stderr.write("end")
        sys.stderr.flush()
        assert os.read(terminal, 65536) == b"end"


def test_nothing_is_told_elsewhere(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "_SILENT_S", 0.0)
    with waits.waits("reading the nodes"):
        assert "waits" not in {thread.name for thread in threading.enumerate()}
    assert capfd.readouterr() == ("", "")
