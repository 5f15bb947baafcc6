"""Subcommands of a few lines: `routemesh completion`, `demo`, `version`, `whoami`."""

import sys

import click
from click.shell_completion import get_completion_class

from routemesh import __version__
from routemesh.cli.output import say, say_text

_UNPARSED = {"ignore_unknown_options": True, "help_option_names": []}


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete routemesh's commands: eval "$(routemesh completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None
    say_text(f"{kind(ctx.find_root().command, {}, 'routemesh', '_ROUTEMESH_COMPLETE').source()}\n")


@click.command("version")
def version() -> None:
    """Print the version."""
    say(f"routemesh {__version__}")


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave the lab up at the end.")
def demo(keep: bool) -> None:
    """Build a cluster on this machine, publish a port, ask every node, and show what happened."""
    from routemesh.demo import main

    main(keep=keep)


@click.command("whoami", context_settings=_UNPARSED)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def whoami(arguments: tuple[str, ...]) -> None:
    """Answer over HTTP and UDP with who answers and who asks."""
    from routemesh.whoami import main

    sys.exit(main(list(arguments)))
