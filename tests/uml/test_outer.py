"""What the outer run makes of the words from inside: whole reports, whatever happens to the machine meanwhile."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.uml import outer
from tests.uml.machine import ORDER, WORDS
from tests.uml.outer import Run


class FakeMachine:
    """A machine that says what a test wants."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.is_running = True
        self.is_closed = False

    def made(self, command: Sequence[str], files: Mapping[str, str]) -> "FakeMachine":
        for name, text in files.items():
            (self.directory / name).write_text(text)
        return self

    def say(self, *words: tuple[str, Any]) -> None:
        self.mumble("".join(f"{json.dumps(word)}\n" for word in words))

    def mumble(self, text: str) -> None:
        with open(self.directory / WORDS, "a") as file:
            file.write(text)

    def last_words(self) -> str:
        return "Kernel panic"

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    machine = FakeMachine(tmp_path)
    monkeypatch.setattr(outer, "Machine", machine.made)
    return machine


def test_the_chosen_tests_are_ordered(machine: FakeMachine) -> None:
    Run(["a", "b"], measured=True)
    assert json.loads((machine.directory / ORDER).read_text()) == {"tests": ["a", "b"], "measured": True}


def test_each_test_gets_its_own_reports_in_their_order(machine: FakeMachine) -> None:
    run = Run(["a", "b"], measured=False)
    machine.say(("a", 1), ("a", 2), ("a", None), ("b", 3), ("b", None))
    assert list(run.reports("b")) == [3]
    assert list(run.reports("a")) == [1, 2]
    assert run.failure == ""


def test_half_a_word_is_none(machine: FakeMachine) -> None:
    run = Run(["a"], measured=False)
    machine.say(("a", 1))
    machine.mumble('["a", ')
    reports = run.reports("a")
    assert next(reports) == 1
    machine.mumble("2]\n")
    machine.say(("a", None))
    assert list(reports) == [2]


def test_when_the_machine_ends_one_test_fails_with_its_last_words_and_the_others_have_no_turn(machine: FakeMachine) -> None:
    run = Run(["a", "b", "c"], measured=False)
    machine.say(("a", 1), ("a", None), ("b", 2))
    machine.is_running = False
    assert list(run.reports("a")) == [1]
    assert run.failure == ""
    assert list(run.reports("b")) == [2]
    assert run.failure.endswith("Kernel panic")
    assert list(run.reports("c")) == []
    assert run.failure.startswith("not run")


def test_a_machine_of_which_nothing_is_heard_is_switched_off(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outer, "_SILENCE_S", 0.1)
    run = Run(["a"], measured=False)
    assert list(run.reports("a")) == []
    assert run.failure.startswith("nothing was heard")
    assert machine.is_closed
