"""Settings of the whole run: Hypothesis without a clock, tests in User-Mode Linux, a last word on what was not tested."""

import os
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.spread import Spread, is_scheduler, is_worker, join
from tests.uml.machine import is_inside
from tests.uml.outer import Outer

PROPERTIES = Path(__file__).with_name("property")

# A busy machine must not make a property fail, nor chance: a run draws what the last one drew; with `search` it draws anew.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("routemesh", settings.get_profile("search"), derandomize=True)
settings.load_profile("routemesh")

# Thousands of processes are started: without bytecode each would compile the whole program, and daemons start half as fast.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

os.environ["ROUTEMESH_HINTS"] = "off"
"""Most services of tests have no health check."""


def pytest_configure(config: pytest.Config) -> None:
    """Know what runs in User-Mode Linux; there, a test is a test."""
    if is_scheduler(config):
        config.pluginmanager.register(Spread())
        return
    if is_worker(config):
        join(config)
    if not is_inside():
        config.pluginmanager.register(Outer(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure no properties: they take half as long so, and unit tests measure the pure core that each runs hundreds of times."""
    for item in items:
        if item.path.is_relative_to(PROPERTIES):
            item.add_marker("no_cover")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let what a test logged be sent: tests log bytes that are not text, and pytest-xdist sends UTF-8 alone (execnet 2.1)."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were skipped, and how many."""
    skipped = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(skipped.items()):
        terminalreporter.write_line(f"NOT TESTED: {count} {'test' if count == 1 else 'tests'}: {reason}", yellow=True)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)
