"""Pools of addresses, handed out in series as Swarm does, so that an address is not used again at once. PURE.

Rule: the first free address after the highest that anything mentions, from the start again at the end of the subnet. An address
that a task in the history had is taken only when there is no other: connections and ARP entries may still know its old holder.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from itertools import chain

from routemesh.model import Attachment, Network, NetworkId, NodeId, State, Task

_OVERLAY_GATEWAYS = 1
_BRIDGE_GATEWAYS = 2
"""docker_gwbridge's own address and the sandbox's."""


class AddressPool:
    """The addresses of one subnet that are free now; `take` hands them out."""

    def __init__(self, subnet: IPv4Network, *, gateways: int, used: Iterable[IPv4Address], known: Iterable[IPv4Address]) -> None:
        """The network and broadcast address and the first `gateways` are nobody's; `known`: of ended tasks."""
        self.subnet = subnet
        first = int(subnet.network_address) + 1 + gateways
        self._range = range(first, int(subnet.broadcast_address))
        self._used = {address for address in map(int, used) if address in self._range}
        self._known = {address for address in map(int, known) if address in self._range} - self._used
        self._series = self._in_series()

    @property
    def size(self) -> int:
        """How many addresses there are, used or not."""
        return len(self._range)

    @property
    def free(self) -> int:
        """How many addresses nobody used when the pool was made."""
        return self.size - len(self._used)

    def take(self) -> IPv4Address | None:
        """The next address; None when there is no more."""
        return next(self._series, None)

    def _in_series(self) -> Iterator[IPv4Address]:
        start = max((*self._used, *self._known), default=self._range.start - 1) + 1 - self._range.start
        fresh = chain(self._range[start:], self._range[:start])
        yield from (IPv4Address(address) for address in fresh if address not in self._used and address not in self._known)
        known = chain(self._range[start:], self._range[:start])
        yield from (IPv4Address(address) for address in known if address in self._known)

    def __str__(self) -> str:
        return f"{self.subnet} ({self.size} addresses)"


def network_pool(state: State, network: Network) -> AddressPool:
    """The pool of a network's addresses: of the nodes' sandboxes, the VIPs and the tasks."""
    tasks = state.tasks.values()
    used = (
        *(node.attachments for node in state.nodes.values()),
        *(service.vips for service in state.services.values()),
        *(task.attachments for task in tasks if not task.status.state.ended),
    )
    past = (task.attachments for task in tasks if task.status.state.ended)
    return AddressPool(network.subnet, gateways=_OVERLAY_GATEWAYS, used=_on(network.id, used), known=_on(network.id, past))


def _on(network_id: NetworkId, holders: Iterable[tuple[Attachment, ...]]) -> Iterator[IPv4Address]:
    return (each.address for attachments in holders for each in attachments if each.network_id == network_id)


def gateway_pools(state: State, subnet: IPv4Network) -> dict[NodeId, AddressPool]:
    """Each node's pool on its own docker_gwbridge."""
    tasks: dict[NodeId, list[Task]] = {node_id: [] for node_id in state.nodes}
    for task in state.tasks.values():
        if task.node_id in tasks:
            tasks[task.node_id].append(task)
    return {node_id: _gateway_pool(subnet, own) for node_id, own in tasks.items()}


def _gateway_pool(subnet: IPv4Network, tasks: Iterable[Task]) -> AddressPool:
    used: list[IPv4Address] = []
    past: list[IPv4Address] = []
    for task in tasks:
        if task.gateway_address is not None:
            (past if task.status.state.ended else used).append(task.gateway_address)
    return AddressPool(subnet, gateways=_BRIDGE_GATEWAYS, used=used, known=past)
