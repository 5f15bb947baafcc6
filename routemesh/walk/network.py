"""All nodes' plans together, and what no plan contains. PURE."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from routemesh.model import Protocol
from routemesh.nodeplan import HOST, Link, NodePlan
from routemesh.walk.nouns import Place
from routemesh.walk.stack import Stack


@dataclass(frozen=True, slots=True)
class Host:
    """A node as others see it: what its kernel has, and its underlay addresses, all on the device `link`."""

    plan: NodePlan
    addresses: tuple[IPv4Address, ...]
    link: str = "eth0"


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Everything but the packet. Hosts go by node name; every address that none of them has is outside.

    `listening`: the ports that have a process which answers, by place. `sysctls`: what a namespace has where its plan is silent;
    what is in neither is 0. `wildcard_udp`: UDP programs answer from the address that the route to the client prefers, as those
    do that are bound to 0.0.0.0 and do not use IP_PKTINFO; otherwise from the address that was asked.
    """

    hosts: Mapping[str, Host]
    listening: Mapping[tuple[str, str], Set[tuple[Protocol, int]]] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    wildcard_udp: bool = False
    _stacks: dict[Place, Stack] = field(default_factory=dict, init=False, repr=False)

    def stack(self, place: Place) -> Stack | None:
        """A namespace, arranged at the first question and kept; None where there is no such namespace."""
        if place not in self._stacks and (found := self._arrange(place)) is not None:
            self._stacks[place] = found
        return self._stacks.get(place)

    def owner(self, address: IPv4Address) -> Stack | None:
        """The own namespace of the node that has an underlay address."""
        name = next((name for name, host in self.hosts.items() if address in host.addresses), None)
        return None if name is None else self.stack(Place(name, HOST))

    def tunnels(self, node: str, port: int, vni: int) -> list[tuple[Stack, Link]]:
        """A node's VXLAN devices with that UDP port and VNI, in whatever namespace (their sockets are in the node's own)."""
        found = []
        for netns in self.hosts[node].plan.namespaces:
            stack = self.stack(Place(node, netns))
            for link in stack.links.values() if stack else ():
                if link.up and link.vxlan is not None and (link.vxlan.port, link.vxlan.vni) == (port, vni):
                    assert stack is not None
                    found.append((stack, link))
        return found

    def _arrange(self, place: Place) -> Stack | None:
        host = self.hosts.get(place.node)
        if host is None:
            return None
        items = host.plan.namespaces.get(place.netns)
        if place.netns == HOST:
            return Stack(place, items or {}, self.sysctls, host.link, host.addresses)
        exists = ("Netns", place.netns) in host.plan.namespaces.get(HOST, {})
        return Stack(place, items or {}, self.sysctls) if exists else None
