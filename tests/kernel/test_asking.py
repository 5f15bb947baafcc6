"""Asking ports: what a process takes, what just its kernel takes, what nobody takes; and that nothing is left in a full queue."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from routemesh.model import Protocol
from routemesh.names import SANDBOX
from routemesh.sight.asking import ask
from routemesh.sightings import PortQuestion
from tests.kernel.private import Private, private_netns

HERE = "127.0.0.1"


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Private]:
    """A namespace that is a sandbox and a task at once."""
    with private_netns() as found:
        found.run("ip", "link", "set", "lo", "up")
        (tmp_path / SANDBOX).symlink_to(found.path)
        (tmp_path / "task").symlink_to(found.path)
        yield found


def question(port: int, protocol: Protocol = Protocol.TCP) -> PortQuestion:
    return PortQuestion(protocol=protocol, port=port, address=HERE, task="web.1", netns="task", target=port)


def take(server: socket.socket) -> None:
    """Accept a connection and close it."""
    accepted, _ = server.accept()
    accepted.close()


def test_what_becomes_of_questions(space: Private, tmp_path: Path) -> None:
    with ExitStack() as stack, space.enter():
        taking = stack.enter_context(socket.create_server((HERE, 8001)))
        idle = stack.enter_context(socket.create_server((HERE, 8002)))
        stack.enter_context(socket.create_server(("127.0.0.2", 8003)))
        bound = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        bound.bind((HERE, 8004))
        acceptor = threading.Thread(target=take, args=(taking,))
        acceptor.start()
        udp = (question(8004, Protocol.UDP), question(8005, Protocol.UDP))
        asked = (question(8001), question(8002), question(8003), *udp)
        found = ask(tmp_path, asked, 0.3)
        acceptor.join()
        assert [each.outcome for each in found] == ["accepted", "waits", "refused", "bound", "unbound"]
        assert [each.asked for each in found] == list(asked)
        assert [(each.address, each.port) for each in found[2].instead] == [("127.0.0.2", 8003)]
        assert [each.outcome for each in ask(tmp_path, (question(8002),), 0.1)] == ["waits"]
        idle.settimeout(5)
        take(idle)
        idle.setblocking(False)
        with pytest.raises(BlockingIOError):
            idle.accept()  # the second time nothing was put into a queue that nobody had emptied


def test_many_are_asked_and_a_namespace_that_is_gone_is_told(space: Private, tmp_path: Path) -> None:
    gone = PortQuestion(protocol=Protocol.TCP, port=1, address=HERE, task="old.1", netns="gone", target=1)
    found = ask(tmp_path, [*map(question, range(9000, 9300)), gone], 0.5)
    assert {each.outcome for each in found} == {"refused"}
    (tmp_path / SANDBOX).unlink()
    assert [each.outcome for each in ask(tmp_path, (question(9000),), 0.1)] == ["unasked"]
