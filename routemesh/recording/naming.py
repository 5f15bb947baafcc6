"""The engines of all recorded nodes together → the cluster's Names. PURE.

Where a manager's recording is among them, it knows all; else what every node knows must do: the services of its own overlays,
with their tasks and where those are.
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

from routemesh.model import Protocol
from routemesh.names import INGRESS_CHAIN
from routemesh.nodeplan import Match, XtChain
from routemesh.recording import docker
from routemesh.recording.docker import Overlay
from routemesh.recording.engine import Engine
from routemesh.snapshot import NamedNetwork, NamedNode, NamedPort, NamedService, NamedTask, Names, NodeSnapshot, Unread
from routemesh.values import replace

NOT_RECORDED = "there is no recording of it"


def names(recorded: Mapping[str, Engine], snapshots: Mapping[str, NodeSnapshot], unread: list[Unread]) -> Names:
    """The cluster's names. `recorded` and `snapshots` are by node name."""
    found = next((engine.known for engine in recorded.values() if engine.known is not None), None)
    if found is None:
        unread.append(Unread("a manager's docker/nodes.json", "in no recording", "which services and tasks there are to be"))
        found = _as_every_node_knows(recorded, snapshots)
    return Names(
        nodes=tuple(_with_ingress_address(node, recorded) for node in found.nodes),
        services=tuple(_with_marks(service, recorded) for service in found.services),
        tasks=(*(_with_netns(task, recorded) for task in found.tasks), *_containers(recorded)),
        networks=tuple(_networks(recorded)),
    )


def _networks(recorded: Mapping[str, Engine]) -> Iterator[NamedNetwork]:
    overlays = {overlay.network.id: overlay.network for engine in recorded.values() for overlay in engine.overlays.values()}
    yield from overlays.values()
    yield from [engine.bridge for engine in recorded.values() if engine.bridge is not None][:1]


def _with_ingress_address(node: NamedNode, recorded: Mapping[str, Engine]) -> NamedNode:
    ends = [overlay.ends for engine in recorded.values() for overlay in engine.overlays.values() if overlay.ingress]
    own = next((end[node.address] for end in ends if node.address in end), None) if node.address is not None else None
    return replace(node, ingress_address=own, absent="" if node.name in recorded else NOT_RECORDED)


def _with_marks(service: NamedService, recorded: Mapping[str, Engine]) -> NamedService:
    """A service has a mark in each of its overlays; that of the ingress network leads, if it has one."""
    marks: dict[str, int] = {}
    for name, engine in recorded.items():
        for overlay in sorted(engine.overlays.values(), key=lambda overlay: not overlay.ingress):
            if service.name in overlay.marks:
                marks.setdefault(name, overlay.marks[service.name])
    return replace(service, marks=marks)


def _with_netns(task: NamedTask, recorded: Mapping[str, Engine]) -> NamedTask:
    engine = recorded.get(task.node, Engine())
    netns = next((container.netns for container in engine.containers if container.name.endswith(f".{task.id}")), "")
    return replace(task, netns=netns, gateway_address=engine.gateways.get(netns))


def _containers(recorded: Mapping[str, Engine]) -> Iterator[NamedTask]:
    """Containers of no service that people attached to overlays, which may be clients: as tasks that serve nothing."""
    for name, engine in recorded.items():
        of_services = {task.name for overlay in engine.overlays.values() for task in overlay.tasks}
        for container in engine.containers:
            at = {overlay.network.id: overlay.containers.get(container.id) for overlay in engine.overlays.values()}
            addresses = {network: address for network, address in at.items() if address is not None}
            if addresses and container.name not in of_services:
                yield NamedTask(
                    name=container.name,
                    id=container.id,
                    node=name,
                    netns=container.netns,
                    addresses=addresses,
                    gateway_address=engine.gateways.get(container.netns),
                    serving=False,
                    note="a container of no service",
                )


# --- what every node knows ---------------------------------------------------------------------------------------


def _as_every_node_knows(recorded: Mapping[str, Engine], snapshots: Mapping[str, NodeSnapshot]) -> Names:
    """Services and tasks of the overlays that the nodes have; a node without a recording is called by its address."""
    name_of = {address: name for name, snapshot in snapshots.items() for address in snapshot.addresses}
    overlays = [overlay for engine in recorded.values() for overlay in engine.overlays.values()]
    hosts = {host for overlay in overlays for host in overlay.ends} | {task.host for each in overlays for task in each.tasks}
    nodes = {name_of.get(host, str(host)): NamedNode(name=name_of.get(host, str(host)), address=host) for host in sorted(hosts)}
    protocols = _protocols(snapshots)
    services: dict[str, NamedService] = {}
    tasks: dict[str, NamedTask] = {}
    for overlay in overlays:
        for service in overlay.marks:
            services[service] = _seen_service(services.get(service, NamedService(name=service)), overlay, protocols)
        for task in overlay.tasks:
            seen = tasks.get(task.name) or _seen_task(task, name_of)
            tasks[task.name] = replace(seen, addresses={**seen.addresses, overlay.network.id: task.address})
    return Names(nodes=tuple(nodes.values()), services=tuple(services.values()), tasks=tuple(tasks.values()))


def _seen_service(service: NamedService, overlay: Overlay, protocols: Mapping[int, set[Protocol]]) -> NamedService:
    vips = {**service.vips, overlay.network.id: overlay.vips[service.name]} if service.name in overlay.vips else service.vips
    ports = tuple(
        NamedPort(protocol=protocol, published=published, target=target)
        for published, target in overlay.ports[service.name]
        for protocol in sorted(protocols.get(published, {Protocol.TCP}))
    )
    return replace(service, vips=vips, ports=tuple(dict.fromkeys((*service.ports, *ports))))


def _seen_task(task: docker.Attached, name_of: Mapping[IPv4Address, str]) -> NamedTask:
    """`web.1.<id>` of a replicated service, `web.<node id>.<id>` of a global one."""
    name, _, id_ = task.name.rpartition(".")
    return NamedTask(name=name, id=id_, service=task.service, node=name_of.get(task.host, str(task.host)))


def _protocols(snapshots: Mapping[str, NodeSnapshot]) -> Mapping[int, set[Protocol]]:
    """Published ports with their protocols, as the nodes' DOCKER-INGRESS chains have them."""
    found: dict[int, set[Protocol]] = {}
    for snapshot in snapshots.values():
        for chain in snapshot.host.of(XtChain):
            for rule in chain.rules if chain.name == INGRESS_CHAIN else ():
                told = {part.field: part.value for part in rule if isinstance(part, Match)}
                if "th dport" in told and told["th dport"].isdigit() and told.get("meta l4proto") in set(Protocol):
                    found.setdefault(int(told["th dport"]), set()).add(Protocol(told["meta l4proto"]))
    return found
