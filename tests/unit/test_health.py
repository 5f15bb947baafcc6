import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.agent.health import FIRST_DELAY_S, LONGEST_STARTING_DELAY_S, Health, HealthLog, probe, watch_health
from routemesh.errors import Unavailable
from routemesh.model import HealthCheck, HealthKind, TaskId
from routemesh.runtime import Exit, Running
from routemesh.values import replace
from tests.runtime.fake import FakeRuntime

TASK = TaskId("t1")
HERE = IPv4Address("127.0.0.1")
CHECK = HealthCheck(kind=HealthKind.CMD, command=("check", "it"), interval_s=10, timeout_s=5, retries=3)
DEADLINE_S = 10.0


def _runtime(*answers: tuple[int, str]) -> FakeRuntime:
    """One in which the task runs, and answers probes so."""
    runtime = FakeRuntime()
    runtime.known[TASK] = Running(pid=1)
    runtime.answers += answers
    return runtime


# What answers amount to.


def _after(log: HealthLog, *answers: tuple[float, bool]) -> HealthLog:
    for asked_at, ok in answers:
        log = log.record(ok=ok, asked_at=asked_at)
    return log


STARTING = HealthLog(check=CHECK, started_at=100)
HEALTHY = replace(STARTING, status=Health.HEALTHY)


def test_a_task_is_starting_at_first_and_healthy_with_the_first_success() -> None:
    assert STARTING.status is Health.STARTING
    assert _after(STARTING, (100.1, False), (100.2, True)).status is Health.HEALTHY


def test_a_healthy_task_becomes_unhealthy_by_failures_in_a_row() -> None:
    assert _after(HEALTHY, (110, False), (120, False)).status is Health.HEALTHY
    assert _after(HEALTHY, (110, False), (120, False), (130, True), (140, False), (150, False)).status is Health.HEALTHY
    assert _after(HEALTHY, (110, False), (120, False), (130, False)).status is Health.UNHEALTHY


def test_an_unhealthy_task_becomes_healthy_by_one_success() -> None:
    log = _after(HEALTHY, (110, False), (120, False), (130, False), (140, True))
    assert (log.status, log.failures) == (Health.HEALTHY, 0)


def test_failures_of_the_start_period_do_not_count() -> None:
    patient = replace(STARTING, check=replace(CHECK, start_period_s=60))
    assert _after(patient, *((float(at), False) for at in range(100, 160))).failures == 0
    assert _after(patient, (160, False), (170, False)).status is Health.STARTING
    assert _after(patient, (160, False), (170, False), (180, False)).status is Health.UNHEALTHY


def test_the_start_period_ends_with_the_first_success() -> None:
    patient = replace(STARTING, check=replace(CHECK, start_period_s=60))
    assert _after(patient, (101, True), (111, False), (121, False), (131, False)).status is Health.UNHEALTHY


def test_failures_of_early_probes_count_once_per_interval() -> None:
    assert _after(STARTING, *((100 + tenth / 10, False) for tenth in range(100))).failures == 0
    assert _after(STARTING, (110, False), (111, False), (119.9, False)).failures == 1
    assert _after(STARTING, (110, False), (120, False), (130, False)).status is Health.UNHEALTHY


# When to ask.


def test_a_starting_task_is_asked_soon_and_then_less_and_less() -> None:
    assert STARTING.delay_s(100) == FIRST_DELAY_S
    assert STARTING.delay_s(104) == 1
    assert STARTING.delay_s(130) == LONGEST_STARTING_DELAY_S
    assert replace(STARTING, check=replace(CHECK, interval_s=2)).delay_s(130) == 2


def test_all_others_are_asked_every_interval() -> None:
    assert HEALTHY.delay_s(100) == 10
    assert replace(STARTING, status=Health.UNHEALTHY).delay_s(100) == 10


@given(st.floats(0.1, 60), st.integers(1, 5), st.floats(0, 60))
def test_a_task_that_never_answers_has_the_time_that_docker_gives_it(interval_s: float, retries: int, period_s: float) -> None:
    check = replace(CHECK, interval_s=interval_s, retries=retries, start_period_s=period_s)
    log, now, probes = HealthLog(check=check, started_at=0), 0.0, 0
    while log.status is not Health.UNHEALTHY:
        now += log.delay_s(now)
        probes += 1
        log = log.record(ok=False, asked_at=now)
    docker = max(interval_s, period_s) + (retries - 1) * interval_s
    late = min(interval_s, LONGEST_STARTING_DELAY_S)
    assert docker - 1e-6 <= now <= docker + retries * late + 1e-6
    assert probes < 40 + now / late


@given(st.floats(0.01, 300))
def test_readiness_is_noticed_within_a_quarter_of_the_time_it_took(ready_after_s: float) -> None:
    log, now = HealthLog(check=replace(CHECK, interval_s=30, start_period_s=1000), started_at=0), 0.0
    while now < ready_after_s:
        now += log.delay_s(now)
        log = log.record(ok=False, asked_at=now)
    assert now - ready_after_s <= max(FIRST_DELAY_S, ready_after_s / 4)


# Watching.


def _watch(check: HealthCheck, runtime: FakeRuntime, *, until_healthy: bool) -> str:
    watching = watch_health(check, TASK, runtime, HERE, until_healthy=until_healthy)
    return asyncio.run(asyncio.wait_for(watching, DEADLINE_S))


def test_watching_a_start_ends_when_the_task_is_healthy() -> None:
    runtime = _runtime((1, ""), (1, ""), (0, ""))
    assert _watch(replace(CHECK, interval_s=0.01, retries=1000), runtime, until_healthy=True) == ""
    assert len(runtime.asked) == 3


def test_watching_ends_with_the_reason_when_the_task_is_unhealthy() -> None:
    for until_healthy in (True, False):
        runtime = _runtime((1, "first"), (2, "last\n"))
        reason = _watch(replace(CHECK, interval_s=0.01, retries=2), runtime, until_healthy=until_healthy)
        assert reason == "health command: exit code 2: last"


def test_watching_a_healthy_task_goes_on_after_a_success() -> None:
    runtime = _runtime((0, ""), (1, ""), (0, ""), (1, ""))
    assert _watch(replace(CHECK, interval_s=0.01, retries=2), runtime, until_healthy=False) == "health command: exit code 1"
    assert len(runtime.asked) == 5


# Asking.


def _probe(check: HealthCheck, runtime: FakeRuntime | None = None) -> tuple[bool, str]:
    return asyncio.run(asyncio.wait_for(probe(check, TASK, runtime or _runtime(), HERE), DEADLINE_S))


@pytest.mark.parametrize(
    ("check", "asked"),
    [
        (CHECK, ("check", "it")),
        (replace(CHECK, kind=HealthKind.CMD_SHELL, command=("check it || exit 1",)), ("/bin/sh", "-c", "check it || exit 1")),
    ],
)
def test_commands_run_in_the_task(check: HealthCheck, asked: tuple[str, ...]) -> None:
    runtime = _runtime()
    assert _probe(check, runtime) == (True, "")
    assert runtime.asked == [asked]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((1, ""), "health command: exit code 1"),
        ((3, "some\nlast line\n"), "health command: exit code 3: last line"),
        ((1, "x" * 5000), "health command: exit code 1: " + "x" * 200),
        ((124, "waiting\n"), "health command: no result within 5 s: waiting"),
    ],
)
def test_a_failed_command_gives_a_line(answer: tuple[int, str], reason: str) -> None:
    assert _probe(CHECK, _runtime(answer)) == (False, reason)


def test_an_ended_task_is_not_healthy() -> None:
    runtime = _runtime()
    runtime.known[TASK] = Exit(0)
    assert _probe(CHECK, runtime) == (False, "task t1 has ended")


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _server(serve: Serve) -> AsyncIterator[int]:
    """A port of 127.0.0.1 where `serve` answers."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(answer, str(HERE), 0) as server:
        yield server.sockets[0].getsockname()[1]


def _probe_server(serve: Serve, kind: HealthKind, path: str = "/", timeout_s: float = DEADLINE_S) -> tuple[bool, str]:
    async def body() -> tuple[bool, str]:
        async with _server(serve) as port:
            ok, reason = await probe(HealthCheck(kind=kind, port=port, path=path, timeout_s=timeout_s), TASK, _runtime(), HERE)
            return ok, reason.replace(str(port), "PORT")

    return asyncio.run(asyncio.wait_for(body(), DEADLINE_S))


def _answering(response: bytes, requests: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if requests is not None:
            requests.append(request)
        writer.write(response)
        await writer.drain()

    return serve


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("status", [200, 204, 302, 399])
def test_http_is_healthy_for_2xx_and_3xx(status: int) -> None:
    requests: list[bytes] = []
    response = f"HTTP/1.1 {status} \r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n".encode()
    assert _probe_server(_answering(response, requests), HealthKind.HTTP, "/up?deep=1") == (True, "")
    (request,) = requests
    assert request.startswith(b"GET /up?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (b"HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n", "GET http://127.0.0.1:PORT/up: status 500"),
        (b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", "GET http://127.0.0.1:PORT/up: status 404"),
        (b"", "GET http://127.0.0.1:PORT/up: Server disconnected"),
    ],
)
def test_http_is_unhealthy_for_all_else(response: bytes, reason: str) -> None:
    assert _probe_server(_answering(response), HealthKind.HTTP, "/up") == (False, reason)


def test_what_is_not_http_is_unhealthy_in_one_line() -> None:
    ok, reason = _probe_server(_answering(b"SSH-2.0-OpenSSH_9.2\r\n"), HealthKind.HTTP)
    assert not ok
    assert reason.startswith("GET http://127.0.0.1:PORT/: ")
    assert "\n" not in reason


def test_http_has_its_time() -> None:
    assert _probe_server(_silent, HealthKind.HTTP, timeout_s=0.05) == (
        False,
        "GET http://127.0.0.1:PORT/: no answer within 0.05 s",
    )


def test_tcp_is_healthy_when_it_connects() -> None:
    assert _probe_server(_silent, HealthKind.TCP) == (True, "")


@pytest.mark.parametrize(
    ("kind", "what"), [(HealthKind.TCP, "connect to 127.0.0.1:1"), (HealthKind.HTTP, "GET http://127.0.0.1:1/")]
)
def test_a_refused_connection_says_so(kind: HealthKind, what: str) -> None:
    assert _probe(HealthCheck(kind=kind, port=1)) == (False, f"{what}: Connection refused")


@pytest.mark.parametrize("kind", [HealthKind.TCP, HealthKind.HTTP])
def test_a_machine_that_can_not_ask_says_nothing_of_the_task(kind: HealthKind, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_descriptors(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def ask() -> None:
        monkeypatch.setattr(asyncio, "open_connection", no_descriptors)
        monkeypatch.setattr("aiohttp.TCPConnector.connect", no_descriptors)
        await probe(replace(CHECK, kind=kind, port=1), TASK, _runtime(), HERE)

    with pytest.raises(Unavailable, match="its health can't be asked: Too many open files"):
        asyncio.run(ask())
