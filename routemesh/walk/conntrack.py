"""Connection tracking and NAT of one namespace: what the first packet was turned into, all others are turned into too. PURE.

Source: the kernel's nf_conntrack_core.c, nf_nat_core.c (nf_nat_setup_info, nf_nat_packet).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from routemesh.snapshot import Endpoint, Flow
from routemesh.walk.nouns import Packet

End = Literal["source", "destination"]
_STATUS: Mapping[End, str] = {"source": "snat", "destination": "dnat"}
_OPPOSITE: Mapping[End, End] = {"source": "destination", "destination": "source"}


@dataclass(slots=True)
class Connection:
    """What a namespace knows of a connection: how its packets come in, in both directions.

    `decided` are the ends whose translation, or none, is settled: NAT chains are asked once. `translated`: those that NAT
    changes; IPVS changes a destination without it, and then only the reply's flow shows it. `confirmed`: a packet of it has
    got out of the namespace or to a socket.
    """

    original: Flow
    reply: Flow
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


class Conntrack:
    """All connections of one namespace."""

    def __init__(self) -> None:
        self._known: dict[Flow, Connection] = {}

    def look_up(self, packet: Packet) -> tuple[Connection, bool]:
        """The packet's connection, made if need be, and whether the packet belongs to its reply direction."""
        flow = flow_of(packet)
        connection = self._known.get(flow)
        if connection is None:
            connection = self._known[flow] = Connection(flow, flow.reversed())
            self._known.setdefault(connection.reply, connection)
        replies = connection.reply == flow and connection.original != flow
        connection.answered |= replies and not packet.error
        return connection, replies

    def translate(self, connection: Connection, end: End, to: Endpoint) -> bool:
        """Settle what one end of the connection becomes; False where another connection has such ends already."""
        reply = connection.reply
        if not self.expect(connection, reply._replace(source=to) if end == "destination" else reply._replace(destination=to)):
            return False
        connection.decided |= {end}
        if to != getattr(connection.original, end):
            connection.translated |= {end}
        return True

    def expect(self, connection: Connection, reply: Flow) -> bool:
        """Let the connection's replies come in as `reply`; False where those of another one do already."""
        if self._known.get(reply, connection) is not connection:
            return False
        if self._known.get(connection.reply) is connection:
            del self._known[connection.reply]
        self._known[reply] = connection
        connection.reply = reply
        return True


def flow_of(packet: Packet) -> Flow:
    """The packet's own flow."""
    return Flow(packet.protocol, packet.source, packet.destination)


def rewritten(packet: Packet, connection: Connection, *, replies: bool, end: End) -> Packet:
    """The packet with one end as the other side knows it; itself where nothing is translated."""
    if (_OPPOSITE[end] if replies else end) not in connection.translated:
        return packet
    other = connection.original if replies else connection.reply
    return replace(packet, destination=other.source) if end == "destination" else replace(packet, source=other.destination)
