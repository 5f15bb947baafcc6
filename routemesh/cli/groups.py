"""A group of subcommands: their descriptions whole, `help` beside -h, and the nearest word where one is mistyped."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import click

from routemesh.cli.output import say_text

HELP_FLAGS = {"help_option_names": ["-h", "--help"]}
_SIMILAR = 0.78
"""A typo keeps so much of a word (SequenceMatcher's ratio); below that another word is meant."""


class Group(click.Group):
    """A click group."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click.Group, which cuts descriptions at the width of a line; here they wrap."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _summary(command)) for name, command in commands if command is not None and not command.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """See click.Group. `help [SUBCOMMAND…]` is `[SUBCOMMAND…] --help`. Raises UsageError that names what is similar."""
        name = args[0]
        if name == "help" and self.get_command(ctx, name) is None:
            return super().resolve_command(ctx, [*args[1:], "--help"]) if args[1:] else _own_help(ctx)
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            known = [each for each in self.list_commands(ctx) if self.get_command(ctx, each) is not None]
            ctx.fail(f"no such command {name!r}{meant(name, known)}")
        return super().resolve_command(ctx, args)


def _own_help(ctx: click.Context) -> tuple[str | None, click.Command | None, list[str]]:
    say_text(f"{ctx.get_help()}\n")
    ctx.exit()


def _summary(command: click.Command) -> str:
    """The first sentence of its help."""
    first = (command.short_help or command.help or "").strip().partition("\n\n")[0]
    return " ".join(first.split())


def meant(typed: str, known: Iterable[str]) -> str:
    """The question whether the known word was meant that `typed` is a typo of; "" where none is that similar."""
    bare, words = typed.lstrip("-"), {word.lstrip("-"): word for word in known}
    swapped = [word for word in words if sorted(word) == sorted(bare)]
    close: Sequence[str] = swapped or get_close_matches(bare, words, n=1, cutoff=_SIMILAR)
    return f"; did you mean {words[close[0]]}?" if close else ""


def no_such_option(exc: click.NoSuchOption) -> str:
    """What to say of an option that a command does not have."""
    known: list[Any] = [] if exc.ctx is None else exc.ctx.command.get_params(exc.ctx)
    names = [name for param in known for name in (*param.opts, *param.secondary_opts) if name.startswith("--")]
    return f"no such option {exc.option_name}{meant(exc.option_name, names)}"
