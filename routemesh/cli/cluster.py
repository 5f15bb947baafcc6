"""`routemesh cluster …`: making a cluster of several machines, joining it, its tokens and certificates."""

import socket
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

import click

from routemesh.cli.groups import Group
from routemesh.cli.host import Host
from routemesh.cli.output import format_flag, print_json, print_table, say, say_text
from routemesh.cli.values import ADDRESS, ENGINE, LAST_PORT, PAIR, SUBNET, OneOf, Parsed
from routemesh.model import Role
from routemesh.options import API_PORT, DATA_DIR, RUN_DIR, NodeOptions

if TYPE_CHECKING:
    from routemesh.enrol import Manager
    from routemesh.pki.shapes import Member, Status

_PATH = click.Path(readable=False, path_type=Path, file_okay=False)
_PORT = click.IntRange(1, LAST_PORT)
_DAY_S = 24 * 60 * 60


def _parse_manager(text: str) -> "Manager":
    from routemesh.enrol import Manager

    host, colon, port = text.partition(":")
    if not host or (colon and not (port.isascii() and port.isdecimal() and 0 < int(port) <= LAST_PORT)):
        raise ValueError(f"{text!r} is not HOST or HOST:PORT")
    return Manager(host, int(port) if colon else API_PORT)


_MANAGER = Parsed("host[:port]", _parse_manager)


@click.group("cluster", cls=Group)
def cluster() -> None:
    """Make a cluster of several machines, or join one."""


_run_dir = click.option("--run-dir", type=_PATH, default=RUN_DIR, help=f"As routemesh node's (default {RUN_DIR}).")
_data_dir = click.option("--data-dir", type=_PATH, default=DATA_DIR, help=f"As routemesh node's (default {DATA_DIR}).")
_of_the_node = (
    click.option("--name", help="The node's name (default: the machine's)."),
    click.option("--listen-port", type=_PORT, default=API_PORT, help=f"Where it answers other nodes (default {API_PORT})."),
    click.option("--engine", type=ENGINE, default="auto", help="Which part of the kernel balances (default auto)."),
    click.option("--label", "labels", type=PAIR, multiple=True, help="Set a label of the node, KEY=VALUE."),
    _run_dir,
    _data_dir,
)


def _node_options(command: click.Command) -> click.Command:
    for option in reversed(_of_the_node):
        option(command)
    return command


@_node_options
@cluster.command("init")
@click.option("--advertise-addr", "advertise", type=ADDRESS, required=True, help="This machine's address among the nodes.")
@click.option("--ingress-subnet", type=SUBNET, help="Of a new ingress network (default: 10.0.0.0/24 or another free one).")
@click.option("--gwbridge-subnet", type=SUBNET, help="Of a new docker_gwbridge (default: 172.18.0.0/16 or another free one).")
def init(
    advertise: IPv4Address,
    ingress_subnet: IPv4Network | None,
    gwbridge_subnet: IPv4Network | None,
    name: str | None,
    listen_port: int,
    engine: str,
    labels: tuple[tuple[str, str], ...],
    run_dir: Path,
    data_dir: Path,
) -> None:
    """Make a cluster, with this machine as its manager, before its daemon starts; what one machine alone has becomes it."""
    from routemesh import enrol

    options = NodeOptions(
        name=name or socket.gethostname(),
        advertise=advertise,
        store=f"sqlite:{data_dir.absolute() / 'cluster.db'}",
        run_dir=run_dir.absolute(),
        data_dir=data_dir.absolute(),
        engine=engine,
        labels=dict(labels),
        ingress_subnet=ingress_subnet,
        gwbridge_subnet=gwbridge_subnet,
    )
    token = enrol.init(options, listen_port)
    say_text(
        f"{options.name} is the manager of a new cluster. Start its daemon:\n\n{_start_command(run_dir, data_dir)}\n"
        f"To join another machine as a worker, run there:\n\n{_join_command(token, f'{advertise}:{listen_port}')}\n"
    )


@_node_options
@cluster.command("join")
@click.option("--token", required=True, help="What 'routemesh cluster token' prints on a manager.")
@click.option(
    "--advertise-addr",
    "advertise",
    type=ADDRESS,
    help="This machine's address among the nodes (default: its own on the way to HOST).",
)
@click.argument("manager", metavar="HOST[:PORT]", type=_MANAGER)
def join(
    token: str,
    advertise: IPv4Address | None,
    manager: "Manager",
    name: str | None,
    listen_port: int,
    engine: str,
    labels: tuple[tuple[str, str], ...],
    run_dir: Path,
    data_dir: Path,
) -> None:
    """Make this machine a node of the cluster whose manager is at HOST, before its daemon starts."""
    from routemesh import enrol

    options = NodeOptions(
        name=name or socket.gethostname(),
        advertise=advertise or enrol.local_address(manager),
        run_dir=run_dir.absolute(),
        data_dir=data_dir.absolute(),
        engine=engine,
        labels=dict(labels),
    )
    joined = enrol.join(options, listen_port, token, manager)
    say_text(
        f"{joined.name} ({joined.advertise}) has joined the cluster as a {joined.role}. Start its daemon:\n\n"
        f"{_start_command(run_dir, data_dir)}"
    )


@cluster.command("leave")
@click.option("--force", is_flag=True, help="Also a manager; what its store holds stays with this machine.")
@_run_dir
@_data_dir
def leave(force: bool, run_dir: Path, data_dir: Path) -> None:
    """Take this machine out of its cluster, after its daemon has ended; its certificate is deleted."""
    from routemesh import enrol

    options = NodeOptions(name="", advertise=IPv4Address(0), run_dir=run_dir.absolute(), data_dir=data_dir.absolute())
    name = enrol.leave(options, force=force)
    say(f"{name} has left; remove it from the cluster's nodes on a manager: routemesh node rm {name}")


@cluster.command("token")
@click.option("--rotate", is_flag=True, help="Make a new one; nobody can join with the old one any more.")
@click.option("--quiet", "-q", is_flag=True, help="Print the token only.")
@click.argument("role", type=OneOf(Role))
@click.pass_obj
def token(host: Host, rotate: bool, quiet: bool, role: Role) -> None:
    """Print by which token machines join as workers or managers."""
    told = host.client().join_token(role, rotate=rotate)
    if quiet:
        say(told.token)
    else:
        at = told.managers[0] if told.managers else "HOST"
        say_text(f"To join a machine as a {role}, run there:\n\n{_join_command(told.token, at)}\n")


@cluster.command("status")
@format_flag
@click.pass_obj
def status(host: Host, format_: str) -> None:
    """Show the members: who leads, how far each is behind, when certificates expire."""
    _print_status(host.client().cluster(), format_)


@cluster.group("ca", cls=Group)
def ca() -> None:
    """The cluster's certificate authority."""


@ca.command("rotate")
@format_flag
@click.pass_obj
def rotate(host: Host, format_: str) -> None:
    """Make a new root certificate; nodes renew theirs by themselves, and then the old one counts no more. Tokens are new, too."""
    _print_status(host.client().rotate_root(), format_)


def _print_status(found: "Status", format_: str) -> None:
    if format_ == "json":
        print_json(found)
        return
    headings = ("NAME", "ADDRESS", "ROLE", "STATUS", "BEHIND", "CERTIFICATE")
    say_text(f"cluster {found.cluster}, revision {found.revision}\n{_roots(found)}\n\n")
    print_table(headings, (_row(found, each) for each in found.members))


def _roots(found: "Status") -> str:
    if not found.roots:
        return "nobody can join over the network: it was not made by 'routemesh cluster init'"
    first, *others = found.roots
    return f"root certificate {first}" + (f", and until all nodes have renewed theirs {others[0]}" if others else "")


def _row(found: "Status", each: "Member") -> tuple[str, ...]:
    role = f"{each.role} (leader)" if each.leads else str(each.role)
    behind = "" if each.behind is None else str(each.behind)
    days = int((each.certified_until - found.now) // _DAY_S)
    lasts = "none" if not each.certified_until else f"{days} days" if days >= 0 else "expired"
    if found.roots and each.certified_until and not each.renewed:
        lasts += ", of the old root"
    return each.name, each.address, role, each.state.capitalize(), behind, lasts


def _join_command(token: str, at: str) -> str:
    return f"    routemesh cluster join --token {token} {at}\n"


def _start_command(run_dir: Path, data_dir: Path) -> str:
    """With the flags by which a daemon finds what was made, where it is not in the usual places."""
    words = (("--run-dir", run_dir, RUN_DIR), ("--data-dir", data_dir, DATA_DIR))
    return "    routemesh node" + "".join(f" {flag} {path}" for flag, path, usual in words if path != usual) + "\n"
