"""The node's kernel as the agent uses it: one thread, and the pass plan → read → diff → apply → flush in it (rules 3 and 4)."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, TypeVarTuple, assert_never

from routemesh import names
from routemesh.diff import diff
from routemesh.errors import RoutemeshError
from routemesh.kernel import Kernel
from routemesh.model import Listener, Protocol
from routemesh.nodeplan import Capabilities, Failure, Item, ItemKey, NodePlan, Op
from routemesh.nodeplan.ranges import Occupied
from routemesh.plan import plan
from routemesh.plan.engines import check_engine
from routemesh.plan.engines.entry import Engine, StaleFlows, UntranslatedFlows
from routemesh.plan.view import NodeView
from routemesh.threads import in_thread

log = logging.getLogger(__name__)

LINGER_S = 1.0
_LINGER_POLL_S = 0.02

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class Dataplane:
    """Everything that is done with one node's kernel, in a thread of its own."""

    def __init__(self, kernel: Kernel, caps: Capabilities) -> None:
        self._kernel = kernel
        self._caps = caps
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kernel")
        self._before: NodeView | None = None
        self._remembered: Set[ItemKey] | None = None

    async def apply(self, seen: NodeView, revision: int) -> tuple[NodePlan, tuple[Failure, ...]]:
        """Bring the kernel to what `seen` asks for; returns the plan and what the kernel refused."""
        return await self._run(self._apply, seen, revision)

    async def repair(self, seen: NodeView, revision: int) -> tuple[tuple[Op, ...], tuple[Failure, ...]]:
        """The same as if nothing were known of what was done before; returns what was to be changed and what was refused."""
        return await self._run(self._repair, seen, revision)

    async def diff(self, seen: NodeView) -> tuple[Op, ...]:
        """What `apply` would change now."""
        return await self._run(lambda: self._diff(self._planned(seen)))

    async def strayed(self, seen: NodeView) -> tuple[Op, ...]:
        """What is not as the plan wants it that was carried out last; `seen` counts where none was yet.

        Unlike `diff` it does not tell what is still to be done for a change that has just been made.
        """
        return await self._run(lambda: self._diff(self._planned(self._before or seen)))

    def plan(self, seen: NodeView) -> NodePlan:
        """What the kernel should hold, by what it offered at the last look."""
        return plan(seen, self._caps)

    async def occupied(self) -> tuple[Occupied, ...]:
        """What address ranges the machine has otherwise."""
        return await self._run(self._kernel.occupied)

    async def listeners(self) -> tuple[Listener, ...]:
        """Other processes' ports in the node's namespace; not in the kernel's thread, which a large pass keeps for long."""
        return await asyncio.to_thread(self._kernel.listeners)

    async def ask(self, question: Callable[[], T]) -> T:
        """Put a question to the kernel where everything else is done with it."""
        return await self._run(question)

    async def hang_up(self, netns: str) -> None:
        """Let the connections of a namespace whose processes have ended say what is left, LINGER_S at most, and reset the rest.

        Where the kernel can't, that is logged: the namespace goes in any case.
        """
        try:
            end = time.monotonic() + LINGER_S
            while await self._run(self._kernel.unfinished, netns) and time.monotonic() < end:
                await asyncio.sleep(_LINGER_POLL_S)
            await self._run(self._kernel.reset, netns)
        except RoutemeshError as refusal:
            log.warning("connections of %s end without a word: %s", netns, refusal)

    async def hand_over(self, name: str, namespace: Path | None) -> None:
        """Take a namespace of somebody else's making when `name` is made next; None: make one. Raises KernelError."""
        await self._run(self._kernel.hand_over, name, namespace)

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` in this event loop when somebody else changes the kernel."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            loop.call_soon_threadsafe(on_change)

        await self._run(self._kernel.watch, tell)

    def netns_path(self, name: str) -> Path:
        """The file of a namespace."""
        return self._kernel.netns_path(name)

    def close(self) -> None:
        """Wait for the operation under way and let go of the kernel."""
        self._thread.submit(self._kernel.close)
        self._thread.shutdown(wait=True)

    def _apply(self, seen: NodeView, revision: int) -> tuple[NodePlan, tuple[Failure, ...]]:
        started = time.perf_counter()
        want = self._planned(seen)
        ops = self._diff(want)
        failures = self._kernel.apply(ops) if ops else ()
        engine = check_engine(seen.node.engine, self._caps)
        self._forget(engine, seen, want.namespaces.get(names.SANDBOX, {}).values())
        self._before = seen
        if ops:
            took_ms = (time.perf_counter() - started) * 1000
            log.info("reconciled revision=%d ops=%d failed=%d took_ms=%.0f", revision, len(ops), len(failures), took_ms)
        for failure in failures:
            log.error("%s", failure)
        return want, failures

    def _repair(self, seen: NodeView, revision: int) -> tuple[tuple[Op, ...], tuple[Failure, ...]]:
        ops = self._diff(self._planned(seen))
        self._before, self._remembered = None, None
        _, failures = self._apply(seen, revision)
        return ops, failures

    def _planned(self, seen: NodeView) -> NodePlan:
        self._caps = self._kernel.renewed(self._caps)
        return self.plan(seen)

    def _diff(self, want: NodePlan) -> tuple[Op, ...]:
        return diff(self._kernel.read(want), want)

    def _forget(self, engine: Engine, now: NodeView, sandbox: Collection[Item]) -> None:
        """Forget connections, and clients that stay with their tasks, whose task is gone.

        The first pass after a start can't know what has changed meanwhile, and looks at all.
        """
        for stale in engine.stale(self._before, now):
            match stale:
                case StaleFlows():
                    self._kernel.flush_flows(stale.netns, stale.protocol, now.ingress.subnet, stale.keep)
                case UntranslatedFlows():
                    self._kernel.flush_untranslated(stale.netns, stale.protocol, stale.ports)
                case _:
                    assert_never(stale)
        before, self._remembered = self._remembered, None
        clients = engine.clients
        if clients is None:
            return
        tasks = clients.remembered(sandbox)
        if clients.learns(sandbox) and (before is None or before - tasks):
            self._kernel.unlearn(names.SANDBOX, clients.outdated(sandbox, self._kernel.learned(names.SANDBOX)))
        self._remembered = tasks

    async def _run(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        return await in_thread(self._thread, work, *args)


def published(seen: NodeView) -> set[tuple[Protocol, int]]:
    """The ports that the node answers on, or would if their service had a task."""
    return {(port.protocol, port.published) for service in seen.services for port in service.spec.publish}
