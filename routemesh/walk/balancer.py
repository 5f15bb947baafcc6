"""The connections that IPVS has balanced in one namespace. PURE.

Source: the kernel's ip_vs_conn.c (ip_vs_conn_in_get, ip_vs_conn_out_get).
"""

from dataclasses import dataclass, field

from routemesh.snapshot import Endpoint, Flow


@dataclass(frozen=True, slots=True)
class Balanced:
    """A connection from a client, `asked` as it came, and the real server that it is led to.

    `translated`: its packets get the server's address (masquerading), and answers the one that was asked. `tracked`: connection
    tracking sees them.
    """

    asked: Flow
    server: Endpoint
    translated: bool
    tracked: bool


@dataclass(slots=True)
class Balancer:
    """They are found by what the client sends and, where that is translated, by what the server sends."""

    requests: dict[Flow, Balanced] = field(default_factory=dict)
    answers: dict[Flow, Balanced] = field(default_factory=dict)

    def add(self, connection: Balanced) -> None:
        """Remember a connection."""
        self.requests[connection.asked] = connection
        if connection.translated:
            asked = connection.asked
            self.answers[Flow(asked.protocol, connection.server, asked.source)] = connection
