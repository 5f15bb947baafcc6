"""A whole cluster in one event loop: real managers and agents on a store, kernels and processes in memory."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from time import time

from routemesh import loops
from routemesh.agent.agent import Agent
from routemesh.agent.dataplane import Dataplane
from routemesh.agent.disks import watch_disks
from routemesh.decide import admit
from routemesh.gateway.loop import GatewayLoop
from routemesh.kernel.fake.kernel import FakeKernel
from routemesh.manager import Manager
from routemesh.model import Node, NodeId, ServiceSpec, State
from routemesh.names import SANDBOX
from routemesh.nodeplan import Element, NodePlan
from routemesh.runtime import Runtime
from routemesh.sightings import Disk
from routemesh.store.memory import MemoryStore
from tests.runtime.fake import FakeRuntime

DEADLINE_S = 10.0


class Daemon:
    """One node: what it has, and its loops as long as it is powered. `drivers`: what they are given instead of `runtime`."""

    def __init__(self, number: int, store: MemoryStore, run_dir: Path) -> None:
        self.id = NodeId(f"id-node{number}")
        self.node = Node(id=self.id, name=f"node{number}", address=IPv4Address("192.168.200.9") + number)
        self.store = store
        self.run_dir = run_dir / self.node.name
        self.kernel = FakeKernel()
        self.runtime = FakeRuntime()
        self.drivers: Runtime | None = None
        self.clock: Callable[[], float] = time
        self.deaf: Set[str] = set()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the loops, as a new process would."""
        await self.store.update(partial(admit.join, node=self.node, now=time()))
        self._running = asyncio.create_task(self._run())

    async def kill(self) -> None:
        """End the loops; the kernel and the processes stay."""
        assert self._running is not None
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)  # what it may have ended with before is told by `running`
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
        runtime = self.drivers or self.runtime
        gateway = GatewayLoop(self.id, self.store, runtime, self.run_dir, troubles)
        manager = Manager(self.id, self.store, now=self._now, troubles=troubles)
        agent = Agent(
            self.id,
            self.store,
            dataplane,
            runtime,
            lambda _: (),
            self._now,
            gateway.acknowledged,
            troubles=troubles,
            probe=self._probe,
        )
        gateway.on_acknowledge(agent.proxies_moved)
        try:
            await loops.together(
                agent=agent.run(), gateway=gateway.run(), manager=manager.run(), disks=watch_disks(_no_disks, troubles)
            )
        finally:
            dataplane.close()

    async def _probe(self, nodes: Mapping[str, IPv4Address]) -> Set[str]:
        return nodes.keys() - self.deaf

    def backends(self) -> set[IPv4Address]:
        """The addresses that the sandbox balances over."""
        items = self.kernel.read(NodePlan()).namespaces.get(SANDBOX, {}).values()
        return {
            item.value
            for item in items
            if isinstance(item, Element) and item.map == "backends" and isinstance(item.value, IPv4Address)
        }


async def _no_disks() -> Sequence[Disk]:
    return ()


class Cluster:
    """Some daemons on one store."""

    def __init__(self, nodes: int, run_dir: Path) -> None:
        self.store = MemoryStore()
        self.daemons = [Daemon(number, self.store, run_dir) for number in range(1, nodes + 1)]
        self.deaf: set[str] = set()
        """The names of nodes whose data plane does not answer."""
        for daemon in self.daemons:
            daemon.deaf = self.deaf

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
async def cluster(nodes: int = 3, prepare: Callable[[Cluster], None] = lambda _: None) -> AsyncIterator[Cluster]:
    """A running cluster; `prepare` may change it before it runs."""
    with tempfile.TemporaryDirectory() as directory:
        made = Cluster(nodes, Path(directory))
        prepare(made)
        for daemon in made.daemons:
            await daemon.start()
        try:
            yield made
        finally:
            for daemon in made.daemons:
                if daemon.running:
                    await daemon.kill()
