"""The managers' part in what workers see and report: news for each, and reports that reach no further than their sender."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any

from routemesh.ask.context import Context
from routemesh.ask.recent import Recent
from routemesh.decide import admit
from routemesh.decide.liveness import lease_name
from routemesh.errors import Forbidden
from routemesh.model import Lease, NodeId, State, TaskId
from routemesh.store import Store
from routemesh.store.stream.shown import Feed
from routemesh.store.stream.talk import BEAT_S, Beat, Heard, Hello, News, Report, written
from routemesh.values import replace

LONGEST_LEASE_S = 60.0
MANY = 500
"""So many objects take a few milliseconds to spell; more are spelled in a thread."""
PAUSE_S = 0.02
"""Nodes acknowledge a change within a few hundredths of a second of one another: that is one piece of news."""


async def news(context: Context, recent: Recent, node_id: NodeId, revision: int) -> AsyncIterator[News]:
    """What a node is to know that has been told `revision` (0: nothing); without end, and every BEAT_S at least."""
    known = recent.at(revision) if revision else None
    feed, told, is_first = Feed(node_id, known), dict[str, Lease](), True
    wake = asyncio.Event()
    watching = asyncio.ensure_future(_ring(context.store, wake))
    try:
        while True:
            wake.clear()
            state, leases = await context.store.snapshot(), await context.store.leases()
            recent.add(state)
            edits = feed.next(state)
            spelled = written(edits) if len(edits) < MANY else await asyncio.to_thread(written, edits)
            changed = _changed(told, leases)
            whole = is_first and known is None
            yield News(revision=state.revision, whole=whole, edits=spelled, leases=changed)
            told, is_first = dict(leases), False
            await asyncio.sleep(PAUSE_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await _woken(wake, watching)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _ring(store: Store, wake: asyncio.Event) -> None:
    async for _ in store.watch():
        wake.set()


async def _woken(wake: asyncio.Event, watching: "asyncio.Future[None]") -> None:
    """Return when it is set. Raises what the watch ended with: then the worker asks anew."""
    waiting = asyncio.ensure_future(wake.wait())
    either: set[asyncio.Future[Any]] = {waiting, watching}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
    finally:
        waiting.cancel()


def _changed(told: Mapping[str, Lease], leases: Mapping[str, Lease]) -> dict[str, Lease | None]:
    changed: dict[str, Lease | None] = {name: lease for name, lease in leases.items() if told.get(name) != lease}
    return changed | {name: None for name in told if name not in leases}


async def hello(context: Context, node_id: NodeId, said: Hello) -> Heard:
    """Take a node in whose daemon has started. Raises what admit.join does, and Forbidden for one that was removed."""
    leases = await context.store.leases()

    def change(state: State) -> State:
        node = state.nodes.get(node_id)
        if node is None:
            raise Forbidden(f"node {node_id} was removed from the cluster")
        came = replace(
            node,
            address=IPv4Address(said.address),
            engine=said.engine,
            mtu_bytes=said.mtu_bytes,
            api=said.api,
            identity=said.identity,
            failures=(),
            error="",
        )
        live = {other for other in state.nodes if lease_name(other) in leases}
        return admit.join(state, came, context.now(), occupied=said.occupied, live=live)

    return Heard(revision=(await context.store.update(change)).revision)


async def report(context: Context, node_id: NodeId, said: Report) -> Heard:
    """Take down what a node saw of itself and of its own tasks. Raises Forbidden for another's task."""

    def change(state: State) -> State:
        state = admit.node_report(state, node_id, listeners=said.listeners, failures=said.failures, error=said.error)
        for task_id, status in said.tasks.items():
            task = state.tasks.get(TaskId(task_id))
            if task is not None and task.node_id != node_id:
                raise Forbidden(f"task {task_id} is another node's")
            state = admit.task_report(state, TaskId(task_id), status)
        return state

    return Heard(revision=(await context.store.update(change)).revision)


async def beat(context: Context, node_id: NodeId, said: Beat) -> Heard:
    """Prolong a node's lease, or end it."""
    name = lease_name(node_id)
    if said.release:
        await context.store.release(name, said.holder)
        return Heard(held=False)
    held = await context.store.renew(name, said.holder, min(said.ttl_s, LONGEST_LEASE_S), said.value)
    return Heard(held=held)
