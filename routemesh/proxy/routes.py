"""Which host and path leads to which service behind the gateway, and to which of its tasks. PURE.

A request belongs to the route whose host is the most specific one (the name itself, then `*.` and the rest of the name, then `*`)
that has a path which covers the request's; among its paths the longest. Both drivers' configurations, `route_of` and
`gateway explain` follow this one table.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from urllib.parse import unquote

from routemesh.labels.http import EVERY_HOST
from routemesh.model import MAX_HEADER_BYTES, Http, NodeState, Service, ServiceId, State, Task
from routemesh.names import task_name
from routemesh.values import replace

DOTS = "the path has . or .. in it"
"""Why a path is answered with 400: how it begins would not say what it is below."""
_LEAST_CLIENT_TIMEOUT_S = 60.0
_NAME_LENGTH = 12
"""Of an id, as `service ps` shows it."""


@dataclass(frozen=True, slots=True)
class Server:
    """A task that requests may go to. `name` is the beginning of its id, `task` web.1.

    `number` is the place of its address in the overlay's pool: the same for all proxies, so that their hashes agree.
    """

    name: str
    task: str
    number: int
    address: IPv4Address
    port: int


@dataclass(frozen=True, slots=True)
class Backend:
    """A service behind the gateway, under its name, with the tasks that serve now, in slot order.

    `refused`: why the proxy does not take the service's configuration and answers 503 in its place, or "".
    """

    name: str
    service: ServiceId
    http: Http
    servers: tuple[Server, ...]
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """Requests for a host (a name, `*.` and a domain, or `*`) whose path is `path` or below it go to a backend."""

    host: str
    path: str
    backend: str

    def covers(self, path: str) -> bool:
        """Whether a request's path, which may have encoded letters, is this one or below it."""
        return self.path == "/" or f"{unquote(path)}/".startswith(f"{self.path}/")


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All routes, those of a host together, longest path first; all backends, by name."""

    routes: tuple[Route, ...]
    backends: tuple[Backend, ...]

    def backend(self, name: str) -> Backend:
        """The backend of that name. Raises KeyError."""
        return {backend.name: backend for backend in self.backends}[name]

    def without(self, refused: Mapping[str, str]) -> "RouteTable":
        """The same, but nothing except the routes of backends that a proxy refuses: by their names, the reasons."""

        def bare(backend: Backend) -> Backend:
            http = Http(hosts=backend.http.hosts, path=backend.http.path, port=backend.http.port)
            return replace(backend, http=http, servers=(), refused=refused[backend.name])

        return replace(self, backends=tuple(bare(each) if each.name in refused else each for each in self.backends))


def client_timeout_s(routes: RouteTable) -> float:
    """How long a client may be silent: as long as the most patient service."""
    return max((_LEAST_CLIENT_TIMEOUT_S, *(backend.http.timeout_s for backend in routes.backends)))


def max_header_bytes(routes: RouteTable) -> int:
    """How large the head of a request may be: it is read before it is known which service it is for."""
    return max((MAX_HEADER_BYTES, *(backend.http.max_header_bytes for backend in routes.backends)))


def too_large(backend: Backend) -> str:
    """What clients are told of an answer whose head is over the service's limit."""
    return f"the head of an answer of service {backend.name} is too large (label routemesh.http.max-header)"


def left_out(backend: Backend) -> str:
    """What clients of a service are told that the proxy refuses: not why, which is for operators."""
    return f"the gateway leaves out service {backend.name}; routemesh gateway status says why"


def table(state: State) -> RouteTable:
    """What every proxy of the cluster should do, whichever node it is on."""
    behind = sorted((service for service in state.services.values() if service.spec.http is not None), key=_name)
    serving: dict[ServiceId, list[Task]] = {}
    for task in state.tasks.values():
        if _serves(state, task):
            serving.setdefault(task.service_id, []).append(task)
    routes = (Route(host, http.path, _name(service)) for service in behind if (http := service.spec.http) for host in http.hosts)
    return RouteTable(
        routes=tuple(sorted(routes, key=lambda route: (_host_order(route.host), -len(route.path), route.path))),
        backends=tuple(
            Backend(_name(service), service.id, http, tuple(_servers(state, serving.get(service.id, ()))))
            for service in behind
            if (http := service.spec.http) is not None
        ),
    )


def refused_by(task: Task, routes: RouteTable) -> RouteTable:
    """The table as one of the gateway's proxies takes it, by what is noted at its task."""
    refused = {refusal.service: refusal.reason for refusal in task.status.proxy.refused} if task.status.proxy else {}
    return routes.without({each.name: refused[each.service] for each in routes.backends if each.service in refused})


def route_of(routes: RouteTable, host: str, path: str) -> Route | None:
    """Where a request belongs; `host` as in the request's header, with or without a port."""
    for candidate in candidates(host):
        for route in routes.routes:
            if route.host == candidate and route.covers(path):
                return route
    return None


def candidates(host: str) -> tuple[str, str, str]:
    """The hosts of routes that a request's host may match, the most specific first."""
    name = host.partition(":")[0].lower().rstrip(".")
    return (name, f"*{name[name.find('.') :]}" if "." in name else name, EVERY_HOST)


def effective(routes: RouteTable, host: str) -> tuple[Route, ...]:
    """Every route that counts for requests whose most specific host is `host`: its own, and less specific ones that add paths."""
    found: dict[str, Route] = {}
    for candidate in dict.fromkeys((host, *candidates(host)[1:])):
        own = (route for route in routes.routes if route.host == candidate)
        added = [route for route in own if not any(before.covers(route.path) for before in found.values())]
        found |= {route.path: route for route in added}
    return tuple(sorted(found.values(), key=lambda route: (-len(route.path), route.path)))


def _name(service: Service) -> str:
    return service.spec.name


def _host_order(host: str) -> tuple[int, str]:
    return (2 if host == EVERY_HOST else 1 if host.startswith("*.") else 0, host)


def _servers(state: State, tasks: Iterable[Task]) -> Iterator[Server]:
    for task in sorted(tasks, key=lambda task: (task.slot, task.id)):
        address = state.on_ingress(task.attachments)
        assert address is not None and task.spec.http is not None and task.node_id is not None and state.ingress is not None
        yield Server(
            name=task.id[:_NAME_LENGTH],
            task=task_name(task.spec.name, task.slot, state.nodes[task.node_id].name),
            number=int(address) - int(state.ingress.subnet.network_address),
            address=address,
            port=task.spec.http.port,
        )


def _serves(state: State, task: Task) -> bool:
    if not task.serving or state.on_ingress(task.attachments) is None or task.spec.http is None or task.node_id is None:
        return False
    node = state.nodes.get(task.node_id)
    return node is not None and node.state is NodeState.READY
