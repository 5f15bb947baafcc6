"""What every store must do: one class of tests, one subclass per implementation."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

import pytest

from routemesh.errors import Conflict
from routemesh.model import Cluster, Lease, NetworkId, Node, NodeId, Service, ServiceId, ServiceSpec, State
from routemesh.store import Change, Store
from routemesh.store.codec import CodecError
from routemesh.store.etcd.store import EtcdStore
from routemesh.store.memory import MemoryStore
from routemesh.store.sqlite import SqliteStore
from routemesh.values import replace
from tests.store import etcd
from tests.support import patience, require, unique, wait_until

DEADLINE_S = 10.0
QUIET_S = 0.1
MANY = 1000

T = TypeVar("T", bound="StoreContract")


@dataclass
class FakeClock:
    """A clock that does not leap, and stands still unless it is moved."""

    now: float = 1e9

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Handles:
    """Opens stores on one cluster, each as another daemon would. `lapse` lets so many seconds pass for the leases."""

    connect: Callable[[], Awaitable[Store]]
    lapse: Callable[[float], None]
    opened: list[Store] = field(default_factory=list)

    async def open(self) -> Store:
        store = await self.connect()
        self.opened.append(store)
        return store


def in_loop(test: Callable[[T, Handles], Awaitable[None]]) -> Callable[[T, Handles], None]:
    """Run a test in an event loop of its own, within the deadline, and close the stores that it opened."""

    @wraps(test)
    def run(self: T, handles: Handles) -> None:
        async def body() -> None:
            try:
                async with asyncio.timeout(DEADLINE_S * patience()):
                    await test(self, handles)
            finally:
                for store in handles.opened:
                    await store.close()

        asyncio.run(body())

    return run


def service(name: str, version: int = 1) -> Service:
    return Service(id=ServiceId(f"id-{name}"), spec=ServiceSpec(name=name), version=version, created_at=1.0, updated_at=1.0)


def put(*services: Service) -> Change:
    """A change that adds or replaces services."""
    return lambda state: replace(state, services={**state.services, **{each.id: each for each in services}})


def remove(name: str) -> Change:
    return lambda state: replace(state, services={key: each for key, each in state.services.items() if key != f"id-{name}"})


def increment(state: State) -> State:
    """Count one on the service `counter`."""
    present = state.services[ServiceId("id-counter")]
    return put(replace(present, version=present.version + 1))(state)


class Watcher:
    """Follows `store.watch()`; the wake-up that every watch begins with is taken by `start`, with those of earlier writes."""

    def __init__(self, wakeups: AsyncIterator[None]) -> None:
        self._wakeups = wakeups
        self._next: asyncio.Task[bool] | None = None

    @classmethod
    async def start(cls, store: Store) -> "Watcher":
        watcher = cls(store.watch())
        await watcher.woken()
        await watcher.rest()
        return watcher

    async def woken(self) -> None:
        """Wait for one wake-up."""
        assert await self._pending(), "the watch has ended"
        self._next = None

    async def quiet(self) -> bool:
        """Whether no wake-up comes."""
        done, _ = await asyncio.wait({self._pending()}, timeout=QUIET_S)
        return not done

    async def rest(self) -> int:
        """How many wake-ups come until none does: news of what was written may still be on its way."""
        count = 0
        while not await self.quiet():
            await self.woken()
            count += 1
        return count

    async def ended(self) -> bool:
        """Whether the watch comes to its end."""
        return not await self._pending()

    def _pending(self) -> asyncio.Task[bool]:
        if self._next is None:
            self._next = asyncio.ensure_future(self._step())
        return self._next

    async def _step(self) -> bool:
        async for _ in self._wakeups:
            return True
        return False


class StoreContract:
    """The contract of routemesh.store.Store. A subclass has a fixture `handles`."""

    ttl_s = 5.0

    @in_loop
    async def test_a_new_cluster_is_empty(self, handles: Handles) -> None:
        store = await handles.open()
        assert await store.snapshot() == State()
        assert await store.leases() == {}

    @in_loop
    async def test_an_update_makes_the_next_revision_and_all_see_it(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        state = await mine.update(put(service("web")))
        assert state == State(revision=1, services={ServiceId("id-web"): replace(service("web"), revision=1)})
        assert await mine.snapshot() == state
        assert await other.snapshot() == state
        assert await (await handles.open()).snapshot() == state

    @in_loop
    async def test_every_kind_of_object_is_kept(self, handles: Handles) -> None:
        cluster = Cluster(id="c", ingress_id=NetworkId("i"), created_at=1.0)
        node = Node(id=NodeId("n"), name="node1", address=IPv4Address("192.0.2.1"), labels={"zone": "a"})
        mine, other = await handles.open(), await handles.open()
        await mine.update(lambda state: replace(state, cluster=cluster, nodes={node.id: node}))
        state = await other.snapshot()
        assert (state.cluster, dict(state.nodes)) == (replace(cluster, revision=1), {node.id: replace(node, revision=1)})
        await mine.update(lambda state: replace(state, cluster=None))
        assert (await other.snapshot()).cluster is None

    @in_loop
    async def test_only_what_changed_gets_the_new_revision(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        await mine.update(put(service("web"), service("api")))
        before = await other.snapshot()
        state = await mine.update(put(service("api", version=2), service("web")))
        assert {each.spec.name: each.revision for each in state.services.values()} == {"web": 1, "api": 2}
        after = await other.snapshot()
        assert after == state
        assert after.services[ServiceId("id-web")] is before.services[ServiceId("id-web")]

    @in_loop
    async def test_a_removed_object_is_gone_for_all(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        await mine.update(put(service("web"), service("api")))
        await other.snapshot()
        assert list((await mine.update(remove("web"))).services) == ["id-api"]
        assert list((await other.snapshot()).services) == ["id-api"]
        await other.update(put(service("web")))
        assert set((await mine.snapshot()).services) == {"id-api", "id-web"}

    @in_loop
    async def test_an_equal_result_writes_nothing_and_wakes_nobody(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        before = await mine.update(put(service("web")))
        watcher = await Watcher.start(other)
        assert await mine.update(lambda state: state) is before
        assert await mine.update(put(service("web"))) is before
        assert await watcher.quiet()

    @in_loop
    async def test_what_a_change_raises_passes_and_nothing_is_written(self, handles: Handles) -> None:
        def refuse(state: State) -> State:
            put(service("api"))(state)
            raise Conflict("the name api is taken")

        mine, other = await handles.open(), await handles.open()
        before = await mine.update(put(service("web")))
        with pytest.raises(Conflict, match="the name api is taken"):
            await mine.update(refuse)
        assert await other.snapshot() == before == await mine.snapshot()
        assert (await other.update(put(service("api")))).revision == 2

    @in_loop
    async def test_a_change_of_any_size_is_one_revision(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        await mine.update(put(service("first")))
        watcher = await Watcher.start(other)
        many = [service(f"s{number}", version=number) for number in range(MANY)]
        state = await mine.update(put(*many))
        await watcher.woken()
        assert await other.snapshot() == state
        assert state.revision == 2 and {each.revision for each in state.services.values()} == {1, 2}
        assert len(state.services) == MANY + 1

    @in_loop
    async def test_of_a_change_of_any_size_nothing_is_written_where_one_object_can_not_be(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        before = await mine.update(put(service("first")))
        watchers = [await Watcher.start(mine), await Watcher.start(other)]
        unstorable = replace(service("last"), created_at=float("inf"))
        with pytest.raises(CodecError):
            await mine.update(put(*(service(f"s{number}") for number in range(MANY)), unstorable))
        assert await mine.snapshot() == before == await other.snapshot()
        assert [await watcher.quiet() for watcher in watchers] == [True, True], "a write that failed woke somebody"
        state = await mine.update(put(service("second")))
        assert state.revision == 2 and set(state.services) == {"id-first", "id-second"}
        for watcher in watchers:
            await watcher.woken()

    @in_loop
    async def test_no_increment_is_lost(self, handles: Handles) -> None:
        stores = [await handles.open() for _ in range(3)]
        await stores[0].update(put(service("counter", version=0)))
        await asyncio.gather(*(store.update(increment) for store in stores for _ in range(10)))
        for store in stores:
            state = await store.snapshot()
            assert (state.services[ServiceId("id-counter")].version, state.revision) == (30, 31)

    @in_loop
    async def test_a_watch_wakes_at_once_and_after_everybodys_writes(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        watcher = await Watcher.start(mine)
        assert await watcher.quiet()
        for version, store in enumerate((mine, other), start=1):
            state = await store.update(put(service("web", version)))
            await watcher.woken()
            assert await mine.snapshot() == state
            await watcher.rest()

    @in_loop
    async def test_all_watchers_of_a_store_wake(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        watchers = [await Watcher.start(mine) for _ in range(3)]
        await other.update(put(service("web")))
        for watcher in watchers:
            await watcher.woken()

    @in_loop
    async def test_many_writes_while_the_consumer_is_busy_are_few_wakeups(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        watcher = await Watcher.start(mine)
        for version in range(10):
            state = await other.update(put(service("web", version)))
        await watcher.woken()
        assert await mine.snapshot() == state
        assert await watcher.rest() < 9

    @in_loop
    async def test_close_ends_watches_and_may_be_called_twice(self, handles: Handles) -> None:
        store = await handles.open()
        watcher = await Watcher.start(store)
        await store.close()
        await store.close()
        assert await watcher.ended()

    @in_loop
    async def test_a_lease_has_one_holder_until_it_lapses(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        assert await mine.renew("leader", "node1", self.ttl_s)
        assert not await other.renew("leader", "node2", self.ttl_s)
        handles.lapse(self.ttl_s - 1)
        assert await mine.renew("leader", "node1", self.ttl_s, value=7)
        handles.lapse(self.ttl_s - 1)
        assert not await other.renew("leader", "node2", self.ttl_s)
        assert holders(await other.leases()) == {"leader": ("node1", 7)}
        handles.lapse(self.ttl_s + 1)
        assert await mine.leases() == {}
        assert await other.renew("leader", "node2", self.ttl_s)
        assert not await mine.renew("leader", "node1", self.ttl_s)
        assert holders(await mine.leases()) == {"leader": ("node2", 0)}

    @in_loop
    async def test_a_lease_that_lapsed_for_one_and_is_renewed_is_there_for_all(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        assert await mine.renew("node/a", "a", self.ttl_s)
        assert holders(await other.leases()) == {"node/a": ("a", 0)}
        handles.lapse(self.ttl_s + 1)
        assert await mine.renew("node/a", "a", self.ttl_s)
        assert holders(await other.leases()) == holders(await mine.leases()) == {"node/a": ("a", 0)}

    @in_loop
    async def test_whoever_looks_for_the_first_time_gives_a_lease_its_whole_time(self, handles: Handles) -> None:
        mine = await handles.open()
        await mine.renew("leader", "node1", self.ttl_s)
        handles.lapse(self.ttl_s + 1)
        late = await handles.open()
        await late.leases()
        handles.lapse(self.ttl_s + 1)
        assert await late.leases() == {}
        assert await late.renew("leader", "node2", self.ttl_s)

    @in_loop
    async def test_no_clock_of_day_that_leaps_moves_a_lease(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        with pytest.MonkeyPatch.context() as patch:
            for day in (1e9, 1e9 + 3600, 1e9 - 3600, 0.0):
                patch.setattr("time.time", lambda day=day: day)
                assert await mine.renew("leader", "node1", self.ttl_s)
                assert holders(await other.leases()) == {"leader": ("node1", 0)}
                patch.setattr("time.time", lambda day=day: day - 7200)
                handles.lapse(self.ttl_s + 1)
                assert await other.leases() == {}

    @in_loop
    async def test_only_the_holder_can_release_a_lease(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        await mine.renew("leader", "node1", self.ttl_s)
        await other.release("leader", "node2")
        await other.release("nobody's", "node2")
        assert holders(await other.leases()) == {"leader": ("node1", 0)}
        await mine.release("leader", "node1")
        assert await other.leases() == {}
        assert await other.renew("leader", "node2", self.ttl_s)

    @in_loop
    async def test_leases_do_not_change_the_state(self, handles: Handles) -> None:
        store = await handles.open()
        before = await store.update(put(service("web")))
        await store.renew("node/a", "a", self.ttl_s, value=1)
        assert await store.snapshot() is before

    @in_loop
    async def test_a_lease_wakes_watchers_only_by_a_new_holder_or_value(self, handles: Handles) -> None:
        mine, other = await handles.open(), await handles.open()
        watchers = [await Watcher.start(mine), await Watcher.start(other)]

        async def woken() -> None:
            for watcher in watchers:
                await watcher.woken()
                await watcher.rest()

        await mine.renew("leader", "node1", self.ttl_s)
        await woken()
        await mine.renew("leader", "node1", self.ttl_s)
        await other.renew("leader", "node2", self.ttl_s)
        await other.release("leader", "node2")
        assert [await watcher.rest() for watcher in watchers] == [0, 0], "a heartbeat, a refusal, a release by a stranger"
        await mine.renew("leader", "node1", self.ttl_s, value=1)
        await woken()
        handles.lapse(self.ttl_s + 1)
        await mine.renew("leader", "node1", self.ttl_s, value=1)
        await woken()
        await mine.release("leader", "node1")
        await woken()


def holders(leases: Mapping[str, Lease]) -> dict[str, tuple[str, int]]:
    """Who holds each lease, with which value."""
    return {name: (lease.holder, lease.value) for name, lease in leases.items()}


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def handles(self) -> Handles:
        clock = FakeClock()
        store = MemoryStore(clock)

        async def connect() -> Store:
            return store

        return Handles(connect, clock.advance)


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def handles(self, tmp_path: Path) -> Handles:
        clock = FakeClock()
        return Handles(lambda: SqliteStore.open(tmp_path / "state" / "cluster.db", clock), clock.advance)


@pytest.fixture(scope="module")
def server() -> Iterator[etcd.Etcd]:
    """One for all tests, each of which has a prefix of its own."""
    require("etcd")
    with etcd.running() as cluster:
        yield cluster


class TestEtcdStore(StoreContract):
    ttl_s = 1.0

    @pytest.fixture
    def handles(self, server: etcd.Etcd) -> Handles:
        place = server.place(f"/{unique('contract')}")

        def lapse(seconds: float) -> None:
            """etcd's clock can't be moved: it is waited for where leases are to have lapsed by then."""
            if seconds > self.ttl_s:
                wait_until(lambda: not server.ctl("get", "--prefix", f"{place.prefix}/lease/"), DEADLINE_S, "the leases' end")

        return Handles(lambda: EtcdStore.open(place), lapse)
