"""`routemesh secret …`: what the cluster keeps for its services; as yet certificates with their keys."""

import time
from typing import IO

import click

from routemesh import wire
from routemesh.cli.groups import Group
from routemesh.cli.host import Host, secret_names
from routemesh.cli.output import ago, attempt_each, finish, format_flag, print_json, print_table, say, say_text, short


@click.group("secret", cls=Group)
def secret() -> None:
    """Keep certificates for the gateway. Nothing prints what a secret holds."""


@secret.command("create")
@click.argument("name")
@click.argument("file", type=click.File("rb"))
@click.pass_obj
def create(host: Host, name: str, file: IO[bytes]) -> None:
    """Keep a file (- for standard input) as a secret: a certificate in PEM, those that signed it, and its key."""
    kept = host.client().create_secret(name, file.read())
    say(kept.id)
    if kept.not_after is None:
        say(f"note: {name} is no certificate with its key in PEM, which is all that services use a secret for", err=True)


@secret.command("ls")
@click.option("--quiet", "-q", is_flag=True, help="Print names only.")
@format_flag
@click.pass_obj
def ls(host: Host, quiet: bool, format_: str) -> None:
    """List secrets, the names that certificates are for, and when they expire."""
    found = host.client().secrets()
    if quiet:
        say_text("".join(f"{info.name}\n" for info in found))
    elif format_ == "json":
        print_json(found)
    else:
        print_table(("ID", "NAME", "CREATED", "CERTIFICATE FOR", "EXPIRES", "USED BY"), map(_row, found))


def _row(info: wire.SecretInfo) -> tuple[str, ...]:
    now = time.time()
    expires = ""
    if info.not_after is not None:
        left_s = info.not_after - now
        expires = f"in {ago(left_s)}" if left_s > 0 else f"{ago(-left_s)} ago"
    names = ", ".join(info.certificate_for)
    return short(info.id), info.name, f"{ago(now - info.created_at)} ago", names, expires, ", ".join(info.services)


@secret.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=secret_names)
@click.pass_obj
def rm(host: Host, names: tuple[str, ...]) -> None:
    """Forget secrets that no service uses."""
    client = host.client()

    def remove(name: str) -> None:
        client.remove_secret(name)
        say(name)

    finish(attempt_each(names, remove))
