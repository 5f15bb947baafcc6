"""Health checks: asking a task whether it is well, and what its answers amount to.

    starting ── first success ─────────────→ healthy ←─────── success ────────┐
        └────── `retries` failures in a row ───┴── `retries` in a row ──→ unhealthy

As in Docker a failure does not count while the task is starting and its start period lasts. Unlike Docker, which first asks
after a whole interval, a starting task is asked early and often, so that it enters the mesh as soon as it can serve; for
that, its failures count once per interval at most, so that it has as much time as Docker gives it.

A task without a health check is healthy as soon as it runs. If its program needs a while until it listens, connections are
refused meanwhile: `routemesh.health.tcp` avoids that.

Source: moby daemon/health.go.
"""

import asyncio
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address

import aiohttp

from routemesh.errors import RoutemeshError, Unavailable
from routemesh.model import HealthCheck, HealthKind, TaskId
from routemesh.runtime import Runtime
from routemesh.values import replace

FIRST_DELAY_S = 0.05
STARTING_DELAY_SHARE = 0.25
"""A starting task is asked again after this share of its age: readiness is noticed at most so much late."""
LONGEST_STARTING_DELAY_S = 5.0
"""Docker's start-interval."""

_TIMED_OUT = 124
_OF_THE_MACHINE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_REASON_LENGTH = 200


class Health(StrEnum):
    """Docker's words for it."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLog:
    """What the answers so far amount to. `failures` counts those in a row, the last of them counted at `counted_at`.

    Times are of any clock that does not jump; `started_at` is the task's start.
    """

    check: HealthCheck
    started_at: float
    status: Health = Health.STARTING
    failures: int = 0
    counted_at: float | None = None

    def record(self, *, ok: bool, asked_at: float) -> "HealthLog":
        """The log with one more answer."""
        if ok:
            return replace(self, status=Health.HEALTHY, failures=0, counted_at=None)
        if self.status is Health.STARTING and not self._counts(asked_at):
            return self
        failures = self.failures + 1
        status = Health.UNHEALTHY if failures >= self.check.retries else self.status
        return replace(self, status=status, failures=failures, counted_at=asked_at)

    def _counts(self, asked_at: float) -> bool:
        last = self.started_at if self.counted_at is None else self.counted_at
        return asked_at - self.started_at >= self.check.start_period_s and asked_at - last >= self.check.interval_s

    def delay_s(self, now: float) -> float:
        """How long to wait until the task is asked again."""
        if self.status is not Health.STARTING:
            return self.check.interval_s
        early = max(FIRST_DELAY_S, (now - self.started_at) * STARTING_DELAY_SHARE)
        return min(early, LONGEST_STARTING_DELAY_S, self.check.interval_s)


async def watch_health(
    check: HealthCheck, task_id: TaskId, runtime: Runtime, address: IPv4Address, *, until_healthy: bool
) -> str:
    """Ask until the task has become unhealthy, and return why.

    With `until_healthy` the task is starting, and "" is returned when it has become healthy; else it is healthy at first.
    """
    now = asyncio.get_running_loop().time
    status = Health.STARTING if until_healthy else Health.HEALTHY
    log = HealthLog(check=check, started_at=now(), status=status)
    while True:
        await asyncio.sleep(log.delay_s(now()))
        asked_at = now()
        ok, reason = await probe(check, task_id, runtime, address)
        log = log.record(ok=ok, asked_at=asked_at)
        if log.status is Health.UNHEALTHY:
            return reason
        if until_healthy and log.status is Health.HEALTHY:
            return ""


async def probe(health: HealthCheck, task_id: TaskId, runtime: Runtime, address: IPv4Address) -> tuple[bool, str]:
    """Ask a task once, within `timeout_s`: whether it is healthy, and one line that says why not.

    Commands run inside the task; HTTP and TCP go to `address`. HTTP is healthy for 2xx and 3xx.
    """
    try:
        match health.kind:
            case HealthKind.CMD:
                return await _command(health, task_id, runtime, health.command)
            case HealthKind.CMD_SHELL:
                return await _command(health, task_id, runtime, ("/bin/sh", "-c", *health.command))
            case HealthKind.HTTP:
                return await _http(health, f"http://{address}:{health.port}{health.path}")
            case HealthKind.TCP:
                return await _tcp(health, address)
    except Unavailable:
        raise  # the machine can't ask, which says nothing of the task
    except RoutemeshError as exc:
        return False, str(exc)


async def _command(health: HealthCheck, task_id: TaskId, runtime: Runtime, command: Sequence[str]) -> tuple[bool, str]:
    code, output = await runtime.execute(task_id, command, health.timeout_s)
    if code == 0:
        return True, ""
    what = f"no result within {health.timeout_s:g} s" if code == _TIMED_OUT else f"exit code {code}"
    said = output.strip().rpartition("\n")[2][:_REASON_LENGTH]
    return False, f"health command: {what}" + (f": {said}" if said else "")


async def _http(health: HealthCheck, url: str) -> tuple[bool, str]:
    try:
        async with (
            asyncio.timeout(health.timeout_s),
            aiohttp.ClientSession(headers={"User-Agent": "routemesh-health"}) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            status = response.status
    except (aiohttp.ClientError, OSError) as exc:
        return False, f"GET {url}: {_why(exc, health)}"
    if 200 <= status < 400:
        return True, ""
    return False, f"GET {url}: status {status}"


async def _tcp(health: HealthCheck, address: IPv4Address) -> tuple[bool, str]:
    try:
        async with asyncio.timeout(health.timeout_s):
            _, writer = await asyncio.open_connection(str(address), health.port)
    except OSError as exc:
        return False, f"connect to {address}:{health.port}: {_why(exc, health)}"
    writer.close()
    return True, ""


def _why(exc: Exception, health: HealthCheck) -> str:
    if isinstance(exc, OSError) and exc.errno in _OF_THE_MACHINE:
        raise Unavailable(f"its health can't be asked: {os.strerror(exc.errno)}") from exc
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno)
    if isinstance(exc, TimeoutError):
        return f"no answer within {health.timeout_s:g} s"
    return (str(exc) or type(exc).__name__).partition("\n")[0][:_REASON_LENGTH]
