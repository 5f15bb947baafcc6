"""The manager's loop: whichever manager node holds the lease moves the cluster's state on (decide.step).

Any node can lead: all that the leader knows is in the store. Two leaders, for the moment in which a lease passes on, do no harm,
since every step is a transaction on the newest state.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from routemesh.decide import next_deadline, step
from routemesh.decide.liveness import lease_name
from routemesh.errors import RoutemeshError
from routemesh.model import Lease, NodeId, Role, State
from routemesh.store import Store

log = logging.getLogger(__name__)

LEADER = "leader"
RENEW_S = 1.0
LEASE_TTL_S = 4.0
LEAST_PAUSE_S = 0.02
START_GRACE_S = 5.0
"""So long a manager that has just started counts silent nodes as live: after a power cut all daemons come back at once."""


class Manager:
    """Competes for leadership and leads; `run` until cancelled."""

    def __init__(self, node_id: NodeId, store: Store, now: Callable[[], float] = time.time) -> None:
        self._node_id = node_id
        self._store = store
        self._now = now
        self._started = now()
        self._leads = False
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled; gives the lease up on the way out, so that the next leader need not wait for its end."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._campaign())
                group.create_task(self._lead())
        finally:
            await self._store.release(LEADER, self._node_id)

    async def _watch(self) -> None:
        async for _ in self._store.watch():
            self._wake.set()

    async def _campaign(self) -> None:
        while True:
            try:
                leads = self._eligible(await self._store.snapshot()) and await self._store.renew(
                    LEADER, self._node_id, LEASE_TTL_S
                )
            except RoutemeshError as exc:
                log.warning("lease not renewed: %s", exc)
                leads = False
            if leads != self._leads:
                log.info("leader=%s node=%s", leads, self._node_id)
                self._leads = leads
                self._wake.set()
            await asyncio.sleep(RENEW_S)

    def _eligible(self, state: State) -> bool:
        node = state.nodes.get(self._node_id)
        return node is not None and node.role is Role.MANAGER

    async def _lead(self) -> None:
        """Step when something was written, a deadline has come or, since silence wakes nobody, a node's lease may have lapsed."""
        stepped: object = None
        while True:
            self._wake.clear()
            pause_s = RENEW_S
            if self._leads:
                try:
                    stepped, pause_s = await self._step(stepped)
                except RoutemeshError as exc:
                    log.error("step failed: %s", exc)
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _step(self, stepped: object) -> tuple[object, float]:
        """One step, unless it would see just what the last one saw; returns what it saw and when to look again."""
        state, now = await self._store.snapshot(), self._now()
        live = self._live(state, await self._store.leases(), now)
        deadline = next_deadline(state, now)
        if (state.revision, live) != stepped or (deadline is not None and deadline <= now):
            state = await self._store.update(lambda newest: step(newest, now, live))
            deadline = next_deadline(state, now)
        pause_s = RENEW_S if deadline is None else min(RENEW_S, max(deadline - self._now(), LEAST_PAUSE_S))
        return (state.revision, live), pause_s

    def _live(self, state: State, leases: Mapping[str, Lease], now: float) -> frozenset[NodeId]:
        if now - self._started < START_GRACE_S:
            return frozenset(state.nodes)
        return frozenset(node_id for node_id in state.nodes if lease_name(node_id) in leases)
