"""What use cases need of the daemon that they run in."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from routemesh.ask.attempts import Attempts
from routemesh.ask.peer import Peers
from routemesh.ask.recent import Recent
from routemesh.errors import NotFound, Unavailable
from routemesh.language.commands import PathOf, default_path
from routemesh.model import Node, NodeId, ServiceSpec, State, TaskId
from routemesh.nodeplan import Failure, NodePlan, Op
from routemesh.plan.view import NodeView
from routemesh.proxy.observed import RunningProxy
from routemesh.sightings import Disk, Echoes, Offload, PortAnswer, PortQuestion
from routemesh.snapshot import Connections, NodeSnapshot
from routemesh.store import Store
from routemesh.values import replace


class Logs(Protocol):
    """The output of a task of this node, as runtime.Runtime.logs."""

    def __call__(self, task_id: TaskId, *, follow: bool, tail: int | None) -> AsyncIterator[bytes]:
        """Yield the lines."""
        ...


class Look(Protocol):
    """Sends packets to the sandboxes of other nodes (name → overlay address, bytes that it takes) and looks at devices."""

    def __call__(
        self, node: Node, peers: Mapping[str, tuple[IPv4Address, int]]
    ) -> Awaitable[tuple[tuple[Echoes, ...], tuple[Offload, ...]]]:
        """Look."""
        ...


class Observe(Protocol):
    """Reads this node's kernel, everything in it; of connections only `which`, and besides the node's own only these
    `namespaces`."""

    def __call__(self, node: Node, which: Connections, namespaces: Collection[str] | None) -> Awaitable[NodeSnapshot]:
        """Read."""
        ...


AskPorts = Callable[[Sequence[PortQuestion]], Awaitable[tuple[PortAnswer, ...]]]
"""Asks ports of this node and of its tasks, by a connection each; the answers come in the questions' order."""


async def _asks_nobody(_: Sequence[PortQuestion]) -> tuple[PortAnswer, ...]:
    return ()


class Seats:
    """How many may do something at a time: what each of them costs is bounded, and so what all of them do."""

    def __init__(self, number: int, refusal: str) -> None:
        self._free, self._refusal = number, refusal

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One of them does it in the block. Raises Unavailable, with the refusal, where that is one too many."""
        if self._free == 0:
            raise Unavailable(self._refusal)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


MOST_OUTPUTS = 500
"""Each has some hundred kilobytes under way to a reader who is slow."""


def _outputs() -> Seats:
    return Seats(
        MOST_OUTPUTS, f"the output of {MOST_OUTPUTS} tasks is being read through this daemon already; ask another, or later"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One daemon. `check` raises UserError for a spec that can't run; `plan`, `diff`, `strayed` and `repair` are of this
    node's kernel, as Dataplane's.

    `netns_path` says which file is a namespace, for the commands that people are shown; `own_netns` is the node's own, the others
    are files in `netns_directory`. `proxies` asks this node's proxies. `troubles`: what its
    loops are in trouble with, reported or not.
    """

    node_id: NodeId
    store: Store
    now: Callable[[], float]
    check: Callable[[ServiceSpec], None]
    plan: Callable[[NodeView], NodePlan]
    diff: Callable[[NodeView], Awaitable[tuple[Op, ...]]]
    strayed: Callable[[NodeView], Awaitable[tuple[Op, ...]]]
    logs: Logs
    observe: Observe
    proxies: Callable[[], Awaitable[list[RunningProxy]]]
    look: Look
    disks: Callable[[], Awaitable[Sequence[Disk]]]
    repair: Callable[[NodeView, int], Awaitable[tuple[tuple[Op, ...], tuple[Failure, ...]]]]
    ask: AskPorts = _asks_nobody
    troubles: Callable[[], tuple[str, ...]] = tuple
    peers: Peers = field(default_factory=Peers)
    attempts: Attempts = field(default_factory=Attempts)
    recent: Recent = field(default_factory=Recent)
    outputs: Seats = field(default_factory=_outputs)
    one_doctor: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    netns_path: PathOf = default_path
    own_netns: Path = Path("/proc/self/ns/net")
    netns_directory: Path = Path("/run/routemesh/netns")

    def with_troubles(self, node: Node) -> Node:
        """A node with what is wrong with it; of this one also what it can tell nobody else, as that no manager answers."""
        if node.id != self.node_id:
            return node
        return replace(node, failures=tuple(dict.fromkeys((*node.failures, *self.troubles()))))

    def this_node(self, state: State) -> Node:
        """The node of this daemon. Raises NotFound until it has joined."""
        if self.node_id not in state.nodes:
            raise NotFound(f"this node ({self.node_id}) has not joined the cluster yet; is a manager running?")
        return state.nodes[self.node_id]
