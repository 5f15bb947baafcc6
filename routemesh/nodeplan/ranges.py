"""Which address ranges a machine has besides the mesh's."""

from collections.abc import Iterable, Iterator, Set
from ipaddress import IPv4Network
from typing import NamedTuple

from routemesh.nodeplan.plan import Item
from routemesh.nodeplan.stack import ROUTE_PROTOCOL, Address, Route

_A_WAY_TO_EVERYWHERE = 4
"""A route to half of the world or more, as default routes and those of VPNs are, says nothing about a range."""
_LOOPBACK = IPv4Network("127.0.0.0/8")


class Occupied(NamedTuple):
    """A range that a machine has besides the mesh: by an address of its own (`address`), or by a route, through a link."""

    network: IPv4Network
    link: str
    address: str = ""

    def __str__(self) -> str:
        return f"address {self.address} on {self.link}" if self.address else f"route to {self.network} through {self.link}"


def occupied_by(items: Iterable[Item], ours: Set[str]) -> Iterator[Occupied]:
    """What the addresses and routes of a machine take, without those of the links `ours`; a route beside its address once."""
    found = tuple(items)
    addresses = [item for item in found if isinstance(item, Address) and item.link not in ours]
    for item in addresses:
        if not item.address.network.subnet_of(_LOOPBACK):
            yield Occupied(item.address.network, item.link, str(item.address))
    connected = {(item.link, item.address.network) for item in addresses}
    for other in found:
        if isinstance(other, Route) and _leads_somewhere(other, ours) and (other.link, other.destination) not in connected:
            yield Occupied(other.destination, other.link)


def _leads_somewhere(route: Route, ours: Set[str]) -> bool:
    to_others = route.protocol != ROUTE_PROTOCOL and route.link not in {"", *ours}
    return to_others and route.kind == "unicast" and route.destination.prefixlen > _A_WAY_TO_EVERYWHERE
