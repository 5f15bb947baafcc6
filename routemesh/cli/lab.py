"""`routemesh lab`: a cluster on this machine, to look at, to break and to repair."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from ipaddress import IPv4Network
from typing import Any, TypeVar

import click

from routemesh.cli import output
from routemesh.cli.groups import Group
from routemesh.cli.output import say
from routemesh.cli.values import ENGINE, SUBNET
from routemesh.cli.waits import waits
from routemesh.errors import RoutemeshError, UserError
from routemesh.lab import find, topology
from routemesh.model import LEAST_UNDERLAY_MTU_BYTES

Command = TypeVar("Command", bound=Callable[..., Any])

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
"""What a shell, and env(1), say of a command that can't be run."""


class RootCommand(click.Command):
    """A command that needs root; its --help does not."""

    def invoke(self, ctx: click.Context) -> Any:
        """Carry it out. Raises UserError for anybody else, and for a file of the lab that a disk does not take or give."""
        if os.geteuid() != 0:
            raise UserError("routemesh lab needs root, for network namespaces; run it with sudo")
        try:
            return super().invoke(ctx)
        except OSError as exc:
            if exc.filename is None:
                raise
            raise UserError(f"{ctx.command_path}: {exc.filename}: {exc.strerror}; mend that and try again") from exc


class LabGroup(Group):
    """A group of such commands, listed in the order in which they are needed."""

    command_class = RootCommand

    def list_commands(self, _: click.Context) -> list[str]:
        """In order of definition."""
        return list(self.commands)


def _complete_lab(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [lab.name for lab in find.running_labs() if lab.name.startswith(incomplete)]


def _complete_namespace(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    found = {path.name for lab in _labs_meant(ctx) for path in lab.directory.glob("*/netns/*")}
    return sorted(name for name in found if name.startswith(incomplete))


def _complete_task(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    from routemesh.api.client import Client

    tasks = []
    for lab in _labs_meant(ctx):
        client = Client(lab.node(lab.node_names[0]).socket)
        with suppress(RoutemeshError):  # a completion that fails is silent
            tasks += [task for info in client.services() for task in client.tasks(info.name)]
    return [task.name for task in tasks if task.state == "running" and task.name.startswith(incomplete)]


def _labs_meant(ctx: click.Context) -> list[find.Lab]:
    wanted = ctx.params.get("lab_name") or os.environ.get(find.NAME_VARIABLE) or _only_lab()
    return [lab for lab in find.running_labs() if lab.name == wanted]


def _only_lab() -> str:
    """The lab that is meant when none is named: the only one that there is."""
    labs = find.running_labs()
    return labs[0].name if len(labs) == 1 else find.DEFAULT_NAME


def _named(default: str | Callable[[], str], shown: str) -> Callable[[Command], Command]:
    return click.option(
        "--name",
        "lab_name",
        metavar="LAB",
        default=default,
        envvar=find.NAME_VARIABLE,
        show_default=shown,
        show_envvar=True,
        shell_complete=_complete_lab,
        help="Which lab.",
    )


_lab_option = _named(_only_lab, "the only one")
_new_lab_option = _named(find.DEFAULT_NAME, find.DEFAULT_NAME)


def _complete_node(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    hosts = [topology.CLIENT] if ctx.info_name == "exec" else []
    return [name for lab in _labs_meant(ctx) for name in (*hosts, *lab.node_names) if name.startswith(incomplete)]


_node_argument = click.argument("node", shell_complete=_complete_node)


@click.group(cls=LabGroup)
def lab() -> None:
    """A whole cluster on this machine.

    Every node is a network namespace with a real daemon in it: node1 is 192.168.200.10, node2 .11 and so on. A client at
    192.168.200.100 is outside of the cluster. Nothing of it touches this machine's own network.

    \b
    routemesh lab up
    routemesh service create --name web --replicas 2 -p 8080:80 host routemesh whoami
    routemesh lab exec client -- curl http://192.168.200.12:8080
    routemesh lab down
    """


@lab.command()
@_new_lab_option
@click.option("--nodes", type=click.IntRange(1, topology.MAX_NODES), default=3, show_default=True, help="How many nodes.")
@click.option("--managers", type=click.IntRange(min=1), help="How many of them, from node1 on, are managers (default: all).")
@click.option("--engine", type=ENGINE, default="auto", show_default=True, help="What makes the data path.")
@click.option(
    "--mtu",
    type=click.IntRange(LEAST_UNDERLAY_MTU_BYTES, 65535),
    default=1500,
    show_default=True,
    help="MTU of the underlay, in bytes.",
)
@click.option("--join", "joined", is_flag=True, help="Share no file: node1 makes a cluster, and the others join it as workers.")
@click.option("--ingress-subnet", type=SUBNET, help="The ingress network's addresses (default: as routemesh node chooses).")
@click.option("--gwbridge-subnet", type=SUBNET, help="docker_gwbridge's addresses (default: as routemesh node chooses).")
@click.option(
    "--store", type=click.Choice(["sqlite", "etcd"]), default="sqlite", show_default=True, help="A file, or etcd on the nodes."
)
def up(
    lab_name: str,
    nodes: int,
    managers: int | None,
    engine: str,
    mtu: int,
    joined: bool,
    ingress_subnet: IPv4Network | None,
    gwbridge_subnet: IPv4Network | None,
    store: find.StoreKind,
) -> None:
    """Make a lab and start its nodes."""
    from routemesh.lab import control

    if joined and managers not in (None, 1):
        raise click.UsageError("a lab with --join has one manager: its store is node1's file")
    wanted = find.Lab(
        name=lab_name,
        nodes=nodes,
        managers=1 if joined else managers or nodes,
        engine=engine,
        mtu_bytes=mtu,
        ingress_subnet=str(ingress_subnet or ""),
        gwbridge_subnet=str(gwbridge_subnet or ""),
        joined=joined,
        store=store,
    )
    with waits(f"starting {nodes} node{'s' * (nodes > 1)}"):
        control.up(wanted)
    ends = dict.fromkeys((wanted.node_names[0], wanted.node_names[-1]))
    say(f"lab {lab_name} is up: {' to '.join(f'{name} at {topology.address(name)}' for name in ends)}")


@lab.command()
@_lab_option
@output.format_flag
def status(lab_name: str, format_: str) -> None:
    """Show the nodes: their daemons and their links."""
    from routemesh.lab import control

    nodes = control.status(find.load(lab_name))
    if format_ == "json":
        output.print_json([{**asdict(node), "address": str(node.address)} for node in nodes])
        return
    rows = [
        (node.name, str(node.address), node.role, str(node.pid or "-"), "yes" if node.ready else "no", node.link)
        for node in nodes
    ]
    output.print_table(("NODE", "ADDRESS", "ROLE", "PID", "READY", "LINK"), rows)


@lab.command(name="exec")
@_lab_option
@click.option(
    "--sandbox",
    metavar="NAMESPACE",
    shell_complete=_complete_namespace,
    help="A namespace of the node: ingress_sbox, 1-… (the overlay) or a task's.",
)
@click.option("--task", metavar="TASK", shell_complete=_complete_task, help="A task on the node, web.1: all its namespaces.")
@click.argument("host", shell_complete=_complete_node)
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...")
def execute(lab_name: str, sandbox: str | None, task: str | None, host: str, command: tuple[str, ...]) -> int:
    """Run a command on a machine of the lab.

    HOST is `client` or a node; --sandbox and --task go on from there. On a node, /run/netns holds the namespaces of that node, so
    that `ip netns` and `nsenter --net=/run/netns/…` find them, and `routemesh` talks to the node's daemon.

    \b
    routemesh lab exec client -- curl http://192.168.200.12:8080
    routemesh lab exec node1 -- ip netns exec ingress_sbox ip address
    routemesh lab exec node1 --sandbox ingress_sbox -- nft list ruleset
    routemesh lab exec node2 --task web.1 -- ip address
    """
    from routemesh.lab import enter

    if sandbox and task:
        raise click.UsageError("--sandbox and --task exclude each other; a task has a namespace of its own")
    try:
        enter.run(find.load(lab_name), host, command, sandbox=sandbox, task=task)
    except FileNotFoundError:
        output.fail(f"{command[0]}: there is no such program")
        return _NOT_FOUND
    except PermissionError:
        output.fail(f"{command[0]}: this can't be executed")
        return _NOT_EXECUTABLE


@lab.command()
@_lab_option
@_node_argument
def kill(lab_name: str, node: str) -> None:
    """Cut a node's power.

    Daemon, tasks and namespaces, everything but its disk is gone, and nobody is told.
    """
    from routemesh.lab import control

    control.kill(find.load(lab_name), node)


@lab.command()
@_lab_option
@_node_argument
def start(lab_name: str, node: str) -> None:
    """Bring back a node or its daemon."""
    from routemesh.lab import control

    if not control.start(find.load(lab_name), node):
        say(f"the daemon of {node} runs already")


@lab.command()
@_lab_option
@_node_argument
def cut(lab_name: str, node: str) -> None:
    """Pull a node's network cable."""
    from routemesh.lab import control

    control.cut(find.load(lab_name), node)


@lab.command()
@_lab_option
@_node_argument
def heal(lab_name: str, node: str) -> None:
    """Plug a node's network cable in again."""
    from routemesh.lab import control

    control.heal(find.load(lab_name), node)


@lab.command()
@_lab_option
def down(lab_name: str) -> None:
    """Remove a lab with everything in it."""
    from routemesh.lab import control

    with waits(f"removing lab {lab_name}"):
        control.down(lab_name)
