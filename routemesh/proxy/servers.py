"""What to tell a running HAProxy so that it has the servers of a table. PURE.

A server that is to get no more requests is set to maintenance: at once, for clients that are kept with it too, while requests
under way end. It is deleted when its connections have ended, at the latest with the next reload.
Source: HAProxy's management.txt (2.6): `show servers state`, `add server`, `del server`, `set server`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from routemesh.errors import Unavailable
from routemesh.model import Http
from routemesh.proxy.haproxy import INTERNAL, server_options
from routemesh.proxy.routes import RouteTable, Server

_FORMAT = "1"
_FORCED_MAINTENANCE = 0x01
"""Of srv_admin_state; an address that does not resolve and the like have bits of their own."""
_STOPPED = 0
"""Of srv_op_state: its check fails."""

Key = tuple[str, str]
"""A backend and a server of it."""


@dataclass(frozen=True, slots=True)
class Present:
    """A server as the process has it. `failing`: its check says that it is down; `number` is its `id`."""

    address: str
    port: int
    maintenance: bool
    failing: bool = False
    number: int = 0


@dataclass(frozen=True, slots=True)
class Steps:
    """Commands: `urgent` ones bring and take requests and must succeed; `late` ones may fail while connections last.

    `backends`: those that `urgent` is about.
    """

    urgent: tuple[str, ...]
    late: tuple[str, ...]
    backends: frozenset[str] = frozenset()


def parse(text: str) -> Mapping[Key, Present]:
    """What `show servers state` said, but for the servers that are the gateway's own. Raises Unavailable for anything else.

    Asked of several backends, it says so much of each, with empty lines between.
    """
    answers = [answer for answer in text.split("\n\n") if answer.strip()] or [""]
    return {key: present for answer in answers for key, present in _parse(answer).items()}


def _parse(text: str) -> Mapping[Key, Present]:
    lines = text.strip().split("\n")
    if lines[0].strip() != _FORMAT or len(lines) < 2:
        raise Unavailable(f"HAProxy's answer to 'show servers state' is not understood: {lines[0][:80]!r}")
    columns = {name: index for index, name in enumerate(lines[1].lstrip("# ").split())}
    found = {}
    try:
        for line in lines[2:]:
            words = line.split()
            backend = words[columns["be_name"]]
            if backend.startswith(INTERNAL):
                continue
            maintenance = bool(int(words[columns["srv_admin_state"]]) & _FORCED_MAINTENANCE)
            found[backend, words[columns["srv_name"]]] = Present(
                address=words[columns["srv_addr"]],
                port=int(words[columns["srv_port"]]),
                maintenance=maintenance,
                failing=not maintenance and int(words[columns["srv_op_state"]]) == _STOPPED,
                number=int(words[columns["srv_id"]]),
            )
    except (KeyError, IndexError, ValueError) as exc:
        raise Unavailable(f"HAProxy's answer to 'show servers state' is not understood: {exc!r}") from exc
    return found


def steps(present: Mapping[Key, Present], wanted: RouteTable) -> Steps:
    """From the servers that are there to those of the table: first new ones, then away with the others."""
    servers = {(backend.name, server.name): (backend, server) for backend in wanted.backends for server in backend.servers}
    kept = {key for key, (_, server) in servers.items() if _same(present.get(key), server)}
    gone = sorted(present.keys() - kept)
    back = [key for key in servers if key in kept and present[key].maintenance]
    new = [key for key in servers if key not in present]
    away = [key for key in gone if not present[key].maintenance]
    urgent = [f"set server {_path(key)} state ready" for key in back]
    urgent += (command for key in new for command in _in(_path(key), servers[key][1], servers[key][0].http))
    urgent += (f"set server {_path(key)} state maint" for key in away)
    late = tuple(f"del server {_path(key)}" for key in gone)
    return Steps(tuple(urgent), late, frozenset(backend for backend, _ in (*back, *new, *away)))


def _in(path: str, server: Server, http: Http) -> Iterator[str]:
    yield f"add server {path} {server_options(http, server)}"
    yield f"enable server {path}"
    if http.health:
        yield f"enable health {path}"


def _same(there: Present | None, server: Server) -> bool:
    return there is not None and (there.address, there.port) == (str(server.address), server.port)


def _path(key: Key) -> str:
    return "/".join(key)
