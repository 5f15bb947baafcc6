"""Servers that do not take the connections which their kernel accepts: stopped, or with more than they can do. PURE.

Source: listen(2), include/net/sock.h sk_acceptq_is_full (one more than the backlog may wait); proc(5), state T.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from routemesh.explain.faults import Fault
from routemesh.explain.nouns import Way
from routemesh.model import Protocol
from routemesh.reasons.causes import NotAnswering
from routemesh.reasons.named import named
from routemesh.reasons.words import of_cause, of_server
from routemesh.snapshot import ClusterSnapshot, NamedTask, Place, Socket
from routemesh.values import replace
from routemesh.walk import Branch


class Deaf(NamedTuple):
    """A task's server that is stopped, or has connections waiting that it has not accepted."""

    task: NamedTask
    socket: Socket

    @property
    def certain(self) -> bool:
        """Whether it answers nobody now; otherwise it may just be busy."""
        return self.socket.stopped or 0 < self.socket.backlog < self.socket.queued

    @property
    def reason(self) -> NotAnswering:
        """The same as a reason."""
        own = self.socket
        return NotAnswering(own.protocol, own.port, own.process, own.pid, own.queued, own.backlog, own.stopped)


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


Silent = Mapping[tuple[Place, Protocol, int], Deaf]


def silent(cluster: ClusterSnapshot) -> Silent:
    """Those that answer nobody, by their sockets."""
    return {
        (Place(each.task.node, each.task.netns), each.socket.protocol, each.socket.port): each
        for each in deaf(cluster)
        if each.certain
    }


def met(found: Silent, branch: Branch) -> Deaf | None:
    """Who gets a branch's connection and does not answer it; None where nobody is known not to."""
    if not found or not branch.hops:
        return None
    got = branch.hops[-1].after
    return found.get((branch.outcome.place, got.protocol, got.destination.port))


def fault(each: Deaf, branch: Branch, called: str, number: int) -> Fault:
    """That as what is wrong with a way, whose steps all go well."""
    mend = (f"kill -CONT {each.socket.pid}",) if each.socket.stopped and each.socket.pid else ()
    return Fault(
        at=branch.outcome.place, called=called, reason=each.reason, mend=mend, way=number, step=len(branch.hops) - 1, remains=True
    )


def unanswered(way: Way, each: Deaf) -> Way:
    """The way to such a server: its packets arrive, but nobody answers them."""
    why = of_cause(each.reason)
    last = replace(way.there[-1], failed=True, why=why, what=why)
    end = f"reaches {way.there[-1].place}, which accepts, but does not answer: {of_server(each.reason)}"
    return replace(way, there=(*way.there[:-1], last), arrives=False, end=end, reason=named(each.reason))
