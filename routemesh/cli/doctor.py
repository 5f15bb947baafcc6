"""`routemesh doctor`: what is wrong with the cluster, and what this machine offers."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from routemesh.cli.host import Host
from routemesh.cli.output import OWN_ESCAPE, format_flag, is_coloured, print_json, print_table, say, say_text, terminal_width
from routemesh.cli.waits import waits
from routemesh.errors import RoutemeshError, Unavailable, UserError

if TYPE_CHECKING:
    from routemesh.api.client import Client
    from routemesh.doctor import Finding
    from routemesh.nodeplan import Item
    from routemesh.recording.ownplan import Plans

    Findings = tuple[Finding, ...]

_MOST_MENDED = 8


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Let every node bring its kernel to its plan first; what is not ours is left alone.")
@click.option("--passive", is_flag=True, help="Open no connection to tasks: what is said of their answers is predicted then.")
@click.option("--machine", is_flag=True, help="Look at this machine alone, and ask no daemon.")
@click.option("--from", "recordings", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Look at recordings of nodes (routemesh record); may be given several times.")  # fmt: skip
@click.option("--swarm", is_flag=True, help="Look at this Docker Swarm node.")
@format_flag
@click.pass_obj
def doctor(host: Host, fix: bool, passive: bool, machine: bool, recordings: tuple[Path, ...], swarm: bool, format_: str) -> None:
    """Tell what is wrong with the cluster, with this machine, and what to do about it.

    Reads all nodes' kernels, compares them with the plans, walks the way of every published port from every node, and sends
    packets as large as may be between the nodes' sandboxes. Each TCP port of a task gets one connection, which is closed at once
    (--passive: none). Each line says whether it was (asked), is (predicted) from what was read, or was (recorded).

    Without a daemon: what this machine's kernel and programs offer.

    Nothing is loaded or changed by looking; --fix changes what is ours.

    \b
    Exit status: 0 nothing is wrong, 3 something is, 4 it can't be told.
    """
    if recordings and swarm:
        raise UserError("--from and --swarm exclude one another: a recording is of a Swarm by itself")
    if fix and (recordings or swarm or machine):
        raise UserError("--fix is for a running cluster of routemesh: what else there is can't be repaired from here")
    if fix:
        _fix(host, quiet=format_ == "json")
    with waits("looking at everything"):
        of_mesh, of_machine = _looked(host, recordings, machine=machine, swarm=swarm, passive=passive)
    from routemesh.doctor import report

    found = report((*of_mesh, *of_machine))
    if format_ == "json":
        print_json(found)
    else:
        _print(of_mesh, of_machine)
    if found.status:
        raise click.exceptions.Exit(found.status)


def _looked(
    host: Host, recordings: tuple[Path, ...], *, machine: bool, swarm: bool, passive: bool
) -> "tuple[Findings, Findings]":
    """What was found of the mesh, and of this machine; of each nothing where it is not asked for, or not there."""
    if recordings or swarm:
        return _of_a_mesh(recordings), ()
    client = None if machine else _meant(host)
    if client is None:
        return (), _of_this_machine()
    from routemesh.doctor import Finding, Severity

    try:
        found, engine = client.doctor(passive=passive).findings, next((node.engine for node in client.nodes() if node.asked), "")
    except Unavailable as silence:
        silent = Finding(
            what="node", where="", state=Severity.UNTOLD, found=str(silence), effect="how the cluster is can't be told"
        )
        return (silent,), _of_this_machine()
    return (*found, *_of_the_gateway(client)), _of_this_machine(engine)


def _meant(host: Host) -> "Client | None":
    """The daemon to be asked; None where there is no cluster here."""
    try:
        return host.client()
    except Unavailable:
        return None


def _of_this_machine(needed: str = "") -> "Findings":
    from routemesh.doctor.machine import findings
    from routemesh.sight.machine import machine

    return findings(machine(), needed)


def _of_the_gateway(client: "Client") -> "Findings":
    """Its certificates, and what its proxies refuse; nothing where there is no gateway."""
    from routemesh.doctor.certificates import findings
    from routemesh.doctor.refused import findings as refused

    try:
        found = client.gateway(keys=True)
        lagging = {proxy.node: proxy.error for proxy in found.proxies if proxy.error}
        return (*refused(found.refused, lagging), *findings(found.warnings, found.keys_on_disk))
    except RoutemeshError:
        return ()


def _of_a_mesh(recordings: tuple[Path, ...]) -> "Findings":
    """Of what was recorded, or of this Swarm node where nothing was."""
    from routemesh.doctor.mesh import findings, recorded
    from routemesh.recording.expected import lacking
    from routemesh.recording.ownplan import differing
    from routemesh.recording.read import read
    from routemesh.recording.swarm import live

    cluster = read(recordings) if recordings else live()
    plans = _plans(recordings)
    own = {name: differing(plans[name], node) for name, node in cluster.nodes.items() if name in plans}
    return findings(cluster, recorded({**lacking(cluster), **own}))


def _plans(recordings: tuple[Path, ...]) -> "Plans":
    """What recorded nodes of ours should have had, as far as that was recorded. Raises UserError for a broken file."""
    import json

    from routemesh.nodeplan import NodePlan, namespace
    from routemesh.recording.ownplan import FILE

    found = {}
    for directory in recordings:
        for file in (directory / FILE, *sorted(directory.glob(f"*/{FILE}"))):
            if file.exists():
                try:
                    raw = json.loads(file.read_text())
                    spaces = {name: namespace(map(_item, items)) for name, items in raw["namespaces"].items()}
                    found[raw["node"]] = NodePlan(spaces)
                except (OSError, ValueError, KeyError, TypeError, AttributeError, RoutemeshError) as error:
                    raise UserError(f"{file} is not a plan of a node ({error}); remove it to go on without it") from None
    return found


def _item(raw: object) -> "Item":
    from typing import Any, cast

    from routemesh.codec.plain import restored

    return cast(Any, restored(object, raw))  # type: ignore[no-any-return]


def _fix(host: Host, *, quiet: bool) -> None:
    """Repair what is ours and say what became of it."""
    for node in host.client().repair():
        lines = [f"mended {each}" for each in node.mended[:_MOST_MENDED]]
        if len(node.mended) > _MOST_MENDED:
            lines.append(f"mended {len(node.mended) - _MOST_MENDED} more")
        lines += [f"refused {each}" for each in node.refused]
        lines += [f"not repaired: {node.error}"] if node.error else []
        for line in () if quiet else lines or ["as planned, nothing to mend"]:
            say(f"{node.node}: {line}")


def _print(of_mesh: "Findings", of_machine: "Findings") -> None:
    """A mesh's findings may have any length. Of a machine that runs a node only what is wrong is told, else all it offers."""
    from routemesh.doctor import Severity
    from routemesh.doctor.text import text
    from routemesh.explain.text import Screen

    say_text(text(of_mesh, Screen(colour=is_coloured(), width=terminal_width(), escape=OWN_ESCAPE)))
    told = of_machine if not of_mesh else [each for each in of_machine if each.state is Severity.WRONG]
    if told:
        rows = [(each.state, each.what, each.found, each.effect, each.fix) for each in told]
        print_table(("STATE", "WHAT", "FOUND", "WITHOUT IT", "FIX"), rows)
