"""A whole cluster in one event loop: real managers and agents on a store, kernels and processes in memory."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from time import time

from routemesh import loops
from routemesh.agent.agent import Agent
from routemesh.agent.dataplane import Dataplane
from routemesh.decide import admit
from routemesh.errors import UserError
from routemesh.gateway.loop import GatewayLoop
from routemesh.kernel.fake.kernel import FakeKernel
from routemesh.manager import Manager
from routemesh.model import Node, NodeId, ServiceSpec, State, TaskId
from routemesh.names import SANDBOX
from routemesh.nodeplan import Element, NodePlan
from routemesh.runtime import Exit, Running
from routemesh.store.memory import MemoryStore

DEADLINE_S = 10.0


class FakeRuntime:
    """Processes that run until a test ends them. `stopped` are those that were asked to end, in order."""

    def __init__(self) -> None:
        self.known: dict[TaskId, Running | Exit] = {}
        self.stopped: list[TaskId] = []
        self.healthy = True
        self._changed = asyncio.Condition()

    def check(self, spec: ServiceSpec) -> None:
        """See Runtime."""
        if spec.image != "host":
            raise UserError(f"image {spec.image} can't run here")

    def offers(self, spec: ServiceSpec, program: str) -> bool:
        """See Runtime."""
        return True

    async def tasks(self) -> Mapping[TaskId, Running | Exit]:
        """See Runtime."""
        return dict(self.known)

    async def start(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, netns: Path) -> Running:
        """See Runtime."""
        if spec.command == ("missing",):
            raise UserError("no program 'missing'")
        running = Running(pid=1000 + len(self.known))
        self.known[task_id] = running
        return running

    async def wait(self, task_id: TaskId) -> Exit:
        """See Runtime."""
        async with self._changed:
            await self._changed.wait_for(lambda: isinstance(self.known[task_id], Exit))
        ended = self.known[task_id]
        assert isinstance(ended, Exit)
        return ended

    async def end(self, task_id: TaskId, code: int) -> None:
        """The process ends."""
        async with self._changed:
            self.known[task_id] = Exit(code)
            self._changed.notify_all()

    async def stop(self, task_id: TaskId, signal: str, grace_s: float) -> Exit:
        """See Runtime."""
        self.stopped.append(task_id)
        await self.end(task_id, 143)
        return Exit(143)

    async def execute(self, task_id: TaskId, command: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """See Runtime."""
        return (0, "") if self.healthy else (1, "sick")

    async def _no_lines(self) -> AsyncIterator[bytes]:
        lines: tuple[bytes, ...] = ()
        for line in lines:
            yield line

    def logs(self, task_id: TaskId, *, follow: bool, tail: int | None) -> AsyncIterator[bytes]:
        """See Runtime."""
        return self._no_lines()

    async def remove(self, task_id: TaskId) -> None:
        """See Runtime."""
        self.known.pop(task_id, None)


class Daemon:
    """One node: what it has, and its loops as long as it is powered."""

    def __init__(self, number: int, store: MemoryStore, run_dir: Path) -> None:
        self.id = NodeId(f"id-node{number}")
        self.node = Node(id=self.id, name=f"node{number}", address=IPv4Address("192.168.200.9") + number)
        self.store = store
        self.run_dir = run_dir / self.node.name
        self.kernel = FakeKernel()
        self.runtime = FakeRuntime()
        self.clock: Callable[[], float] = time
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the loops, as a new process would."""
        await self.store.update(partial(admit.join, node=self.node, now=time()))
        self._running = asyncio.create_task(self._run())

    async def kill(self) -> None:
        """End the loops; the kernel and the processes stay."""
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait([self._running])
        self._running = None

    @property
    def running(self) -> bool:
        """Whether its loops run."""
        return self._running is not None and not self._running.done()

    def _now(self) -> float:
        return self.clock()

    async def _run(self) -> None:
        dataplane = Dataplane(self.kernel, self.kernel.capabilities())
        troubles = loops.Troubles()
        gateway = GatewayLoop(self.id, self.store, self.runtime, self.run_dir, troubles)
        manager = Manager(self.id, self.store, now=self._now, troubles=troubles)
        agent = Agent(
            self.id, self.store, dataplane, self.runtime, lambda _: (), self._now, gateway.acknowledged, troubles=troubles
        )
        gateway.on_acknowledge(agent.proxies_moved)
        try:
            await loops.together(agent=agent.run(), gateway=gateway.run(), manager=manager.run())
        finally:
            dataplane.close()

    def backends(self) -> set[IPv4Address]:
        """The addresses that the sandbox balances over."""
        items = self.kernel.read(NodePlan()).namespaces.get(SANDBOX, {}).values()
        return {
            item.value
            for item in items
            if isinstance(item, Element) and item.map == "backends" and isinstance(item.value, IPv4Address)
        }


class Cluster:
    """Some daemons on one store."""

    def __init__(self, nodes: int, run_dir: Path) -> None:
        self.store = MemoryStore()
        self.daemons = [Daemon(number, self.store, run_dir) for number in range(1, nodes + 1)]

    async def create(self, spec: ServiceSpec) -> None:
        """service create."""
        await self.store.update(lambda state: admit.create_service(state, spec, time()))

    async def until(self, condition: Callable[[State], bool]) -> State:
        """The first state for which `condition` holds."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition(state := await self.store.snapshot()):
                await asyncio.sleep(0.005)
        return state


@asynccontextmanager
async def cluster(nodes: int = 3) -> AsyncIterator[Cluster]:
    """A running cluster."""
    with tempfile.TemporaryDirectory() as directory:
        made = Cluster(nodes, Path(directory))
        for daemon in made.daemons:
            await daemon.start()
        try:
            yield made
        finally:
            for daemon in made.daemons:
                if daemon.running:
                    await daemon.kill()
