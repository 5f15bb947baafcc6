"""Connections that a sandbox still leads to tasks which are gone, or that a node leads past its sandbox. PURE."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from ipaddress import IPv4Address
from typing import NamedTuple

from routemesh import names
from routemesh.explain.shown import in_namespace
from routemesh.model import Protocol
from routemesh.nodeplan import HOST, Address
from routemesh.snapshot import ClusterSnapshot, Led, NamedService, NamespaceSnapshot, NodeSnapshot, led


class Stale(NamedTuple):
    """So many connections to a published port through a node lead to an address; `command` lets go of them.

    `namespace`: whose they are. In the node's own they lead to the node itself, or to somebody who is not its sandbox.
    """

    node: str
    protocol: Protocol
    port: int
    address: IPv4Address
    number: int
    command: str
    namespace: str = names.SANDBOX

    def __str__(self) -> str:
        if self.namespace == HOST:
            one = self.number == 1
            lead = f"{self.number} known connection{' leads' if one else 's lead'}"
            return f"{lead} to {self.address} instead of the sandbox: {'it is' if one else 'they are'} older than the rule"
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
        yield from _past_the_sandbox(
            cluster, node, {port: service for port, service in ports.items() if service.answers_on(name)}
        )


def _past_the_sandbox(
    cluster: ClusterSnapshot, node: NodeSnapshot, ports: Mapping[tuple[Protocol, int], NamedService]
) -> Iterator[Stale]:
    """Unanswered connections of the node itself to published ports that connection tracking leads elsewhere.

    Rules are asked about a connection's first packet alone, and a client that goes on sending keeps it alive.
    """
    sandbox = node.namespaces.get(names.SANDBOX)
    inside = set() if sandbox is None else {item.address.ip for item in sandbox.of(Address)}
    found: Counter[tuple[Protocol, int, IPv4Address]] = Counter()
    for entry in node.host.conntrack or () if inside else ():
        asked, leads = entry.original, entry.reply.source.address
        service = ports.get((asked.protocol, asked.destination.port))
        meant = service is not None and any(task.serving for task in cluster.names.tasks if task.service == service.name)
        if meant and asked.destination.address in node.addresses and not entry.replied and leads not in inside:
            found[asked.protocol, asked.destination.port, leads] += 1
    for (protocol, port, address), number in found.items():
        command = f"conntrack -D -p {protocol} --orig-port-dst {port} --reply-src {address}"
        yield Stale(node.name, protocol, port, address, number, command, HOST)


def _alive(cluster: ClusterSnapshot, service: NamedService, protocol: Protocol) -> Set[IPv4Address]:
    """Who may have connections: a task that gets no new ones keeps those of TCP until it ends."""
    tasks = (task for task in cluster.names.tasks if task.service == service.name)
    kept = (task for task in tasks if task.serving or protocol is Protocol.TCP)
    return {address for task in kept for address in task.addresses.values()}


def _led(sandbox: NamespaceSnapshot) -> Iterable[Led]:
    return led(sandbox.conntrack or ()) if sandbox.led is None else sandbox.led
