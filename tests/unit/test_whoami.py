"""whoami: what it tells over HTTP and UDP, that garbage does it no harm, and that it ends at once when asked to."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh import whoami
from tests.unit.daemon import modules_after

LOCALHOST = "127.0.0.1"
GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


class Running:
    """A server in a thread of this process."""

    def __init__(self) -> None:
        self.server = whoami.Server(0, whoami.Answers("tested"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection((LOCALHOST, self.server.port), timeout=5)

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.stop()
            self.thread.join(timeout=5)
        assert not self.thread.is_alive()


@pytest.fixture
def running() -> Iterator[Running]:
    server = Running()
    yield server
    server.stop()


def answer(sock: socket.socket) -> tuple[int, dict[str, str], str]:
    """The next whole answer on a connection: status, headers, body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1) or pytest.fail(f"the connection ended after {data!r}")
    status, *lines = data.decode().removesuffix("\r\n\r\n").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = b""
    while len(body) < int(headers["Content-Length"]):
        body += sock.recv(int(headers["Content-Length"]) - len(body))
    return int(status.split()[1]), headers, body.decode()


def ask(running: Running, request: bytes) -> tuple[int, dict[str, str], str]:
    """The answer to one request on a connection of its own."""
    with running.connect() as sock:
        sock.sendall(request)
        return answer(sock)


def ended(sock: socket.socket) -> bool:
    """Whether the server has closed the connection; waits for it."""
    try:
        return sock.recv(65536) == b""
    except ConnectionResetError:
        return True


def test_tells_who_answers_and_who_asks(running: Running) -> None:
    with running.connect() as sock:
        sock.sendall(b"GET /some/path?x=1 HTTP/1.1\r\nHost: test:8080\r\nX-Seen: yes\r\n\r\n")
        status, headers, body = answer(sock)
        host, port = sock.getsockname()
    lines = body.split("\n")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert lines[:2] == ["Name: tested", f"Hostname: {socket.gethostname()}"]
    assert "IP: 127.0.0.1" in lines
    assert f"RemoteAddr: {host}:{port}" in lines
    assert lines[-5:] == ["GET /some/path?x=1 HTTP/1.1", "Host: test:8080", "X-Seen: yes", "", ""]


def test_knows_every_address_of_its_namespace() -> None:
    links = json.loads(subprocess.run(["ip", "-j", "address"], capture_output=True, check=True).stdout)
    assert sorted(whoami.addresses()) == sorted(info["local"] for link in links for info in link["addr_info"])


def test_keeps_a_connection_for_many_requests(running: Running) -> None:
    with running.connect() as sock:
        for _ in range(3):
            sock.sendall(GET)
            assert answer(sock)[0] == 200


def test_answers_pipelined_requests_in_order(running: Running) -> None:
    with running.connect() as sock:
        sock.sendall(b"".join(b"GET /%d HTTP/1.1\r\nHost: test\r\n\r\n" % number for number in range(100)))
        assert [answer(sock)[2].split("\n")[-4] for _ in range(100)] == [f"GET /{number} HTTP/1.1" for number in range(100)]


def test_a_client_that_does_not_read_holds_up_nobody(running: Running) -> None:
    count = 20_000
    with running.connect() as lazy:
        sender = threading.Thread(target=lazy.sendall, args=(GET * count,))
        sender.start()
        assert ask(running, GET)[0] == 200
        received = bytearray()
        while received.count(b"\n\n") < count:  # the end of each body
            received += lazy.recv(1 << 20)
        sender.join()


def test_takes_a_request_byte_by_byte(running: Running) -> None:
    with running.connect() as sock:
        for byte in b"POST /health HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n204":
            sock.send(bytes([byte]))
        assert answer(sock)[0] == 200
        sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert answer(sock)[0] == 204


@pytest.mark.parametrize(
    ("request_", "kept"),
    [
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\n\r\n", True),
    ],
)
def test_keeps_or_ends_the_connection_as_asked(running: Running, request_: bytes, kept: bool) -> None:
    with running.connect() as sock:
        sock.sendall(request_)
        _, headers, _ = answer(sock)
        assert headers.get("Connection") == (None if kept else "close")
        if kept:
            sock.sendall(GET)
            assert answer(sock)[0] == 200
        else:
            assert ended(sock)


def test_head_has_the_headers_alone(running: Running) -> None:
    with running.connect() as sock:
        sock.sendall(b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n")
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    assert data.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0" not in data


def test_health_is_what_was_posted_last(running: Running) -> None:
    def post(code: bytes) -> int:
        return ask(running, b"POST /health HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(code), code))[0]

    get = b"GET /health HTTP/1.1\r\n\r\n"
    assert ask(running, get)[0] == 200
    assert post(b"503") == 200
    assert ask(running, get)[0] == 503
    assert [post(wrong) for wrong in (b"", b"999", b"100", b"-20", b"abc")] == [400] * 5
    assert ask(running, get)[0] == 503


GARBAGE = {
    b"\r\n\r\n\0\0\0\0\r\n\r\n": 400,
    b"hello\r\n\r\n": 400,
    b"GET  / HTTP/1.1\r\n\r\n": 400,
    b"GET / FTP/1.1\r\n\r\n": 400,
    b"GET / HTTP/2.0\r\n\r\n": 505,
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n": 413,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n": 411,
    b"GET /" + b"a" * 20_000: 431,
    b"\x16\x03\x01" + b"\0" * 900_000: 431,
}


@pytest.mark.parametrize(("garbage", "status"), GARBAGE.items(), ids=range(len(GARBAGE)))
def test_refuses_garbage_and_goes_on(running: Running, garbage: bytes, status: int) -> None:
    with running.connect() as sock:
        sock.sendall(garbage)
        found, headers, _ = answer(sock)
        assert (found, headers["Connection"]) == (status, "close")
        assert sock.recv(1) == b""  # an end, not a reset, which could overtake the answer
    assert ask(running, GET)[0] == 200


def test_a_client_that_goes_in_the_middle_is_forgotten(running: Running) -> None:
    for part in (b"", b"GET", GET):
        running.connect().close()
        with running.connect() as sock:
            sock.send(part)
    assert ask(running, GET)[0] == 200


@given(st.binary(max_size=200), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.0\r\nContent-Length: "]))
def test_any_bytes_are_a_request_part_of_one_or_refused(data: bytes, before: bytes) -> None:
    inbox = bytearray(before + data + b"\r\n\r\n")
    try:
        request = whoami.take_request(inbox)
    except whoami.RequestRefused as refused:
        assert refused.status in whoami.PHRASES
    else:
        assert request is None or len(inbox) < len(before + data) + 4


def test_echoes_datagrams_from_the_address_that_was_asked(running: Running) -> None:
    for address in (LOCALHOST, "127.0.0.2"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((address, running.server.port))  # takes answers from there alone
            sock.send(b"some\xff\0bytes")
            head, _, echo = sock.recv(65535).partition(b"Echo: ")
            host, port = sock.getsockname()
        assert echo == b"some\xff\0bytes"
        assert head.decode().split("\n")[0] == "Name: tested"
        assert f"RemoteAddr: {host}:{port}\n" in head.decode()


def test_a_datagram_too_long_to_answer_is_dropped(running: Running) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect((LOCALHOST, running.server.port))
        sock.send(b"x" * 65_507)
        sock.send(b"short")
        assert sock.recv(65535).endswith(b"Echo: short")


def test_stop_ends_idle_connections_and_answers_the_others(running: Running) -> None:
    with running.connect() as idle, running.connect() as busy:
        idle.sendall(GET)
        answer(idle)
        busy.sendall(GET[:10])
        ask(running, GET)  # so the first part has been read
        running.server.stop()
        assert ended(idle)
        busy.sendall(GET[10:])
        assert answer(busy)[1]["Connection"] == "close"
        assert ended(busy)
    running.stop()


def test_who_is_told_to_stop_after_the_end_is_not_troubled(running: Running) -> None:
    running.stop()
    running.server.stop()


def test_stop_does_not_wait_for_silent_clients(running: Running) -> None:
    with running.connect():
        running.stop()


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "routemesh", "whoami", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_the_command_listens_says_so_and_ends_at_sigterm() -> None:
    with start("--port", "0", WHOAMI_NAME="from outside") as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().split()[-3])
            with socket.create_connection((LOCALHOST, port), timeout=5) as sock:
                sock.sendall(GET)
                assert answer(sock)[2].startswith("Name: from outside\n")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 0


def test_the_command_survives_more_clients_than_descriptors() -> None:
    with start("--port", "0") as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[-3])
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (20, 20))
        clients = [socket.create_connection((LOCALHOST, port), timeout=5) for _ in range(60)]
        try:
            clients[-1].sendall(GET)
            assert answer(clients[-1])[0] == 200
        finally:
            process.terminate()
            for client in clients:
                client.close()
        assert process.wait(timeout=5) == 0


def test_a_port_in_use_is_one_line(running: Running) -> None:
    with start("--port", str(running.server.port)) as process:
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert errors == (
        f"routemesh whoami: can't listen on port {running.server.port}/tcp: Address already in use; choose another with --port\n"
    )


@pytest.mark.parametrize("arguments", [("--port", "70000"), ("--port", "x"), ("--delay", "soon"), ("--nonsense",)])
def test_a_wrong_option_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    with start(*arguments) as process:
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 2
    assert "Traceback" not in errors


def test_loads_nothing_slow() -> None:
    loaded = modules_after("import routemesh.__main__, routemesh.whoami")
    assert "routemesh.whoami" in loaded
    assert not {"asyncio", "argparse", "dataclasses", "typing", "http", "email", "click", "json", "logging"} & loaded
