"""The model as the API tells it: PURE."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from ipaddress import IPv4Address

from routemesh import names, wire
from routemesh.codec.plain import plain
from routemesh.decide.liveness import LEADER, lease_name
from routemesh.decide.progress import Progress
from routemesh.decide.refused import left_out
from routemesh.language import command, ruleset
from routemesh.language.commands import PathOf
from routemesh.language.nft import NFT_ITEMS
from routemesh.language.xtables import XT_ITEMS, saved
from routemesh.model import Http, Lease, Mode, Node, NodeId, Service, State, Task, TaskState
from routemesh.nodeplan import Change, Create, NodePlan, Op, item_of
from routemesh.proxy.certificates import warnings
from routemesh.proxy.explain import Explanation
from routemesh.proxy.routes import table

Leases = Mapping[str, Lease]

_IN_RULESETS = (*NFT_ITEMS, *XT_ITEMS)


def service_infos(state: State, services: Iterable[Service]) -> list[wire.ServiceInfo]:
    """Services and how many of their tasks, of whatever version, serve; by name."""
    serving = Counter(task.service_id for task in state.tasks.values() if task.serving)
    desired = Counter(task.service_id for task in state.tasks.values() if task.desired == TaskState.RUNNING)
    return [
        wire.ServiceInfo(
            id=service.id,
            name=service.spec.name,
            mode=service.spec.mode,
            running=serving[service.id],
            wanted=service.spec.replicas if service.spec.mode is Mode.REPLICATED else desired[service.id],
            version=service.version,
            created_at=service.created_at,
            updated_at=service.updated_at,
            vip=_text(state.on_ingress(service.vips)),
            fwmark=service.fwmark,
            error=service.error,
            spec=service.spec,
            previous_spec=service.previous_spec,
        )
        for service in sorted(services, key=lambda service: service.spec.name)
    ]


def task_info(state: State, task: Task) -> wire.TaskInfo:
    """A task with the names of its service and node."""
    node = None if task.node_id is None else state.nodes.get(task.node_id)
    address = state.on_ingress(task.attachments)
    return wire.TaskInfo(
        id=task.id,
        name=names.name_of(state, task),
        service=task.spec.name,
        service_id=task.service_id,
        service_version=task.service_version,
        slot=task.slot,
        node=node.name if node else task.node_id,
        image=task.spec.image,
        command=task.spec.command,
        ports=tuple(f"{address}:{port}" for port in task.spec.publish if address and not task.status.state.ended),
        desired_state=task.desired.name.lower(),
        state=task.status.state.name.lower(),
        since=task.status.at,
        message=task.status.message,
        error=task.status.error or _of_the_gateway(state, task),
        exit_code=task.status.exit_code,
        pid=task.status.pid,
        serving=task.serving,
        address=_text(address),
        gateway_address=_text(task.gateway_address),
        container=names.container_id(task.id),
        created_at=task.created_at,
    )


def _of_the_gateway(state: State, task: Task) -> str:
    """What is wrong with a proxy that is a task, or what proxies have against the service of one."""
    if task.status.proxy is not None and task.status.proxy.error:
        return task.status.proxy.error
    service = state.services.get(task.service_id)
    return "" if service is None or service.spec.http is None or not task.serving else left_out(state, service)


def node_info(state: State, node: Node, asked: NodeId, leases: Leases) -> wire.NodeInfo:
    """A node, whether it leads and what it has acknowledged."""
    leader, heartbeat = leases.get(LEADER), leases.get(lease_name(node.id))
    return wire.NodeInfo(
        id=node.id,
        name=node.name,
        address=str(node.address),
        role=node.role,
        availability=node.availability,
        state=node.state,
        leader=leader is not None and leader.holder == node.id,
        asked=node.id == asked,
        labels=node.labels,
        engine=node.engine,
        mtu_bytes=node.mtu_bytes,
        ingress_address=_text(state.on_ingress(node.attachments)),
        applied=heartbeat.value if heartbeat else 0,
        api=node.api,
        listeners=node.listeners,
        failures=node.failures,
        error=node.error,
        created_at=node.created_at,
    )


def gateway_info(state: State, service: Service, now: float, keys_on_disk: Mapping[str, str]) -> wire.GatewayInfo:
    """The gateway as it is now."""
    gateway = service.spec.gateway
    assert gateway is not None
    return wire.GatewayInfo(
        service=service.spec.name,
        driver=gateway.driver,
        http_port=gateway.http_port,
        https_port=gateway.https_port,
        proxies=tuple(sorted(_proxies(state, service), key=lambda proxy: (proxy.node, proxy.task))),
        routes=tuple(_routes(state)),
        warnings=tuple(warnings(state, now)),
        refused={service.spec.name: said for service in _services(state) if (said := left_out(state, service))},
        keys_on_disk=keys_on_disk,
    )


def gateway_explanation(found: Explanation) -> wire.GatewayExplanation:
    """Where the gateway leads a request, and why."""
    return wire.GatewayExplanation(
        steps=tuple(wire.GatewayStep(at=step.at, decision=step.decision, why=step.why) for step in found.steps),
        servers=tuple(f"{server.task} {server.address}:{server.port}" for server in found.servers),
        status=found.status,
    )


def _services(state: State) -> list[Service]:
    """Those behind the gateway, by name."""
    behind = (service for service in state.services.values() if service.spec.http is not None)
    return sorted(behind, key=lambda service: service.spec.name)


def _proxies(state: State, service: Service) -> Iterator[wire.ProxyInfo]:
    for task in state.tasks.values():
        if task.service_id != service.id or task.status.state.ended:
            continue
        node = None if task.node_id is None else state.nodes.get(task.node_id)
        yield wire.ProxyInfo(
            node=node.name if node else "",
            task=task.id,
            state=task.status.state.name.lower(),
            serving=task.serving,
            address=None if (address := state.on_ingress(task.attachments)) is None else str(address),
            error=task.status.error or (task.status.proxy.error if task.status.proxy else ""),
        )


def _routes(state: State) -> Iterator[wire.RouteInfo]:
    routes = table(state)
    backends = {backend.name: backend for backend in routes.backends}
    for route in routes.routes:
        backend = backends[route.backend]
        yield wire.RouteInfo(
            host=route.host,
            path=route.path,
            service=route.backend,
            tls=_tls(backend.http),
            sticky=_sticky(backend.http),
            servers=tuple(f"{server.task} {server.address}:{server.port}" for server in backend.servers),
        )


def _tls(http: Http) -> str:
    """As in the label."""
    return "passthrough" if http.passthrough else ",".join(filter(None, (http.certificate, "redirect" if http.redirect else "")))


def _sticky(http: Http) -> str:
    return "" if http.sticky is None else ":".join(filter(None, (http.sticky, http.sticky_header)))


def progress_info(now: Progress) -> wire.ProgressInfo:
    """How far a service is, with a name for this answer that depends on nothing but the answer."""
    return wire.ProgressInfo(**asdict(now), seen=hashlib.sha256(repr(now).encode()).hexdigest()[:16])


def plan_info(node: Node, plan: NodePlan, path_of: PathOf) -> wire.PlanInfo:
    """A plan with what a person would type to carry it out. `path_of` gives a namespace's file."""
    return wire.PlanInfo(
        node=node.name,
        namespaces=tuple(
            wire.NamespaceInfo(
                name=netns,
                items=tuple(map(plain, items.values())),
                commands=tuple(
                    command(Create(netns, item), path_of) for item in items.values() if not isinstance(item, _IN_RULESETS)
                ),
                ruleset=ruleset(items.values()),
                iptables=saved(items.values()),
            )
            for netns, items in plan.namespaces.items()
        ),
    )


def diff_info(node: Node, ops: Iterable[Op], path_of: PathOf) -> wire.DiffInfo:
    """Operations with the commands that would carry them out."""
    return wire.DiffInfo(
        node=node.name,
        ops=tuple(
            wire.OpInfo(
                kind=type(op).__name__.lower(),
                netns=op.netns,
                item=plain(item_of(op)),
                old=plain(op.old) if isinstance(op, Change) else None,
                command=command(op, path_of),
            )
            for op in ops
        ),
    )


def _text(address: IPv4Address | None) -> str | None:
    return None if address is None else str(address)
