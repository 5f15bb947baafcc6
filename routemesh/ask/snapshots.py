"""Snapshots of nodes, and what the manager calls what is in them.

A node's own daemon reads its kernel; the others are asked by whichever daemon was. What another daemon answered is passed on
unread: it may be large.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from routemesh import names, wire
from routemesh.ask import patience
from routemesh.ask.context import Context
from routemesh.codec.plain import plain, restored
from routemesh.decide.reach import answering
from routemesh.errors import RoutemeshError
from routemesh.model import ClientIp, Node, NodeState, Service, State, Task, TaskState
from routemesh.snapshot import (
    ClusterSnapshot,
    Connections,
    NamedNetwork,
    NamedNode,
    NamedPort,
    NamedService,
    NamedTask,
    Names,
    NodeSnapshot,
)

T = TypeVar("T")


async def cluster_snapshot(
    context: Context, state: State, which: Connections, namespaces: Mapping[str, Collection[str]] | None = None
) -> ClusterSnapshot:
    """All nodes; of `namespaces`, if given, only these by node name, besides the nodes' own."""

    async def read(node: Node) -> NodeSnapshot:
        wanted = None if namespaces is None else namespaces.get(node.name, ())
        if node.id == context.node_id:
            return await context.observe(node, which, wanted)
        query = [("port", f"{number}/{protocol}") for protocol, number in which.ports or ()]
        query += [] if which.client_port is None else [("client", str(which.client_port))]
        query += [("netns", name) for name in wanted or ()]
        raw = await asked(context, node, urlencode(query))
        return await asyncio.to_thread(lambda: restored(NodeSnapshot, msgspec.json.decode(raw)))

    found, absent = await _from_all(state, read)
    return ClusterSnapshot(nodes=found, names=named(state, absent))


async def _from_all(state: State, read: Callable[[Node], Awaitable[T]]) -> tuple[dict[str, T], dict[str, str]]:
    """What each node has by name, and why others have nothing."""
    nodes = sorted(state.nodes.values(), key=lambda node: node.name)

    async def attempt(node: Node) -> T | RoutemeshError:
        try:
            return await read(node)
        except RoutemeshError as error:
            return error

    outcomes = dict(zip((node.name for node in nodes), await asyncio.gather(*map(attempt, nodes)), strict=True))
    absent = {name: str(outcome) for name, outcome in outcomes.items() if isinstance(outcome, RoutemeshError)}
    return {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, RoutemeshError)}, absent


async def raw_cluster(context: Context, state: State, which: Connections, query: str) -> dict[str, object]:
    """The JSON of the same; what other daemons answer to `query`, which says the same as `which`, is passed on unread."""

    async def read(node: Node) -> object:
        if node.id == context.node_id:
            return await raw_own(context, node, which, None)
        return await asked(context, node, query)

    found, absent = await _from_all(state, read)
    return {"item": "ClusterSnapshot", "nodes": found, "names": plain(named(state, absent), compact=True)}


async def raw_own(context: Context, node: Node, which: Connections, namespaces: Collection[str] | None) -> object:
    """The JSON of this daemon's own node; it may be large, and is made in a thread."""
    found = await context.observe(node, which, namespaces)
    return msgspec.Raw(await asyncio.to_thread(lambda: wire.encode(plain(found, compact=True))))


async def asked(context: Context, node: Node, query: str) -> msgspec.Raw:
    """The JSON of another node's snapshot, unread. Raises Unavailable."""
    return await patience.get(context, node, f"/nodes/{node.id}/snapshot?{query}", msgspec.Raw)


# --- names -------------------------------------------------------------------------------------------------------


def named(state: State, absent: Mapping[str, str]) -> Names:
    """What a manager knows of nodes, services, tasks and networks. `absent`: why nodes were not read."""
    cluster = state.cluster
    if cluster is None:
        return Names()
    overlays = (
        NamedNetwork(
            name=network.name, id=network.id, subnet=network.subnet, vni=network.vni, netns=names.overlay_netns(network.id)
        )
        for network in state.networks.values()
    )
    return Names(
        nodes=tuple(_named_node(state, node, absent.get(node.name, "")) for node in state.nodes.values()),
        services=tuple(_named_service(state, service) for service in state.services.values()),
        tasks=tuple(_named_task(state, task) for task in state.tasks.values() if task.status.state.may_live),
        networks=(*overlays, NamedNetwork(name=names.GWBRIDGE, subnet=cluster.gwbridge_subnet)),
    )


def _named_node(state: State, node: Node, absent: str) -> NamedNode:
    ready = node.state is NodeState.READY
    why = f"it is down; {absent}" if absent and not ready else absent
    return NamedNode(
        name=node.name,
        id=node.id,
        address=node.address,
        ingress_address=state.on_ingress(node.attachments),
        ready=ready,
        absent=why,
    )


def _named_service(state: State, service: Service) -> NamedService:
    spec = service.spec
    return NamedService(
        name=spec.name,
        id=service.id,
        vips={vip.network_id: vip.address for vip in service.vips},
        ports=tuple(NamedPort(protocol=port.protocol, published=port.published, target=port.target) for port in spec.publish),
        marks={} if service.fwmark is None else {"": service.fwmark},
        scheduler=spec.balancing.scheduler,
        keeps_client=spec.client_ip is ClientIp.KEEP,
        answering=answering(state, service),
        checked=spec.health is not None,
    )


def _named_task(state: State, task: Task) -> NamedTask:
    node = None if task.node_id is None else state.nodes.get(task.node_id)
    service = state.services.get(task.service_id)
    return NamedTask(
        name=names.task_name(task.spec.name, task.slot, "" if node is None else node.name),
        id=task.id,
        service=task.spec.name if service is None else service.spec.name,
        node="" if node is None else node.name,
        netns=names.container_id(task.id) if node is not None and task.prepared else "",
        addresses={each.network_id: each.address for each in task.attachments},
        gateway_address=task.gateway_address,
        state=task.status.state.name.lower(),
        serving=task.serving,
        note=_why_not(task),
        healthy=task.status.healthy,
    )


def _why_not(task: Task) -> str:
    if task.serving:
        return ""
    if not task.status.healthy:
        return task.status.error or "it is unhealthy"
    if task.status.state is TaskState.PREPARING and task.status.message:
        return f"it is being prepared: {task.status.message}"
    return task.status.error or task.status.message or f"it is {task.status.state.name.lower()}"
