"""The documentation can't rot: what exists is mentioned in it, and what it mentions exists."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pytest

from routemesh.cli.main import cli
from routemesh.labels import TABLE

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))
COMMANDS = (DOCS / "cli.md").read_text()
ARCHITECTURE = (DOCS / "architecture.md").read_text()

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]*))?\)")
_TYPED = re.compile(r"^(\$ |)(?:sudo )?(?:[\w./-]*/)?routemesh (\S.*)$", re.MULTILINE)
_NAMED_FILE = re.compile(r"`([\w./]+\.(?:py|sh|toml))`")
_NAMED_TEST = re.compile(r"`(test_\w+)(…?)`")


def subcommands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Everything below `command` that does something, by what one types after `routemesh`."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from subcommands(below, (*path, name))


def links() -> Iterator[tuple[Path, str, str]]:
    """Every relative link: its page, its file ("" for the page itself), its heading."""
    for page in PAGES:
        for file, heading in _LINK.findall(_FENCE.sub("", page.read_text())):
            yield page, file, heading


def typed() -> Iterator[tuple[str, str]]:
    """Every command of ours that a page shows in a block of its own: the page and what follows `routemesh`."""
    for page in PAGES:
        for block in _FENCE.findall(page.read_text()):
            prompt = "$ " if "\n$ " in block else ""  # with a prompt, the lines without are output
            yield from ((page.name, words) for before, words in _TYPED.findall(block) if before == prompt)


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub names them in links."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def split(line: str) -> list[str]:
    """The words of a line up to what a shell would do next."""
    words = shlex.shlex(line, posix=True, punctuation_chars=";|&")
    words.whitespace_split = True
    return list(takewhile(lambda word: word not in (";", "|", "&&"), words))


def parse(words: list[str]) -> None:
    """Let click read a command line. Raises click.UsageError."""
    command: click.Command = cli
    if words[:1] == ["-H"]:
        words = words[2:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        below = command.get_command(click.Context(command), words[0])
        if below is None:
            raise click.UsageError(f"no such command {words[0]!r}")
        command, words = below, words[1:]
    command.make_context("routemesh", words, **cli.context_settings)  # click keeps the help option that it makes first


def test_every_command_is_in_the_reference() -> None:
    missing = [path for path, _ in subcommands() if f"`routemesh {path}`" not in COMMANDS]
    assert not missing


def test_the_reference_names_no_command_that_does_not_exist() -> None:
    named = set(re.findall(r"^\| `routemesh ([^`]+)` \|", COMMANDS, re.MULTILINE))
    assert named == {path for path, _ in subcommands()}


def test_every_flag_of_a_service_is_in_the_reference() -> None:
    flags = {
        flag
        for path, command in subcommands()
        if path in ("service create", "service update")
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for flag in parameter.opts
    }
    missing = sorted(flag for flag in flags if f"`{flag}`" not in COMMANDS)
    assert not missing


def test_the_reference_has_every_label_with_its_values_and_no_other() -> None:
    rows = dict(re.findall(r"^\| `(routemesh\.[a-z.-]+)` \| (.*?) \| ", COMMANDS, re.MULTILINE))
    assert rows.keys() == TABLE.keys()
    missing = {label: [word for word in words if f"`{word}`" not in rows[label]] for label, words in TABLE.items()}
    assert {label: words for label, words in missing.items() if words} == {}


def test_every_option_of_a_command_that_is_shown_exists() -> None:
    shown = list(typed())
    assert {"README.md", "cli.md", "lab.md", "path.md", "tasks.md"} <= {page for page, _ in shown}
    wrong = []
    for page, words in shown:
        try:
            parse(split(words))
        except click.NoSuchOption as exc:
            wrong.append(f"{page}: routemesh {words}: {exc.message}")
        except click.UsageError as exc:
            if "no such command" in exc.message:
                wrong.append(f"{page}: routemesh {words}: {exc.message}")
    assert not wrong


def test_an_option_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["lab", "up", "--nodez", "3"])
    with pytest.raises(click.UsageError, match="no such command"):
        parse(["service", "rollback", "web"])


def test_every_link_leads_somewhere() -> None:
    found = list(links())
    assert found
    broken = [f"{page.name}: {file}" for page, file, _ in found if file and not (page.parent / file).exists()]
    assert not broken


def test_every_heading_that_is_linked_exists() -> None:
    broken = [
        f"{page.name}: {file}#{heading}"
        for page, file, heading in links()
        if heading and (target := page.parent / file if file else page).exists() and heading not in anchors(target)
    ]
    assert not broken


def test_the_layers_are_those_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    drawn = re.findall(r"^ ([a-z_]+(?: [|:] [a-z_]+)*)(?: {2,}|$)", _FENCE.findall(ARCHITECTURE)[0], re.MULTILINE)
    assert drawn == layers


def test_files_and_tests_that_the_architecture_names_exist() -> None:
    places = (ROOT, ROOT / "routemesh", ROOT / "tests" / "kernel", ROOT / "tests" / "unit")
    files = set(_NAMED_FILE.findall(ARCHITECTURE))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert not {name for name in files if not any((place / name).exists() for place in places)}
    assert not {name for name, cut in _NAMED_TEST.findall(ARCHITECTURE) if f"def {name}{'' if cut else '('}" not in tests}
