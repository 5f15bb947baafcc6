"""What is said of a published port that can't be held: each failure with the cause that it had."""

import errno
from collections.abc import Set

import pytest

from routemesh.agent.ports import NotHeld, Port, PortHolder
from routemesh.coprocess.client import Coprocess
from routemesh.model import Protocol


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EADDRINUSE, "port 8080/tcp on node1 is held by another process too; its clients reach the mesh instead"),
        (errno.EMFILE, "port 8080/tcp on node1 can't be held, and other processes may take it: Too many open files"),
        (errno.EACCES, "port 8080/tcp on node1 can't be held, and other processes may take it: Permission denied"),
    ],
)
def test_a_port_that_is_not_held_is_told_of_with_its_cause(number: int, told: str) -> None:
    assert NotHeld((Protocol.TCP, 8080), number).told("node1") == told


def test_a_holder_that_can_not_be_asked_says_so_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    holder, asked = PortHolder(), []

    def ask(_: Coprocess, body: bytes) -> bytes:
        asked.append(body)
        if len(asked) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return b"[]"

    monkeypatch.setattr(Coprocess, "ask", ask)
    monkeypatch.setattr(Coprocess, "is_alive", lambda _: True)
    wanted: Set[Port] = {(Protocol.TCP, 8080)}
    with pytest.raises(OSError, match="Too many"):
        holder.hold(wanted)
    assert holder.hold(wanted) == ()
    assert holder.hold(wanted) == ()
    assert asked == [b'[["tcp", 8080]]'] * 2, "what is held is not asked for again"
