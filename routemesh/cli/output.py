"""What commands print: tables as docker prints them, JSON, times as people say them."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click
import msgspec

from routemesh.cli.table import table
from routemesh.errors import UserError
from routemesh.legible import decoded, one_line, visible, visible_json

Command = TypeVar("Command", bound=Callable[..., Any])

SHORT_ID = 12
OWN_ESCAPE = f"\x1b{os.urandom(8).hex()}["
"""How colours of ours begin on their way to `say_text`: nobody else knows the number, so nobody else's are acted on."""
_OWN_ESCAPE_SHOWN = visible(OWN_ESCAPE)
_JOINED = {"command"}
"""Lists that --pretty prints as one line; of others each item has a line of its own."""
_STEPS: tuple[tuple[float, float, str], ...] = (
    (1, 1, "less than a second"),
    (2, 1, "1 second"),
    (60, 1, "{} seconds"),
    (120, 60, "about a minute"),
    (3600, 60, "{} minutes"),
    (7200, 3600, "about an hour"),
    (48 * 3600, 3600, "{} hours"),
    (14 * 86400, 86400, "{} days"),
    (60 * 86400, 7 * 86400, "{} weeks"),
    (730 * 86400, 30 * 86400, "{} months"),
    (float("inf"), 365 * 86400, "{} years"),
)


def _known_format(_: click.Context, param: click.Parameter, value: str) -> str:
    if value not in ("table", "json"):
        raise click.BadParameter(f"{value!r} is neither table nor json; Go templates are not supported", param=param)
    return value


def format_flag(command: Command) -> Command:
    """Give a click command the flag --format, table or json, as the parameter `format_`."""
    option = click.option(
        "--format", "format_", default="table", metavar="table|json", callback=_known_format, help="How to print it."
    )
    return option(command)


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line. Whatever others put into it is made visible: a terminal acts on nothing that is printed here."""
    _write(f"{one_line(line)}\n", err=err)


def say_text(text: str, *, err: bool = False) -> None:
    """Print lines as they are, made visible in the same way; what was styled with OWN_ESCAPE is in its colours."""
    _write(visible(text).replace(_OWN_ESCAPE_SHOWN, "\x1b["), err=err)


def redraw(line: str, *, err: bool = False) -> None:
    """Put a line in place of the one on which the terminal's cursor is, without going on to the next."""
    _write(f"\r\x1b[K{one_line(line)}", err=err)


def erase(*, err: bool = False) -> None:
    """Take that line away again."""
    _write("\r\x1b[K", err=err)


def _write(text: str, *, err: bool) -> None:
    """The only place where commands print, but for the raw output of tasks. click would take a part of the colours out."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace"), nl=False, err=err)


def to_json(value: object, indent: int = 4) -> str:
    """A value of the API as indented JSON, with a line break at the end."""
    return visible_json(decoded(msgspec.json.format(msgspec.json.encode(value), indent=indent))) + "\n"


def print_json(value: object) -> None:
    """Print a value of the API as indented JSON."""
    _write(to_json(value), err=False)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below headings; on a terminal cells wrap so that lines fit."""
    for line in table(headings, [[one_line(cell) for cell in row] for row in rows], terminal_width()):
        say(line)


def short(identity: str, *, whole: bool = False) -> str:
    """The beginning of an id, as tables show it, or the `whole`."""
    return identity if whole else identity[:SHORT_ID]


def ago(seconds: float) -> str:
    """A length of time in docker's words: 3 seconds, about a minute. Source: docker/go-units duration.go."""
    unit, words = next((unit, words) for below, unit, words in _STEPS if seconds < below)
    return words.format(int(max(seconds, 0) // unit))


def inspect_flags(command: Command) -> Command:
    """Give a click command the flags --format and --pretty of `inspect`, as the parameter `format_`."""
    pretty = click.option("--pretty", "format_", flag_value="table", help="Print it for people; the same as --format table.")
    option = click.option(
        "--format", "format_", default="json", metavar="table|json", callback=_known_format, help="How to print it."
    )
    return pretty(option(command))


def print_objects(refs: Iterable[str], find: Callable[[str], object], format_: str) -> None:
    """Print what `find` has for each ref, as one JSON array or for people; then say what is not found, with exit status 1."""
    found: list[Any] = []
    failed = attempt_each(refs, lambda ref: found.append(find(ref)))
    if format_ == "json":
        print_json(found)
    else:
        for value in found:
            _print_pretty(msgspec.to_builtins(value))
            say()
    finish(failed)


def _print_pretty(value: dict[str, Any], indent: str = "") -> None:
    for key, inner in value.items():
        if inner in (None, "", [], {}, ()):
            continue
        heading = f"{indent}{key.replace('_', ' ')}:"
        if isinstance(inner, dict):
            say(heading)
            _print_pretty(inner, indent + "  ")
        elif isinstance(inner, list | tuple) and key not in _JOINED:
            say(heading)
            for each in inner:
                say(f"{indent}  - {_item(each)}")
        else:
            say(f"{heading} {_value(key, inner)}")


def _value(key: str, value: Any) -> str:
    if key.endswith("_at") and isinstance(value, float | int):
        return datetime.fromtimestamp(value).astimezone().isoformat(" ", "seconds")
    return " ".join(value) if isinstance(value, list | tuple) else str(value)


def _item(value: object) -> str:
    return ", ".join(f"{name}={part}" for name, part in value.items()) if isinstance(value, dict) else str(value)


def attempt_each(refs: Iterable[str], act: Callable[[str], object]) -> list[str]:
    """Do it for every ref, whatever becomes of the others; what went wrong."""
    failed = []
    for ref in refs:
        try:
            act(ref)
        except UserError as exc:
            failed.append(str(exc))
    return failed


def finish(failed: Iterable[str]) -> None:
    """Say what went wrong, if anything did, and end with exit status 1."""
    messages = list(failed)
    for message in messages:
        fail(message)
    if messages:
        raise click.exceptions.Exit(1)


def fail(message: str) -> None:
    """Say in one line, on standard error, what went wrong."""
    say(f"routemesh: {' '.join(message.split())}", err=True)


def is_terminal() -> bool:
    """Whether a person looks at what is printed."""
    return sys.stdout.isatty()


def is_coloured() -> bool:
    """Whether to use colours: as --color says, else on a terminal unless NO_COLOR is set (no-color.org)."""
    wanted = click.get_current_context().color
    return is_terminal() and not os.environ.get("NO_COLOR") if wanted is None else wanted


def terminal_width() -> int:
    """How many columns a line may have; 0, for any number, where no person looks."""
    return shutil.get_terminal_size().columns if is_terminal() else 0
