"""What a node tells the cluster: reports that come together are one commit."""

import asyncio
from collections.abc import Callable, Sequence

from routemesh import loops
from routemesh.errors import Unavailable
from routemesh.model import State
from routemesh.store import Store

Report = Callable[[State], State]
_Waiting = tuple[Report, asyncio.Future[State]]
_NOTHING_ELSE_S = 60.0
TOLD_AT_MOST = 100
"""So many failures are in a node's status."""


class Reporter:
    """Carries reports into the store, in order, as many as are waiting in one transaction."""

    def __init__(self, store: Store, troubles: loops.Troubles) -> None:
        self._store = store
        self._troubles = troubles
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()

    async def report(self, change: Report) -> State:
        """Return the state in which `change` is committed; a store that is not there is waited for.

        Raises what `change` raises, or the store because of what `change` made.
        """
        done: asyncio.Future[State] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        self._wake.set()
        return await done

    async def run(self) -> None:
        """Commit what is waiting, for ever; nothing is lost while the store is not there."""
        await loops.rounds("reports", self._commit, self._wake, self._troubles)

    async def _commit(self) -> float:
        batch = [waiting for waiting in self._waiting if not waiting[1].done()]
        if batch:
            await self._commit_all(batch)
        settled = {id(done) for _, done in batch}
        self._waiting = [waiting for waiting in self._waiting if id(waiting[1]) not in settled]
        return _NOTHING_ELSE_S

    async def _commit_all(self, batch: Sequence[_Waiting]) -> None:
        try:
            state = await self._store.update(_all(batch))
        except Unavailable:
            raise
        except Exception as exc:
            await self._commit_each(batch, exc)
        else:
            for _, done in batch:
                _settle(done, state)

    async def _commit_each(self, batch: Sequence[_Waiting], exc: Exception) -> None:
        """One report can't be carried out: it must not keep the others back."""
        if len(batch) > 1:
            for waiting in batch:
                await self._commit_all([waiting])
        elif not (done := batch[0][1]).done():
            done.set_exception(exc)


def _settle(done: asyncio.Future[State], state: State) -> None:
    if not done.done():
        done.set_result(state)


def _all(batch: Sequence[_Waiting]) -> Report:
    def change(state: State) -> State:
        for report, _ in batch:
            state = report(state)
        return state

    return change


def abridged(failures: tuple[str, ...]) -> tuple[str, ...]:
    """Where everything fails, its status is not to be larger than all that failed."""
    rest = len(failures) - TOLD_AT_MOST
    return failures if rest <= 0 else (*failures[:TOLD_AT_MOST], f"and {rest} more; all are in the log of its daemon")
