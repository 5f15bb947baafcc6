"""The Store of a worker: the newest that a manager has told it, and reports instead of changes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from time import monotonic

import msgspec

from routemesh import wire
from routemesh.decide.liveness import lease_name
from routemesh.errors import Forbidden, RoutemeshError, Unavailable
from routemesh.loops import FIRST_PAUSE_S, LAST_PAUSE_S, EndsDaemon, said
from routemesh.model import Lease, Node, NodeId, Role, State, Task
from routemesh.names import natural
from routemesh.store import Change
from routemesh.store.bell import Wakeups
from routemesh.store.changes import apply, table
from routemesh.store.stream.managers import Managers
from routemesh.store.stream.shown import difference
from routemesh.store.stream.talk import CHANGES, HELLO, LEASE, REPORT, Beat, Heard, Hello, News, Report, read
from routemesh.values import replace

log = logging.getLogger(__name__)

DELIVERED_S = 5.0
"""So long what a manager has taken down may be on its way back."""


class StreamStore:
    """What a worker has instead of the cluster's store. `open` waits for the first news."""

    def __init__(self, node_id: NodeId, managers: Managers, clock: Callable[[], float] = monotonic) -> None:
        self._node_id = node_id
        self._managers = managers
        self._clock = clock
        self._state = State()
        self._leases: dict[str, Lease] = {}
        self._wakeups = Wakeups()
        self._news = asyncio.Condition()
        self._heard_at = clock()
        self._tell: Callable[[str], None] = _nobody
        self._following: asyncio.Future[None] | None = None
        self._listening: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, node_id: NodeId, managers: Managers, clock: Callable[[], float] = monotonic) -> "StreamStore":
        """Ask the managers for the state. `clock`: seconds of a clock that does not leap.

        Raises Unavailable where none answers, and Forbidden for a node that was removed.
        """
        store = cls(node_id, managers, clock)
        first = store._listening = asyncio.ensure_future(store._listen())
        arrived = asyncio.ensure_future(store._delivered(1))
        try:
            await asyncio.wait({first, arrived}, return_when=asyncio.FIRST_COMPLETED)
            if first.done():
                first.result()
        except BaseException:
            await store.close()
            raise
        finally:
            arrived.cancel()
            await asyncio.gather(arrived, return_exceptions=True)
        store._following = asyncio.ensure_future(store._follow())
        return store

    def on_trouble(self, tell: Callable[[str], None]) -> None:
        """Whom to tell why no manager is heard, "" when one is again."""
        self._tell = tell

    async def snapshot(self) -> State:
        """See Store: of what this node may see, the newest that came."""
        return self._state

    async def update(self, change: Change) -> State:
        """See Store, but only for what a node reports of itself and of its tasks. Raises Forbidden for anything else."""
        report = self._report(self._state, change(self._state))
        if report == Report():
            return self._state
        heard = await self._managers.post(REPORT, report, Heard)
        await self._told(heard.revision)
        return self._state

    def watch(self) -> AsyncIterator[None]:
        """See Store; `close` ends it."""
        return self._wakeups.watch()

    async def renew(self, name: str, holder: str, ttl_s: float, value: int = 0) -> bool:
        """See Store, but only for the node's own. Raises EndsDaemon where the node was removed."""
        self._check_own(name)
        try:
            heard = await self._managers.post(LEASE, Beat(holder=holder, ttl_s=ttl_s, value=value), Heard)
        except Forbidden as exc:
            raise EndsDaemon(str(exc)) from exc
        return heard.held

    async def release(self, name: str, holder: str) -> None:
        """See Store, but only for the node's own."""
        self._check_own(name)
        await self._managers.post(LEASE, Beat(holder=holder, ttl_s=0, release=True), Heard)

    async def leases(self) -> Mapping[str, Lease]:
        """See Store: those that have not lapsed for the manager."""
        return dict(self._leases)

    async def close(self) -> None:
        """See Store. A second call does nothing."""
        running = [each for each in (self._following, self._listening) if each is not None]
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._wakeups.close()
        await self._managers.close()

    async def hello(self, said: Hello) -> State:
        """Tell the managers that this node's daemon has started. Raises what admit.join does."""
        await self._told((await self._managers.post(HELLO, said, Heard)).revision)
        return self._state

    # What comes.

    async def _follow(self) -> None:
        """Listen, and again after pauses that double while nobody answers."""
        pause_s = FIRST_PAUSE_S
        while True:
            heard_at = self._heard_at
            try:
                assert self._listening is not None
                await self._listening
            except RoutemeshError as exc:
                self._fail(exc)
            pause_s = FIRST_PAUSE_S if self._heard_at > heard_at else min(pause_s * 2, LAST_PAUSE_S)
            await asyncio.sleep(pause_s)
            self._listening = asyncio.ensure_future(self._listen())

    def _fail(self, exc: RoutemeshError) -> None:
        log.warning("managers: %s", said(exc))
        self._tell(f"what it knows of the cluster is as it was {self._clock() - self._heard_at:.0f} s ago: {said(exc)}")

    async def _listen(self) -> None:
        async with self._managers.lines(f"{CHANGES}?revision={self._state.revision}") as lines:
            is_first = True
            async for line in lines:
                await self._take(wire.decode(News, line), is_first=is_first)
                is_first = False
        raise Unavailable("the manager ended its news")

    async def _take(self, news: News, *, is_first: bool) -> None:
        """The first news of a request tell all leases."""
        known = State() if news.whole else self._state
        before = (self._state.revision, dict(self._leases))
        if news.whole or news.edits or news.revision != known.revision:
            try:
                self._state = apply(known, read(news.edits), news.revision)
            except ValueError as exc:
                raise Unavailable(f"a manager's news is not understood ({exc}): are both of one version?") from exc
            self._managers.know(tuple(endpoints(self._state)))
        if is_first:
            self._leases.clear()
        for name, lease in news.leases.items():
            if lease is None:
                self._leases.pop(name, None)
            else:
                self._leases[name] = lease
        self._heard_at = self._clock()
        self._tell("")
        async with self._news:
            self._news.notify_all()
        if before != (self._state.revision, self._leases):
            self._wakeups.ring()

    async def _delivered(self, revision: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._state.revision >= revision)

    async def _told(self, revision: int) -> None:
        """Return when what a manager has taken down has come back. Raises Unavailable where it does not."""
        try:
            async with asyncio.timeout(DELIVERED_S):
                await self._delivered(revision)
        except TimeoutError:
            raise Unavailable(f"a manager has taken the report down (revision {revision}), but sends no news") from None

    # What goes.

    def _report(self, before: State, after: State) -> Report:
        """What of the next state is this node's to say. Raises Forbidden where anything else differs."""
        report, tasks = Report(), {}
        for kind, key, value in difference(before, after):
            old = table(before, kind).get(key)
            if isinstance(old, Task) and isinstance(value, Task) and self._is_own(old, value):
                tasks[key] = value.status
            elif key == self._node_id and isinstance(old, Node) and isinstance(value, Node) and _is_report(old, value):
                report = _of_node(old, value)
            else:
                raise Forbidden(f"this node is a worker and can't change the cluster: {self._advice()}")
        return msgspec.structs.replace(report, tasks=tasks)

    def _is_own(self, old: Task, new: Task) -> bool:
        return old.node_id == self._node_id and replace(new, status=old.status) == old

    def _advice(self) -> str:
        managers = sorted((node.name for node in self._state.nodes.values() if node.role is Role.MANAGER), key=natural)
        return f"ask on a manager ({', '.join(managers) or 'none is known'})"

    def _check_own(self, name: str) -> None:
        if name != lease_name(self._node_id):
            raise Forbidden(f"this node is a worker and can't hold the lease {name}: {self._advice()}")


def endpoints(state: State) -> list[str]:
    """Where the managers of a cluster answer, HOST:PORT."""
    scheme = "https://"
    nodes = sorted(state.nodes.values(), key=lambda node: natural(node.name))
    return [node.api.removeprefix(scheme) for node in nodes if node.role is Role.MANAGER and node.api.startswith(scheme)]


def _is_report(old: Node, new: Node) -> bool:
    return replace(new, listeners=old.listeners, failures=old.failures, error=old.error) == old


def _of_node(old: Node, new: Node) -> Report:
    return Report(
        listeners=new.listeners if new.listeners != old.listeners else None,
        failures=new.failures if new.failures != old.failures else None,
        error=new.error if new.error != old.error else None,
    )


def _nobody(_: str) -> None:
    """Nobody is told."""
