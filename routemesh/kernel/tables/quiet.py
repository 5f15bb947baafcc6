"""Keeping a C library from writing to standard error."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_turn = threading.Lock()


@contextmanager
def c_stderr_silenced() -> Iterator[None]:
    """What C code prints to `stderr` meanwhile is lost; Python's own output is not. For code that returns its errors besides."""
    with _turn:
        stream = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr")
        before, stream.value = stream.value, _nowhere()
        try:
            yield
        finally:
            stream.value = before


@cache
def _nowhere() -> int | None:
    """A FILE * into which everything may go. Source: fopen(3)."""
    fopen = ctypes.CDLL(None).fopen
    fopen.restype = ctypes.c_void_p
    opened: int | None = fopen(b"/dev/null", b"we")
    return opened
