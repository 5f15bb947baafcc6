"""What there is for a way to lead through: nodes, their namespaces, the devices and addresses in these. PURE."""

from collections.abc import Collection, Iterable, Iterator

from routemesh import names
from routemesh.explain.nouns import Device, Ground, Machine, Site, SiteKind
from routemesh.explain.way import Places
from routemesh.names import natural
from routemesh.nodeplan import HOST, Address, Link
from routemesh.snapshot import ClusterSnapshot, NamedTask, NamespaceSnapshot, NodeSnapshot, Place

_LOAD_BALANCER = "lb_"
"""How Swarm begins the names of namespaces in which a node balances a network other than the ingress one."""
_OVERLAYS = ("1-",)
_ONE_HOST = 32


def ground(cluster: ClusterSnapshot, services: Collection[str] | None = None, passed: Collection[Place] = ()) -> Ground:
    """All of a cluster; of tasks and virtual addresses those of `services` alone, if given, and of other namespaces than these,
    the nodes' own and what carries published ports only those that are `passed`."""
    places = Places(cluster)
    known = {node.name: node for node in cluster.names.nodes}
    nodes = sorted({*cluster.nodes, *known}, key=natural)
    machines = []
    for name in nodes:
        node = cluster.nodes.get(name)
        address = node.addresses[0] if node and node.addresses else known[name].address if name in known else None
        absent = known[name].absent if name in known else ""
        shown = "" if address is None else str(address)
        machines.append(Machine(name=name, address=shown, device="" if node is None else node.device, absent=absent))
    published = (
        (f"{port.published}/{port.protocol}{' (host mode)' * port.host}", service.name)
        for service in cluster.names.services
        for port in service.ports
        if services is None or service.name in services
    )
    return Ground(
        machines=tuple(machines),
        sites=tuple(_sites(places, nodes, services, passed)),
        published=tuple(sorted(published, key=lambda each: natural(each[0]))),
    )


def kind_of(namespace: str, *, task: bool) -> SiteKind:
    """Whose namespace it is by its name."""
    if namespace == HOST:
        return "host"
    if task:
        return "task"
    if namespace == names.SANDBOX or namespace.startswith(_LOAD_BALANCER):
        return "sandbox"
    return "overlay" if namespace.startswith(_OVERLAYS) else "other"


def _sites(places: Places, nodes: Iterable[str], services: Collection[str] | None, passed: Collection[Place]) -> Iterator[Site]:
    carrying = {HOST, names.SANDBOX, *(network.netns for network in places.cluster.names.networks if network.name == "ingress")}
    vips = {
        str(address): service.name
        for service in places.cluster.names.services
        if services is None or service.name in services
        for address in service.vips.values()
    }
    for name in nodes:
        node = places.cluster.nodes.get(name)
        tasks = [task for task in places.cluster.names.tasks if task.node == name]
        for netns, space in ({} if node is None else node.namespaces).items():
            place = Place(name, netns)
            if places.task(place) is None and (services is None or netns in carrying or place in passed):
                yield _site(places, place, tuple(_devices(node, space, vips)))
        for task in sorted(tasks, key=lambda each: natural(each.name)):
            place = Place(name, task.netns)
            if services is None or task.service in services or place in passed:
                yield _of_task(places, place, task, node)


def _site(places: Places, place: Place, devices: tuple[Device, ...]) -> Site:
    title = "the node itself" if place.netns == HOST else places.called(place).removeprefix(f"{place.node}: ")
    return Site(node=place.node, namespace=place.netns, kind=kind_of(place.netns, task=False), title=title, devices=devices)


def _of_task(places: Places, place: Place, task: NamedTask, node: NodeSnapshot | None) -> Site:
    """By what was read of it; else by what the manager knows."""
    space = None if node is None else node.namespaces.get(task.netns)
    if space is not None and task.netns:
        devices = tuple(_devices(node, space, {}))
    else:
        devices = tuple(Device(name="eth0", kind="veth", addresses=(str(address),)) for address in task.addresses.values())
    return Site(
        node=place.node,
        namespace=place.netns or task.name,
        kind="task",
        title=f"task {task.name}",
        devices=devices,
        service=task.service,
        note="" if task.serving else task.note or task.state,
    )


def _devices(node: NodeSnapshot | None, space: NamespaceSnapshot, vips: Collection[str]) -> Iterator[Device]:
    addresses: dict[str, list[str]] = {}
    for each in space.of(Address):
        addresses.setdefault(each.link, []).append(str(each.address))
    for link in space.of(Link):
        own = addresses.get(link.name, [])
        if link.kind == "loopback" or not (own or link.kind in ("bridge", "vxlan")):
            continue
        single = [each for each in own if each.endswith(f"/{_ONE_HOST}") and len(own) > 1]
        into = link.peer.netns if link.peer is not None and node is not None and link.peer.netns in node.namespaces else None
        yield Device(
            name=link.name,
            kind=link.kind,
            addresses=tuple(each for each in own if each not in single),
            vips=tuple(address for each in single if (address := each.partition("/")[0]) in vips),
            vni=link.vxlan.vni if link.vxlan is not None else 0,
            into=into,
        )
