"""Watching a connection on nodes: in this daemon's own, and in others through their daemons.

A watch lasts as long as the block in which it was asked for; nothing is left for anybody to clean up.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from routemesh import wire
from routemesh.ask import peer
from routemesh.ask.context import Context
from routemesh.errors import NotFound, RoutemeshError, Unavailable, UserError
from routemesh.model import Node
from routemesh.sight.sender import send
from routemesh.sight.watch import Watch, paths_of
from routemesh.sightings import Observation, Opening, Probe, SeenPacket, Sent
from routemesh.trace.talk import Order, Told, Watched

SILENCE_S = 30.0
"""A node that is asked to arm, send or collect and says nothing for so long has failed."""


LONGEST_WAIT_S = 3600.0
"""For somebody's first packet."""


class Watcher(Protocol):
    """A node's watch, here or elsewhere. Methods raise Unavailable."""

    async def send(self, probe: Probe) -> Sent:
        """Send a probe from a namespace of the node."""
        ...

    async def first(self, opening: Opening, within_s: float) -> SeenPacket | None:
        """The first packet of somebody's connection, if it was not seen before; None where none comes in time."""
        ...

    async def collect(self, port: int) -> Observation:
        """What was seen of the connection from that port; then the watch is over."""
        ...


class Here:
    """The watch of this daemon's own node. It is looked at as long as it lasts, so that on a busy port nothing fills up."""

    def __init__(self, paths: Mapping[str, Path], watch: Watch) -> None:
        self._paths, self._watch = paths, watch
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[SeenPacket] | None = None
        self._opening = Opening()
        self._loop.add_reader(watch.fileno(), self._look)

    async def send(self, probe: Probe) -> Sent:
        """As Watcher."""
        path = self._paths.get(probe.namespace)
        if path is None:
            raise NotFound(f"there is no namespace {probe.namespace} on this node to send from")
        return await asyncio.to_thread(send, probe, path)

    async def first(self, opening: Opening, within_s: float) -> SeenPacket | None:
        """As Watcher."""
        self._look()
        if known := next((seen for seen in self._watch.kept() if seen.opens(opening)), None):
            return known
        self._opening = opening
        self._opened = self._loop.create_future()
        try:
            async with asyncio.timeout(within_s):
                return await self._opened
        except TimeoutError:
            return None
        finally:
            self._opened = None

    async def collect(self, port: int) -> Observation:
        """As Watcher."""
        self._look_no_more()
        try:
            return await asyncio.to_thread(self._watch.collect, port)
        finally:
            await self.close()

    async def close(self) -> None:
        """Take everything away."""
        self._look_no_more()
        await asyncio.to_thread(self._watch.close)

    def _look(self) -> None:
        opened = next((seen for seen in self._watch.look() if seen.opens(self._opening)), None)
        if opened is not None and self._opened is not None and not self._opened.done():
            self._opened.set_result(opened)

    def _look_no_more(self) -> None:
        if not self._watch.closed:
            self._loop.remove_reader(self._watch.fileno())


@asynccontextmanager
async def here(context: Context, node: Node, watched: Watched) -> AsyncIterator[Watcher]:
    """Watch in this daemon's node while the block runs."""
    own, directory = context.own_netns, context.netns_directory
    paths = await asyncio.to_thread(paths_of, directory, own, watched.namespaces)
    arming = asyncio.ensure_future(asyncio.to_thread(Watch, node.name, paths, watched.wanted))
    try:
        watcher = Here(paths, await asyncio.shield(arming))
    except asyncio.CancelledError:
        await asyncio.to_thread((await arming).close)
        raise
    try:
        yield watcher
    finally:
        await watcher.close()


class There:
    """The watch of another node, through its daemon."""

    def __init__(self, node: Node, talk: peer.Conversation) -> None:
        self._node, self._talk = node, talk

    async def send(self, probe: Probe) -> Sent:
        """As Watcher."""
        found = (await self._ask(Order(kind="send", probe=probe), SILENCE_S + probe.timeout_s)).sent
        assert found is not None
        return found

    async def first(self, opening: Opening, within_s: float) -> SeenPacket | None:
        """As Watcher."""
        order = Order(kind="first", opening=opening, within_s=within_s)
        return (await self._ask(order, SILENCE_S + within_s)).seen

    async def collect(self, port: int) -> Observation:
        """As Watcher."""
        found = (await self._ask(Order(kind="collect", port=port), SILENCE_S)).observation
        assert found is not None
        return found

    async def _ask(self, order: Order, within_s: float) -> Told:
        return await _heard(self._node, self._talk, order, within_s)


@asynccontextmanager
async def there(context: Context, node: Node, watched: Watched) -> AsyncIterator[Watcher]:
    """Watch in another daemon's node while the block runs."""
    async with context.peers.conversation(node, f"/nodes/{node.id}/watch") as talk:
        await _heard(node, talk, watched, SILENCE_S)
        yield There(node, talk)


async def _heard(node: Node, talk: peer.Conversation, said: object, within_s: float) -> Told:
    try:
        async with asyncio.timeout(within_s):
            await talk.say(wire.encode(said))
            line = await talk.hear()
    except TimeoutError:
        raise Unavailable(f"node {node.name}'s daemon said nothing for {within_s:.0f} s") from None
    if not line:
        raise Unavailable(f"node {node.name}'s daemon went away while it watched")
    told = wire.decode(Told, line)
    if told.error:
        raise Unavailable(f"{node.name}: {told.error}")
    return told


async def watchers(
    group: "asyncio.TaskGroup", context: Context, nodes: Collection[Node], watched: Mapping[str, Watched], done: asyncio.Event
) -> tuple[dict[str, Watcher], dict[str, str]]:
    """A watcher of every node that can be watched by its name, and why others can't. All end with `done`."""
    loop = asyncio.get_running_loop()
    armed: dict[str, asyncio.Future[Watcher | RoutemeshError]] = {node.name: loop.create_future() for node in nodes}

    async def keep(node: Node) -> None:
        what = watched[node.name]
        try:
            async with here(context, node, what) if node.id == context.node_id else there(context, node, what) as watcher:
                armed[node.name].set_result(watcher)
                await done.wait()
        except RoutemeshError as error:
            if not armed[node.name].done():
                armed[node.name].set_result(error)

    for node in nodes:
        group.create_task(keep(node))
    found = {name: await future for name, future in armed.items()}
    absent = {name: str(each) for name, each in found.items() if isinstance(each, RoutemeshError)}
    return {name: each for name, each in found.items() if not isinstance(each, RoutemeshError)}, absent


Hear = Callable[[], Awaitable[Order | None]]
Say = Callable[[Told], Awaitable[None]]


async def watch(context: Context, node: Node, watched: Watched, hear: Hear, say: Say) -> None:
    """Watch on this daemon's own node, and carry out orders until there is none any more; what comes of each is said, also why
    it can't be carried out or understood. Raises RoutemeshError where nothing can be watched.
    """
    async with here(context, node, watched) as watcher:
        await say(Told())
        while (told := await _next(watcher, hear)) is not None:
            await say(told)


async def _next(watcher: Watcher, hear: Hear) -> Told | None:
    try:
        order = await hear()
        return None if order is None else await _carried_out(watcher, order)
    except RoutemeshError as error:
        return Told(error=str(error))


async def _carried_out(watcher: Watcher, order: Order) -> Told:
    match order.kind:
        case "send":
            if order.probe is None:
                raise UserError("an order to send has no probe")
            return Told(sent=await watcher.send(order.probe))
        case "first":
            if order.opening is None:
                raise UserError("an order to wait for a packet does not say for which one (opening)")
            return Told(seen=await watcher.first(order.opening, min(order.within_s, LONGEST_WAIT_S)))
        case "collect":
            return Told(observation=await watcher.collect(order.port))
