"""Who listens in a namespace, with real processes and sockets."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from routemesh.errors import KernelError
from routemesh.kernel import listeners as module
from routemesh.kernel.listeners import is_stopped, listeners, sockets
from routemesh.kernel.netlink import Requests
from routemesh.model import Listener, Protocol
from tests.kernel.private import Private, private_netns

SERVER = """
import os, socket, sys
family, kind, address, port, name = sys.argv[1:]
open("/proc/self/comm", "wb").write(os.fsencode(name))
with socket.socket(getattr(socket, family), getattr(socket, kind)) as server:
    server.bind((address, int(port)))
    if kind == "SOCK_STREAM":
        server.listen()
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def space() -> Iterator[Private]:
    with private_netns() as made:
        yield made


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def serve(
    processes: ExitStack, space: Private, family: str, kind: str, address: str, port: int, name: str = "some-server"
) -> "subprocess.Popen[str]":
    command = ("nsenter", f"--net={space.path}", sys.executable, "-c", SERVER, family, kind, address, str(port), name)
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    processes.callback(end, server)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


def end(server: "subprocess.Popen[str]") -> None:
    server.communicate("", timeout=10)


def seen(space: Private) -> tuple[Listener, ...]:
    with space.enter():
        return listeners()


def test_nobody_listens_in_a_new_namespace(space: Private) -> None:
    assert seen(space) == ()


def test_tcp_and_udp_sockets_of_others_are_seen_by_name(space: Private, processes: ExitStack) -> None:
    serve(processes, space, "AF_INET", "SOCK_STREAM", "127.0.0.1", 8080)
    udp = serve(processes, space, "AF_INET", "SOCK_DGRAM", "0.0.0.0", 53)
    tcp = Listener(protocol=Protocol.TCP, port=8080, process="some-server")
    assert seen(space) == (tcp, Listener(protocol=Protocol.UDP, port=53, process="some-server"))
    end(udp)
    assert seen(space) == (tcp,)


def test_a_process_may_have_any_bytes_for_a_name(space: Private, processes: ExitStack) -> None:
    serve(processes, space, "AF_INET", "SOCK_STREAM", "127.0.0.1", 8080, os.fsdecode(b"\xff\xfe\x1b[2J caf\xc3\xa9"))
    serve(processes, space, "AF_INET", "SOCK_DGRAM", "0.0.0.0", 53, "new\nline")
    tcp, udp = seen(space)
    assert (tcp.process, udp.process) == ("\\xff\\xfe\x1b[2J caf\u00e9", "new\nline")


def test_ipv6_counts_when_it_takes_the_port_for_ipv4_too(space: Private, processes: ExitStack) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("needs IPv6 in the kernel")
    serve(processes, space, "AF_INET6", "SOCK_STREAM", "::", 8080)
    serve(processes, space, "AF_INET6", "SOCK_STREAM", "::1", 8081)
    assert [listener.port for listener in seen(space)] == [8080]


def test_the_same_port_twice_is_one_listener(space: Private, processes: ExitStack) -> None:
    serve(processes, space, "AF_INET", "SOCK_STREAM", "127.0.0.1", 8080)
    serve(processes, space, "AF_INET", "SOCK_STREAM", "127.0.0.2", 8080)
    assert len(seen(space)) == 1


def test_own_sockets_and_conversations_are_not_listeners(space: Private, processes: ExitStack) -> None:
    serve(processes, space, "AF_INET", "SOCK_STREAM", "127.0.0.1", 8080)
    serve(processes, space, "AF_INET", "SOCK_DGRAM", "127.0.0.1", 8080)
    before = seen(space)
    with space.enter(), socket.create_server(("127.0.0.1", 9000)), socket.create_connection(("127.0.0.1", 8080)):
        assert listeners() == before
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talker:
            talker.connect(("127.0.0.1", 8080))
            assert listeners() == before


def test_a_socket_of_the_kernel_has_no_process(space: Private) -> None:
    space.run("ip", "link", "add", "vxlan0", "type", "vxlan", "id", "7", "local", "127.0.0.1", "dstport", "4789")
    space.run("ip", "link", "set", "vxlan0", "up")
    assert seen(space) == (Listener(protocol=Protocol.UDP, port=4789, process=""),)


def test_processes_are_searched_once_per_socket(space: Private, processes: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    search = module._search

    def counted(inodes: frozenset[int]) -> dict[int, module.Process]:
        searched.append(len(inodes))
        return search(inodes)

    monkeypatch.setattr(module, "PROCESSES", module.Processes())
    monkeypatch.setattr(module, "_search", counted)
    serve(processes, space, "AF_INET", "SOCK_STREAM", "127.0.0.1", 8080)
    first = seen(space)
    assert seen(space) == seen(space) == first
    serve(processes, space, "AF_INET", "SOCK_STREAM", "127.0.0.1", 8081)
    assert len(seen(space)) == 2
    assert searched == [1, 1]


def test_a_process_that_ends_during_the_search_does_no_harm(
    space: Private, processes: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = os.listdir
    monkeypatch.setattr(module, "PROCESSES", module.Processes())
    monkeypatch.setattr(os, "listdir", lambda path: [*listdir(path), "999999999"] if path == "/proc" else listdir(path))
    serve(processes, space, "AF_INET", "SOCK_STREAM", "127.0.0.1", 8080)
    assert [listener.process for listener in seen(space)] == ["some-server"]


def test_a_refusal_is_a_kernel_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Requests, "dump", refuse)
    with pytest.raises(KernelError, match="ss -lntup: No such file or directory"):
        listeners()


def test_what_takes_ipv6_alone_is_no_listener_but_is_known(space: Private) -> None:
    with ExitStack() as stack, space.enter():
        server = stack.enter_context(socket.socket(socket.AF_INET6))
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("::", 8000))
        server.listen()
        assert [(each.only_ipv6, each.port) for each in sockets()] == [("::", 8000)]
        assert listeners() == ()


def test_what_nobody_has_accepted_yet_is_counted_and_a_stopped_process_is_known(space: Private) -> None:
    with ExitStack() as stack, space.enter():
        server = stack.enter_context(socket.create_server(("127.0.0.1", 8000), backlog=5))
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", 8000)))
        assert [(each.port, each.queued, each.backlog) for each in sockets()] == [(8000, 3, 5)]
        server.accept()[0].close()
        assert [each.queued for each in sockets()] == [2]
        sleeper = stack.enter_context(subprocess.Popen(["sleep", "60"]))
        stack.callback(sleeper.kill)
        assert not is_stopped(sleeper.pid)
        sleeper.send_signal(signal.SIGSTOP)
        os.waitpid(sleeper.pid, os.WUNTRACED)
        assert is_stopped(sleeper.pid)
    assert not is_stopped(0)
