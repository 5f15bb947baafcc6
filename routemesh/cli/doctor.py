"""`routemesh doctor`: what this machine offers, and what each missing thing costs."""

import click

from routemesh.cli.output import format_flag, print_json, print_table
from routemesh.doctor import is_clean

FINDINGS = 3
"""The exit status when something that routemesh needs is missing."""


@click.command("doctor")
@format_flag
def doctor(format_: str) -> None:
    """Tell what this machine's kernel and programs offer, and what each missing thing costs.

    Nothing is loaded or changed by looking. The exit status is 3 if something is missing that the default engine needs.
    """
    from routemesh.doctor.machine import findings
    from routemesh.kernel.probe import machine

    found = findings(machine())
    if format_ == "json":
        print_json(found)
    else:
        rows = [(each.state, each.what, each.found, each.effect, each.fix) for each in found]
        print_table(("STATE", "WHAT", "FOUND", "WITHOUT IT", "FIX"), rows)
    if not is_clean(found):
        raise click.exceptions.Exit(FINDINGS)
