"""The gateway's loop: what it acknowledges and when, what it says of proxies that don't do as they should."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from routemesh.decide.liveness import lease_name
from routemesh.decide.progress import progress
from routemesh.gateway import loop
from routemesh.gateway.loop import GatewayLoop, ProxyDriver
from routemesh.gateway.proxies import ConfigRefused, NotRunning, NotYet
from routemesh.model import Gateway, GatewayDriver, Lease, NodeId, ProxyStatus, State, TaskState, TaskStatus
from routemesh.proxy import haproxy
from routemesh.proxy.observed import RunningProxy
from routemesh.proxy.rendered import Rendered
from routemesh.proxy.routes import RouteTable, table
from routemesh.store.memory import MemoryStore
from routemesh.values import replace
from tests.simulation import Simulation
from tests.unit.test_labels_http import GATEWAY, spec

NODE = NodeId("id-node1")


class FakeProxies:
    """What becomes of configurations: `seen`, while `ready` is set; `error` is raised instead. `refused`: words of such."""

    def __init__(self) -> None:
        self.seen: list[RouteTable] = []
        self.ready = asyncio.Event()
        self.error: Exception | None = None
        self.refused: tuple[str, ...] = ()
        self.asked = 0

    async def refusal(self, rendered: Rendered) -> str:
        self.asked += 1
        text = rendered.files[rendered.main]
        return next((f"no {word}" for word in self.refused if word in text), "")

    async def apply(self, rendered: Rendered, table: RouteTable) -> bool:
        await self.ready.wait()
        if self.error is not None:
            raise self.error
        self.seen.append(table)
        return True

    async def look(self, seen: RunningProxy) -> RunningProxy:
        if self.error is not None:
            raise self.error
        return replace(seen, running="old")


def cluster() -> State:
    """Two services behind a gateway whose tasks run."""
    simulation = Simulation()
    simulation.create(GATEWAY)
    simulation.create(spec("web", host="a.example"))
    simulation.settle()
    tasks = {key: replace(task, status=replace(task.status, pid=1)) for key, task in simulation.state.tasks.items()}
    return replace(simulation.state, tasks=tasks)


def run(work: Callable[[GatewayLoop, MemoryStore, FakeProxies], Awaitable[None]], state: State, path: Path) -> None:
    async def main() -> None:
        store, proxies = MemoryStore(), FakeProxies()
        await store.update(lambda _: state)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "PROXIES", {GatewayDriver.HAPROXY: ProxyDriver(haproxy.render, lambda *_: proxies)})
            gateway = GatewayLoop(NODE, store, Any, path)  # type: ignore[arg-type]
            running = asyncio.create_task(gateway.run())
            try:
                await asyncio.wait_for(work(gateway, store, proxies), 20)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


async def proxy_status(store: MemoryStore) -> ProxyStatus | None:
    """What the store has of the gateway's only task."""
    tasks = (await store.snapshot()).tasks.values()
    return next(task.status.proxy for task in tasks if task.spec.gateway is not None)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_node_without_proxies_holds_nothing_up(tmp_path: Path) -> None:
    async def work(gateway: GatewayLoop, store: MemoryStore, proxies: FakeProxies) -> None:
        proxies.ready.set()
        await asyncio.sleep(0)
        assert gateway.acknowledged() is None
        assert proxies.seen == []

    run(work, Simulation().state, tmp_path)


def test_a_revision_is_acknowledged_when_the_proxy_does_it(tmp_path: Path) -> None:
    async def work(gateway: GatewayLoop, store: MemoryStore, proxies: FakeProxies) -> None:
        await until(lambda: gateway.acknowledged() is not None)
        assert gateway.acknowledged() == 0
        told: list[int | None] = []

        async def tell() -> None:
            told.append(gateway.acknowledged())

        gateway.on_acknowledge(tell)
        proxies.ready.set()
        revision = (await store.snapshot()).revision
        await until(lambda: gateway.acknowledged() == revision)
        assert told == [revision]
        assert [backend.name for backend in proxies.seen[0].backends] == ["web"]

    run(work, cluster(), tmp_path)


def test_what_does_not_concern_the_gateway_does_not_reach_a_proxy(tmp_path: Path) -> None:
    async def work(gateway: GatewayLoop, store: MemoryStore, proxies: FakeProxies) -> None:
        proxies.ready.set()
        await until(lambda: len(proxies.seen) == 1)
        node = next(iter((await store.snapshot()).nodes.values()))
        await store.update(lambda state: replace(state, nodes={**state.nodes, node.id: replace(node, labels={"a": "b"})}))
        newest = (await store.snapshot()).revision
        await until(lambda: gateway.acknowledged() == newest)
        assert len(proxies.seen) == 1

    run(work, cluster(), tmp_path)


@pytest.mark.parametrize(
    ("error", "held_up"), [(ConfigRefused("no"), True), (NotYet("no answer"), True), (NotRunning("gone"), False)]
)
def test_a_proxy_that_runs_and_does_not_follow_is_told_of_and_nothing_is_acknowledged(
    tmp_path: Path, error: Exception, held_up: bool
) -> None:
    async def work(gateway: GatewayLoop, store: MemoryStore, proxies: FakeProxies) -> None:
        proxies.error = error
        proxies.ready.set()
        while await proxy_status(store) is None:
            await asyncio.sleep(0.01)
        assert await proxy_status(store) == ProxyStatus(error=str(error))
        if held_up:
            assert gateway.acknowledged() == 0
        else:
            await until(lambda: gateway.acknowledged() != 0)
        proxies.error = None
        while await proxy_status(store) != ProxyStatus():
            await asyncio.sleep(0.01)
        revision = (await store.snapshot()).revision
        await until(lambda: gateway.acknowledged() == revision)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "PATIENCE_S", 0.05)
        run(work, cluster(), tmp_path)


def test_what_a_proxy_refuses_is_left_out_alone_and_told_before_it_is_acknowledged(tmp_path: Path) -> None:
    simulation = Simulation()
    simulation.commit(cluster())
    for name in ("bad", "worse"):
        simulation.create(spec(name, host=f"{name}.example", timeout="77s"))
    before = simulation.service("bad").version

    async def work(gateway: GatewayLoop, store: MemoryStore, proxies: FakeProxies) -> None:
        proxies.refused = ("77000ms",)
        proxies.ready.set()
        told: list[ProxyStatus | None] = []

        async def tell() -> None:
            told.append(await proxy_status(store))

        gateway.on_acknowledge(tell)
        await until(lambda: len(told) > 0)
        assert told[0] is not None
        assert {(each.version, each.reason) for each in told[0].refused} == {(before, "no 77000ms")}
        assert len(told[0].refused) == 2
        assert [(each.name, bool(each.refused)) for each in proxies.seen[-1].backends] == [
            ("bad", True), ("web", False), ("worse", True)
        ]  # fmt: skip
        state = await store.snapshot()
        now = {lease_name(NODE): Lease(name="", holder=NODE, ttl_s=1.0, value=state.revision)}
        for name in ("bad", "worse", "web"):
            found = progress(state, next(each for each in state.services.values() if each.spec.name == name), now)
            assert found.failed == ("" if name == "web" else f"service {name}: the gateway leaves it out on node1: no 77000ms")

        # What it has refused it is not asked again; what is mended is taken at once.
        asked = proxies.asked
        bad = next(service for service in state.services.values() if service.spec.name == "bad")
        assert bad.spec.http is not None
        mended = replace(bad, version=bad.version + 1, spec=replace(bad.spec, http=replace(bad.spec.http, timeout_s=5.0)))
        await store.update(lambda state: replace(state, services={**state.services, bad.id: mended}))
        await until(lambda: [each.name for each in proxies.seen[-1].backends if each.refused] == ["worse"])
        assert proxies.asked <= asked + 2
        while (status := await proxy_status(store)) is None or len(status.refused) != 1:
            await asyncio.sleep(0.01)

    run(work, simulation.state, tmp_path)


def test_only_running_proxies_of_this_node_count() -> None:
    state = cluster()
    (task,) = loop.own_proxies(state, NODE)
    assert task.node_id == NODE
    ended = replace(task, status=TaskStatus(state=TaskState.FAILED, at=0.0))
    assert loop.own_proxies(replace(state, tasks={task.id: ended}), NODE) == ()


def test_proxies_are_looked_at_beside_what_is_wanted_of_them(tmp_path: Path) -> None:
    async def work(gateway: GatewayLoop, store: MemoryStore, proxies: FakeProxies) -> None:
        (seen,) = await gateway.look()
        assert (seen.running, seen.error) == ("old", "")
        kind = subprocess.run(
            ("findmnt", "-no", "FSTYPE", "-T", seen.directory), capture_output=True, text=True, check=True
        ).stdout
        assert seen.filesystem == kind.strip()
        made = haproxy.render(table(await store.snapshot()), Gateway(), seen.directory, {}, "")
        assert seen.wanted == made.generation
        proxies.error = NotYet("it does not run")
        assert [seen.error for seen in await gateway.look()] == ["it does not run"]

    run(work, cluster(), tmp_path)
