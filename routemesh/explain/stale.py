"""Connections that a sandbox still leads to tasks which are no more. PURE."""

from collections.abc import Iterable, Iterator, Set
from ipaddress import IPv4Address
from typing import NamedTuple

from routemesh import names
from routemesh.explain.shown import in_namespace
from routemesh.model import Protocol
from routemesh.snapshot import ClusterSnapshot, Led, NamedService, NamespaceSnapshot, led


class Stale(NamedTuple):
    """So many connections to a published port through a node lead to an address; `command` lets go of them."""

    node: str
    protocol: Protocol
    port: int
    address: IPv4Address
    number: int
    command: str

    def __str__(self) -> str:
        many = "1 known connection still leads" if self.number == 1 else f"{self.number} known connections still lead"
        return f"{many} to {self.address}, which no serving task has"


def stale(cluster: ClusterSnapshot) -> Iterator[Stale]:
    """Of every published port, through every node that was read."""
    ports = {(port.protocol, port.published): service for service in cluster.names.services for port in service.ports}
    alive = {
        (service.name, protocol): _alive(cluster, service, protocol)
        for service in cluster.names.services
        for protocol in Protocol
    }
    for name, node in cluster.nodes.items():
        sandbox = node.namespaces.get(names.SANDBOX)
        for protocol, port, address, count in () if sandbox is None else _led(sandbox):
            service = ports.get((protocol, port))
            serving = alive[service.name, protocol] if service is not None else frozenset()
            if not serving or address in serving:
                continue
            command = in_namespace(node, names.SANDBOX, f"conntrack -D -p {protocol} --reply-src {address}")
            yield Stale(name, protocol, port, address, count, command)


def _alive(cluster: ClusterSnapshot, service: NamedService, protocol: Protocol) -> Set[IPv4Address]:
    """Who may have connections: a task that gets no new ones keeps those of TCP until it ends."""
    tasks = (task for task in cluster.names.tasks if task.service == service.name)
    kept = (task for task in tasks if task.serving or protocol is Protocol.TCP)
    return {address for task in kept for address in task.addresses.values()}


def _led(sandbox: NamespaceSnapshot) -> Iterable[Led]:
    return led(sandbox.conntrack or ()) if sandbox.led is None else sandbox.led
