"""The agent's loops: wait for the newest state, bring the kernel to it, acknowledge; run this node's tasks; show that it lives.

Everything is recomputed from the newest state (level-triggered), so a missed event costs nothing but time.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Set
from functools import partial
from pathlib import Path

from routemesh import loops
from routemesh.agent import leftovers
from routemesh.agent.agreement import Agreement
from routemesh.agent.dataplane import Dataplane, published
from routemesh.agent.ports import NotHeld, Port
from routemesh.agent.preparation import accepted
from routemesh.agent.report import TOLD_AT_MOST, Reporter, abridged
from routemesh.agent.silence import Ping, Silence, all_answer
from routemesh.agent.tasks import TaskRunner
from routemesh.decide import admit
from routemesh.decide.liveness import lease_name
from routemesh.decide.ranges import clashes, ranges_of
from routemesh.errors import NotFound
from routemesh.model import Listener, NodeId, State, Task, TaskId, TaskStatus
from routemesh.nodeplan import Failure
from routemesh.plan.view import NodeView, view
from routemesh.runtime import Found, Runtime
from routemesh.store import Store

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
LEASE_TTL_S = 5.0
DOUBT_S = 5.0
"""How often the conditions of taking part are looked at where the kernel tells of no change."""
RANGES_S = 10.0
"""How often the machine's addresses and routes are looked at; a router may have a million of them."""
RESYNC_S = 30.0
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.5, 30.0


class Agent:
    """One node's agent; `run` until cancelled. What is in the kernel and the tasks stays when it ends (rule 7)."""

    def __init__(
        self,
        node_id: NodeId,
        store: Store,
        dataplane: Dataplane,
        runtime: Runtime,
        hold_ports: Callable[[Set[Port]], tuple[NotHeld, ...]],
        now: Callable[[], float] = time.time,
        proxied: Callable[[], int | None] = lambda: None,
        troubles: loops.Troubles | None = None,
        fault: Callable[[], str] = lambda: "",
        identity: str = "",
        probe: Ping = all_answer,
    ) -> None:
        """`hold_ports`: see ports.PortHolder.hold. `proxied`: the revision that this node's proxies do, None if it has none.

        `troubles`: of all loops of the daemon; they are told as the node's. `fault`: why the node can't take part as its kernel
        is now, "" where it can. `identity`: under which it holds its lease. `probe`: of other nodes' data planes.
        """
        self.runtime = runtime
        self.now = now
        self.troubles = troubles if troubles is not None else loops.Troubles()
        self._node_id = node_id
        self._store = store
        self._dataplane = dataplane
        self._reporter = Reporter(store, self.troubles)
        self._hold = hold_ports
        self._proxied = proxied
        self._wake = asyncio.Event()
        self._pulse = asyncio.Event()
        self._ears = asyncio.Event()
        self._doubt = asyncio.Event()
        self._eyes = asyncio.Event()
        self._alarm = asyncio.Event()
        self._silence = Silence(store, self._reporter, probe)
        self._agreement = Agreement(store)
        self._removal = leftovers.Removal(runtime)
        self._planned = asyncio.Condition()
        self._door = asyncio.Lock()
        self._applied = 0
        self._ready: frozenset[str] = frozenset()
        self._runners: dict[TaskId, TaskRunner] = {}
        self._known: set[TaskId] = set()
        self._has_looked = False
        self._over: set[TaskId] = set()
        self._is_watching = False
        self._failures: tuple[str, ...] = ()
        self._clashes: tuple[str, ...] = ()
        self._backoff_s = _FIRST_BACKOFF_S
        self._listeners: tuple[Listener, ...] | None = None
        self._find_fault = fault
        self._fault = ""
        self._identity = identity or node_id

    async def run(self) -> None:
        """Run all loops until cancelled."""
        async with asyncio.TaskGroup() as group:
            await loops.together(
                reports=self._reporter.run(),
                watch=loops.follow("watch", self._store.watch, self._something_was_written, self.troubles),
                heartbeat=loops.rounds("heartbeat", self._beat, self._pulse, self.troubles),
                listeners=loops.rounds("listeners", self._listen, self._ears, self.troubles),
                conditions=loops.rounds("conditions", self._look_for_fault, self._doubt, self.troubles),
                silence=loops.rounds("silent nodes", self._silence.look, self._alarm, self.troubles),
                ranges=loops.rounds("ranges", self._compare_ranges, self._eyes, self.troubles),
                removal=loops.rounds("removal", self._removal.carry_out, self._removal.wake, self.troubles),
                status=loops.rounds("status", self._tell, self.troubles.changed, self.troubles),
                kernel=loops.rounds("kernel", partial(self._pass, group), self._wake, self.troubles),
            )

    # What a task needs of its agent (tasks.Surroundings).

    def netns_path(self, name: str) -> Path:
        """The file of a namespace."""
        return self._dataplane.netns_path(name)

    async def hand_over(self, name: str, namespace: Path | None) -> None:
        """Have the kernel take a namespace of a driver's when `name` is made; None: make one."""
        await self._dataplane.hand_over(name, namespace)

    async def namespace_ready(self, name: str) -> None:
        """Return when a pass that planned the namespace went through without a failure in it."""
        async with self._planned:
            await self._planned.wait_for(lambda: name in self._ready)

    async def acknowledged(self, revision: int) -> None:
        """See Agreement.reached."""
        await self._agreement.reached(revision)

    async def hang_up(self, name: str) -> None:
        """Let the connections of a namespace whose process has ended come to their end."""
        await self._dataplane.hang_up(name)

    async def report(self, task: Task, status: TaskStatus) -> State:
        """Commit what was observed of a task."""
        return await self._reporter.report(lambda state: admit.task_report(state, task.id, status))

    # The loops.

    async def _something_was_written(self) -> None:
        self._wake.set()
        self._alarm.set()
        await self._agreement.look()

    def _something_changed(self) -> None:
        """In the kernel, by others."""
        self._wake.set()
        self._doubt.set()

    async def _tell(self) -> float:
        """Show in the node's status what goes wrong here: what the kernel refused, and the troubles of the loops."""
        failures = (*self._failures, *self._clashes, *self.troubles.lines())
        await self._reporter.report(partial(admit.node_report, node_id=self._node_id, failures=failures))
        return RESYNC_S

    async def _beat(self) -> float:
        await self._renew()
        return HEARTBEAT_S

    async def _listen(self) -> float:
        """Apart from the heartbeat, since to look takes its time on a busy machine."""
        listeners = await self._dataplane.listeners()
        if listeners != self._listeners:
            await self._reporter.report(partial(admit.node_report, node_id=self._node_id, listeners=listeners))
            self._listeners = listeners
        return HEARTBEAT_S

    async def _look_for_fault(self) -> float:
        """Tell the others at once when this node can't be reached any more, and when it can again."""
        fault = await self._dataplane.ask(self._find_fault)
        if fault != self._fault:
            log.log(logging.ERROR if fault else logging.INFO, "the node %s", f"is out: {fault}" if fault else "takes part again")
            await self._reporter.report(partial(admit.node_report, node_id=self._node_id, error=fault))
            self._fault = fault
            await self._renew()
        return DOUBT_S

    async def _compare_ranges(self) -> float:
        """Whether an address or route has come to this machine that is the mesh's too."""
        found = clashes(ranges_of(await self._store.snapshot()), await self._dataplane.occupied())
        if found != self._clashes:
            self._clashes = found
            self.troubles.changed.set()
        return RANGES_S

    async def _renew(self) -> None:
        if self._fault and await self._is_replaceable():
            return
        proxied = self._proxied()
        acknowledged = self._applied if proxied is None else min(self._applied, proxied)
        if not await self._store.renew(lease_name(self._node_id), self._identity, LEASE_TTL_S, acknowledged):
            raise loops.EndsDaemon(
                "another daemon has this node's name: it was taken over while this one was not heard; stop one of them"
            )

    async def _is_replaceable(self) -> bool:
        """Whether another node can be reached: then this one lets its lease lapse, so that its tasks are replaced there."""
        state = await self._store.snapshot()
        return any(node.reachable for node in state.nodes.values() if node.id != self._node_id)

    async def proxies_moved(self) -> None:
        """Tell the cluster that `proxied` has changed."""
        await self._renew()
        await self._agreement.look()

    # One pass.

    async def _pass(self, group: asyncio.TaskGroup) -> float:
        """Bring everything to the newest state; sooner again when the kernel refused something."""
        if not self._is_watching:
            await self._dataplane.watch(self._something_changed)
            self._is_watching = True
        state = await self._store.snapshot()
        failures = await self._bring_to(state, group)
        if failures != self._failures:
            self._failures = failures
            self.troubles.changed.set()
        pause_s = self._backoff_s if failures else RESYNC_S
        self._backoff_s = min(self._backoff_s * 2, _LAST_BACKOFF_S) if failures else _FIRST_BACKOFF_S
        return pause_s

    async def _bring_to(self, state: State, group: asyncio.TaskGroup) -> tuple[str, ...]:
        try:
            seen = view(accepted(state, self._node_id, self.runtime.prepares), self._node_id)
        except NotFound:
            return ()
        # Without its address a node would plan nothing and so sweep everything (rule 8).
        if seen.node.sandbox_on(seen.ingress.id) is None:
            return ()
        mine = {task.id: task for task in state.tasks.values() if task.node_id == self._node_id}
        found = await self._look(mine)
        unstopped = await leftovers.forget(self.runtime, self._dataplane, mine, found, self._runners, self._removal)
        self._has_looked = not unstopped
        want, failures = await self._dataplane.apply(seen, state.revision)
        async with self._planned:
            self._ready = frozenset(want.namespaces.keys() - {failure.op.netns for failure in failures})
            self._planned.notify_all()
        await self._acknowledge(state.revision, failures)
        self._run_tasks(group, mine, found)
        return abridged((*unstopped, *map(str, failures), *await self._hold_ports(seen)))

    async def _acknowledge(self, revision: int, failures: tuple[Failure, ...]) -> None:
        if not failures and revision != self._applied:
            self._applied = revision
            await self._renew()
        await self._agreement.look()

    async def _hold_ports(self, seen: NodeView) -> tuple[str, ...]:
        """In a thread: thousands of ports take a moment."""
        try:
            refused = await asyncio.to_thread(lambda: self._hold(published(seen)))
        except OSError as exc:
            log.error("published ports are not held: %s", exc)
            return (f"published ports are not held on {seen.node.name}: {exc.strerror or exc}",)
        told = tuple(each.told(seen.node.name) for each in refused)
        for line in told[TOLD_AT_MOST:]:
            log.error("%s", line)
        return told

    # Tasks.

    async def _look(self, mine: Mapping[TaskId, Task]) -> Mapping[TaskId, Found]:
        """What the runtime has, where that may be other than the state says; else nothing."""
        over = {task.id for task in mine.values() if task.status.state.ended}
        if self._has_looked and mine.keys() == self._known and over <= self._over:
            return {}
        found = await self.runtime.tasks()
        if not self._has_looked:
            await leftovers.take_over(self._dataplane, mine, found)
        self._has_looked, self._over = True, over
        return found

    def _run_tasks(self, group: asyncio.TaskGroup, mine: Mapping[TaskId, Task], found: Mapping[TaskId, Found]) -> None:
        fresh = mine.keys() - self._known
        for task in mine.values():
            if (runner := self._runners.get(task.id)) is not None:
                runner.see(task)
            elif task.id in fresh and task.status.state.may_live:
                self._runners[task.id] = TaskRunner(task, self, leftovers.adoptable(found.get(task.id)))
                group.create_task(self._run_one(task.id))
        self._known = set(mine)

    async def _run_one(self, task_id: TaskId) -> None:
        async with self._door:  # one in each turn of the loop: a thousand at once would keep it from all else for seconds
            await asyncio.sleep(0)
        try:
            await self._runners[task_id].run()
        finally:
            del self._runners[task_id]
            # Should the manager have forgotten the task meanwhile, the next pass must see that it was here.
            self._known.add(task_id)
            self._wake.set()
