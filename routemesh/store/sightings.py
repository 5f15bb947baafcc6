"""When leases were last seen renewed, by the observer's clock.

Clocks of several machines differ, and each can leap. So a lease holds no time: its holder changes its beat whenever it renews it,
and it has lapsed for an observer that has seen the same beat for as long as it lasts. A new observer takes all leases for fresh.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from routemesh.model import Lease


@dataclass(frozen=True, slots=True)
class Beat:
    """A lease as it is stored; `beat` is another number after each renewal."""

    lease: Lease
    beat: int


class Sightings:
    """What one process has seen of the leases. `clock`: seconds of a clock that does not leap."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}

    def live(self, stored: Mapping[str, Beat]) -> dict[str, Lease]:
        """Those of all stored leases that have not lapsed, by name."""
        now = self._clock()
        seen = {name: self._seen.get(name, (None, now)) for name in stored}
        self._seen = {name: (each.beat, seen[name][1] if seen[name][0] == each.beat else now) for name, each in stored.items()}
        return {name: each.lease for name, each in stored.items() if now - self._seen[name][1] < each.lease.ttl_s}
