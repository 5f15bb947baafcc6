"""How tests are spread over workers: a file's tests stay together, since they share what their fixtures build.

All that run in User-Mode Linux are one unit, whatever their file: there is one machine; the worker that has them just listens.
The process that schedules collects no tests, so workers tell it which those are, in a file.
"""

import json
import os
import signal
import tempfile
from collections.abc import Collection
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_SHARED = "routemesh_shared"
_INSIDE, _PID = "inside", ".pid"
_GOODBYE_S = 60.0


class Spread:
    """Plugin of the process that schedules."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="routemesh-tests-")
        self._shared = Path(self._directory.name)
        self._nodes: list[Any] = []

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where to tell."""
        node.workerinput[_SHARED] = str(self._shared)
        self._nodes.append(node)

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling:
        """Asked before any worker has collected."""
        return _Scheduling(config, log, self._shared / _INSIDE)

    def pytest_keyboard_interrupt(self) -> None:
        """Let workers take down what they have built; xdist 3.8.0 kills them after ten seconds, and tells them after five."""
        for file in self._shared.glob(f"*{_PID}"):
            with suppress(ProcessLookupError):
                os.kill(int(file.read_text()), signal.SIGINT)
        for node in self._nodes:
            with suppress(node.channel.TimeoutError):
                node.channel.waitclose(_GOODBYE_S)

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        self._directory.cleanup()


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    def __init__(self, config: pytest.Config, log: Any, inside: Path) -> None:
        super().__init__(config, log)
        self._file = inside

    @cached_property
    def _inside(self) -> Collection[str]:
        return frozenset(json.loads(self._file.read_text()))

    def _split_scope(self, nodeid: str) -> str:
        return "User-Mode Linux" if nodeid in self._inside else nodeid.split("::", 1)[0]


def is_scheduler(config: pytest.Config) -> bool:
    """Whether this process hands out tests instead of running them."""
    return bool(config.getoption("numprocesses", None)) and not is_worker(config)


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is handed its tests by another one."""
    return hasattr(config, "workerinput")


def join(config: pytest.Config) -> None:
    """Begin as a worker: of the interrupts by the terminal and the scheduler one is heeded, so that none ends the cleaning up."""
    _write(config, f"{os.getpid()}{_PID}", str(os.getpid()))

    def once(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, once)


def tell(config: pytest.Config, inside: Collection[str]) -> None:
    """Let the scheduler know which tests run in User-Mode Linux: all workers say the same."""
    _write(config, _INSIDE, json.dumps(sorted(inside)))


def _write(config: pytest.Config, name: str, text: str) -> None:
    """Whole or not at all."""
    directory = Path(config.workerinput[_SHARED])  # type: ignore[attr-defined]
    with tempfile.NamedTemporaryFile("w", dir=directory, delete=False) as file:
        file.write(text)
    Path(file.name).replace(directory / name)
