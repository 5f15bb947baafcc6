"""The cluster's state, kept: the contract that every store fulfils.

State changes are transactions: `update` reads, applies a pure function, commits by compare-and-swap and retries. Every object
that the function replaced carries the new revision. Leases live beside the state and do not count as changes of it: a node
that acknowledges a revision must not thereby make a new one.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from routemesh.model import Lease, State

Change = Callable[[State], State]
"""A pure function from the present state to the next. `state.revision + 1` is the revision that its result will get."""


class Store(Protocol):
    """What the manager, the agents and the API need of a store. Methods may be called from one event loop only.

    Raises errors.Unavailable where the store can't be read or written, naming it and what to do.
    """

    async def snapshot(self) -> State:
        """The newest committed state."""
        ...

    async def update(self, change: Change) -> State:
        """Commit `change(state)` and return the state as committed; nothing is written when it returns an equal state.

        However many objects differ, it is one revision, all or nothing. `change` may run several times. What it raises passes
        through and nothing is written; so does codec.CodecError for an object that can't be written.
        """
        ...

    def watch(self) -> AsyncIterator[None]:
        """Yield once at once, and then within 50 ms after anything (state or leases) was written by anyone.

        Writes that come while the consumer is busy are one wake-up. Costs nothing while nothing happens.
        """
        ...

    async def renew(self, name: str, holder: str, ttl_s: float, value: int = 0) -> bool:
        """Take or prolong a lease; False while somebody else holds it. Wakes watchers only when holder or value changed.

        A daemon that has watched it for `ttl_s`, by a monotonic clock of its own, and not seen it renewed, may take it.
        """
        ...

    async def release(self, name: str, holder: str) -> None:
        """Give a lease up, if it is held by `holder`."""
        ...

    async def leases(self) -> Mapping[str, Lease]:
        """All leases that have not lapsed, by name."""
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...
