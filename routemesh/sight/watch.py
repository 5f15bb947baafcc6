"""Watching one connection in the namespaces of a node: on their links, by the rules that it meets, in connection tracking.

A watcher that closes a watch, or dies, leaves nothing behind: all that is added are sockets, and what belongs to them.
"""

import os
import select
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from errno import ENOBUFS
from pathlib import Path

from routemesh.errors import RoutemeshError
from routemesh.kernel import netns
from routemesh.kernel.netlink import conntrack
from routemesh.model import Protocol
from routemesh.nodeplan import HOST
from routemesh.sight.nftrace import NfTrace
from routemesh.sight.packets import PacketSocket
from routemesh.sightings import Connection, Observation, SeenPacket, Wanted
from routemesh.snapshot import Connections, ConntrackEntry
from routemesh.values import replace

_TAG_BYTES = 4
MOST_KEPT = 20_000
"""So many packets of a namespace are kept, the newest: a trace that waits for somebody's connection may see many of others."""


@dataclass(slots=True)
class _Space:
    """A namespace that is watched."""

    name: str
    path: Path
    packets: PacketSocket
    rules: NfTrace | None
    seen: deque[SeenPacket]


class Watch:
    """Armed when made: what is `wanted` in the namespaces at `paths`, by name. Use from one thread; close it.

    A namespace that can't be watched is told with what was seen.
    """

    def __init__(self, node: str, paths: Mapping[str, Path], wanted: Wanted) -> None:
        self._node, self._wanted = node, wanted
        self._spaces: list[_Space] = []
        self.closed = False
        self._unwatched: list[str] = []
        self._lost = False
        self._waiting = select.epoll()
        tag = os.urandom(_TAG_BYTES).hex()
        try:
            for name, path in paths.items():
                self._arm(name, path, tag)
        except BaseException:
            self.close()
            raise

    def _arm(self, name: str, path: Path, tag: str) -> None:
        called = name or "the node's own namespace"
        rules: NfTrace | None = None
        try:
            with netns.entered(path):
                packets = PacketSocket(self._wanted)
                try:
                    rules = NfTrace(self._wanted, tag)
                except (OSError, RoutemeshError) as refusal:
                    self._unwatched.append(f"{called}: its rules can't be traced ({_reason(refusal)})")
        except OSError as refusal:
            self._unwatched.append(f"{called} can't be watched ({_reason(refusal)})")
            return
        self._spaces.append(_Space(name, path, packets, rules, deque(maxlen=MOST_KEPT)))
        self._waiting.register(packets, select.EPOLLIN)
        if rules is not None:
            self._waiting.register(rules, select.EPOLLIN)

    def fileno(self) -> int:
        """What becomes readable when something is to be looked at."""
        return self._waiting.fileno()

    def look(self) -> tuple[SeenPacket, ...]:
        """Take in what came since the last look; the packets on links of it."""
        fresh: list[SeenPacket] = []
        for space in self._spaces:
            fresh += space.packets.pending(space.name)
            if space.rules is not None:
                try:
                    space.rules.drain()
                except OSError as refusal:
                    if refusal.errno != ENOBUFS:
                        raise
                    self._lost = True
        by_name = {space.name: space for space in self._spaces}
        for packet in fresh:
            by_name[packet.namespace].seen.append(packet)
        return tuple(fresh)

    def kept(self) -> Iterator[SeenPacket]:
        """The packets on links that were taken in and are kept, namespace by namespace."""
        for space in self._spaces:
            yield from space.seen

    def collect(self, port: int = 0) -> Observation:
        """What was seen by now, of the connection from that port, if given."""
        self.look()
        port = port or self._wanted.port
        seen: list[SeenPacket] = []
        connections: list[Connection] = []
        for space in self._spaces:
            rules = () if space.rules is None else tuple(space.rules.seen(space.name))
            seen += (each for each in _in_order(space.seen, rules) if each.port == port)
            connections += self._connections(space, port)
        return Observation(
            node=self._node,
            seen=tuple(seen),
            connections=tuple(connections),
            namespaces=tuple(space.name for space in self._spaces),
            unwatched=tuple(self._unwatched),
            lost=self._lost,
        )

    def close(self) -> None:
        """Take away everything that was added, all at once: for each the kernel waits until no processor uses it."""
        if self.closed:
            return
        self.closed = True
        self._waiting.close()
        sockets = [each for space in self._spaces for each in (space.packets, space.rules) if each is not None]
        with ThreadPoolExecutor(max(len(sockets), 1)) as threads:
            list(threads.map(lambda each: each.close(), sockets))

    def _connections(self, space: _Space, client_port: int) -> Iterator[Connection]:
        wanted = self._wanted
        if not space.seen:
            return
        which = Connections(ports={(Protocol(wanted.protocol), wanted.published)})
        with suppress(OSError), netns.entered(space.path):
            for entry in conntrack.entries(which):
                source = entry.original.source
                if source.port == client_port and (not wanted.sources or str(source.address) in wanted.sources):
                    yield _connection(space.name, entry)


def paths_of(directory: Path, own: Path, namespaces: Sequence[str]) -> dict[str, Path]:
    """The files of these namespaces of a node whose others are in `directory`; those that are not there are left out."""
    there = netns.identities(directory)
    return {HOST: own} | {name: directory / name for name in sorted(namespaces) if name in there}


def _connection(namespace: str, entry: ConntrackEntry) -> Connection:
    return Connection(
        namespace=namespace,
        source=str(entry.original.source),
        destination=str(entry.original.destination),
        answer_source=str(entry.reply.source),
        answer_destination=str(entry.reply.destination),
        mark=entry.mark,
        state=entry.state,
        replied=entry.replied,
    )


def _in_order(packets: Iterable[SeenPacket], rules: Sequence[SeenPacket]) -> list[SeenPacket]:
    """Packets and rules as one story: a rule has no time of its own, so it gets that of its packet on the link beside it."""
    known: dict[tuple[str, int], list[SeenPacket]] = {}
    packets = sorted(packets, key=lambda each: each.at)
    for packet in packets:
        known.setdefault((packet.identity, packet.headers.vni), []).append(packet)
    timed = [_timed(rule, known.get((rule.identity, rule.headers.vni), [])) for rule in rules]
    ranks = {"in": 0, "rule": 1, "hook": 1, "out": 2}
    return sorted([*packets, *(rule for rule in timed if rule.at)], key=lambda each: (each.at, ranks[each.how]))


def _timed(rule: SeenPacket, packets: Sequence[SeenPacket]) -> SeenPacket:
    """When its packet came in; for one that is on its way out, when it left, if it did."""
    leaving = rule.how == "hook" and rule.chain in ("output", "postrouting")
    left = [packet for packet in packets if packet.how == "out"]
    came = [packet for packet in packets if packet.how == "in"]
    twin = next(iter((left or came) if leaving else (came or left)), None)
    return rule if twin is None else replace(rule, at=twin.at, flags=twin.flags, back=twin.back, first=twin.first, port=twin.port)


def _reason(refusal: Exception) -> str:
    return str(refusal.strerror) if isinstance(refusal, OSError) else str(refusal)
