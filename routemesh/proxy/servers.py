"""What to tell a running HAProxy so that it has the servers of a table. PURE.

A server that is to get no more requests is set to maintenance: at once, for clients that are kept with it too, while requests
under way end. It is deleted when its connections have ended, at the latest with the next reload.
Source: HAProxy's management.txt (2.6): `show servers state`, `add server`, `del server`, `set server`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from routemesh.errors import Unavailable
from routemesh.model import Http
from routemesh.proxy.haproxy import INTERNAL, server_options
from routemesh.proxy.routes import Server, Table

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
    """Commands: `urgent` ones bring and take requests and must succeed; `late` ones may fail while connections last."""

    urgent: tuple[str, ...]
    late: tuple[str, ...]


def parse(text: str) -> Mapping[Key, Present]:
    """What `show servers state` said, but for the servers that are the gateway's own. Raises Unavailable for anything else."""
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


def steps(present: Mapping[Key, Present], wanted: Table) -> Steps:
    """From the servers that are there to those of the table: first new ones, then away with the others."""
    servers = {(backend.name, server.name): (backend, server) for backend in wanted.backends for server in backend.servers}
    urgent = [command for (name, _), (backend, server) in servers.items() for command in _in(present, name, server, backend.http)]
    gone = present.keys() - {key for key, (_, server) in servers.items() if _same(present.get(key), server)}
    urgent += (f"set server {_path(key)} state maint" for key in sorted(gone) if not present[key].maintenance)
    return Steps(tuple(urgent), tuple(f"del server {_path(key)}" for key in sorted(gone)))


def _in(present: Mapping[Key, Present], backend: str, server: Server, http: Http) -> Iterator[str]:
    path = _path((backend, server.name))
    there = present.get((backend, server.name))
    if there is None:
        yield f"add server {path} {server_options(http, server)}"
        yield f"enable server {path}"
        if http.health:
            yield f"enable health {path}"
    elif _same(there, server) and there.maintenance:
        yield f"set server {path} state ready"


def _same(there: Present | None, server: Server) -> bool:
    return there is not None and (IPv4Address(there.address), there.port) == (server.address, server.port)


def _path(key: Key) -> str:
    return "/".join(key)
