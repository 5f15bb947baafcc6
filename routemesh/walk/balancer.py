"""The connections that IPVS has balanced in one namespace. PURE.

Source: the kernel's ip_vs_conn.c (ip_vs_conn_in_get, ip_vs_conn_out_get).
"""

from collections import ChainMap
from collections.abc import Iterable

import msgspec

from routemesh.snapshot import ConntrackEntry, Endpoint, Flow


class Balanced(msgspec.Struct, frozen=True):
    """A connection from a client, `asked` as it came, and the real server that it is led to.

    `translated`: its packets get the server's address (masquerading), and answers the one that was asked. `tracked`: connection
    tracking sees them.
    """

    asked: Flow
    server: Endpoint
    translated: bool
    tracked: bool


class Balancer:
    """They are found by what the client sends and, where that is translated, by what the server sends.

    `before`: those of before this walk, to which it adds nothing.
    """

    def __init__(self, before: "Balancer | None" = None) -> None:
        self.requests: ChainMap[Flow, Balanced] = ChainMap({}, before.requests if before else {})
        self.answers: ChainMap[Flow, Balanced] = ChainMap({}, before.answers if before else {})

    def add(self, connection: Balanced) -> None:
        """Remember a connection."""
        self.requests[connection.asked] = connection
        if connection.translated:
            asked = connection.asked
            self.answers[Flow(asked.protocol, connection.server, asked.source)] = connection


def balanced(entries: Iterable[ConntrackEntry]) -> Balancer:
    """What IPVS has balanced of tracked connections: of what comes back from another end than was asked, although NAT did
    nothing to it, IPVS has made the addresses."""
    found = Balancer()
    for entry in entries:
        if "dnat" not in entry.status and entry.reply.source != entry.original.destination:
            found.add(Balanced(entry.original, entry.reply.source, translated=True, tracked=True))
    return found
