"""An event loop that says when it was held up, and by what.

Nothing that a client asks for, and no file or kernel, may hold the loop of a daemon: its lease would run out. Where something
does, the log has its stack and how long that took.
"""

import asyncio
import logging
import selectors
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

STALL_S = 0.1
_LOOK_EVERY_S = 0.05
_PAUSE_S = 10.0
"""Between two of them in the log: what stalls once stalls often."""
_DEEPEST = 12


class _Selector(selectors.DefaultSelector):
    """Knows since when the loop has been doing something other than to wait; None while it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.busy_since: float | None = None

    def select(self, timeout: float | None = None) -> "list[tuple[selectors.SelectorKey, int]]":
        """See selectors.BaseSelector."""
        self.busy_since = None
        try:
            return super().select(timeout)
        finally:
            self.busy_since = time.monotonic()


class Stalls:
    """Watches one loop, from a thread of its own."""

    def __init__(self, selector: _Selector, thread_id: int) -> None:
        self._selector, self._thread_id = selector, thread_id
        self._clock = time.pthread_getcpuclockid(thread_id)
        self._end = threading.Event()
        self._next = 0.0

    def watch(self) -> None:
        """Until `end`."""
        while not self._end.wait(_LOOK_EVERY_S):
            since, now = self._selector.busy_since, time.monotonic()
            if since is not None and now - since > STALL_S and now >= self._next:
                self._next = now + _PAUSE_S
                self._tell(since)

    def end(self) -> None:
        """Stop watching."""
        self._end.set()

    def _tell(self, since: float) -> None:
        stack = _stack(sys._current_frames().get(self._thread_id))
        used_s = time.clock_gettime(self._clock)
        while self._selector.busy_since == since and not self._end.wait(_LOOK_EVERY_S):
            pass
        took_s, used_s = time.monotonic() - since, time.clock_gettime(self._clock) - used_s
        log.warning("event loop held up for %.2f s (then %.2f s of processor time) by %s", took_s, used_s, stack)


def _stack(frame: FrameType | None) -> str:
    """Where it is, and who called that, in one line."""
    calls = traceback.extract_stack(frame, _DEEPEST) if frame is not None else []
    return " < ".join(f"{call.name} ({call.filename}:{call.lineno})" for call in reversed(calls))


@contextmanager
def watched_loop() -> Iterator[asyncio.Runner]:
    """A runner for the calling thread whose loop is watched."""
    selector = _Selector()
    stalls = Stalls(selector, threading.get_ident())
    thread = threading.Thread(target=stalls.watch, name="stalls", daemon=True)
    thread.start()
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            yield runner
    finally:
        stalls.end()
        thread.join()
