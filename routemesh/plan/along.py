"""What the kernel makes by itself along with what is planned: planned too, so that it is put back when it was taken away. PURE.

Every address brings its route of kind local, and one to its subnet; a namespace of ours begins with three routing rules and lo.
Left out are broadcast routes, which carry nothing of the mesh, and IPv6's addresses: our namespaces have none.
Source: fib_frontend.c (fib_add_ifaddr, fib_magic), devinet.c (inetdev_event).
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Interface, IPv4Network

from routemesh.nodeplan import (
    FIRST_RULES,
    HOST,
    KERNEL_PROTOCOL,
    LOCAL_TABLE,
    LOOPBACK,
    MAIN_TABLE,
    Address,
    Item,
    Link,
    Route,
)

_LOOPBACK_MTU_BYTES = 65536
_HOST_PREFIX = 32


def along(netns: str, items: Iterable[Item]) -> Iterator[Item]:
    """What comes along with these items of a namespace. Of the node's own namespace, its rules and its lo are not ours."""
    if netns != HOST:
        loopback = Address(LOOPBACK, IPv4Interface("127.0.0.1/8"))
        yield Link(name=LOOPBACK, kind="loopback", mtu=_LOOPBACK_MTU_BYTES)
        yield loopback
        yield from routes(loopback)
        yield from FIRST_RULES
    for item in items:
        if isinstance(item, Address):
            yield from routes(item)


def routes(of: Address) -> Iterator[Route]:
    """The route to the address itself, and the one to its subnet where that is larger."""
    address, subnet = of.address.ip, of.address.network
    yield _route(of, IPv4Network(int(address)), LOCAL_TABLE)
    if subnet.prefixlen < _HOST_PREFIX:
        yield _route(of, subnet, LOCAL_TABLE if of.link == LOOPBACK else MAIN_TABLE)


def _route(of: Address, destination: IPv4Network, table: int) -> Route:
    return Route(
        destination=destination,
        via=None,
        link=of.link,
        table=table,
        source=of.address.ip,
        kind="local" if table == LOCAL_TABLE else "unicast",
        protocol=KERNEL_PROTOCOL,
    )
