"""Where the gateway would send a request, and why: the decisions of a proxy, step by step. PURE.

The table, as the cluster wants it or as a proxy has it, says all but whose turn it is and how many connections each task has.
Where that decides, all tasks that it may be are named. Hashes are computed (proxy.hashes).
"""

from dataclasses import dataclass
from urllib.parse import unquote

from routemesh.decide.admit.routes import find_gateway
from routemesh.decide.refused import left_out
from routemesh.model import Gateway, GatewayDriver, Http, State, Sticky
from routemesh.proxy import hashes
from routemesh.proxy.haproxy import COOKIE
from routemesh.proxy.request import Request
from routemesh.proxy.routes import DOTS, Backend, Route, RouteTable, Server, route_of, table
from routemesh.values import replace


@dataclass(frozen=True, slots=True)
class Step:
    """One decision: by what part of the proxy, what it was, and why."""

    at: str
    decision: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`servers`: whom the request may reach; one where it is certain. `status`: what the gateway itself answers, else 0."""

    steps: tuple[Step, ...]
    route: Route | None
    servers: tuple[Server, ...]
    status: int = 0


def explain(state: State, request: Request) -> Explanation:
    """What becomes of a request, as the cluster wants it."""
    service = find_gateway(state)
    if service is None or service.spec.gateway is None:
        return Explanation((Step("gateway", "none", "it is not enabled"),), None, ())
    found = decided(service.spec.gateway, table(state), request)
    name = found.route.backend if found.route else ""
    behind = next((service for service in state.services.values() if service.spec.name == name), None)
    if behind is None or not (said := left_out(state, behind)):
        return found
    return replace(found, steps=(*found.steps, Step("proxy", "503 where it is left out", said)))


def decided(gateway: Gateway, routes: RouteTable, request: Request) -> Explanation:
    """What a proxy that has these routes and servers does with a request."""
    frontend = _frontend(gateway, request)
    if request.tls and not gateway.https_port:
        return Explanation((frontend, Step("frontend", "refused", "the gateway has no TLS port")), None, ())
    parts = unquote(request.path).split("/")
    if "." in parts or ".." in parts:
        return Explanation((frontend, Step("frontend", "400", DOTS)), None, (), 400)
    route = route_of(routes, request.host, request.path)
    if route is None:
        why = f"no service has host {request.host} and path {request.path}"
        return Explanation((frontend, Step("rule", "404", why)), None, (), 404)
    rule = Step("rule", f"{route.host}{'' if route.path == '/' else route.path}", _why_route(routes, route, request))
    backend = routes.backend(route.backend)
    chosen = Step("backend", backend.name, f"the service that has label routemesh.http.host={','.join(backend.http.hosts)}")
    return _answer((frontend, rule, chosen), route, backend, gateway, request)


def _frontend(gateway: Gateway, request: Request) -> Step:
    port = gateway.https_port if request.tls else gateway.http_port
    return Step("frontend", f"{'https' if request.tls else 'http'} on port {port}", f"{gateway.driver} of the entry node")


def _why_route(routes: RouteTable, route: Route, request: Request) -> str:
    others = sum(other.host == route.host and other.covers(request.path) for other in routes.routes) - 1
    name = "every name" if route.host == "*" else f"names like {route.host}" if route.host.startswith("*.") else "just this name"
    longest = f", the longest path of {others + 1} that fit" if others else ""
    return f"the most specific host with a fitting path: {name}{longest}"


def _answer(steps: tuple[Step, ...], route: Route, backend: Backend, gateway: Gateway, request: Request) -> Explanation:
    http = backend.http
    if backend.refused:
        return Explanation((*steps, Step("backend", "503", f"the proxy leaves it out: {backend.refused}")), route, (), 503)
    if http.allow and request.source is not None and not any(request.source in network for network in http.allow):
        why = f"label routemesh.http.allow leaves {request.source} out"
        return Explanation((*steps, Step("backend", "403", why)), route, (), 403)
    if gateway.https_port and not request.tls and (http.redirect or http.passthrough):
        return Explanation((*steps, Step("backend", "308 to https", "label routemesh.http.tls")), route, (), 308)
    if not backend.servers:
        return Explanation((*steps, Step("server", "503", "no task of the service serves")), route, (), 503)
    step, servers = _server(backend, http, gateway, request)
    return Explanation((*steps, step), route, servers)


def _server(backend: Backend, http: Http, gateway: Gateway, request: Request) -> tuple[Step, tuple[Server, ...]]:
    every = backend.servers
    if len(every) == 1:
        return Step("server", _shown(every[0]), "the only task that serves"), every
    if http.sticky is Sticky.COOKIE and gateway.driver is GatewayDriver.HAPROXY:
        return _by_cookie(backend, http, request.cookie.rpartition("=")[2])
    some = f"one of {len(every)}"
    if http.sticky is None:
        return Step("server", some, f"{http.balance}: it depends on what this proxy sent where before"), every
    by, value = _hashed(http, request)
    if not value:
        return Step("server", some, f"a consistent hash of {by}, the same on every node, and the request has none"), every
    if gateway.driver is GatewayDriver.NGINX:
        held = every[hashes.nginx([(server.address, server.port) for server in every], value)]
    else:
        key = request.source if http.sticky is Sticky.SOURCE and request.source is not None else value.encode()
        number = hashes.haproxy([server.number for server in every], key)
        held = next(server for server in every if server.number == number)
    return Step("server", _shown(held), f"the consistent hash of {by}, {value}, leads to it, the same on every node"), (held,)


def _hashed(http: Http, request: Request) -> tuple[str, str]:
    """What is hashed, and what the request has of it."""
    match http.sticky:
        case Sticky.SOURCE:
            return "the client's address", "" if request.source is None else str(request.source)
        case Sticky.HEADER:
            return http.sticky_header, request.header(http.sticky_header)
        case _:
            return "the gateway's cookie", request.cookie.rpartition("=")[2]


def _by_cookie(backend: Backend, http: Http, value: str) -> tuple[Step, tuple[Server, ...]]:
    held = next((server for server in backend.servers if server.name == value), None)
    if held is not None:
        return Step("server", _shown(held), f"cookie {COOKIE}-{backend.name}={value} names it"), (held,)
    lost = f"cookie {COOKIE}-{backend.name}={value} names no task that serves" if value else "no cookie yet"
    return Step("server", f"one of {len(backend.servers)}", f"{lost}: {http.balance}, and a cookie is set"), backend.servers


def _shown(server: Server) -> str:
    return f"{server.task} ({server.name}) at {server.address}:{server.port}"
