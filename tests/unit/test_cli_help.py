"""What helps a person who types: descriptions, `help`, the nearest word for a typo, completion, widths, colours."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.cli.groups import meant
from routemesh.cli.main import cli, main
from routemesh.cli.output import is_coloured
from routemesh.cli.table import table
from routemesh.model import Protocol, Publish, ServiceSpec
from tests.unit.daemon import Daemon, cluster

NOT_OURS = """
    cap-add cap-drop config container-label credential-spec dns dns-option dns-search endpoint-mode entrypoint generic-resource
    group host hostname init isolation limit-cpu limit-memory limit-pids max-concurrent mount network no-resolve-image
    placement-pref read-only replicas-max-per-node reserve-cpu reserve-memory rollback-delay rollback-failure-action
    rollback-max-failure-ratio rollback-monitor rollback-order rollback-parallelism secret tty ulimit update-failure-action
    update-max-failure-ratio update-monitor update-parallelism user with-registry-auth
"""
"""Flags of docker's `service create`."""


def said(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(list(words))
    captured = capsys.readouterr()
    return status, captured.out + captured.err


@pytest.mark.parametrize(
    ("words", "as_if"),
    [
        ("help", "--help"),
        ("-h", "--help"),
        ("help service", "service --help"),
        ("service help", "service --help"),
        ("service -h", "service --help"),
        ("help service create", "service create --help"),
        ("service help create", "service create --help"),
        ("service create -h", "service create --help"),
        ("node help", "node --help"),
        ("lab help up", "lab up --help"),
    ],
)
def test_help_can_be_asked_for_in_every_way(words: str, as_if: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = said(*words.split(), capsys=capsys)
    assert status == 0 and text.startswith("Usage: routemesh")
    assert text == said(*as_if.split(), capsys=capsys)[1]


def groups(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    if isinstance(command, click.Group):
        yield path
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from groups(inner, *path, name)


@pytest.mark.parametrize("path", list(groups(cli)), ids=" ".join)
def test_no_description_is_cut(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    _, text = said(*path, "--help", capsys=capsys)
    assert "Commands:" in text and "..." not in text.partition("Commands:")[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ndoe ls", "no such command 'ndoe'; did you mean node? "),
        ("sevrice ls", "no such command 'sevrice'; did you mean service? "),
        ("service crate", "no such command 'crate'; did you mean create? "),
        ("service create --replica 2 host", "no such option --replica; did you mean --replicas? "),
        ("service create --lable a=b host", "no such option --lable; did you mean --label? "),
        ("service create --network n host", "no such option --network ("),
        ("swarm init", "no such command 'swarm' ("),
    ],
)
def test_a_typo_suggests_the_nearest_word(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = said(*words.split(), capsys=capsys)
    assert status == 2 and message in text


def test_no_flag_of_dockers_suggests_another_one_of_ours() -> None:
    context = click.Context(cli)
    service = cli.get_command(context, "service")
    assert isinstance(service, click.Group)
    for name in ("create", "update"):
        command = service.get_command(context, name)
        assert command is not None
        ours = [flag for param in command.get_params(context) for flag in param.opts]
        theirs = [f"--{flag}" for flag in NOT_OURS.split() if f"--{flag}" not in ours]
        assert theirs and not any(meant(flag, ours) for flag in theirs)


# --- completion --------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with cluster(tmp_path) as (only,):
        yield only


def completed(daemon: Daemon, line: str) -> list[str]:
    """What a shell is told for the last word of a line."""
    words = ["routemesh", *line.split(" ")]
    environment = {
        **os.environ,
        "ROUTEMESH_HOST": str(daemon.socket),
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
        "_ROUTEMESH_COMPLETE": "bash_complete",
    }
    command = [sys.executable, "-m", "routemesh"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return [row.partition(",")[2] for row in done.stdout.splitlines()]


def test_a_shell_is_told_what_there_is(daemon: Daemon) -> None:
    ports = (Publish(published=8080, target=80), Publish(published=53, target=53, protocol=Protocol.UDP))
    daemon.client.create_service(ServiceSpec(name="web", command=("serve",), publish=ports))
    assert completed(daemon, "service scale w") == ["web="]
    assert completed(daemon, "service rm w") == ["web"]
    assert completed(daemon, "explain node1") == ["node1:8080", "node1:53/udp"]
    assert completed(daemon, "trace 192.0.2.7 node1:5") == ["node1:53/udp"]


# --- widths and colours ------------------------------------------------------------------------------------------


def test_a_table_that_is_too_wide_wraps_at_spaces() -> None:
    rows = [("4f3a8fc57bda", "web.1", "Running 3 seconds ago", "it is not healthy"), ("4f3a8fc57bdb", "web.2", "", "")]
    lines = list(table(("ID", "NAME", "CURRENT STATE", "ERROR"), rows, 40))
    assert lines == [
        "ID           NAME  CURRENT    ERROR",
        "                   STATE",
        "4f3a8fc57bda web.1 Running 3  it is not",
        "                   seconds    healthy",
        "                   ago",
        "4f3a8fc57bdb web.2",
    ]


CELLS = st.text(alphabet="ab c", max_size=30).map(lambda text: " ".join(text.split()))


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=4), st.integers(20, 80))
def test_no_word_is_lost_or_cut_whatever_the_width(rows: list[tuple[str, ...]], width: int) -> None:
    lines = list(table(("A", "B", "C"), rows, width))
    words = [word for row in rows for cell in row for word in cell.split()]
    assert sorted(" ".join(lines).split()) == sorted(["A", "B", "C", *words])
    longest = [max((len(word) for row in rows for word in row[column].split()), default=1) for column in range(3)]
    assert max(map(len, lines)) <= max(width, sum(longest) + 2)


@pytest.mark.parametrize(
    ("colour", "no_color", "terminal", "expected"),
    [
        (None, "", True, True),
        (None, "", False, False),
        (None, "1", True, False),
        (True, "1", False, True),
        (False, "", True, False),
    ],
)
def test_colours_are_for_terminals_unless_something_is_said(
    colour: bool | None, no_color: str, terminal: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr("routemesh.cli.output.is_terminal", lambda: terminal)
    with click.Context(cli, color=colour):
        assert is_coloured() is expected
