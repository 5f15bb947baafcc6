"""Servers that do not take the connections which their kernel accepts: stopped, or with more than they can do. PURE.

Source: listen(2) (the kernel completes handshakes up to the backlog); proc(5), state T.
"""

from collections.abc import Iterator
from typing import NamedTuple

from routemesh.model import Protocol
from routemesh.snapshot import ClusterSnapshot, NamedTask, Socket


class Deaf(NamedTuple):
    """A task's server that is stopped, or has connections waiting that it has not accepted."""

    task: NamedTask
    socket: Socket

    @property
    def certain(self) -> bool:
        """Whether it answers nobody now; otherwise it may just be busy."""
        return self.socket.stopped or 0 < self.socket.backlog <= self.socket.queued

    def __str__(self) -> str:
        server = f"{self.socket.process or 'its server'}{f' ({self.socket.pid})' if self.socket.pid else ''}"
        waiting = f"{self.socket.queued} connections wait on {self.socket.protocol}/{self.socket.port}, not accepted by {server}"
        if self.socket.stopped:
            waits = f"; {waiting}" if self.socket.queued else ""
            return f"{server}, which listens on {self.socket.protocol}/{self.socket.port}, is stopped{waits}"
        return f"{waiting}{f', as many as may: its backlog is {self.socket.backlog}' if self.certain else ''}"


def deaf(cluster: ClusterSnapshot) -> Iterator[Deaf]:
    """Of all tasks that serve, on the ports to which connections are led."""
    targets = {service.name: {(port.protocol, port.target) for port in service.ports} for service in cluster.names.services}
    for task in cluster.names.tasks:
        node = cluster.nodes.get(task.node)
        space = None if node is None or not task.netns else node.namespaces.get(task.netns)
        for socket in (space.sockets or ()) if space is not None and task.serving else ():
            waits = socket.stopped or (socket.protocol is Protocol.TCP and socket.queued > 0)
            if waits and (socket.protocol, socket.port) in targets.get(task.service, ()):
                yield Deaf(task, socket)
