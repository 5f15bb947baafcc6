"""All nodes together, as planned or as observed, and what is in no kernel. PURE."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Literal

from routemesh.model import Protocol
from routemesh.nodeplan import HOST, Item, Link, Neighbour, NodePlan
from routemesh.reasons.ends import TableFull
from routemesh.reasons.unclear import ListenersNotRead, NodeNotRead
from routemesh.snapshot import (
    ANY_ADDRESS,
    Bound,
    ClusterSnapshot,
    ConntrackEntry,
    Endpoint,
    IpsecPolicy,
    NamespaceSnapshot,
    NodeSnapshot,
    Place,
    bound_instead,
)
from routemesh.walk.balancer import Balancer, balanced
from routemesh.walk.conntrack import Known
from routemesh.walk.nouns import UnknownRule
from routemesh.walk.stack import Stack


@dataclass(frozen=True, slots=True)
class Host:
    """A node by its plan: what its kernel should have, and its underlay addresses, all on the device `link`."""

    plan: NodePlan
    addresses: tuple[IPv4Address, ...]
    link: str = "eth0"


@dataclass(frozen=True, slots=True)
class Listener:
    """Who gets what comes to a port. `answers_from` the address that was asked, or the one that the route to the client prefers.

    A UDP program that is bound to no address does the latter unless it cares (IP_PKTINFO), which can't be seen.
    """

    process: str = ""
    answers_from: Literal["asked", "preferred", "unknown"] = "asked"


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Everything but the packet. Nodes go by name; every address that none of them has is outside.

    `hosts`: the nodes that are planned. `listening`: the ports that have a process which answers, by place. `sysctls`: what a
    namespace has where its plan is silent; what is in neither is 0. `wildcard_udp`: UDP programs answer from the address that the
    route to the client prefers, otherwise from the one that was asked.
    `arp`: who was found to answer, by who asks through which link; a thousand walks ask the same.
    `seen`: the nodes that are observed. `unseen`: those of which there is no snapshot, by address.
    """

    hosts: Mapping[str, Host] = field(default_factory=dict)
    listening: Mapping[tuple[str, str], Set[tuple[Protocol, int]]] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    wildcard_udp: bool = False
    seen: Mapping[str, NodeSnapshot] = field(default_factory=dict)
    unseen: Mapping[IPv4Address, NodeNotRead] = field(default_factory=dict)
    arp: dict[tuple[Place, str, IPv4Address, IPv4Address], dict[str, Neighbour | Link]] = field(
        default_factory=dict, init=False, repr=False
    )
    _stacks: dict[Place, Stack] = field(default_factory=dict, init=False, repr=False)
    _connections: dict[Place, Known] = field(default_factory=dict, init=False, repr=False)
    _balanced: dict[Place, Balancer] = field(default_factory=dict, init=False, repr=False)
    _tunnelled: dict[str, list[str]] = field(default_factory=dict, init=False, repr=False)

    def stack(self, place: Place) -> Stack | None:
        """A namespace, arranged at the first question and kept; None where there is no such namespace."""
        if place not in self._stacks and (found := self._arrange(place)) is not None:
            self._stacks[place] = found
        return self._stacks.get(place)

    def but(self, cluster: ClusterSnapshot, nodes: Set[str]) -> "Network":
        """The same where some nodes are as `cluster` has them; what is arranged of the others is kept."""
        other = observed(cluster)
        other._stacks.update({place: stack for place, stack in self._stacks.items() if place.node not in nodes})
        return other

    @property
    def asked(self) -> Set[Place]:
        """The namespaces that a walk has asked for so far; on nothing else can it depend."""
        return self._stacks.keys()

    def owner(self, address: IPv4Address) -> Stack | None:
        """The own namespace of the node that has an underlay address."""
        every = [*((name, host.addresses) for name, host in self.hosts.items())]
        every += [*((name, node.addresses) for name, node in self.seen.items())]
        name = next((name for name, addresses in every if address in addresses), None)
        return None if name is None else self.stack(Place(name, HOST))

    def tunnels(self, node: str, port: int, vni: int) -> list[tuple[Stack, Link]]:
        """A node's VXLAN devices with that UDP port and VNI, in whatever namespace (their sockets are in the node's own)."""
        found = []
        for netns in self._with_tunnels(node):
            stack = self.stack(Place(node, netns))
            for link in stack.links.values() if stack else ():
                if link.up and link.vxlan is not None and (link.vxlan.port, link.vxlan.vni) == (port, vni):
                    assert stack is not None
                    found.append((stack, link))
        return found

    def listener(self, place: Place, protocol: Protocol, asked: Endpoint) -> Listener | None:
        """Who gets what comes to a port of a namespace. Raises UnknownRule where that was not read."""
        seen = self._space(place)
        if seen is None:
            wildcard = self.wildcard_udp and protocol is Protocol.UDP
            listens = (protocol, asked.port) in self.listening.get(place, ())
            return Listener(answers_from="preferred" if wildcard else "asked") if listens else None
        if seen.sockets is None:
            raise UnknownRule(place, ListenersNotRead(protocol, asked.port))
        bound = [socket for socket in seen.sockets if (socket.protocol, socket.port) == (protocol, asked.port)]
        for address in (asked.address, ANY_ADDRESS):
            for socket in bound:
                if socket.address == address:
                    cares = protocol is Protocol.TCP or address != ANY_ADDRESS
                    return Listener(socket.process, "asked" if cares else "unknown")
        return None

    def instead(self, place: Place, protocol: Protocol, port: int) -> tuple[Bound, ...]:
        """Where processes of a namespace wait, if none has a port: of a task's for others, too."""
        seen = self._space(place)
        if seen is None:
            return ()
        return bound_instead(seen.sockets or (), seen.only_ipv6, protocol, port, any_port=place.netns != HOST)

    def connections(self, place: Place) -> Known:
        """The connections that a namespace has already, arranged at the first question and kept."""
        if place not in self._connections:
            self._connections[place] = Known(self._entries(place))
        return self._connections[place]

    def balanced(self, place: Place) -> Balancer:
        """Those of them that IPVS has balanced; likewise."""
        if place not in self._balanced:
            self._balanced[place] = balanced(self._entries(place))
        return self._balanced[place]

    def _entries(self, place: Place) -> Iterable[ConntrackEntry]:
        seen = self._space(place)
        return () if seen is None else seen.conntrack or ()

    def policies(self, place: Place) -> Iterable[IpsecPolicy]:
        """The IPsec policies of a namespace; a plan has none."""
        seen = self._space(place)
        return () if seen is None else seen.ipsec

    def full(self, place: Place) -> TableFull | None:
        """That the table of a namespace's connections is full; None where it takes another one."""
        seen = self._space(place)
        if seen is None or seen.conntrack_count is None or not seen.conntrack_max:
            return None
        full = seen.conntrack_count >= seen.conntrack_max
        return TableFull(seen.conntrack_count, seen.conntrack_max) if full else None

    def _space(self, place: Place) -> NamespaceSnapshot | None:
        return self.seen[place.node].namespaces.get(place.netns) if place.node in self.seen else None

    def _namespaces(self, node: str) -> list[str]:
        """The names of a node's namespaces that are there."""
        if node in self.seen:
            return list(self.seen[node].namespaces)
        plan = self.hosts[node].plan
        own = plan.namespaces.get(HOST, {})
        return [HOST, *(netns for netns in plan.namespaces if ("Netns", netns) in own)]

    def _with_tunnels(self, node: str) -> list[str]:
        if node not in self._tunnelled:
            spaces = ((netns, self._items(Place(node, netns))) for netns in self._namespaces(node))
            self._tunnelled[node] = [
                netns for netns, items in spaces if any(isinstance(item, Link) and item.vxlan is not None for item in items)
            ]
        return self._tunnelled[node]

    def _items(self, place: Place) -> Iterable[Item]:
        if (space := self._space(place)) is not None:
            return space.items
        return self.hosts[place.node].plan.namespaces.get(place.netns, {}).values()

    def _arrange(self, place: Place) -> Stack | None:
        node, netns = place
        if node not in (*self.seen, *self.hosts) or netns not in self._namespaces(node):
            return None
        if (space := self._space(place)) is not None:
            underlay = self.seen[node].device if netns == HOST else ""
            return Stack(place, space.items, {}, underlay, observed=True, unread=space.unread)
        host = self.hosts[node]
        items = self._items(place)
        if netns == HOST:
            return Stack(place, items, self.sysctls, host.link, host.addresses)
        return Stack(place, items, self.sysctls)


def observed(cluster: ClusterSnapshot) -> Network:
    """The network that was seen."""
    unseen = {
        node.address: NodeNotRead(node.address, node.name, node.absent)
        for node in cluster.names.nodes
        if node.address is not None and node.name not in cluster.nodes
    }
    return Network(seen=cluster.nodes, unseen=unseen)
