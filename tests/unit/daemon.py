"""A daemon's API without a daemon: the real application on a real socket, over a store in memory and a kernel that is told.

Its event loop runs in a thread of its own, so that tests and the command line can ask it as any client does.
"""

import asyncio
import os
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

import pytest

from routemesh.api.client import Client
from routemesh.api.server import Context, serving
from routemesh.cli.main import main
from routemesh.decide import admit, step
from routemesh.decide.liveness import lease_name
from routemesh.errors import NotFound, UserError
from routemesh.model import Node, NodeId, Protocol, ServiceSpec, State, TaskId, TaskState, TaskStatus
from routemesh.nodeplan import Capabilities, Failure, Op, Sysctl
from routemesh.plan import plan
from routemesh.plan.view import NodeView
from routemesh.proxy.observed import RunningProxy
from routemesh.sightings import SMALL_BYTES, Answering, Disk, Echoes, Offload, PortAnswer, PortQuestion
from routemesh.snapshot import Connections, NamespaceSnapshot, NodeSnapshot
from routemesh.store.memory import MemoryStore

T = TypeVar("T")
Type = Callable[..., tuple[int, str, str]]

NOW = 1_700_000_000.0
_TTL_S = 1e9


class Daemon:
    """Node `name` of the cluster in `store`. Set `ops` for what its diff shall say, `lines` for its tasks' output.

    `takes_s`: so long it reads its kernel.
    """

    def __init__(self, socket: Path, loop: asyncio.AbstractEventLoop, store: MemoryStore, name: str) -> None:
        self.socket = socket
        self.client = Client(socket)
        self.store = store
        self.node_id = NodeId(f"id-{name}")
        self.ops: tuple[Op, ...] = ()
        self.proxies: list[RunningProxy] = []
        self.disks: tuple[Disk, ...] = ()
        self.lines: defaultdict[TaskId, list[bytes]] = defaultdict(list)
        self.takes_s = 0.0
        self._loop = loop
        self._silent = asyncio.Event()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the daemon's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    @property
    def state(self) -> State:
        """The cluster's present state."""
        return self.run(self.store.snapshot())

    def settle(self) -> State:
        """One step of the manager, after which every task runs and every node has applied that."""
        return self.run(settle(self.store))

    def step(self) -> State:
        """One step of the manager, and nothing else."""
        return self.run(self.store.update(_step))

    def report(self, task_id: TaskId, status: TaskStatus) -> None:
        """What a node's agent would say of a task."""
        self.run(self.store.update(partial(admit.task_report, task_id=task_id, status=status)))

    def fault(self, *failures: str) -> None:
        """What this node's agent would say of its kernel."""
        self.run(self.store.update(partial(admit.node_report, node_id=self.node_id, failures=failures)))

    def end_logs(self) -> None:
        """Let followed logs come to their end, as when the tasks have ended."""
        self._loop.call_soon_threadsafe(self._silent.set)

    def context(self) -> Context:
        """What the API is given."""
        return Context(
            node_id=self.node_id,
            store=self.store,
            now=lambda: NOW,
            check=_check,
            plan=lambda seen: plan(seen, Capabilities(nf_tables=True, ip_vs=True, kernel="6.1", iptables="nft")),
            diff=self._diff,
            strayed=self._diff,
            logs=self._logs,
            observe=self._observe,
            proxies=self._proxies,
            look=self._look,
            disks=self._disks,
            repair=self._repair,
            ask=self._ask,
        )

    async def _observe(self, node: Node, which: Connections, namespaces: Collection[str] | None) -> NodeSnapshot:
        await asyncio.sleep(self.takes_s)
        own = NamespaceSnapshot(path="", items=(Sysctl("net/ipv4/ip_forward", "1"),))
        return NodeSnapshot(
            name=node.name, kind="routemesh", engine="nftables", addresses=(node.address,), device="eth0", namespaces={"": own}
        )

    async def _proxies(self) -> list[RunningProxy]:
        return self.proxies

    async def _look(
        self, node: Node, peers: Mapping[str, tuple[IPv4Address, int]]
    ) -> tuple[tuple[Echoes, ...], tuple[Offload, ...]]:
        sizes = {name: (SMALL_BYTES, size) for name, (_, size) in peers.items()}
        return tuple(Echoes(peer=name, sizes=each, answered=each, heard=each) for name, each in sizes.items()), ()

    async def _ask(self, questions: Sequence[PortQuestion]) -> tuple[PortAnswer, ...]:
        outcomes: Mapping[Protocol, Answering] = {Protocol.TCP: "accepted", Protocol.UDP: "bound"}
        return tuple(PortAnswer(asked=each, outcome=outcomes[each.protocol]) for each in questions)

    async def _disks(self) -> tuple[Disk, ...]:
        return self.disks

    async def _repair(self, _: NodeView, __: int) -> tuple[tuple[Op, ...], tuple[Failure, ...]]:
        done, self.ops = self.ops, ()
        return done, ()

    async def _diff(self, _: NodeView) -> tuple[Op, ...]:
        return self.ops

    async def _logs(self, task_id: TaskId, *, follow: bool, tail: int | None) -> AsyncIterator[bytes]:
        lines = self.lines[task_id]
        if not lines:
            raise NotFound(f"no task {task_id} on this node")
        for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
            yield line
        if follow:
            await self._silent.wait()


def typist(socket: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """Types command lines that ask the daemon at `socket`: exit status, standard output, standard error."""
    monkeypatch.setenv("ROUTEMESH_HOST", f"unix://{socket}")

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(words)
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return run


def modules_after(code: str) -> set[str]:
    """What a new Python has loaded after `code`; without the site module, so that a coverage run is not seen."""
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), *sys.path)))}
    command = [sys.executable, "-S", "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environment)
    return set(done.stdout.split())


def _check(spec: ServiceSpec) -> None:
    if spec.image != "host":
        raise UserError(f"image {spec.image!r} needs the docker runtime; the process runtime runs 'host' only")


@contextmanager
def cluster(directory: Path, names: Sequence[str] = ("node1",), *, busy: bool = False) -> Iterator[list[Daemon]]:
    """Daemons of one cluster, their sockets in `directory`. With `busy`, tasks run as soon as they are wanted."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=10)

    store, stack = MemoryStore(), AsyncExitStack()
    daemons = [Daemon(directory / name, loop, store, name) for name in names]
    try:
        run(_start(daemons, store, stack, busy=busy))
        yield daemons
    finally:
        run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(daemons: list[Daemon], store: MemoryStore, stack: AsyncExitStack, *, busy: bool) -> None:
    for number, daemon in enumerate(daemons):
        await store.update(partial(admit.join, node=_node(daemon, number), now=NOW))
    await settle(store)
    if busy:
        stack.push_async_callback(_cancelled, asyncio.create_task(_keep_settled(store)))
    for daemon in daemons:
        await stack.enter_async_context(serving(daemon.context(), daemon.socket))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _node(daemon: Daemon, number: int) -> Node:
    return Node(
        id=daemon.node_id,
        name=daemon.node_id.removeprefix("id-"),
        address=IPv4Address("192.168.200.10") + number,
        api=f"unix://{daemon.socket}",
        created_at=NOW,
    )


async def _keep_settled(store: MemoryStore) -> None:
    async for _ in store.watch():
        await settle(store)


def _step(state: State) -> State:
    return step(state, NOW, frozenset(state.nodes))


async def settle(store: MemoryStore) -> State:
    """What the manager and the agents would do."""
    state = await store.update(_step)
    for task in state.tasks.values():
        if task.node_id is not None and not task.status.state.ended:
            ended = task.desired > TaskState.RUNNING
            status = TaskStatus(state=TaskState.SHUTDOWN if ended else TaskState.RUNNING, at=NOW)
            state = await store.update(partial(admit.task_report, task_id=task.id, status=status))
    for node_id in state.nodes:
        await store.renew(lease_name(node_id), node_id, _TTL_S, state.revision)
    return state
