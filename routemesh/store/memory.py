"""The store in memory, for tests of what stands above it: one object is the whole cluster's."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import count

from routemesh.model import Lease, State
from routemesh.store import Change, codec
from routemesh.store.bell import Wakeups
from routemesh.store.changes import committed
from routemesh.store.sightings import Beat, Sightings


class MemoryStore:
    """A Store that its users share by holding the same object. `clock`: seconds of a clock that does not leap."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._state = State()
        self._beats = count()
        self._leases: dict[str, Beat] = {}
        self._sightings = Sightings(clock)
        self._wakeups = Wakeups()

    async def snapshot(self) -> State:
        """See Store."""
        return self._state

    async def update(self, change: Change) -> State:
        """See Store."""
        state, edits = committed(self._state, change(self._state))
        for edit in edits:
            if edit.value is not None:
                codec.encode(edit.kind, edit.value)  # refused here as by the stores that write it
        self._state = state
        if edits:
            self._wakeups.ring()
        return self._state

    def watch(self) -> AsyncIterator[None]:
        """See Store."""
        return self._wakeups.watch()

    async def renew(self, name: str, holder: str, ttl_s: float, value: int = 0) -> bool:
        """See Store."""
        present = (await self.leases()).get(name)
        if present is not None and present.holder != holder:
            return False
        lease = Lease(name=name, holder=holder, ttl_s=ttl_s, value=value)
        self._leases[name] = Beat(lease, next(self._beats))
        self._sightings.live(self._leases)
        if present is None or present.value != value:
            self._wakeups.ring()
        return True

    async def release(self, name: str, holder: str) -> None:
        """See Store."""
        present = (await self.leases()).get(name)
        if present is not None and present.holder == holder:
            del self._leases[name]
            self._wakeups.ring()

    async def leases(self) -> Mapping[str, Lease]:
        """See Store."""
        return self._sightings.live(self._leases)

    async def close(self) -> None:
        """See Store; ends every `watch`."""
        self._wakeups.close()
