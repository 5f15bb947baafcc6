"""The manager's loop: whichever manager node holds the lease moves the cluster's state on (decide.step).

Any node can lead: all that the leader knows is in the store. Two leaders, for the moment in which a lease passes on, do no harm,
since every step is a transaction on the newest state.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from routemesh import loops
from routemesh.decide import next_deadline, step
from routemesh.decide.liveness import LEADER, lease_name
from routemesh.errors import RoutemeshError
from routemesh.model import Lease, NodeId, NodeState, Role, State
from routemesh.store import Store

log = logging.getLogger(__name__)

RENEW_S = 1.0
LEASE_TTL_S = 4.0
LEAST_PAUSE_S = 0.02
GRACE_S = 5.0
"""So long a manager that was away counts nodes that fell silent meanwhile as live: what kept it from looking (a power cut, a
suspended machine, a locked store) has kept them from renewing their leases, too."""
_NOTHING_ELSE_S = 3600.0
AWAY_S = 2.0
"""A manager looks every second; one that has not for so long was away."""


class Manager:
    """Competes for leadership and leads; `run` until cancelled."""

    def __init__(
        self,
        node_id: NodeId,
        store: Store,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        troubles: loops.Troubles | None = None,
    ) -> None:
        """`now`: seconds since the epoch, for what is stored; `monotonic`: of a clock that does not leap, for what is judged."""
        self._node_id = node_id
        self._store = store
        self._now = now
        self._troubles = troubles if troubles is not None else loops.Troubles()
        self._monotonic = monotonic
        self._back_at = self._looked_at = monotonic()
        self._leads = False
        self._wake = asyncio.Event()
        self._pulse = asyncio.Event()
        self._stepped: object = None

    async def run(self) -> None:
        """Run until cancelled; gives the lease up on the way out, so that the next leader need not wait for its end."""
        try:
            await loops.together(
                watch=loops.follow("leader's watch", self._store.watch, self._something_was_written, self._troubles),
                campaign=loops.rounds("campaign", self._campaign, self._pulse, self._troubles),
                lead=loops.rounds("leader", self._lead, self._wake, self._troubles),
            )
        finally:
            with suppress(RoutemeshError):  # then it lapses
                await self._store.release(LEADER, self._node_id)

    async def _something_was_written(self) -> None:
        self._wake.set()

    async def _campaign(self) -> float:
        leads = False
        try:
            eligible = self._eligible(await self._store.snapshot())
            leads = eligible and await self._store.renew(LEADER, self._node_id, LEASE_TTL_S)
            self._look()
        finally:
            if leads != self._leads:
                log.info("leader=%s node=%s", leads, self._node_id)
                self._leads = leads
                self._wake.set()
        return RENEW_S

    def _eligible(self, state: State) -> bool:
        node = state.nodes.get(self._node_id)
        return node is not None and node.role is Role.MANAGER

    async def _lead(self) -> float:
        """Step when something was written, a deadline has come or, since silence wakes nobody, a node's lease may have lapsed."""
        if not self._leads:
            return _NOTHING_ELSE_S  # to lead is to be woken
        self._stepped, pause_s = await self._step(self._stepped)
        return pause_s

    async def _step(self, stepped: object) -> tuple[object, float]:
        """One step, unless it would see just what the last one saw; returns what it saw and when to look again."""
        state, leases = await self._store.snapshot(), await self._store.leases()
        self._look()
        now, live = self._now(), self._live(state, leases)
        deadline = next_deadline(state, now)
        if (state.revision, live) != stepped or (deadline is not None and deadline <= now):
            state = await self._store.update(lambda newest: step(newest, now, live))
            deadline = next_deadline(state, now)
        pause_s = RENEW_S if deadline is None else min(RENEW_S, max(deadline - self._now(), LEAST_PAUSE_S))
        return (state.revision, live), pause_s

    def _look(self) -> None:
        """Note that the store answered; called before what it answered is judged."""
        now = self._monotonic()
        if now - self._looked_at >= AWAY_S:
            self._back_at = now
        self._looked_at = now

    def _live(self, state: State, leases: Mapping[str, Lease]) -> frozenset[NodeId]:
        trusting = self._monotonic() - self._back_at < GRACE_S or lease_name(self._node_id) not in leases
        return frozenset(
            node.id
            for node in state.nodes.values()
            if lease_name(node.id) in leases or (trusting and node.state is NodeState.READY)
        )
