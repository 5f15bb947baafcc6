"""`routemesh container …`: the tasks of the node that answers, as docker lists containers."""

import shlex
import time
from collections.abc import Iterable, Iterator

import click

from routemesh import wire
from routemesh.cli.groups import Group
from routemesh.cli.host import Host
from routemesh.cli.output import ago, format_flag, print_json, print_table, say_text, short
from routemesh.model import TaskState

_HEADINGS = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
_LONGEST_COMMAND = 20
"""As docker cuts it. Source: docker/cli formatter/container.go."""


@click.group("container", cls=Group)
def container() -> None:
    """Look at the containers of a node: the namespaces and processes of its tasks."""


@container.command("ls")
@click.option("--all", "-a", "all_", is_flag=True, help="Those that have ended too.")
@click.option("--quiet", "-q", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print commands whole.")
@format_flag
@click.pass_obj
def ls(host: Host, all_: bool, quiet: bool, no_trunc: bool, format_: str) -> None:
    """List containers. The sandboxes of the mesh are not containers."""
    found = [task for task in host.client().node_tasks(wire.SELF) if _is_shown(task, all_=all_)]
    if quiet:
        say_text("".join(f"{task.container}\n" for task in found))
    elif format_ == "json":
        print_json(found)
    else:
        print_table(_HEADINGS, _rows(found, whole=no_trunc))


def _is_shown(task: wire.TaskInfo, *, all_: bool) -> bool:
    state = TaskState[task.state.upper()]
    return state >= TaskState.STARTING and (all_ or not state.ended)


def _rows(tasks: Iterable[wire.TaskInfo], *, whole: bool) -> Iterator[tuple[str, ...]]:
    now = time.time()
    for task in tasks:
        command = shlex.join(task.command)
        shown = command if whole or len(command) <= _LONGEST_COMMAND else f"{command[: _LONGEST_COMMAND - 1]}…"
        yield (
            task.container,
            task.image,
            f'"{shown}"',
            f"{ago(now - task.created_at)} ago",
            _status(task, now),
            ", ".join(port.rpartition("->")[2] for port in task.ports),
            f"{task.name}.{short(task.id)}",
        )


def _status(task: wire.TaskInfo, now: float) -> str:
    since = ago(now - task.since)
    if not TaskState[task.state.upper()].ended:
        return f"Up {since}"
    return f"Exited ({'?' if task.exit_code is None else task.exit_code}) {since} ago"
