"""What is asked and told about the gateway: its proxies and its routes."""

from collections.abc import Iterator, Mapping

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, is_here, json_reply, node_asked, request_to_gateway
from routemesh.ask.proxies import keys_on_disk, proxies_of
from routemesh.decide.admit.routes import find_gateway
from routemesh.decide.refused import left_out
from routemesh.errors import NotFound, UserError
from routemesh.model import Http, Service, State
from routemesh.proxy import external
from routemesh.proxy.certificates import warnings
from routemesh.proxy.explain import explain
from routemesh.proxy.routes import table

_BASE = f"{wire.PREFIX}/gateway"


async def _get(request: web.Request) -> web.Response:
    """With `keys=1` all nodes are asked where they have the keys of certificates."""
    context = request.app[CONTEXT]
    state = await context.store.snapshot()
    service = find_gateway(state)
    if service is None:
        raise NotFound("the gateway is not enabled; routemesh gateway enable runs it")
    keys = await keys_on_disk(context, state) if request.query.get("keys", "") == "1" else {}
    return json_reply(gateway_info(state, service, context.now(), keys))


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


async def _config(request: web.Request) -> web.Response:
    """A configuration for a proxy outside of the cluster, as text."""
    program = request.query.get("for", "")
    to = next((known for known in external.TO if known == request.query.get("to", "nodes")), None)
    if program not in external.FOR or to is None:
        programs = ", ".join(external.FOR)
        raise UserError(
            f"{request.query_string!r} is not a valid query: for is one of {programs}; to is {' or '.join(external.TO)}"
        )
    return json_reply(wire.Message(message=external.FOR[program](await request.app[CONTEXT].store.snapshot(), to)))


async def _proxies_of(request: web.Request) -> web.Response:
    """What the proxies of a node have."""
    _, node = await node_asked(request)
    context = request.app[CONTEXT]
    return json_reply(await context.proxies() if is_here(request, node) else await proxies_of(context, node))


async def _explain(request: web.Request) -> web.Response:
    found = explain(await request.app[CONTEXT].store.snapshot(), request_to_gateway(request))
    told = wire.GatewayExplanation(
        steps=tuple(wire.GatewayStep(at=step.at, decision=step.decision, why=step.why) for step in found.steps),
        servers=tuple(f"{server.task} {server.address}:{server.port}" for server in found.servers),
        status=found.status,
    )
    return json_reply(told)


ROUTES = (
    web.get(_BASE, _get),
    web.get(f"{_BASE}/config", _config),
    web.get(f"{_BASE}/explain", _explain),
    web.get(f"{wire.PREFIX}/nodes/{{ref}}/proxies", _proxies_of),
)
