"""Holds published ports on the node, so that no process takes one whose connections would go to the mesh.

The sockets never see a connection: the mesh translates before the node looks for a socket. While a service has no task, TCP
answers with a reset, since the socket does not listen; a UDP socket that is connected to itself gets nothing from others, so
that the sender hears `port unreachable`. Swarm's daemon listens instead, so that clients hang for a moment.
"""

import socket
from collections.abc import Set

from routemesh.model import Protocol

Port = tuple[Protocol, int]


class PortHolder:
    """Keeps one bound socket per published port of the namespace that this process is in."""

    def __init__(self) -> None:
        self._held: dict[Port, socket.socket] = {}

    def hold(self, wanted: Set[Port]) -> tuple[Port, ...]:
        """Hold exactly `wanted`; returns those that somebody else has (they are tried again at the next call)."""
        for port in self._held.keys() - wanted:
            self._held.pop(port).close()
        taken = []
        for port in sorted(wanted - self._held.keys()):
            try:
                self._held[port] = _bind(*port)
            except OSError:
                taken.append(port)
        return tuple(taken)

    def close(self) -> None:
        """Let go of all."""
        self.hold(frozenset())


def _bind(protocol: Protocol, port: int) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    held = socket.socket(socket.AF_INET, kind)
    try:
        held.bind(("", port))
        if protocol is Protocol.UDP:
            held.connect(("127.0.0.1", port))
    except OSError:
        held.close()
        raise
    return held
