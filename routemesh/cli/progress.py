"""Waiting for a service to converge: plain lines when piped, one redrawn line for a person at a terminal."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from routemesh import wire
from routemesh.api.client import Client
from routemesh.cli.output import fail, is_terminal, redraw, say
from routemesh.cli.values import DURATION
from routemesh.errors import Unavailable
from routemesh.labels.balance import LOCALITY, WEIGHT

_LONGEST_WAIT_S = 10.0
_BAR_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a person said about waiting. A service has converged when it has stayed so for `stable_s`; then its
    ports may take `answer_s` to answer (0: they are not asked)."""

    detach: bool
    quiet: bool
    timeout_s: float
    stable_s: float
    answer_s: float

    def wait(self, client: Client, service: wire.ServiceInfo) -> None:
        """Unless told to detach, show how the service comes to its spec until it is there, with what stands in the way.

        Raises Unavailable after the timeout, and at once when a task has failed for good. An interrupt passes through once it is
        said that the work goes on.
        """
        if self.detach:
            return
        display = _Display(redraw=is_terminal() and not self.quiet, quiet=self.quiet)
        try:
            reached = self._show_until_stable(client, service, display)
        except KeyboardInterrupt:
            display.end()
            say(f"the service goes on in the background; to look at it: routemesh service ps {service.name}")
            raise
        finally:
            display.end()
        from routemesh.cli import answers

        asks = self.answer_s and reached.running and service.spec.publish
        answered = answers.wait(client, service, self.answer_s) if asks else ""
        if not self.quiet:
            say(f"verify: service {service.name} converged{_outcome(service, reached, answered)}")

    def _show_until_stable(self, client: Client, service: wire.ServiceInfo, display: "_Display") -> wire.ProgressInfo:
        deadline = time.monotonic() + self.timeout_s
        now = client.progress(service.id)
        while True:
            if now.failed:
                raise Unavailable(f"{now.failed}; see routemesh service ps {service.name}")
            display.show(now)
            left_s = deadline - time.monotonic()
            if now.converged:
                before, now = now, client.progress(service.id, now.seen, self.stable_s if now.running else 0.0)
                if now == before:
                    return now
            elif left_s > 0:
                now = client.progress(service.id, now.seen, min(left_s, _LONGEST_WAIT_S))
            else:
                raise Unavailable(_too_late(service, now, self.timeout_s))


def wait_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a click command the flags about waiting, as the parameter `waiting`."""

    @wraps(command)
    def wrapped(*args: Any, detach: bool, quiet: bool, timeout_s: float, stable_s: float, answer_s: float, **flags: Any) -> None:
        command(*args, waiting=Waiting(detach, quiet, timeout_s, stable_s, answer_s), **flags)

    for option in (
        click.option("--stable", "stable_s", type=DURATION, default="500ms", help="How long tasks must stay up (default 500ms)."),
        click.option("--timeout", "timeout_s", type=DURATION, default="1m", help="How long to wait (default 1m)."),
        click.option(
            "--answer-timeout",
            "answer_s",
            type=DURATION,
            default="10s",
            help="How long ports may take to answer then, 0s: ask none (default 10s).",
        ),
        click.option("--quiet", "-q", is_flag=True, help="Wait, but show no progress."),
        click.option("--detach", "-d", is_flag=True, help="Do not wait until the service has converged."),
    ):
        wrapped = option(wrapped)
    return wrapped


def _outcome(service: wire.ServiceInfo, reached: wire.ProgressInfo, answered: str) -> str:
    """`answered`: what was seen to answer, "" where nobody was asked."""
    if not reached.running:
        return f": {reached.message.removeprefix('converged: ')}" if reached.finished else ""
    ports = ", ".join(f"{port.published}/{port.protocol}" for port in service.spec.publish)
    if not ports:
        return ""
    if reached.answering is None:
        return f": {answered or f'every node has {ports} and its tasks in its maps; nobody was asked'}"
    some = ", ".join(reached.answering)
    where = f"of all nodes, only {some} answers" if len(reached.answering) == 1 else f"of all nodes, only {some} answer"
    has = "it has" if len(reached.answering) == 1 else "they have"
    if not reached.answering:
        where, has = "no node answers", "none has"
    return f": {where} on {ports}, because only {has} eligible tasks (labels {WEIGHT}, {LOCALITY})"


def _too_late(service: wire.ServiceInfo, now: wire.ProgressInfo, timeout_s: float) -> str:
    return (
        f"service {service.name} has not converged within {timeout_s:g} s ({now.message}); "
        f"it goes on in the background, see routemesh service ps {service.name}"
    )


class _Display:
    """What has been shown. Errors and, unless it redraws, progress are printed once; when quiet, errors alone."""

    def __init__(self, *, redraw: bool, quiet: bool) -> None:
        self._redraw = redraw
        self._quiet = quiet
        self._line = ""
        self._errors: set[str] = set()

    def show(self, now: wire.ProgressInfo) -> None:
        for error in now.errors:
            if error not in self._errors:
                self._errors.add(error)
                self._erase()
                fail(error)
        if self._quiet:
            return
        settled = now.running + now.finished
        line = f"overall progress: {settled} out of {now.wanted} tasks"
        if self._redraw:
            filled = _BAR_WIDTH * settled // max(now.wanted, 1)
            self._line = f"{line} [{'=' * filled}{' ' * (_BAR_WIDTH - filled)}]"
            redraw(self._line)
        elif line != self._line:
            self._line = line
            say(line)

    def end(self) -> None:
        """Leave the redrawn line standing."""
        if self._redraw and self._line:
            say()
        self._line = ""

    def _erase(self) -> None:
        if self._redraw and self._line:
            redraw("")
