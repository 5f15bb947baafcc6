"""The `routemesh` command: which subcommand is in which file, what an error looks like, the exit status.

0  done      1  failed      2  wrong usage      3  something was found (diff, explain, doctor, trace)      130  interrupted
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from routemesh import __version__
from routemesh.cli.groups import HELP_FLAGS, Group, no_such_option
from routemesh.cli.host import Host, Tls, hosts
from routemesh.cli.output import fail, say, say_text
from routemesh.errors import RoutemeshError
from routemesh.legible import storable

FAILED, USAGE, DRIFT, INTERRUPTED = 1, 2, 3, 130

_COMMANDS = {
    "cluster": "cluster",
    "completion": "more",
    "container": "container",
    "demo": "more",
    "dial-stdio": "dial",
    "diff": "plan",
    "doctor": "doctor",
    "explain": "explain",
    "gateway": "gateway",
    "lab": "lab",
    "network": "network",
    "node": "node",
    "plan": "plan",
    "record": "record",
    "secret": "secret",
    "service": "service",
    "trace": "trace",
    "version": "more",
    "whoami": "more",
}
"""Which file each subcommand is in; only the file of the one that is typed is loaded."""


_FILE = click.Path(readable=False, path_type=Path, dir_okay=False)


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(f"routemesh.cli.{_COMMANDS[cmd_name]}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


@click.group("routemesh", cls=_Commands, context_settings=HELP_FLAGS)
@click.option(
    "-H", "--host", envvar="ROUTEMESH_HOST", default="", metavar="HOST", shell_complete=hosts,
    help="The daemon to ask: unix:///path, a path, tcp://HOST:PORT, ssh://USER@HOST, or the name of a lab's node.",
)  # fmt: skip
@click.option("--tlscacert", type=_FILE, help="The roots of the cluster that is asked by tcp://, in PEM.")
@click.option("--tlscert", type=_FILE, help="The certificate to ask it with.")
@click.option("--tlskey", type=_FILE, help="The certificate's key.")
@click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto",
    help="Whether to use colours (auto: on a terminal, unless NO_COLOR is set).",
)  # fmt: skip
@click.version_option(__version__, message="routemesh %(version)s")
@click.pass_context
def cli(ctx: click.Context, host: str, tlscacert: Path | None, tlscert: Path | None, tlskey: Path | None, color: str) -> None:
    """Publish a port once; every node of the cluster answers on it."""
    ctx.obj = Host(host, Tls(tlscacert, tlscert, tlskey))
    ctx.color = {"always": True, "never": False}.get(color)


def main(argv: Sequence[str]) -> int:
    """Run a command line; the exit status. What it says of an error is one line on standard error."""
    no_text = [argument for argument in argv if argument != storable(argument)]
    if no_text and list(argv[:2]) != ["lab", "exec"]:  # which gives them to a program as they are
        fail(f"an argument is not UTF-8: {no_text[0]!r}")
        return USAGE
    try:
        status = cli.main(list(argv), prog_name="routemesh", standalone_mode=False)
    except click.ClickException as exc:
        _complain(exc)
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except RoutemeshError as exc:
        fail(str(exc))
        return FAILED
    return status if isinstance(status, int) else 0


def _complain(exc: click.ClickException) -> None:
    message = no_such_option(exc) if isinstance(exc, click.NoSuchOption) else exc.format_message()
    ctx = exc.ctx if isinstance(exc, click.UsageError) else None
    if "\n" in message:  # the help, for a group without a subcommand
        say_text(f"{message}\n", err=True)
        return
    path = "routemesh" if ctx is None else ctx.command_path
    sentence = f"{message[:1].lower()}{message[1:].rstrip('.')}"
    say(f"{path}: {sentence} (see {path} --help)", err=True)
