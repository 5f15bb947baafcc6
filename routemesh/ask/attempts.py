"""Wrong tokens, counted: who guesses has to wait."""

import time
from collections import deque
from collections.abc import Callable

from routemesh.errors import Unavailable

MOST, WITHIN_S = 10, 60.0
MOST_SOURCES = 1000
"""Beyond that everybody has to wait: nobody fills the memory by asking from many addresses."""


class Attempts:
    """How often a wrong token came, and from where. `clock`: seconds of a clock that does not leap."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: dict[str, deque[float]] = {}

    def check(self, source: str) -> None:
        """Raises Unavailable where too many came from there of late."""
        since = self._clock() - WITHIN_S
        for known, times in list(self._wrong.items()):
            while times and times[0] <= since:
                times.popleft()
            if not times:
                del self._wrong[known]
        if len(self._wrong.get(source, ())) >= MOST or len(self._wrong) >= MOST_SOURCES:
            raise Unavailable(f"too many wrong tokens came from {source} within {WITHIN_S:.0f} s: wait a minute")

    def wrong(self, source: str) -> None:
        """Count one."""
        self._wrong.setdefault(source, deque(maxlen=MOST)).append(self._clock())
