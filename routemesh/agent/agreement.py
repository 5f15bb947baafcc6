"""Which revision the live nodes have applied: a task is stopped when all have let go of it (rule 10).

It is read once for all that wait: where a service is scaled down, a thousand tasks wait for the same revision.
"""

import asyncio
import logging
import math

from routemesh.decide.liveness import lease_name
from routemesh.store import Store

log = logging.getLogger(__name__)

ACKNOWLEDGE_TIMEOUT_S = 10.0


class Agreement:
    """Lets tasks wait; `look` whenever a revision may have been acknowledged."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[int, asyncio.Event] = {}
        self._overdue = -1

    async def reached(self, revision: int) -> None:
        """Return when every live node has applied `revision`; after ACKNOWLEDGE_TIMEOUT_S anyway, with a warning."""
        try:
            async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_S):
                if (told := self._waiting.get(revision)) is None:
                    told = self._waiting[revision] = asyncio.Event()
                    await self.look()
                await told.wait()
        except TimeoutError:
            await self._warn(revision)

    async def look(self) -> None:
        """Wake those that wait for what all have applied."""
        if self._waiting:
            least = min((await self._applied()).values(), default=math.inf)
            for revision in [revision for revision in self._waiting if revision <= least]:
                self._waiting.pop(revision).set()

    async def _warn(self, revision: int) -> None:
        if revision > self._overdue:
            self._overdue = revision
            behind = [name for name, applied in (await self._applied()).items() if applied < revision]
            log.warning("revision=%d not acknowledged by %s within %.0f s", revision, behind, ACKNOWLEDGE_TIMEOUT_S)

    async def _applied(self) -> dict[str, int]:
        """By the names of the live nodes."""
        state, leases = await self._store.snapshot(), await self._store.leases()
        held = ((node.name, leases.get(lease_name(node.id))) for node in state.nodes.values() if node.reachable)
        return {name: lease.value for name, lease in held if lease is not None}
