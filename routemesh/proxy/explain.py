"""Where the gateway would send a request, and why: the decisions of a proxy, step by step. PURE.

The table says all but what is in a proxy's own memory: whose turn it is, how many connections each task has, which tasks fail
its checks. Where that decides, all tasks that it may be are named.
"""

from dataclasses import dataclass

from routemesh.decide.admit.routes import find_gateway
from routemesh.model import Gateway, GatewayDriver, Http, State, Sticky
from routemesh.proxy.haproxy import COOKIE
from routemesh.proxy.routes import Backend, Route, Server, Table, route_of, table


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked. `cookie` is what the gateway's cookie holds, "" if the client has none; `header` the value of the header
    that a service is sticky by; `source` the client's address.
    """

    host: str
    path: str = "/"
    tls: bool = False
    cookie: str = ""
    header: str = ""
    source: str = ""


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
    """What becomes of a request."""
    service = find_gateway(state)
    if service is None or service.spec.gateway is None:
        return Explanation((Step("gateway", "none", "it is not enabled"),), None, ())
    gateway, routes = service.spec.gateway, table(state)
    frontend = _frontend(gateway, request)
    if request.tls and not gateway.https_port:
        return Explanation((frontend, Step("frontend", "refused", "the gateway has no TLS port")), None, ())
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
    return Step("frontend", f"{'https' if request.tls else 'http'} on port {port}", f"{gateway.driver} of the node that is asked")


def _why_route(routes: Table, route: Route, request: Request) -> str:
    others = sum(other.host == route.host and other.covers(request.path) for other in routes.routes) - 1
    name = "every name" if route.host == "*" else f"names like {route.host}" if route.host.startswith("*.") else "just this name"
    longest = f", the longest path of {others + 1} that fit" if others else ""
    return f"the most specific host with a fitting path: {name}{longest}"


def _answer(steps: tuple[Step, ...], route: Route, backend: Backend, gateway: Gateway, request: Request) -> Explanation:
    http = backend.http
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
    some = f"one of {len(every)}"
    if http.sticky is Sticky.COOKIE and gateway.driver is GatewayDriver.HAPROXY:
        held = next((server for server in every if server.name == request.cookie), None)
        if held is not None:
            return Step("server", _shown(held), f"cookie {COOKIE}-{backend.name}={request.cookie} names it"), (held,)
        lost = f"cookie {COOKIE}-{backend.name}={request.cookie} names no task that serves" if request.cookie else "no cookie yet"
        return Step("server", some, f"{lost}: {http.balance}, and a cookie is set"), every
    if http.sticky is not None:
        by = {Sticky.COOKIE: "the gateway's cookie", Sticky.SOURCE: "the client's address", Sticky.HEADER: http.sticky_header}
        return Step("server", some, f"a consistent hash of {by[http.sticky]}, the same on every node"), every
    return Step("server", some, f"{http.balance}: it depends on what this proxy sent where before"), every


def _shown(server: Server) -> str:
    return f"{server.task} ({server.name}) at {server.address}:{server.port}"
