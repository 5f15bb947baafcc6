"""Which tasks a node balances each published port over: what both engines make their rules from. PURE."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import assert_never

from routemesh.model import LAST_FWMARK, Balancing, ClientIp, Locality, Network, Protocol, Publish, Service, ServiceId, Task
from routemesh.plan.view import NodeView

_PORT_SHIFT, _UDP_BIT = 16, LAST_FWMARK + 1


@dataclass(frozen=True, slots=True)
class Member:
    """A task that connections may go to, by its overlay address.

    `name` differs from all others' of the pool; a task that takes another's place has its name.
    """

    address: IPv4Address
    weight: int = 1
    name: str = ""


@dataclass(frozen=True, slots=True)
class Pool:
    """The ports that share one mark, and the tasks that they are balanced over.

    `members` is in slot order. `draining` keep the connections that they have: they end, or others are nearer. `snat`: tasks see
    the node instead of the client.
    """

    service: ServiceId
    mark: int
    ports: tuple[tuple[Protocol, int], ...]
    members: tuple[Member, ...]
    draining: tuple[IPv4Address, ...]
    snat: bool
    balancing: Balancing

    @property
    def open(self) -> bool:
        """Whether any task takes new connections."""
        return any(member.weight for member in self.members)


def pools(view: NodeView, network: Network) -> Iterator[Pool]:
    """Every service's ports, grouped by the tasks that serve them on a network.

    A port whose tasks all drain is in a pool without members. The oldest service comes first. There is one pool per service,
    with the service's mark. Only in an update that changes the published ports do ports differ in their tasks. Then the pool
    that has not the service's `mark_port` is marked with its first port besides: whatever other ports come and go, a pool's mark
    stays, and with it the connections that IPVS knows by it.
    """
    for service in sorted(view.services, key=lambda service: service.fwmark or 0):
        if service.fwmark is None:
            continue
        for group in _by_tasks(view, service):
            members = tuple(_members(view, network, service, group.serving))
            yield Pool(
                service=service.id,
                mark=service.fwmark | (0 if service.mark_port in group.ports else _port_bits(*group.ports[0])),
                ports=tuple(group.ports),
                members=members,
                draining=tuple(address for task in group.draining if (address := task.address_on(network.id)) is not None),
                # While an update goes from snat to keep, the older tasks have no other way back for their replies.
                snat=any(task.spec.client_ip is ClientIp.SNAT for task in group.serving),
                balancing=service.spec.balancing,
            )


def mark_of_port(mark: int, protocol: Protocol, port: int) -> int:
    """The mark of a pool that is marked with a port, of the same service as the pool that has `mark`."""
    return mark & LAST_FWMARK | _port_bits(protocol, port)


def _port_bits(protocol: Protocol, port: int) -> int:
    return port << _PORT_SHIFT | (_UDP_BIT if protocol is Protocol.UDP else 0)


def _reachable(view: NodeView, service: Service, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """Those of a port's serving tasks that this node may lead connections to.

    A task without weight is not a reason to prefer this node: its connections go elsewhere.
    """
    local = tuple(task for task in tasks if task.node_id == view.node.id)
    match service.spec.balancing.locality:
        case Locality.LOCAL_ONLY:
            return local
        case Locality.PREFER_LOCAL:
            return local if any(_weight(view, service, task) for task in local) else tuple(tasks)
        case Locality.ANY:
            return tuple(tasks)
        case unknown:
            assert_never(unknown)


def _members(view: NodeView, network: Network, service: Service, tasks: tuple[Task, ...]) -> Iterator[Member]:
    """Named by slot, in a global service by node; the second task of a slot, during an update, by its id."""
    used: set[str] = set()
    for task in tasks:
        address = task.address_on(network.id)
        assert address is not None and task.node_id is not None
        slot = str(task.slot or task.node_id)
        name = task.id if slot in used else slot
        used.add(slot)
        yield Member(address, _weight(view, service, task), name)


def _weight(view: NodeView, service: Service, task: Task) -> int:
    assert task.node_id is not None
    return service.spec.balancing.weights.of(task.slot, view.names[task.node_id])


@dataclass(slots=True)
class _Group:
    ports: list[tuple[Protocol, int]]
    serving: tuple[Task, ...]
    draining: tuple[Task, ...]


def _of_one_kind(view: NodeView, service: Service, publish: tuple[Publish, ...]) -> _Group:
    """Where all tasks publish the same ports, as they do but during an update that changes these."""
    every = (*view.serving.get(service.id, ()), *view.draining.get(service.id, ()))
    ports = sorted({(port.protocol, port.published) for port in publish})
    found = _reachable(view, service, view.serving.get(service.id, ()))
    ids = {task.id for task in found}
    return _Group(ports, found, tuple(task for task in every if task.id not in ids))


def _by_tasks(view: NodeView, service: Service) -> Iterable[_Group]:
    """The ports that the service's tasks publish, those together that the same tasks serve; those that nobody serves too.

    Tasks with the same ports are looked at together: there may be thousands of ports.
    """
    serving, draining = view.serving.get(service.id, ()), view.draining.get(service.id, ())
    published = {task.spec.publish for task in (*serving, *draining)}
    if len(published) <= 1:
        return [_of_one_kind(view, service, ports) for ports in published if ports]
    kinds: dict[tuple[Publish, ...], int] = {}
    kind_of = {task.id: kinds.setdefault(task.spec.publish, len(kinds)) for task in (*serving, *draining)}
    kinds_of: dict[tuple[Protocol, int], tuple[int, ...]] = {}
    for publish, kind in kinds.items():
        for port in publish:
            place = (port.protocol, port.published)
            kinds_of[place] = (*kinds_of.get(place, ()), kind)
    ports_of: dict[tuple[int, ...], list[tuple[Protocol, int]]] = {}
    for place, of_kinds in sorted(kinds_of.items()):
        ports_of.setdefault(of_kinds, []).append(place)
    groups: dict[tuple[str, ...], tuple[_Group, set[int]]] = {}
    for of_kinds, ports in ports_of.items():
        found = _reachable(view, service, [task for task in serving if kind_of[task.id] in of_kinds])
        group, all_kinds = groups.setdefault(tuple(task.id for task in found), (_Group([], found, ()), set()))
        group.ports += ports
        all_kinds.update(of_kinds)
    for ids, (group, all_kinds) in groups.items():
        group.ports.sort()
        others = (task for task in (*serving, *draining) if task.id not in ids)
        group.draining = tuple(task for task in others if kind_of[task.id] in all_kinds)
    return [group for group, _ in groups.values()]
