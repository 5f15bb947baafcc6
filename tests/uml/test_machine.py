"""The machine from outside: what comes out of it, how it ends, that nothing of it is left."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import require, wait_until
from tests.uml.machine import Machine, _roomy

END_S = 60.0


@contextmanager
def running(*command: str) -> Iterator[Machine]:
    require("root", "uml")
    with Machine(command) as machine:
        yield machine
    assert not machine.directory.exists()
    everything = subprocess.run(("ps", "-eo", "args"), capture_output=True, text=True, check=True).stdout
    assert str(machine.directory) not in everything


def test_a_command_writes_to_the_shared_directory_alone(tmp_path: Path) -> None:
    with running("sh", "-c", f'echo inside >{tmp_path}/elsewhere; echo here >"$ROUTEMESH_UML"/out; exit 3') as machine:
        assert machine.wait(END_S) == 3
        assert (machine.directory / "out").read_text() == "here\n"
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = Path(tempfile.mkdtemp(prefix="routemesh-uml-", dir=_roomy()))
    (left / "claim").touch()
    with running("true") as machine:
        assert not left.exists()
        with running("true"):
            assert machine.directory.exists()
        assert machine.wait(END_S) == 0


def test_a_command_that_does_not_exist() -> None:
    with running("no-such-command") as machine:
        assert machine.wait(END_S) == 127
        assert "no-such-command: No such file or directory" in machine.last_words()


def test_a_kernel_that_panics_leaves_its_last_words_and_no_status() -> None:
    with running("sh", "-c", "echo c >/proc/sysrq-trigger") as machine:
        assert machine.wait(END_S) is None
        assert "Kernel panic" in machine.last_words()


def test_a_machine_that_hangs_is_switched_off() -> None:
    with running("sh", "-c", "echo up and away; sleep 1000") as machine:
        wait_until(lambda: "up and away" in machine.last_words(), END_S, "the command's start")
        with pytest.raises(subprocess.TimeoutExpired):
            machine.wait(0.1)
