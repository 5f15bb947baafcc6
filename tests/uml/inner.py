"""The pytest inside: runs the tests that the outer one chose, and tells it what becomes of each, a line of JSON for each word."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.uml.machine import COVERAGE, INSIDE, ORDER, TIMEOUT_S, WORDS


class Inner:
    """Plugin that writes to a file in the directory that both sides see."""

    def __init__(self, words: Path) -> None:
        self._words = words
        self._config: pytest.Config | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        """Remember by whom reports are taken apart."""
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test is over."""
        assert self._config is not None
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._say(report.nodeid, data)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """A test is over."""
        self._say(nodeid, None)

    def _say(self, nodeid: str, report: Any) -> None:
        with open(self._words, "a") as words:
            words.write(json.dumps([nodeid, report], default=str) + "\n")
            words.flush()
            os.fsync(words.fileno())  # hostfs keeps what is written for a while


def main() -> int:
    """Run what is ordered; pytest's exit status."""
    directory = Path(os.environ[INSIDE])
    order = json.loads((directory / ORDER).read_text())
    arguments = ["-p", "no:cacheprovider", "--verbose", "--color=no", f"--timeout={TIMEOUT_S}"]
    if order["measured"]:
        os.environ["COVERAGE_FILE"] = f"{os.environ['TMPDIR']}/{COVERAGE}"
        arguments += ["--cov=routemesh", "--cov-report="]
    status = pytest.main([*arguments, *order["tests"]], plugins=[Inner(directory / WORDS)])
    if order["measured"]:
        shutil.copy(os.environ["COVERAGE_FILE"], directory / COVERAGE)
    return status


if __name__ == "__main__":
    sys.exit(main())
