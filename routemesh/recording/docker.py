"""The shapes in which Docker's engine speaks of a Swarm: JSON of its API, or of its command, which is the same. PURE.

Source: Docker Engine API v1.41, definitions Service, Task, Node, Network.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, TypeVar

from routemesh.model import Protocol, TaskState
from routemesh.names import overlay_netns
from routemesh.recording.source import Source
from routemesh.snapshot import NamedNetwork, NamedNode, NamedPort, NamedService, NamedTask

Json = Mapping[str, Any]
T = TypeVar("T")

LOSES = "the names of services, tasks and nodes"
_MTU = "com.docker.network.driver.mtu"
_VXLAN_IDS = "com.docker.network.driver.overlay.vxlanid_list"
_ENDED = frozenset(state.name.lower() for state in TaskState if state.ended)
_NOT_UNDERSTOOD = (KeyError, TypeError, ValueError, AttributeError, StopIteration)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """An overlay network as one node sees it.

    `marks`, `vips` and `ports` (published and target): of services by name. `ends`: the nodes' own ends (ingress_sbox, lb_…) by
    underlay address. `tasks`: those of services, each with its overlay address and its node's underlay address. `containers`: the
    node's own, by id, whether a service's or not.
    """

    network: NamedNetwork
    ingress: bool
    marks: Mapping[str, int]
    vips: Mapping[str, IPv4Address]
    ports: Mapping[str, tuple[tuple[int, int], ...]]
    ends: Mapping[IPv4Address, IPv4Address]
    tasks: tuple["Attached", ...]
    containers: Mapping[str, IPv4Address]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A task as every node of its overlay knows it."""

    service: str
    name: str
    address: IPv4Address
    host: IPv4Address


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a node: its id, its name (of a task: service.slot.task), and the namespace that it is in."""

    id: str
    name: str
    netns: str


def entries(source: Source) -> tuple[Json, ...]:
    """The objects of a JSON list, or a single one; anything else is reported."""
    if not source.text:  # missing, as was said already
        return ()
    try:
        found = json.loads(source.text)
    except ValueError as error:
        source.broken(f"no JSON: {error}")
        return ()
    listed = found if isinstance(found, list) else [found]
    good = tuple(entry for entry in listed if isinstance(entry, dict))
    if len(good) != len(listed):
        source.broken("an entry is not an object")
    return good


def understood(source: Source, listed: Iterable[Json], kind: str, read: Callable[[Json], T]) -> Iterator[T]:
    """What `read` makes of each entry; those that lack something are reported with their name and left out."""
    for entry in listed:
        try:
            yield read(entry)
        except _NOT_UNDERSTOOD as error:
            which = entry.get("Name") or entry.get("ID") or entry.get("Id") or "?"
            source.broken(f"{kind} {which} is not understood ({type(error).__name__}: {error})")


# --- networks and containers: every node knows its own -----------------------------------------------------------


def overlay(entry: Json) -> Overlay:
    """A network of `docker network inspect --verbose`. Raises KeyError, ValueError … for what is not an overlay of IPv4."""
    services = entry.get("Services") or {}
    named = {name: service for name, service in services.items() if name}
    vips = {name: service["VIP"] for name, service in named.items()}
    return Overlay(
        network=NamedNetwork(
            name=entry["Name"],
            id=entry["Id"],
            subnet=subnet(entry),
            vni=int(entry["Options"][_VXLAN_IDS].split(",")[0]),
            netns=overlay_netns(entry["Id"]),
            mtu_bytes=_mtu(entry),
        ),
        ingress=entry["Ingress"],
        marks={name: int(service["LocalLBIndex"]) for name, service in named.items()},
        vips={name: IPv4Address(vip) for name, vip in vips.items() if vip and vip != "<nil>"},
        ports={name: tuple(_ports(service)) for name, service in named.items()},
        ends={
            IPv4Address(task["Info"]["Host IP"]): IPv4Address(task["EndpointIP"])
            for task in services.get("", {}).get("Tasks", ())
            if task["Name"].endswith("-endpoint")
        },
        tasks=tuple(
            Attached(
                service=name,
                name=task["Name"],
                address=IPv4Address(task["EndpointIP"]),
                host=IPv4Address(task["Info"]["Host IP"]),
            )
            for name, service in named.items()
            for task in service.get("Tasks", ())
        ),
        containers={
            id_: IPv4Interface(end["IPv4Address"]).ip
            for id_, end in (entry.get("Containers") or {}).items()
            if end["IPv4Address"]
        },
    )


def _ports(service: Json) -> Iterator[tuple[int, int]]:
    """`Target: 80, Publish: 8080`; the protocol is not told."""
    for text in service.get("Ports") or ():
        told = dict(part.split(": ") for part in text.split(", "))
        yield int(told["Publish"]), int(told["Target"])


def subnet(network: Json) -> IPv4Network:
    """A network's IPv4 pool. Raises KeyError, StopIteration without one."""
    pools = (pool["Subnet"] for pool in network["IPAM"]["Config"])
    return IPv4Network(next(pool for pool in pools if ":" not in pool))


def bridge(entry: Json) -> tuple[NamedNetwork, Mapping[str, IPv4Address]]:
    """docker_gwbridge, and the addresses on it by namespace: an endpoint's name is gateway_<namespace>."""
    ends = (entry.get("Containers") or {}).values()
    found = {end["Name"].removeprefix("gateway_"): IPv4Interface(end["IPv4Address"]).ip for end in ends}
    return NamedNetwork(name=entry["Name"], id=entry["Id"], subnet=subnet(entry), mtu_bytes=_mtu(entry)), found


def _mtu(network: Json) -> int:
    """The MTU that somebody asked for, 0 for none; of an overlay it is that of the network below it."""
    return int((network.get("Options") or {}).get(_MTU, 0))


def containers(source: Source) -> Iterator[Container]:
    """`container-netns.txt`: one line each, ID /NAME sandbox=PATH pid=NUMBER."""
    for number, line in source.lines():
        words = line.split()
        told = dict(word.split("=", 1) for word in words[2:] if "=" in word)
        if len(words) < 3 or not told.get("sandbox"):
            source.odd(number, line)
        else:
            yield Container(words[0], words[1].lstrip("/"), told["sandbox"].rsplit("/", 1)[-1])


# --- services, tasks, nodes: a manager knows them ----------------------------------------------------------------


def node(entry: Json) -> NamedNode:
    """A node, without its ingress address."""
    address = IPv4Address(entry["Status"]["Addr"])
    manager = entry.get("ManagerStatus", {}).get("Addr", "").rpartition(":")[0]
    if manager and (address.is_unspecified or address.is_loopback):  # how a manager may know itself
        address = IPv4Address(manager)
    ready = entry["Status"]["State"] == "ready"
    return NamedNode(name=entry["Description"]["Hostname"], id=entry["ID"], address=address, ready=ready)


def service(entry: Json) -> NamedService:
    """A service, without its marks. Ports of SCTP are left out."""
    endpoint = entry.get("Endpoint") or {}
    return NamedService(
        name=entry["Spec"]["Name"],
        id=entry["ID"],
        vips={vip["NetworkID"]: IPv4Interface(vip["Addr"]).ip for vip in endpoint.get("VirtualIPs") or () if vip.get("Addr")},
        ports=tuple(
            NamedPort(
                protocol=Protocol(port["Protocol"]),
                published=port["PublishedPort"],
                target=port["TargetPort"],
                host=port["PublishMode"] == "host",
            )
            for port in endpoint.get("Ports") or ()
            if port["Protocol"] in set(Protocol) and "PublishedPort" in port
        ),
    )


def task(entry: Json, services: Mapping[str, str], nodes: Mapping[str, str]) -> NamedTask | None:
    """A task, without its namespace; None for one that has ended. `services` and `nodes`: names by id."""
    state, wanted = entry["Status"]["State"], entry["DesiredState"]
    if state in _ENDED:
        return None
    of, where = services.get(entry["ServiceID"], ""), nodes.get(entry.get("NodeID", ""), "")
    why = entry["Status"].get("Err") or ("" if state == "running" else f"it is {state}")
    if state == "running" != wanted:
        why = f"it is to be {wanted}"
    return NamedTask(
        name=f"{of}.{entry.get('Slot') or where}",
        id=entry["ID"],
        service=of,
        node=where,
        addresses={
            attached["Network"]["ID"]: IPv4Interface(attached["Addresses"][0]).ip
            for attached in entry.get("NetworksAttachments") or ()
            if attached.get("Addresses")
        },
        state=state,
        serving=not why,
        note=why,
    )
