"""What one client's requests, and a task's habits, do to the requests of others: nothing, with both proxies."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from routemesh.model import GatewayDriver, Http
from routemesh.proxy.routes import route_of
from tests.gateway.cases import HOST, KIB, OK, answer, request, sized
from tests.gateway.message import Message, Stream, read_body, read_head
from tests.gateway.origin import Answer, Asked, Origin
from tests.gateway.proxies import running, table
from tests.support import require

TASKS, MANY = 3, 30
IDLE_S = 0.1
drivers = pytest.mark.parametrize("driver", GatewayDriver)


def gone(asked: Asked) -> None:
    """The connection is closed instead of an answer."""
    raise EOFError


def reset(asked: Asked) -> None:
    asked.reset()


def late(asked: Asked) -> None:
    time.sleep(1.0)


HABITS: dict[str, Answer] = {
    "well": OK,
    "gone": gone,
    "reset": reset,
    "late": late,
    "large": answer(fields=f"X-Long: {'x' * 70 * KIB}\r\n"),
    "garbage": b"\0\1\2\r\n\r\n",
    "failing": answer(status="503 Overloaded"),
}


@contextmanager
def service(
    driver: GatewayDriver, answers: dict[str, Answer], tasks: int = TASKS, **settings: float
) -> Iterator[tuple[int, list[Origin]]]:
    """A proxy's port, and the tasks behind it."""
    require(driver.value, "root")
    origins = [Origin(answers) for _ in range(tasks)]
    http = Http(hosts=(HOST,), port=origins[0].port, **settings)  # type: ignore[arg-type]
    try:
        with running(driver, table({"a": (http, [origin.port for origin in origins])})) as port:
            yield port, origins
    finally:
        for origin in origins:
            origin.close()


def asked(port: int, *requests: bytes) -> list[Message]:
    """Answers to requests that follow one another on one connection, as far as they come."""
    answers = []
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        stream = Stream(connection)
        for each in requests:
            connection.sendall(each)
            try:
                answers.append(found := read_head(stream))
            except EOFError:
                return answers
            read_body(stream, found, answer=True)
    return answers


def times(origins: list[Origin], case: str) -> int:
    """How often tasks were asked a case."""
    return sum(len(origin.requests[case]) for origin in origins)


@drivers
@pytest.mark.parametrize("habit", ["gone", "reset", "late", "large", "garbage", "failing"])
def test_one_client_does_not_take_a_service_from_the_others(driver: GatewayDriver, habit: str) -> None:
    with service(driver, HABITS, timeout_s=0.3) as (port, _):
        with ThreadPoolExecutor(MANY) as pool:
            list(pool.map(lambda _: asked(port, request(case=habit)), range(MANY)))
        assert [each.status for _ in range(MANY) for each in asked(port, request(case="well"))] == [200] * MANY


@drivers
def test_a_request_that_a_task_is_late_with_goes_to_no_other(driver: GatewayDriver) -> None:
    for timeout_s in (0.3, 1.0):
        with service(driver, {"late": lambda _: time.sleep(2)}, timeout_s=timeout_s) as (port, origins):
            assert [each.status for each in asked(port, request(case="late"))] == [504]
            assert times(origins, "late") == 1


@drivers
def test_how_many_tasks_one_request_may_reach_that_each_closes_upon(driver: GatewayDriver) -> None:
    """nginx takes a GET that got no answer for a connection that failed, and tries another task; HAProxy does not."""
    for retries in (0, 1):
        with service(driver, HABITS, retries=retries) as (port, origins):
            for send, most in {
                request(case="gone"): 1 + retries,
                sized("POST / HTTP/1.1", b"b").replace(b"CASE", b"gone"): 1,
            }.items():
                before = times(origins, "gone")
                assert [each.status for each in asked(port, send)] == [502]
                assert times(origins, "gone") - before == (most if driver is GatewayDriver.NGINX else 1)


@drivers
def test_a_task_that_is_not_there_loses_no_request(driver: GatewayDriver) -> None:
    with service(driver, HABITS) as (port, origins):
        origins[0].close()
        posts = [sized("POST / HTTP/1.1", b"body").replace(b"CASE", b"well")] * MANY
        assert [each.status for each in asked(port, *posts)] == [200] * MANY


class Leaving:
    """A task that closes a connection when the second request comes on it, as one does that was idle for too long."""

    def __init__(self) -> None:
        self.served: set[int] = set()

    def __call__(self, asked: Asked) -> None:
        if id(asked.stream) in self.served:
            raise EOFError
        self.served.add(id(asked.stream))
        self._kept = [*getattr(self, "_kept", []), asked.stream]  # so that no other gets its id
        asked.body()
        asked.send(OK)


@drivers
def test_a_post_finds_no_connection_that_the_task_has_just_closed(driver: GatewayDriver) -> None:
    post = sized("POST / HTTP/1.1", b"body").replace(b"CASE", b"leaving")
    with service(driver, {"leaving": Leaving()}) as (port, _):
        for _ in range(MANY):
            with ThreadPoolExecutor(4) as pool:  # leaves idle connections behind
                list(pool.map(lambda _: asked(port, request(case="leaving")), range(4)))
            assert [each.status for each in asked(port, post)] == [200]


@drivers
def test_a_get_on_a_connection_that_the_task_has_just_closed_is_sent_again(driver: GatewayDriver) -> None:
    with service(driver, {"leaving": Leaving()}, tasks=1) as (port, _):
        for _ in range(MANY):
            assert [each.status for each in asked(port, request(case="leaving"))] == [200]


@drivers
def test_a_client_that_keeps_its_connection_is_never_told_502_for_one_that_the_task_closed(driver: GatewayDriver) -> None:
    """HAProxy closes the client's connection without an answer, as the task would have."""
    post = sized("POST / HTTP/1.1", b"body").replace(b"CASE", b"leaving")
    with service(driver, {"leaving": Leaving()}, tasks=1) as (port, _):
        for _ in range(5):
            statuses = [each.status for each in asked(port, *[request(case="leaving"), post] * 4)]
            assert set(statuses) == {200}
            assert driver is GatewayDriver.HAPROXY or len(statuses) == 8


@drivers
def test_how_large_a_head_may_be_is_a_label(driver: GatewayDriver) -> None:
    long = {size: f"X-Long: {'x' * size * KIB}\r\n" for size in (3, 20, 60)}
    answers: dict[str, Answer] = {str(size): answer(fields=field) for size, field in long.items()}
    answers["well"] = OK
    for limit, passed in {2: [], 24: [3, 20], 64: [3, 20, 60]}.items():
        with service(driver, answers, max_header_bytes=limit * KIB) as (port, _):
            found = {size: asked(port, request(case=str(size)))[0].status for size in long}
            assert found == {size: 200 if size in passed else 502 for size in long}
            # Of requests never less than is usual: the largest limit of all services counts.
            sent = {size: asked(port, request(fields=field, case="well"))[0].status for size, field in long.items()}
            assert sent == {size: 200 if size in (3, *passed) else 400 for size in long}


PATHS = {
    "/": "a", "/api": "api", "/api/": "api", "/api/x": "api", "/apix": "a", "/API": "a", "/api?x": "api", "/a?/api": "a",
    "/%61pi": "api", "/%61pi/x": "api", "/ap%69": "api", "/api%2Fx": "api", "/%2Fapi": "a", "//api": "a", "/x//api": "a",
    "/api;x": "a", "/%41PI": "a", "/./api": "", "/x/..%2fapi": "", "/%2e%2e/api": "", "/api/..": "", "/api/%2E./x": "",
}  # fmt: skip
HOSTS = {
    "a.example": "a", "A.Example": "a", "a.example.": "a", "a.example:80": "a", "a.example.:80": "a", "b.w.example": "wild",
    "b.w.example.": "wild", "c.b.w.example": "", "w.example": "", "xw.example": "",
}  # fmt: skip


@drivers
def test_both_lead_a_host_and_a_path_to_the_same_service(driver: GatewayDriver) -> None:
    """And `route_of`, which explain goes by, says so too. "" is an answer of the gateway's own."""
    require(driver.value, "root")
    where = {"a": (HOST, "/"), "api": (HOST, "/api"), "wild": ("*.w.example", "/")}
    asking = [(HOST, path, name) for path, name in PATHS.items()] + [(host, "/", name) for host, name in HOSTS.items()]
    origins = {name: Origin({str(number): OK for number in range(len(asking))}) for name in where}
    services = {
        name: (Http(hosts=(host,), path=path, port=origins[name].port), [origins[name].port])
        for name, (host, path) in where.items()
    }
    with ExitStack() as stack:
        for origin in origins.values():
            stack.callback(origin.close)
        port = stack.enter_context(running(driver, routes := table(services)))
        wrong = []
        for number, (host, path, name) in enumerate(asking):
            asked(port, request(f"GET {path} HTTP/1.1", host=host, case=str(number)))
            reached = [each for each, origin in origins.items() if origin.requests[str(number)]]
            found = route_of(routes, host, path.partition("?")[0])
            if reached != ([name] if name else []) or name not in ("", found.backend if found else ""):
                wrong.append((host, path, name, reached, found))
        assert not wrong, wrong
