"""An event loop that says when it was held up, and by what.

Nothing that a client asks for, and no file or kernel, may hold the loop of a daemon: its lease would run out. Where something
does, the log has its stack and how long that took.
"""

import asyncio
import logging
import selectors
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

STALL_S = 0.1
_PAUSE_S = 10.0
"""Between two of them in the log: what stalls once stalls often."""
_DEEPEST = 12


class _Selector(selectors.DefaultSelector):
    """Sets the process's alarm while the loop does something other than to wait: at rest that costs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.stalls = Stalls()

    def select(self, timeout: float | None = None) -> "list[tuple[selectors.SelectorKey, int]]":
        """See selectors.BaseSelector."""
        self.stalls.waits()
        try:
            return super().select(timeout)
        finally:
            self.stalls.works()


class Stalls:
    """Watches the loop of the main thread."""

    def __init__(self) -> None:
        self._since = self._used_s = self._next = 0.0
        self._stack = ""

    def works(self) -> None:
        """The loop has something to do."""
        self._since = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, STALL_S)

    def waits(self) -> None:
        """The loop waits."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._stack:
            stack, self._stack = self._stack, ""
            took_s, used_s = time.monotonic() - self._since, time.thread_time() - self._used_s
            log.warning("event loop held up for %.2f s (then %.2f s of processor time) by %s", took_s, used_s, stack)

    def alarm(self, _: int, frame: FrameType | None) -> None:
        """The loop has worked for too long at a time."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE_S
            self._stack, self._used_s = _stack(frame), time.thread_time()


def _stack(frame: FrameType | None) -> str:
    """Where it is, and who called that, in one line."""
    calls = traceback.extract_stack(frame, _DEEPEST) if frame is not None else []
    return " < ".join(f"{call.name} ({call.filename}:{call.lineno})" for call in reversed(calls))


@contextmanager
def watched_loop() -> Iterator[asyncio.Runner]:
    """A runner whose loop is watched, for the main thread: it takes the process's SIGALRM."""
    selector = _Selector()
    before = signal.signal(signal.SIGALRM, selector.stalls.alarm)
    signal.siginterrupt(signal.SIGALRM, False)
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            yield runner
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
