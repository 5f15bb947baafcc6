"""What a person typed, as a question to a cluster: NODE:PORT[/udp], and who asks. PURE.

Every refusal says what there is instead.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from routemesh.errors import NotFound, Unavailable, UserError
from routemesh.model import Protocol
from routemesh.names import natural
from routemesh.nodeplan import HOST, MAIN_TABLE, Address, Route
from routemesh.snapshot import ClusterSnapshot, Endpoint, NamedService, NodeSnapshot
from routemesh.walk import OUTSIDE, Place

_TARGET = re.compile(r"(?P<node>.+):(?P<port>\d{1,5})(?:/(?P<protocol>[a-z]+))?")
_CLIENT = re.compile(r"(?P<name>.+?)(?::(?P<port>\d{1,5}))?")
SOURCE_PORT = 40000
_LAST_PORT = 65535
_SHOWN = 20
_SMALLEST = 31
_DOCUMENTATION = IPv4Address("198.51.100.1")
"""Somebody far away (RFC 5737)."""
_INGRESS = "ingress"
"""Tasks can't reach one another there: it carries published ports alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """NODE:PORT[/PROTOCOL] as it was typed."""

    node: str
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who asks whom: the first packet of a connection, from `start`."""

    client: str
    start: Place
    source: Endpoint
    destination: Endpoint
    target: Target
    service: NamedService | None

    @property
    def host_mode(self) -> bool:
        """Whether the port leads past the mesh to a task of the entry node (docker's mode=host)."""
        ports = () if self.service is None else self.service.ports
        same = ((port.protocol, port.published) == (self.target.protocol, self.target.port) for port in ports if port.host)
        return any(same)


def target(text: str) -> Target:
    """NODE:PORT, or NODE:PORT/udp. Raises UserError."""
    found = _TARGET.fullmatch(text)
    if found is None:
        raise UserError(f"{text} is not NODE:PORT or NODE:PORT/udp; node1:8080 is one")
    port = int(found["port"])
    if not 1 <= port <= _LAST_PORT:
        raise UserError(f"port {port} of {text} is not between 1 and {_LAST_PORT}")
    try:
        protocol = Protocol(found["protocol"] or "tcp")
    except ValueError:
        raise UserError(f"protocol {found['protocol']} of {text} is neither tcp nor udp") from None
    return Target(node=found["node"], port=port, protocol=protocol)


def ask(
    cluster: ClusterSnapshot, wanted: Target, client: str, outside: IPv4Address | None, source_port: int = SOURCE_PORT
) -> Asked:
    """The question. `client`: an address, a node's or a task's name, each with a port if need be; "": the one that is `outside`.

    `source_port`: the client's where it has none.

    A task may also ask a service by its name or virtual address, or another task, on a network that they share.

    Raises NotFound for a node, task or port that is not there, Unavailable for one that was not read.
    """
    if (within := _within(cluster, wanted, client, source_port)) is not None:
        return within
    node = _node(cluster, wanted.node)
    service = _service(cluster, wanted)
    name, port = _client(client, source_port)
    address = node.addresses[0] if node.addresses else None
    if address is None:
        raise Unavailable(f"node {node.name} has no address that could be read; {'; '.join(map(str, node.unread))}")
    start, source, shown = _start(cluster, node, address, name, outside)
    if start == Place(node.name, HOST) and source.is_loopback:
        address = source
    return Asked(
        client=shown,
        start=start,
        source=Endpoint(source, port),
        destination=Endpoint(address, wanted.port),
        target=wanted,
        service=service,
    )


def _within(cluster: ClusterSnapshot, wanted: Target, client: str, source_port: int) -> Asked | None:
    """The question to a service or task inside of a network, whatever port it publishes; None for one to a node."""
    found = None if _is_node(cluster, wanted.node) else _ends(cluster, wanted.node)
    if found is None:
        return None
    ingress = {network.id for network in cluster.names.networks if network.name == _INGRESS}
    ends = {network: address for network, address in found.items() if network not in ingress}
    name, port = _client(client, source_port)
    tasks = cluster.names.tasks
    asking = next((task for task in tasks if name and name in (task.name, task.netns)), None)
    if asking is None or not ends.keys() & asking.addresses.keys():
        near = sorted((task.name for task in tasks if ends.keys() & task.addresses.keys()), key=natural)[:_SHOWN]
        who = name or "a client outside"
        raise NotFound(f"{who} shares no network with {wanted.node}, ingress aside; those that do: {', '.join(near) or 'none'}")
    if asking.node not in cluster.nodes or asking.netns not in cluster.nodes[asking.node].namespaces:
        raise Unavailable(
            f"task {asking.name} can't be the client: its namespace on {asking.node or 'no node'} could not be read"
        )
    network = next(network for network in ends if network in asking.addresses)
    return Asked(
        client=f"task {asking.name}",
        start=Place(asking.node, asking.netns),
        source=Endpoint(asking.addresses[network], port),
        destination=Endpoint(ends[network], wanted.port),
        target=wanted,
        service=None,
    )


def _is_node(cluster: ClusterSnapshot, name: str) -> bool:
    addresses = (str(address) for node in cluster.nodes.values() for address in node.addresses)
    return name in (
        *cluster.nodes,
        *addresses,
        *(text for node in cluster.names.nodes for text in (node.name, str(node.address))),
    )


def _ends(cluster: ClusterSnapshot, name: str) -> Mapping[str, IPv4Address] | None:
    """The addresses of a service or task by network, only the one that is asked where an address is; None: there is no such."""
    known = [(each.name, each.vips) for each in cluster.names.services] + [
        (each.name, each.addresses) for each in cluster.names.tasks
    ]
    for called, addresses in known:
        if name == called:
            return addresses
        if found := {network: address for network, address in addresses.items() if name == str(address)}:
            return found
    return None


def published(services: Iterable[NamedService]) -> str:
    """The published ports with their services, as a list for people."""
    found = sorted((port.published, port.protocol, service.name) for service in services for port in service.ports)
    shown = [f"{number}/{protocol} ({name})" for number, protocol, name in found]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more if shown else "none"


def _node(cluster: ClusterSnapshot, name: str) -> NodeSnapshot:
    for node in cluster.nodes.values():
        if name == node.name or any(name == str(address) for address in node.addresses):
            return node
    for known in cluster.names.nodes:
        if name in (known.name, str(known.address)):
            raise Unavailable(f"node {known.name} can't be explained: {known.absent or 'nothing of it was read'}")
    every = sorted({*cluster.nodes, *(node.name for node in cluster.names.nodes)}, key=natural)
    raise NotFound(f"there is no node {name}; there are {', '.join(every)}")


def _service(cluster: ClusterSnapshot, wanted: Target) -> NamedService | None:
    """Who publishes the port; None where no manager could be asked."""
    services = cluster.names.services
    for service in services:
        if any((port.protocol, port.published) == (wanted.protocol, wanted.port) for port in service.ports):
            return service
    if services or cluster.names.nodes:
        raise NotFound(f"port {wanted.port}/{wanted.protocol} is not published; published are: {published(services)}")
    return None


def _client(text: str, source_port: int) -> tuple[str, int]:
    found = _CLIENT.fullmatch(text)
    if found is None or found["port"] is None:
        return text, source_port
    port = int(found["port"])
    if not 1 <= port <= _LAST_PORT:
        raise UserError(f"port {port} of client {text} is not between 1 and {_LAST_PORT}")
    return found["name"], port


def _start(
    cluster: ClusterSnapshot, asked: NodeSnapshot, address: IPv4Address, name: str, outside: IPv4Address | None
) -> tuple[Place, IPv4Address, str]:
    """Where the client is, its address, and what to call it."""
    if not name:
        return OUTSIDE, outside or _somebody_near(cluster, asked, address), "a client outside of the cluster"
    for node in cluster.nodes.values():
        if name == node.name:
            return Place(node.name, HOST), address if node is asked else node.addresses[0], f"node {node.name} itself"
    for task in cluster.names.tasks:
        if name in (task.name, task.netns):
            return _from_task(cluster, task.node, task.netns, task.name, asked)
    try:
        own = IPv4Address(name)
    except ValueError:
        tasks = ", ".join(sorted((task.name for task in cluster.names.tasks), key=natural)[:_SHOWN])
        nodes = ", ".join(sorted(cluster.nodes, key=natural))
        raise NotFound(f"client {name} is not an address, a node or a task; nodes are {nodes}, tasks {tasks or 'none'}") from None
    if own.is_loopback:
        return Place(asked.name, HOST), own, f"node {asked.name} itself"
    for node in cluster.nodes.values():
        if own in node.addresses:
            return Place(node.name, HOST), own, f"node {node.name} itself"
    return OUTSIDE, own, f"client {own}"


def _from_task(cluster: ClusterSnapshot, node: str, netns: str, name: str, asked: NodeSnapshot) -> tuple[Place, IPv4Address, str]:
    space = cluster.nodes[node].namespaces.get(netns) if node in cluster.nodes else None
    if space is None:
        raise Unavailable(f"task {name} can't be the client: its namespace on {node or 'no node'} could not be read")
    default = next((route for route in space.of(Route) if route.table == MAIN_TABLE and route.destination.prefixlen == 0), None)
    link = default.link if default is not None else ""
    sources = [route.source for route in space.of(Route) if route.kind == "unicast" and route.link == link and route.source]
    if not sources:
        raise Unavailable(f"task {name} can't be the client: it has no default route with an address of its own")
    return Place(node, netns), sources[0], f"task {name}"


def _somebody_near(cluster: ClusterSnapshot, asked: NodeSnapshot, address: IPv4Address) -> IPv4Address:
    """An address on the node's own network that no node has: where nothing is said, a neighbour asks."""
    taken = {own for node in cluster.nodes.values() for own in node.addresses}
    taken |= {node.address for node in cluster.names.nodes if node.address is not None}
    routed = (route.destination for route in asked.host.of(Route) if route.kind == "unicast" and route.via is None)
    # Its own network's route is gone with a device that is down, its address is not.
    own = (item.address.network for item in asked.host.of(Address) if item.address.ip == address)
    for network in (*routed, *own):
        if address in network and network.prefixlen < _SMALLEST:
            last = int(network.broadcast_address)
            free = (IPv4Address(last - number) for number in range(1, network.num_addresses - 1))
            return next((host for host in free if host not in taken), _DOCUMENTATION)
    return _DOCUMENTATION
