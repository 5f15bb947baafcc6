"""What a node tells the cluster: reports that come together are one commit."""

import asyncio
import logging
from collections.abc import Callable

from routemesh.errors import Unavailable
from routemesh.model import State
from routemesh.store import Store

log = logging.getLogger(__name__)

Report = Callable[[State], State]
_RETRY_S = 0.5


class Reporter:
    """Carries reports into the store, in order, as many as are waiting in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Report, asyncio.Future[State]]] = []
        self._wake = asyncio.Event()

    async def report(self, change: Report) -> State:
        """Return the state in which `change` is committed."""
        done: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        self._wake.set()
        return await done

    async def run(self) -> None:
        """Commit what is waiting, for ever; a store that is not there is tried again, nothing is lost."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            while batch:
                try:
                    state = await self._store.update(_all(batch))
                except Unavailable as exc:
                    log.warning("report postponed: %s", exc)
                    await asyncio.sleep(_RETRY_S)
                    continue
                for _, done in batch:
                    if not done.done():
                        done.set_result(state)
                batch = []


def _all(batch: list[tuple[Report, asyncio.Future[State]]]) -> Report:
    def change(state: State) -> State:
        for report, _ in batch:
            state = report(state)
        return state

    return change
