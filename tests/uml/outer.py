"""The outer run's part: one machine for the whole run, and for each test inside an item that tells what became of it.

Inside run all tests below `inside` or marked `uml`, and those marked `ip_vs` if this machine's own kernel has no IPVS. The items
are collected here as pytest collects any test, so -k, -m and node ids choose among them. All that were chosen run in
one pytest inside, in their order, and begin when the outer run begins, beside its other tests: nothing waits for the slow machine
as long as there is something else to be done. With several workers (tests/spread.py) one of them has the machine from the start.
Reports come back as pytest's own, so they count, look and are summed up like those of the tests outside.
"""

import json
import os
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.spread import is_worker, tell
from tests.support import lacking
from tests.uml.machine import COVERAGE, ORDER, TIMEOUT_S, WORDS, Machine

TESTS = Path(__file__).with_name("inside")
LAB = TESTS.parents[1] / "lab"
_SILENCE_S = TIMEOUT_S + 60.0
"""How long nothing may be heard of any test."""
_GOODBYE_S = 60.0
_POLL_S = 0.02


class Outer:
    """Plugin of the pytest outside."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._inside: set[str] = set()
        self._chosen: list[str] = []
        self._run: Run | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Say which tests run inside: there is their deadline. Where there can be no machine, they are skipped."""
        for item in items:
            if item.path.is_relative_to(TESTS):
                item.add_marker("uml")
            if item.get_closest_marker("uml") or (item.get_closest_marker("ip_vs") and lacking("ip_vs")):
                if missing := lacking("root", "uml"):
                    item.add_marker(pytest.mark.skip(f"needs {missing}"))
                else:
                    item.add_marker(pytest.mark.timeout(0))
                    self._inside.add(item.nodeid)
        if is_worker(self._config):
            tell(self._config, self._inside)
        items.sort(key=self._turn)

    def _turn(self, item: pytest.Item) -> tuple[bool, bool]:
        """What takes longest is begun first, where there are others to do the rest."""
        is_inside, worker = item.nodeid in self._inside, is_worker(self._config)
        return is_inside != worker, worker and not item.path.is_relative_to(LAB)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """The machine's time; trylast: before its end, coverage is not summed up yet."""
        self._chosen = [item.nodeid for item in session.items if item.nodeid in self._inside]
        if not self._chosen or session.config.option.collectonly:
            return (yield)
        if not is_worker(self._config):  # a worker does not know yet whether it is the one
            self._start()
        try:
            result = yield
            if self._run is not None:
                self._run.finish(self._config.rootpath)
            return result
        finally:
            if self._run is not None:
                self._run.close()

    def _start(self) -> "Run":
        self._run = Run(self._chosen, measured=self._config.pluginmanager.hasplugin("_cov"))
        return self._run

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Instead of running a test, tell what became of it inside."""
        if item.nodeid not in self._inside:
            return None
        run = self._run or self._start()
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for data in run.reports(item.nodeid):
            if isinstance(data["longrepr"], list):  # which JSON has made of where and why a test was skipped
                data["longrepr"] = tuple(data["longrepr"])
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
            item.ihook.pytest_runtest_logreport(report=report)
        if run.failure:
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", run.failure, "call")
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        item.session._setupstate.teardown_exact(nextitem)  # what the last test outside has left up for this one
        return True


class Run:
    """A pytest in a machine of its own, that runs the chosen tests."""

    def __init__(self, chosen: list[str], *, measured: bool) -> None:
        self.failure = ""
        """Why the test of which `reports` told last did not end, if it did not."""
        self._reports: dict[str, list[Any]] = defaultdict(list)
        order = json.dumps({"tests": chosen, "measured": measured})
        self._machine = Machine(("python", "-m", "tests.uml.inner"), {ORDER: order, WORDS: ""})
        self._words = self._machine.directory / WORDS
        self._heard_bytes = 0

    def reports(self, nodeid: str) -> Iterator[Any]:
        """A test's reports in serializable form, as they come; ends with the test or, with a `failure`, with the machine."""
        if self.failure:
            self.failure = "not run: User-Mode Linux had ended in a test before this one"
            return
        end = time.monotonic() + _SILENCE_S
        told = self._reports[nodeid]
        while not self.failure:
            running = self._machine.is_running  # first: what it says until then can be read afterwards
            if self._listen():
                end = time.monotonic() + _SILENCE_S
            while told:
                report = told.pop(0)
                if report is None:
                    return
                yield report
            if not running:
                self.failure = f"User-Mode Linux ended before this test did; its last words:\n{self._machine.last_words()}"
            elif time.monotonic() > end:
                self.failure = f"nothing was heard for {_SILENCE_S:.0f} s; the last words:\n{self._machine.last_words()}"
                self._machine.close()
            else:
                time.sleep(_POLL_S)

    def finish(self, target: Path) -> None:
        """Let the machine end by itself, and take over what it measured, if it manages to."""
        with suppress(subprocess.TimeoutExpired):
            self._machine.wait(_GOODBYE_S)
        found = self._machine.directory / COVERAGE
        if found.exists():
            shutil.copy(found, target / f".coverage.uml-{os.getpid()}")

    def close(self) -> None:
        """Switch the machine off."""
        self._machine.close()

    def _listen(self) -> bool:
        """Take in what was said; whether there was anything."""
        with open(self._words, "rb") as words:
            words.seek(self._heard_bytes)
            whole, newline, _ = words.read().rpartition(b"\n")
        self._heard_bytes += len(whole + newline)
        for line in whole.splitlines():
            nodeid, report = json.loads(line)
            self._reports[nodeid].append(report)
        return newline != b""
