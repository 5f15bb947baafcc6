"""`routemesh node …`: the nodes of the cluster; without a subcommand, the daemon that makes this machine one."""

import socket
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import click
from click.core import ParameterSource

from routemesh import wire
from routemesh.cli.groups import Group
from routemesh.cli.host import Host, node_names
from routemesh.cli.output import (
    attempt_each,
    finish,
    format_flag,
    inspect_flags,
    print_json,
    print_objects,
    print_table,
    say,
    say_text,
    short,
)
from routemesh.cli.values import ADDRESS, ENGINE, PAIR, SUBNET, OneOf
from routemesh.errors import RoutemeshError, UserError
from routemesh.model import Availability, NodeState, Role
from routemesh.options import DATA_DIR, RUN_DIR, STORE, Keys, NodeOptions

_PATH = click.Path(readable=False, path_type=Path, file_okay=False)
_FILE = click.Path(readable=False, path_type=Path, dir_okay=False)


@click.group("node", cls=Group, invoke_without_command=True)
@click.option("--name", help="The node's name (default: the machine's).")
@click.option("--advertise", type=ADDRESS, help="The node's IPv4 address in the underlay; the other nodes reach it there.")
@click.option("--store", default=STORE, help=f"sqlite:PATH or etcd://HOST:PORT,…/PREFIX (default {STORE}).")
@click.option("--store-ca", type=_FILE, help="Speak TLS with etcd, whose certificates are of this authority.")
@click.option("--store-cert", type=_FILE, help="This daemon's certificate for etcd.")
@click.option("--store-key", type=_FILE, help="The key of --store-cert.")
@click.option("--store-user", default="", help="Whom etcd is to take this daemon for.")
@click.option("--store-password-file", type=_FILE, help="The password of --store-user, a line.")
@click.option("--run-dir", type=_PATH, default=RUN_DIR, help=f"For the socket and the namespaces (default {RUN_DIR}).")
@click.option("--data-dir", type=_PATH, default=DATA_DIR, help=f"For the logs of tasks (default {DATA_DIR}).")
@click.option("--engine", type=ENGINE, default="auto", help="Which part of the kernel balances (default auto).")
@click.option("--role", type=OneOf(Role), default=Role.MANAGER, help="Whether it may lead the cluster (default manager).")
@click.option("--label", "labels", type=PAIR, multiple=True, help="Set a label of the node, KEY=VALUE.")
@click.option("--ingress-subnet", type=SUBNET, help="Of a new ingress network (default: 10.0.0.0/24 or another free one).")
@click.option("--gwbridge-subnet", type=SUBNET, help="Of a new docker_gwbridge (default: 172.18.0.0/16 or another free one).")
@click.option("--new-cluster", is_flag=True, help="Leave the cluster that this node belonged to, with all that runs here of it.")
@click.pass_context
def node(
    ctx: click.Context,
    name: str | None,
    advertise: IPv4Address | None,
    store: str,
    store_ca: Path | None,
    store_cert: Path | None,
    store_key: Path | None,
    store_user: str,
    store_password_file: Path | None,
    run_dir: Path,
    data_dir: Path,
    engine: str,
    role: Role,
    labels: tuple[tuple[str, str], ...],
    ingress_subnet: IPv4Network | None,
    gwbridge_subnet: IPv4Network | None,
    new_cluster: bool,
) -> None:
    """Look at and change nodes. Without a subcommand: be a node, until SIGTERM; what runs goes on without the daemon."""
    if ctx.invoked_subcommand is not None:
        return
    if (joined := _joined(ctx, run_dir.absolute(), data_dir.absolute())) is not None:
        _run(joined)
        return
    if advertise is None:
        raise click.UsageError("the daemon needs --advertise ADDRESS, this machine's address among the nodes")
    options = NodeOptions(
        name=name or socket.gethostname(),
        advertise=advertise,
        store=store,
        keys=Keys(
            ca=_absolute(store_ca),
            certificate=_absolute(store_cert),
            key=_absolute(store_key),
            user=store_user,
            password=_absolute(store_password_file),
        ),
        run_dir=run_dir.absolute(),
        data_dir=data_dir.absolute(),
        engine=engine,
        role=role,
        labels=dict(labels),
        ingress_subnet=ingress_subnet,
        gwbridge_subnet=gwbridge_subnet,
        new_cluster=new_cluster,
    )
    _run(options)


def _joined(ctx: click.Context, run_dir: Path, data_dir: Path) -> NodeOptions | None:
    """The options of a node that has made or joined a cluster, which says the rest of them; None for any other."""
    from routemesh.credentials import member

    found = member.member(data_dir)
    if found is None:
        return None
    given = [param for param in ctx.command.params if ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE]
    others = [param.opts[0] for param in given if param.name not in ("run_dir", "data_dir")]
    if others:
        raise UserError(
            f"this machine is {found.name} of cluster {found.membership.cluster}, which says what its daemon starts with: "
            f"leave out {', '.join(others)}"
        )
    return member.options_of(found, run_dir, data_dir)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _run(options: NodeOptions) -> None:
    from routemesh.start import run

    try:
        run(options)
    except ExceptionGroup as group:
        # The daemon's loops run side by side, and one that can't start ends them all.
        ours, others = group.split(RoutemeshError)
        if ours is None or others is not None:
            raise
        raise _first(ours) from None


def _first(exc: Exception) -> Exception:
    while isinstance(exc, ExceptionGroup):
        exc = exc.exceptions[0]
    return exc


@node.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Print ids only.")
@format_flag
@click.pass_obj
def ls(host: Host, quiet: bool, format_: str) -> None:
    """List nodes; * marks the one that is asked."""
    found = host.client().nodes()
    if quiet:
        say_text("".join(f"{info.id}\n" for info in found))
    elif format_ == "json":
        print_json(found)
    else:
        headings = ("ID", "HOSTNAME", "ADDRESS", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE", "ERROR")
        print_table(headings, map(_row, found))


def _row(info: wire.NodeInfo) -> tuple[str, ...]:
    manager = "Leader" if info.leader else "Reachable" if info.role is Role.MANAGER and info.state == NodeState.READY else ""
    return (
        f"{short(info.id)}{' *' if info.asked else ''}",
        info.name,
        info.address,
        info.state.capitalize(),
        info.availability.capitalize(),
        manager,
        info.engine,
        "; ".join(filter(None, (info.error, *info.failures))),
    )


@node.command("inspect")
@inspect_flags
@click.argument("refs", metavar="NODE...", nargs=-1, required=True, shell_complete=node_names)
@click.pass_obj
def inspect(host: Host, refs: tuple[str, ...], format_: str) -> None:
    """Print everything about nodes; `self` is the one that is asked."""
    print_objects(refs, host.client().node, format_)


@node.command("update")
@click.option("--availability", type=OneOf(Availability), help="New tasks, only those it has, or none.")
@click.option("--role", type=OneOf(Role), help="Whether it may lead the cluster.")
@click.option("--label-add", "added", type=PAIR, multiple=True, help="Add or replace a label, KEY=VALUE.")
@click.option("--label-rm", "removed", multiple=True, help="Remove a label.")
@click.argument("ref", metavar="NODE", shell_complete=node_names)
@click.pass_obj
def update(
    host: Host,
    ref: str,
    availability: Availability | None,
    role: Role | None,
    added: tuple[tuple[str, str], ...],
    removed: tuple[str, ...],
) -> None:
    """Change a node."""
    change = wire.NodeUpdate(availability=availability, role=role, labels_add=dict(added), labels_remove=removed)
    host.client().update_node(ref, change)
    say(ref)


@node.command("rm")
@click.option("--force", is_flag=True, help="Also one that is up: its part of the cluster ends at once.")
@click.argument("refs", metavar="NODE...", nargs=-1, required=True, shell_complete=node_names)
@click.pass_obj
def rm(host: Host, refs: tuple[str, ...], force: bool) -> None:
    """Forget nodes; their certificates count no more."""
    client = host.client()

    def remove(ref: str) -> None:
        client.remove_node(ref, force=force)
        say(ref)

    finish(attempt_each(refs, remove))


@node.command("promote")
@click.argument("refs", metavar="NODE...", nargs=-1, required=True, shell_complete=node_names)
@click.pass_obj
def promote(host: Host, refs: tuple[str, ...]) -> None:
    """Make workers managers, which may lead the cluster."""
    _give_role(host, refs, Role.MANAGER)


@node.command("demote")
@click.argument("refs", metavar="NODE...", nargs=-1, required=True, shell_complete=node_names)
@click.pass_obj
def demote(host: Host, refs: tuple[str, ...]) -> None:
    """Make managers workers."""
    _give_role(host, refs, Role.WORKER)


def _give_role(host: Host, refs: tuple[str, ...], role: Role) -> None:
    client = host.client()

    def give(ref: str) -> None:
        client.update_node(ref, wire.NodeUpdate(role=role))
        say(f"{ref} is a {role} now")

    finish(attempt_each(refs, give))
