"""Which daemon a command talks to: -H, else ROUTEMESH_HOST, else the first node of the lab that ROUTEMESH_LAB names, else this
machine's own, else the first node of the only lab."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from routemesh.errors import RoutemeshError, Unavailable, UserError
from routemesh.model import Protocol
from routemesh.options import API_PORT, DATA_DIR, DEFAULT_SOCKET

if TYPE_CHECKING:
    from routemesh.api.client import Client
    from routemesh.api.connections import Remote, Ssh
    from routemesh.lab.find import Lab

_LAST_PORT = 65535
_SCHEME, _TCP, _SSH = "unix://", "tcp://", "ssh://"
_SSH_HOST = re.compile(r"((?P<user>[A-Za-z0-9_][\w.-]*)@)?(?P<host>[A-Za-z0-9][\w.-]*)(:(?P<port>[0-9]{1,5}))?", re.ASCII)
CERTIFICATES_VARIABLE = "ROUTEMESH_CERT_PATH"


@dataclass(frozen=True, slots=True)
class Tls:
    """The files that --tlscacert, --tlscert and --tlskey name.

    None: ca.pem, cert.pem and key.pem in ROUTEMESH_CERT_PATH, or, where that is not set, those of this machine's own node.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def remote(self, host: str, port: int) -> "Remote":
        """A daemon, asked with these."""
        from routemesh.api.connections import Remote

        place, own = os.environ.get(CERTIFICATES_VARIABLE), DATA_DIR / "pki"
        usual = [own / name for name in ("roots.pem", "node.pem", "node.pem")]
        if place:
            usual = [Path(place) / name for name in ("ca.pem", "cert.pem", "key.pem")]
        return Remote(host, port, self.ca or usual[0], self.certificate or usual[1], self.key or usual[2])


@dataclass(frozen=True, slots=True)
class Host:
    """What was said about the daemon: unix:///path, a path, tcp://…, ssh://…, the name of a lab's node, or nothing ("")."""

    wanted: str
    tls: Tls = Tls()

    def client(self) -> "Client":
        """The client of that daemon. Raises RoutemeshError where it is not clear which one is meant."""
        from routemesh.api.client import Client

        if self.wanted.startswith(_SSH):
            return Client(self._ssh())
        return Client(self._remote() if self.wanted.startswith(_TCP) else self.socket())

    def _ssh(self) -> "Ssh":
        from routemesh.api.connections import Ssh

        found = _SSH_HOST.fullmatch(self.wanted.removeprefix(_SSH))
        port = int(found["port"] or 0) if found else 0
        if not found or port > _LAST_PORT:
            raise UserError(f"host {self.wanted} is not ssh://HOST, ssh://USER@HOST or ssh://USER@HOST:PORT")
        return Ssh(found["host"], found["user"] or "", port)

    def _remote(self) -> "Remote":
        host, _, port = self.wanted.removeprefix(_TCP).partition(":")
        number = int(port) if port.isascii() and port.isdecimal() else API_PORT if not port else 0
        if not host or not 0 < number <= _LAST_PORT:
            raise UserError(f"host {self.wanted} is not tcp://HOST or tcp://HOST:PORT")
        return self.tls.remote(host, number)

    def lab(self) -> "Lab | None":
        """The lab whose daemon it is, if it is one's."""
        from routemesh.lab import find

        if self.wanted.startswith((_TCP, _SSH)):
            return None
        socket = self.socket()
        return next((lab for lab in find.running_labs() if socket.is_relative_to(lab.directory)), None)

    def socket(self) -> Path:
        """Where that daemon answers on this machine. Raises RoutemeshError where it is not clear which one is meant."""
        if self.wanted.startswith((_TCP, _SSH)):
            raise UserError(f"{self.wanted} is another machine: this needs the daemon of this one")
        if self.wanted.startswith(_SCHEME):
            return Path(self.wanted.removeprefix(_SCHEME))
        if "/" in self.wanted:
            return Path(self.wanted)
        if self.wanted:
            return _lab_node(self.wanted)
        return DEFAULT_SOCKET if _has_own_daemon() else _first_of_lab()


def _has_own_daemon() -> bool:
    """Whether this machine's daemon is meant: it is there, and nobody chose a lab."""
    from routemesh.lab.find import NAME_VARIABLE

    try:
        return not os.environ.get(NAME_VARIABLE) and DEFAULT_SOCKET.exists()
    except PermissionError:
        raise Unavailable(
            f"{DEFAULT_SOCKET.parent} is root's: run the command as root (sudo), or name a daemon with -H"
        ) from None


def _lab_node(name: str) -> Path:
    from routemesh.lab import find

    chosen = os.environ.get(find.NAME_VARIABLE)
    labs = [lab for lab in find.running_labs() if name in lab.node_names and chosen in (None, "", lab.name)]
    if len(labs) > 1:
        names = ", ".join(lab.name for lab in labs)
        raise UserError(f"several labs have a {name} ({names}): say which one you mean with {find.NAME_VARIABLE}")
    if not labs:
        raise UserError(
            f"host {name} is neither a path nor a node of a running lab: give -H the path of a daemon's socket, or tcp://HOST:PORT"
        )
    return labs[0].node(name).socket


def _first_of_lab() -> Path:
    from routemesh.lab import find

    found = find.default_socket()
    if found is None:
        raise Unavailable(
            "it is not clear which daemon to ask: start a lab with routemesh lab up or a node with routemesh node, "
            f"or name a daemon with -H, ROUTEMESH_HOST or {find.NAME_VARIABLE}"
        )
    return found


def service_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion: the services that there are."""
    return _names(ctx, incomplete, lambda client: [info.name for info in client.services()])


def node_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion: the nodes that there are."""
    return _names(ctx, incomplete, lambda client: [info.name for info in client.nodes()])


def network_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion: the networks that there are."""
    return _names(ctx, incomplete, lambda client: [str(network["Name"]) for network in client.networks()])


def secret_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion: the secrets that there are."""
    return _names(ctx, incomplete, lambda client: [info.name for info in client.secrets()])


def scales(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion: SERVICE= of the services that there are."""
    return _names(ctx, incomplete, lambda client: [f"{info.name}=" for info in client.services()])


def endpoints(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion: NODE:PORT for every node and published port."""

    def ask(client: "Client") -> list[str]:
        ports = [port for info in client.services() for port in info.spec.publish]
        kinds = [f"{port.published}{'' if port.protocol is Protocol.TCP else f'/{port.protocol}'}" for port in ports]
        return [f"{node.name}:{kind}" for node in client.nodes() for kind in kinds]

    return _names(ctx, incomplete, ask)


def task_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion: the tasks that run."""
    return _names(ctx, incomplete, lambda client: [task.name for info in client.services() for task in client.tasks(info.id)])


def hosts(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion: the nodes of the labs that run."""
    from routemesh.lab import find

    names = dict.fromkeys(name for lab in find.running_labs() for name in lab.node_names)
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _names(ctx: click.Context, incomplete: str, ask: "Callable[[Client], list[str]]") -> list[CompletionItem]:
    try:
        given = ctx.find_root().params
        tls = Tls(given.get("tlscacert"), given.get("tlscert"), given.get("tlskey"))
        found = ask(Host(given.get("host") or "", tls).client())
    except RoutemeshError:
        return []  # a completion that fails is silent
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]
