"""Connection tracking and NAT of one namespace: what the first packet was turned into, all others are turned into too. PURE.

Source: the kernel's nf_conntrack_core.c, nf_nat_core.c (nf_nat_setup_info, nf_nat_packet).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from routemesh.snapshot import ConntrackEntry, Endpoint, Flow
from routemesh.values import replace
from routemesh.walk.nouns import Packet

End = Literal["source", "destination"]
_STATUS: Mapping[End, str] = {"source": "snat", "destination": "dnat"}
_OPPOSITE: Mapping[End, End] = {"source": "destination", "destination": "source"}


_FIRST_PORT, _LAST_PORT = 1024, 1 << 16
_GOING = frozenset({"dying"})
_OVER = ("TIME_WAIT", "CLOSE")
"""The states of TCP in which a connection that opens with the same ends is another one (nf_conntrack_tcp_packet)."""


@dataclass(slots=True, eq=False)
class Connection:
    """What a namespace knows of a connection: how its packets come in, in both directions.

    `decided` are the ends whose translation, or none, is settled: NAT chains are asked once. `translated`: those that NAT
    changes; IPVS changes a destination without it, and then only the reply's flow shows it. `confirmed`: a packet of it has
    got out of the namespace or to a socket.
    """

    original: Flow
    reply: Flow
    zone: int = 0
    mark: int = 0
    answered: bool = False
    confirmed: bool = False
    decided: frozenset[End] = frozenset()
    translated: frozenset[End] = frozenset()

    @property
    def status(self) -> frozenset[str]:
        """The flags of `ct status`, as far as the walker knows them."""
        found = {_STATUS[end] for end in self.translated}
        return frozenset(found | ({"seen-reply"} if self.answered else set()))


class Known:
    """The connections that a namespace has already, by how their packets come in: made once, for any number of walks."""

    def __init__(self, entries: Iterable[ConntrackEntry] = ()) -> None:
        self.originals: dict[tuple[Flow, int], ConntrackEntry] = {}
        self.replies: dict[Flow, ConntrackEntry] = {}
        for entry in entries:
            if not _GOING & entry.status and entry.state not in _OVER:
                self.originals[entry.original, entry.zone] = entry
                self.replies.setdefault(entry.reply, entry)


class Conntrack:
    """All connections of one namespace during one walk. `known`: those that it had before, which stay as they are."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._originals: dict[tuple[Flow, int], Connection] = {}
        self._replies: dict[Flow, Connection] = {}
        self._recalled: dict[tuple[Flow, int], Connection] = {}

    def look_up(self, packet: Packet, zone: int = 0) -> tuple[Connection, bool] | None:
        """The packet's connection and whether the packet belongs to its reply direction; None for one that is new."""
        flow = flow_of(packet)
        connection = self._by_original(flow, zone)
        if connection is not None:
            return connection, False
        connection = self._by_reply(flow)
        if connection is None:
            return None
        connection.answered |= not packet.error
        return connection, True

    def new(self, packet: Packet, zone: int = 0) -> Connection:
        """A connection that begins with this packet. Its zone is that of this direction alone."""
        flow = flow_of(packet)
        connection = Connection(flow, flow.reversed(), zone)
        self._originals[flow, zone] = connection
        self._answer_by(connection)
        return connection

    def _by_original(self, flow: Flow, zone: int) -> Connection | None:
        if (found := self._originals.get((flow, zone))) is not None:
            return found
        entry = self._known.originals.get((flow, zone))
        return None if entry is None else self._recall(entry)

    def _by_reply(self, flow: Flow) -> Connection | None:
        if (found := self._replies.get(flow)) is not None:
            return found
        entry = self._known.replies.get(flow)
        recalled = None if entry is None else self._recall(entry)
        # Its replies may be expected otherwise since.
        return None if recalled is None or recalled.reply != flow else recalled

    def _recall(self, entry: ConntrackEntry) -> Connection:
        """This walk's own view of a connection: walks change it."""
        key = (entry.original, entry.zone)
        if key not in self._recalled:
            self._recalled[key] = _recalled(entry)
        return self._recalled[key]

    def _answer_by(self, connection: Connection) -> None:
        if self._by_reply(connection.reply) is None:
            self._replies[connection.reply] = connection

    def translate(self, connection: Connection, end: End, to: Endpoint) -> None:
        """Settle what one end of the connection becomes."""
        reply = connection.reply
        self.expect(connection, reply._replace(source=to) if end == "destination" else reply._replace(destination=to))
        connection.decided |= {end}
        if to != getattr(connection.original, end):
            connection.translated |= {end}

    def expect(self, connection: Connection, reply: Flow) -> None:
        """Let the connection's replies come in as `reply`."""
        if self._replies.get(connection.reply) is connection:
            del self._replies[connection.reply]
        connection.reply = reply
        self._answer_by(connection)

    def clashes(self, connection: Connection) -> bool:
        """Whether its replies would be taken for those of another one (nf_conntrack_tuple_taken)."""
        return self._taken(connection, connection.reply)

    def give_another_port(self, connection: Connection) -> int:
        """Let the source have the first free port (the kernel takes any) in place of one with which replies would clash."""
        reply = connection.reply
        free = (reply._replace(destination=reply.destination._replace(port=port)) for port in range(_FIRST_PORT, _LAST_PORT))
        found = next(each for each in free if not self._taken(connection, each))
        self.translate(connection, "source", found.destination)
        return found.destination.port

    def _taken(self, connection: Connection, reply: Flow) -> bool:
        others = (self._by_reply(reply), self._by_original(reply, connection.zone))
        return any(other not in (None, connection) for other in others)


def _recalled(entry: ConntrackEntry) -> Connection:
    translated = frozenset(end for end, status in _STATUS.items() if status in entry.status)
    return Connection(
        entry.original,
        entry.reply,
        entry.zone,
        entry.mark,
        answered=entry.replied,
        confirmed=True,
        decided=frozenset(_STATUS),
        translated=translated,
    )


def flow_of(packet: Packet) -> Flow:
    """The packet's own flow."""
    return Flow(packet.protocol, packet.source, packet.destination)


def rewritten(packet: Packet, connection: Connection, *, replies: bool, end: End) -> Packet:
    """The packet with one end as the other side knows it; itself where nothing is translated."""
    if (_OPPOSITE[end] if replies else end) not in connection.translated:
        return packet
    other = connection.original if replies else connection.reply
    return replace(packet, destination=other.source) if end == "destination" else replace(packet, source=other.destination)
