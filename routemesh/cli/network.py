"""`routemesh network …`: the networks as the node that answers has them, in Docker's shape."""

import click

from routemesh.cli.groups import Group
from routemesh.cli.host import Host, network_names
from routemesh.cli.output import format_flag, inspect_flags, print_json, print_objects, print_table, say_text, short


@click.group("network", cls=Group)
def network() -> None:
    """Look at the networks of a node."""


@network.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Print ids only.")
@click.option("--no-trunc", is_flag=True, help="Print ids whole.")
@format_flag
@click.pass_obj
def ls(host: Host, quiet: bool, no_trunc: bool, format_: str) -> None:
    """List networks."""
    found = host.client().networks()
    if quiet:
        say_text("".join(f"{short(each['Id'], whole=no_trunc)}\n" for each in found))
    elif format_ == "json":
        print_json(found)
    else:
        rows = [(short(each["Id"], whole=no_trunc), each["Name"], each["Driver"], each["Scope"]) for each in found]
        print_table(("NETWORK ID", "NAME", "DRIVER", "SCOPE"), rows)


@network.command("inspect")
@click.option("--verbose", "-v", is_flag=True, help="Show the services of ingress too.")
@inspect_flags
@click.argument("refs", metavar="NETWORK...", nargs=-1, required=True, shell_complete=network_names)
@click.pass_obj
def inspect(host: Host, refs: tuple[str, ...], verbose: bool, format_: str) -> None:
    """Print everything about networks, as `docker network inspect` does."""
    client = host.client()
    print_objects(refs, lambda ref: client.network(ref, verbose=verbose), format_)
