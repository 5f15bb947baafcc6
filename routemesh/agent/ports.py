"""Holds published ports on the node, so that no process takes one whose connections would go to the mesh.

The sockets never see a connection: the mesh translates before the node looks for a socket. While a service has no task, TCP
answers with a reset, since the socket does not listen; a UDP socket that is connected to itself gets nothing from others, so
that the sender hears `port unreachable`. Swarm's daemon listens instead, so that clients hang for a moment.

They are in a process of their own, whose descriptors they are (docs/adr/0014).
"""

import json
import os
from collections.abc import Set
from errno import EADDRINUSE
from typing import NamedTuple

from routemesh.coprocess.client import Coprocess
from routemesh.model import Protocol

Port = tuple[Protocol, int]


class NotHeld(NamedTuple):
    """A port that could not be held, and the system's reason."""

    port: Port
    errno: int

    def told(self, node: str) -> str:
        """In words, for the status of the node of that name."""
        protocol, number = self.port
        if self.errno == EADDRINUSE:
            return f"port {number}/{protocol} on {node} is held by another process too; its clients reach the mesh instead"
        return f"port {number}/{protocol} on {node} can't be held, and other processes may take it: {os.strerror(self.errno)}"


class PortHolder:
    """Keeps one bound socket per published port of the namespace that this process is in."""

    def __init__(self) -> None:
        self._process = Coprocess("ports")
        self._held: Set[Port] = frozenset()

    def hold(self, wanted: Set[Port]) -> tuple[NotHeld, ...]:
        """Hold exactly `wanted`; returns those that can't be held (they are tried again at the next call).

        Raises OSError when the process that holds them can't be asked; the next call starts it anew.
        """
        if wanted == self._held and (not wanted or self._process.is_alive()):
            return ()
        answer = json.loads(self._process.ask(json.dumps(sorted(wanted)).encode()))
        refused = tuple(NotHeld((Protocol(protocol), number), errno) for protocol, number, errno in answer)
        self._held = wanted - {each.port for each in refused}
        return refused

    def close(self) -> None:
        """Let go of all."""
        self._process.close()
        self._held = frozenset()
