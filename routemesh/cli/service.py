"""`routemesh service …`: services and their tasks, with docker's words and flags."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import click

from routemesh import wire
from routemesh.api.client import Client
from routemesh.cli import settings
from routemesh.cli.groups import Group
from routemesh.cli.host import Host, scales, service_names
from routemesh.cli.output import (
    ago,
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
from routemesh.cli.progress import Waiting, wait_flags
from routemesh.cli.values import LINES, SCALE
from routemesh.errors import Conflict
from routemesh.model import ServiceSpec

_TRIES = 5
"""How often an update is put anew when somebody else changes the service at the same time."""


@click.group("service", cls=Group)
def service() -> None:
    """Create, change and look at services."""


@service.command("create", context_settings={"allow_interspersed_args": False})
@settings.create_flags
@wait_flags
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def create(host: Host, /, image: str, command: tuple[str, ...], waiting: Waiting, **flags: Any) -> None:
    """Create a service. IMAGE `host` runs a program of the node: `… host routemesh whoami`."""
    client = host.client()
    spec = settings.changed(ServiceSpec(name=flags["name"], image=image, command=command), flags)
    created = client.create_service(spec)
    say(created.id)
    _hint(created, waiting, flags)
    waiting.wait(client, created)


@service.command("update")
@settings.update_flags
@click.option("--force", is_flag=True, help="Replace the tasks even if nothing else changes.")
@wait_flags
@click.argument("ref", metavar="SERVICE", shell_complete=service_names)
@click.pass_obj
def update(host: Host, /, ref: str, force: bool, waiting: Waiting, **flags: Any) -> None:
    """Change a service; its tasks are replaced one after the other."""
    client = host.client()

    def change(spec: ServiceSpec) -> ServiceSpec:
        spec = settings.changed(spec, flags)
        return settings.forced(spec) if force else spec

    changed = _change(client, ref, change)
    say(ref)
    _hint(changed, waiting, flags)
    waiting.wait(client, changed)


HINTS = "ROUTEMESH_HINTS"


def _hint(made: wire.ServiceInfo, waiting: Waiting, flags: Mapping[str, Any]) -> None:
    """Say that there is no health check, unless that is what was asked for, or nobody wants to know."""
    from routemesh.reasons.words import unchecked

    wanted = flags.get("no_healthcheck") or waiting.quiet or os.environ.get(HINTS) == "off"
    if made.spec.publish and made.spec.health is None and not wanted:
        say(f"hint: {unchecked(made.name)} (--health-cmd, or --label routemesh.health.tcp; {HINTS}=off hides this)", err=True)


@service.command("scale")
@wait_flags
@click.argument("wanted", metavar="SERVICE=REPLICAS...", nargs=-1, required=True, type=SCALE, shell_complete=scales)
@click.pass_obj
def scale(host: Host, wanted: tuple[tuple[str, int], ...], waiting: Waiting) -> None:
    """Set the number of tasks of services."""
    client = host.client()
    changed = []
    for ref, replicas in wanted:
        changed.append(_change(client, ref, partial(settings.changed, flags={"replicas": replicas})))
        say(f"{ref} scaled to {replicas}")
    for info in changed:
        waiting.wait(client, info)


def _change(client: Client, ref: str, change: Callable[[ServiceSpec], ServiceSpec]) -> wire.ServiceInfo:
    present = client.service(ref)
    for _ in range(_TRIES):
        try:
            return client.update_service(present.id, wire.ServiceUpdate(version=present.version, spec=change(present.spec)))
        except Conflict:
            before, present = present, client.service(present.id)
            if present.version == before.version:
                raise
    raise Conflict(f"service {ref} is being changed by others all the time; try again later")


@service.command("rm")
@click.argument("refs", metavar="SERVICE...", nargs=-1, required=True, shell_complete=service_names)
@click.pass_obj
def rm(host: Host, refs: tuple[str, ...]) -> None:
    """Remove services; their tasks are drained and stopped."""
    client = host.client()

    def remove(ref: str) -> None:
        client.remove_service(ref)
        say(ref)

    finish(attempt_each(refs, remove))


@service.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Print ids only.")
@format_flag
@click.pass_obj
def ls(host: Host, quiet: bool, format_: str) -> None:
    """List services."""
    found = host.client().services()
    if quiet:
        say_text("".join(f"{info.id}\n" for info in found))
    elif format_ == "json":
        print_json(found)
    else:
        print_table(("ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"), map(_service_row, found))


def _service_row(info: wire.ServiceInfo) -> tuple[str, ...]:
    ports = ", ".join(f"*:{port}" for port in info.spec.publish)
    return short(info.id), info.name, info.mode, f"{info.running}/{info.wanted}", info.spec.image, ports


@service.command("ps")
@click.option("--quiet", "-q", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print ids whole.")
@format_flag
@click.argument("refs", metavar="SERVICE...", nargs=-1, required=True, shell_complete=service_names)
@click.pass_obj
def ps(host: Host, refs: tuple[str, ...], quiet: bool, no_trunc: bool, format_: str) -> None:
    """List the tasks of services, those of the past too."""
    client = host.client()
    tasks = [task for ref in refs for task in client.tasks(ref)]
    if quiet:
        say_text("".join(f"{task.id}\n" for task in tasks))
    elif format_ == "json":
        print_json(tasks)
    else:
        headings = ("ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "EXIT", "PORTS")
        print_table(headings, task_rows(tasks, whole=no_trunc))


def task_rows(tasks: Iterable[wire.TaskInfo], *, whole: bool) -> Iterator[tuple[str, ...]]:
    """What `service ps` shows of tasks; those of one name, newest first, as a tree."""
    now = time.time()
    above = ""
    for task in tasks:
        yield (
            short(task.id, whole=whole),
            f" \\_ {task.name}" if task.name == above else task.name,
            task.image,
            task.node or "",
            task.desired_state.capitalize(),
            _current(task, now),
            task.error,
            "" if task.exit_code is None else str(task.exit_code),
            ", ".join(task.ports),
        )
        above = task.name


def _current(task: wire.TaskInfo, now: float) -> str:
    """Its state and since when; while it is prepared, also how far that is."""
    progress = f": {task.message}" if task.state == "preparing" else ""
    return f"{task.state.capitalize()} {ago(now - task.since)} ago{progress}"


@service.command("inspect")
@inspect_flags
@click.argument("refs", metavar="SERVICE...", nargs=-1, required=True, shell_complete=service_names)
@click.pass_obj
def inspect(host: Host, refs: tuple[str, ...], format_: str) -> None:
    """Print everything about services."""
    print_objects(refs, host.client().service, format_)


@service.command("logs")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes.")
@click.option("--tail", "-n", type=LINES, default="all", help="How many of each task's last lines to show (default all).")
@click.argument("ref", metavar="SERVICE", shell_complete=service_names)
@click.pass_obj
def logs(host: Host, ref: str, follow: bool, tail: int | None) -> None:
    """Print what a service's tasks wrote."""
    for line in host.client().logs(ref, follow=follow, tail=tail):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
