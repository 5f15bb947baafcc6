"""`routemesh doctor`: what this machine offers, and what each missing thing costs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from routemesh.cli.host import Host
from routemesh.cli.output import format_flag, print_json, print_table
from routemesh.doctor import is_clean
from routemesh.errors import RoutemeshError, UserError

if TYPE_CHECKING:
    from routemesh.doctor import Finding

FINDINGS = 3
"""The exit status when something that routemesh needs is missing."""


@click.command("doctor")
@click.option("--from", "recordings", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Look at recordings of nodes (routemesh record); may be given several times.")  # fmt: skip
@click.option("--swarm", is_flag=True, help="Look at this Docker Swarm node.")
@format_flag
@click.pass_obj
def doctor(host: Host, recordings: tuple[Path, ...], swarm: bool, format_: str) -> None:
    """Tell what this machine's kernel and programs offer, and what each missing thing costs; and which certificates expire.

    With --from or --swarm: walk the way of every published port from every node that was read, and tell what the nodes of a
    Docker Swarm lack, with the commands that mend it.

    Nothing is loaded or changed by looking. The exit status is 3 if something is wrong.
    """
    if recordings and swarm:
        raise UserError("--from and --swarm exclude one another: a recording is of a Swarm by itself")
    found = _of_a_mesh(recordings) if recordings or swarm else (*_of_this_machine(), *_of_the_gateway(host))
    if format_ == "json":
        print_json(found)
    elif recordings or swarm:
        for each in found:
            _show(each)
    else:
        rows = [(each.state, each.what, each.found, each.effect, each.fix) for each in found]
        print_table(("STATE", "WHAT", "FOUND", "WITHOUT IT", "FIX"), rows)
    if not is_clean(found):
        raise click.exceptions.Exit(FINDINGS)


def _of_this_machine() -> "tuple[Finding, ...]":
    from routemesh.doctor.machine import findings
    from routemesh.kernel.probe import machine

    return tuple(findings(machine()))


def _of_the_gateway(host: Host) -> "tuple[Finding, ...]":
    """Nothing where no daemon answers or there is no gateway."""
    from routemesh.doctor.certificates import findings

    try:
        return findings(host.client().gateway().warnings)
    except RoutemeshError:
        return ()


def _of_a_mesh(recordings: tuple[Path, ...]) -> "tuple[Finding, ...]":
    """Of what was recorded, or of this Swarm node where nothing was."""
    from routemesh.doctor.mesh import findings
    from routemesh.recording.expected import lacking
    from routemesh.recording.read import read
    from routemesh.recording.swarm import live

    cluster = read(recordings) if recordings else live()
    return tuple(findings(cluster, lacking(cluster)))


def _show(finding: "Finding") -> None:
    """Findings have commands of any length: each on lines of its own."""
    where = f"{finding.where}: " if finding.where else ""
    click.echo(f"{finding.state:8} {where}{finding.what}: {finding.found}")
    if finding.effect:
        click.echo(f"{'':8}   {finding.effect}")
    if finding.fix:
        click.echo(f"{'':8}   {finding.fix}")
