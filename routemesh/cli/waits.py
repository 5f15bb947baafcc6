"""Saying on a terminal that something is waited for, and for how long already; elsewhere nothing."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from routemesh.cli.output import erase, redraw

_SILENT_S, _BEAT_S = 0.5, 1.0
"""What is there at once needs no word."""


@contextmanager
def waits(what: str) -> Iterator[None]:
    """While the block runs, a line on standard error says what is waited for; it is gone at the end.

    Nothing is said where standard error is no terminal.
    """
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(what, over), name="waits", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _tell(what: str, over: threading.Event) -> None:
    began = time.monotonic()
    if over.wait(_SILENT_S):
        return
    while True:
        redraw(f"{what} … {time.monotonic() - began:.0f} s", err=True)
        if over.wait(_BEAT_S):
            erase(err=True)
            return
