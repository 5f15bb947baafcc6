"""A proxy's routes and servers as it has them, from what it answered when it was asked. PURE.

HAProxy tells both by its runtime API. nginx tells the generation that it runs, which names everything in its configuration: where
that is the wanted one, so are its routes; its servers are read from the file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from routemesh.model import GatewayDriver
from routemesh.proxy import servers
from routemesh.proxy.haproxy import INTERNAL
from routemesh.proxy.rendered import HAPROXY_MAIN, NGINX_MAIN
from routemesh.proxy.routes import Backend, Route, RouteTable, Server
from routemesh.values import replace

_UPSTREAM = re.compile(r"^\s*upstream (\S+) \{(.*?)^\s*\}", re.MULTILINE | re.DOTALL)
_UPSTREAM_SERVER = re.compile(r"^\s*server ([\d.]+):(\d+)[ ;]", re.MULTILINE)
_MAP_COLUMNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProxy:
    """One proxy, by its task. `error`: why nothing else is known, or "".

    `running` and `wanted` are generations. `routes` is HAProxy's `show map`, which `map` names, both "" for nginx; `servers` is
    HAProxy's `show servers state`, or nginx's configuration. `directory` has the proxy's files and sockets, on a `filesystem`
    (tmpfs, ext4 …).
    """

    task: str
    directory: str
    filesystem: str = ""
    error: str = ""
    running: str = ""
    wanted: str = ""
    map: str = ""
    routes: str = ""
    servers: str = ""


def table(seen: RunningProxy, driver: GatewayDriver, wanted: RouteTable) -> RouteTable:
    """What the proxy does, as far as it is asked for routes and servers that can get requests; the rest as `wanted` has it."""
    if driver is GatewayDriver.NGINX:
        listed = {name: _UPSTREAM_SERVER.findall(block) for name, block in _UPSTREAM.findall(seen.servers)}
        here = {name: [(IPv4Address(address), int(port)) for address, port in found] for name, found in listed.items()}
        return replace(wanted, backends=tuple(_with_those(backend, here) for backend in wanted.backends))
    present = servers.parse(seen.servers)
    backends = {backend.name: backend for backend in wanted.backends}
    routes = tuple(_routes(seen.routes, wanted))
    return RouteTable(routes, tuple(_with_present(backend, present) for name, backend in backends.items()))


def amiss(seen: RunningProxy, driver: GatewayDriver, backend: str, wanted: RouteTable) -> Iterator[str]:
    """What the proxy has otherwise than the cluster wants it, of a backend."""
    if seen.running != seen.wanted:
        yield f"{driver} has not taken up the newest configuration: it runs {seen.running or 'none'}, {seen.wanted} is wanted"
    if driver is GatewayDriver.NGINX or backend not in {each.name for each in wanted.backends}:
        return
    present = servers.parse(seen.servers)
    for server in wanted.backend(backend).servers:
        has = present.get((backend, server.name))
        if has is None:
            yield f"{driver} does not know {server.task}, which serves"
        elif has.maintenance:
            yield f"{driver} has {server.task} in maintenance, though it serves"
        elif has.failing:
            yield f"{driver}'s check of {server.task} fails (label routemesh.http.health)"


def command(seen: RunningProxy, driver: GatewayDriver, at: str, backend: str) -> str:
    """The command that shows what decided, on the proxy's node."""
    if driver is GatewayDriver.NGINX:
        file = f"{seen.directory}/{NGINX_MAIN}"
        return f"grep -A 99 'upstream {backend} ' {file}" if at == "server" else f"cat {file}"
    socket = f"curl -s --unix-socket {seen.directory}/admin.sock telnet://haproxy"
    match at:
        case "rule":
            return f"echo 'show map {seen.map}' | {socket}"
        case "server":
            return f"echo 'show servers state {backend}' | {socket}"
        case "backend":
            return f"grep -A 99 '^backend {backend}$' {seen.directory}/{HAPROXY_MAIN}"
        case _:
            return f"grep -A 9 '^frontend' {seen.directory}/{HAPROXY_MAIN}"


def _routes(text: str, wanted: RouteTable) -> Iterator[Route]:
    """From lines of an address, a host with a path, and a backend. Those that are only redirected belong to whom it is wanted."""
    owners = {(route.host, route.path): route.backend for route in wanted.routes}
    known = {backend.name for backend in wanted.backends}
    for line in text.splitlines():
        words = line.split()
        if len(words) == _MAP_COLUMNS:
            host, _, path = words[1].partition("/")
            path = f"/{path}".rstrip("/") or "/"
            backend = owners.get((host, path), "") if words[2].startswith(INTERNAL) else words[2]
            if backend in known:
                yield Route(host, path, backend)


def _with_present(backend: Backend, present: Mapping[servers.Key, servers.Present]) -> Backend:
    names = {server.name: server.task for server in backend.servers}
    found = (
        Server(name, names.get(name, name), has.number, IPv4Address(has.address), has.port)
        for (of, name), has in present.items()
        if of == backend.name and not has.maintenance and not has.failing
    )
    return replace(backend, servers=tuple(found))


def _with_those(backend: Backend, here: Mapping[str, list[tuple[IPv4Address, int]]]) -> Backend:
    known = {(server.address, server.port): server for server in backend.servers}
    found = (known.get(end, Server("", f"{end[0]}", 0, *end)) for end in here.get(backend.name, ()))
    return replace(backend, servers=tuple(found))
