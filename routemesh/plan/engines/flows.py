"""The connections that a node forgets when tasks come and go, as far as connection tracking has them: for every engine. PURE."""

from collections.abc import Iterator
from ipaddress import IPv4Address

from routemesh import names
from routemesh.model import Protocol
from routemesh.nodeplan import HOST
from routemesh.plan.engines.entry import Stale, StaleFlows, UntranslatedFlows
from routemesh.plan.pools import pools
from routemesh.plan.view import NodeView


def stale(before: NodeView | None, now: NodeView) -> Iterator[Stale]:
    """Connections to tasks that are gone: UDP at once, TCP (whose client then hears a reset) when they have ended.

    A UDP client that never stops sending would stay with a dead task for ever (moby#36878), or, if it sent while the port
    had no task, to nothing. Without `before` nobody knows what has changed, and all are looked at.
    """
    if before is None or _serving(before) - _serving(now):
        yield StaleFlows(netns=names.SANDBOX, protocol=Protocol.UDP, keep=_serving(now))
    if before is None or _alive(before) - _alive(now):
        yield StaleFlows(netns=names.SANDBOX, protocol=Protocol.TCP, keep=_alive(now))
    fresh = _served(now) - (_served(before) if before else set())
    if udp := {port for protocol, port in fresh if protocol is Protocol.UDP}:
        for netns in (HOST, names.SANDBOX):
            yield UntranslatedFlows(netns=netns, protocol=Protocol.UDP, ports=udp)


def _serving(seen: NodeView) -> set[IPv4Address]:
    """The ingress addresses that new connections may go to."""
    return set(seen.on_ingress(task for tasks in seen.serving.values() for task in tasks))


def _served(seen: NodeView) -> set[tuple[Protocol, int]]:
    return {port for pool in pools(seen, seen.ingress) if pool.open for port in pool.ports}


def _alive(seen: NodeView) -> set[IPv4Address]:
    return set(seen.on_ingress((*seen.tasks, *seen.remote)))
