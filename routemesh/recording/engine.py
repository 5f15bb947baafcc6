"""The files below docker/ of one node → what its engine knows. PURE.

A manager knows services, tasks and nodes. Every node knows its overlay networks with the marks that it gave their services
(`docker network inspect --verbose`), and which of its containers is in which namespace.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TypeVar

from routemesh.names import GWBRIDGE
from routemesh.recording import docker
from routemesh.recording.source import Source
from routemesh.snapshot import NamedNetwork, Names, Unread

T = TypeVar("T")

DIRECTORY = "docker"
_NETWORKS = ("network-ingress.json", "network-docker_gwbridge.json")
_CONTAINERS, _NODES, _SERVICES, _TASKS = "container-netns.txt", "nodes.json", "services.json", "tasks.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What one node's engine knows. `overlays` by network id; `gateways`: addresses on docker_gwbridge by namespace.

    `known`: nodes, services and tasks, as a manager has them; None for a worker.
    """

    overlays: Mapping[str, docker.Overlay] = field(default_factory=dict)
    bridge: NamedNetwork | None = None
    gateways: Mapping[str, IPv4Address] = field(default_factory=dict)
    containers: tuple[docker.Container, ...] = ()
    known: Names | None = None


def read_engine(place: str, texts: Mapping[str, str], unread: list[Unread]) -> Engine:
    """One node's engine from its directory, called `place`; files that are missing or broken are taken down in `unread`."""
    files = {path.removeprefix(f"{DIRECTORY}/"): text for path, text in texts.items() if path.startswith(f"{DIRECTORY}/")}

    def source(name: str, loses: str = docker.LOSES) -> Source:
        if name not in files:
            unread.append(Unread(f"{place}/{DIRECTORY}/{name}", "missing", loses))
        return Source(f"{place}/{DIRECTORY}/{name}", files.get(name, ""), loses, unread)

    networks_files = {name for name in files if name.startswith("network-") and name.endswith(".json")} | set(_NETWORKS)
    inspected = [source(name) for name in sorted(networks_files)]
    networks = [(each, docker.entries(each)) for each in inspected]
    bridges = [found for each, listed in networks for found in _read(each, listed, "Name", GWBRIDGE, docker.bridge)]
    overlays = [found for each, listed in networks for found in _read(each, listed, "Driver", "overlay", docker.overlay)]
    return Engine(
        overlays={overlay.network.id: overlay for overlay in overlays},
        bridge=bridges[0][0] if bridges else None,
        gateways=bridges[0][1] if bridges else {},
        containers=tuple(docker.containers(source(_CONTAINERS, "which namespace is whose"))),
        known=_known(source(_NODES), source(_SERVICES), source(_TASKS)) if _NODES in files else None,
    )


def _read(
    source: Source, listed: tuple[docker.Json, ...], field: str, value: str, read: Callable[[docker.Json], T]
) -> Iterator[T]:
    """The networks whose `field` is `value`."""
    return docker.understood(source, [entry for entry in listed if entry.get(field) == value], "network", read)


def _known(nodes: Source, services: Source, tasks: Source) -> Names:
    named_nodes = tuple(docker.understood(nodes, docker.entries(nodes), "node", docker.node))
    named_services = tuple(docker.understood(services, docker.entries(services), "service", docker.service))
    of = {service.id: service.name for service in named_services}
    where = {node.id: node.name for node in named_nodes}
    listed = docker.entries(tasks)
    named_tasks = docker.understood(tasks, listed, "task", lambda entry: docker.task(entry, of, where))
    return Names(nodes=named_nodes, services=named_services, tasks=tuple(filter(None, named_tasks)))
