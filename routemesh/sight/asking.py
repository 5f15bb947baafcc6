"""Asking published ports whether they answer: one TCP connection each, opened and closed without a word; of UDP nothing is sent.

The kernel makes a handshake for whatever listens, so that of a task it is also looked at whether its process took the connection.
A process that is stopped, or has connections waiting all the time, is not asked: what nobody accepts stays in its backlog.
Call in a thread of its own.

Source: connect(2) (EINPROGRESS), socket(7) (SO_ERROR), listen(2).
"""

import os
import select
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from errno import ECONNREFUSED, EINPROGRESS
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from routemesh import names
from routemesh.kernel import netns
from routemesh.kernel.listeners import PROCESSES, Waiting, is_stopped, sockets, unaccepted
from routemesh.model import Protocol
from routemesh.sight.observe import told
from routemesh.sightings import Answering, PortAnswer, PortQuestion
from routemesh.snapshot import ANY_ADDRESS, Bound, Socket, bound_instead

WITHIN_S = 1.0
_AT_ONCE = 200
_PAUSE_S = 0.02


def ask(directory: Path, questions: Sequence[PortQuestion], within_s: float = WITHIN_S) -> tuple[PortAnswer, ...]:
    """Of the node whose own namespace the calling thread is in, and whose others are files in `directory`."""
    found: list[PortAnswer] = []
    for start in range(0, len(questions), _AT_ONCE):
        found += _Round(directory, questions[start : start + _AT_ONCE]).run(within_s)
    return tuple(found)


class _Space(NamedTuple):
    """Who waits in a task's namespace."""

    sockets: Sequence[Socket]
    only_ipv6: Sequence[Bound]

    def server(self, asked: PortQuestion) -> Socket | None:
        """Who should get what comes to the task's port."""
        here = (ANY_ADDRESS, IPv4Address(asked.address))
        fitting = (each for each in self.sockets if (each.protocol, each.port) == (asked.protocol, asked.target))
        return next((each for each in fitting if each.address in here), None)


class _Round:
    """Some questions at a time: as many sockets are open."""

    def __init__(self, directory: Path, questions: Sequence[PortQuestion]) -> None:
        self._directory, self._questions = directory, questions
        self._spaces = _look(directory, {each.netns for each in questions if each.task})
        self._open: dict[int, tuple[socket.socket, PortQuestion]] = {}
        self._connected: set[int] = set()
        self._busy: list[PortQuestion] = []
        self._found: dict[PortQuestion, PortAnswer] = {}

    def run(self, within_s: float) -> list[PortAnswer]:
        with ExitStack() as opened:
            for question in self._questions:
                self._begin(opened, question)
            deadline = time.monotonic() + within_s
            while (self._open or self._busy) and time.monotonic() < deadline:
                self._look_again(opened)
                self._hear()
            for question in self._busy:
                self._tell(question, "waits")
            for number, (_, question) in self._open.items():
                self._tell(question, "waits" if number in self._connected else "silence")
        return [self._found[question] for question in self._questions]

    def _tell(self, asked: PortQuestion, outcome: Answering, what: str = "") -> None:
        space = self._spaces.get(asked.netns) if asked.task else None
        server = None if space is None else space.server(asked)
        instead: tuple[Bound, ...] = ()
        if space is not None and server is None:
            instead = bound_instead(space.sockets, space.only_ipv6, asked.protocol, asked.target, any_port=True)
        process = "" if server is None else server.process
        self._found[asked] = PortAnswer(asked=asked, outcome=outcome, what=what, process=process, instead=instead)

    def _begin(self, opened: ExitStack, asked: PortQuestion) -> None:
        space = self._spaces.get(asked.netns) if asked.task else None
        server = None if space is None else space.server(asked)
        if asked.protocol is Protocol.UDP:
            self._tell(asked, "unasked" if space is None else "unbound" if server is None else "bound")
        elif server is not None and is_stopped(server.pid):
            self._tell(asked, "stopped")
        elif server is not None and server.queued:
            self._busy.append(asked)
        else:
            self._connect(opened, asked)

    def _look_again(self, opened: ExitStack) -> None:
        """Ask those whose process has taken all that waited."""
        busy, self._busy = self._busy, []
        self._spaces |= _look(self._directory, {each.netns for each in busy}) if busy else {}
        for question in busy:
            self._begin(opened, question)

    def _connect(self, opened: ExitStack, asked: PortQuestion) -> None:
        try:
            if asked.task:
                with netns.entered(self._directory / names.SANDBOX):
                    made = opened.enter_context(socket.socket())
            else:
                made = opened.enter_context(socket.socket())
        except OSError as refusal:
            self._tell(asked, "unasked", str(refusal.strerror))
            return
        made.setblocking(False)
        failed = made.connect_ex((asked.address, asked.port))
        if failed not in (0, EINPROGRESS):
            self._end(None, asked, failed)
        else:
            self._open[made.fileno()] = made, asked

    def _hear(self) -> None:
        poll = select.poll()
        for number in self._open.keys() - self._connected:
            poll.register(number, select.POLLOUT)
        for number, _ in poll.poll(_PAUSE_S * 1000):
            made, asked = self._open[number]
            if failed := made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end(number, asked, failed)
            else:
                self._connected.add(number)
        waiting = self._unaccepted()
        for number in list(self._connected & self._open.keys()):
            made, asked = self._open[number]
            if (asked.target, made.getsockname()[1]) not in waiting.get(asked.netns, ()):
                self._tell(asked, "accepted")
                del self._open[number]

    def _unaccepted(self) -> Mapping[str, set[tuple[int, int]]]:
        """By namespace, of those where connections have been made."""
        found = {}
        for name in {asked.netns for number, (_, asked) in self._open.items() if number in self._connected and asked.task}:
            try:
                with netns.entered(self._directory / name):
                    found[name] = unaccepted()
            except OSError:
                found[name] = set[tuple[int, int]]()  # it is gone, and so is the task
        return found

    def _end(self, number: int | None, asked: PortQuestion, failed: int) -> None:
        if number is not None:
            del self._open[number]
        refused = failed == ECONNREFUSED
        self._tell(asked, "refused" if refused else "silence", "" if refused else os.strerror(failed))


def _look(directory: Path, spaces: Iterable[str]) -> dict[str, _Space | None]:
    """Who waits in namespaces, by their names; None where that can't be told. All processes are searched for at once."""
    waiting = {name: _sockets(directory / name) for name in spaces}
    processes = PROCESSES.of({each.inode for found in waiting.values() for each in found or ()})
    return {name: None if found is None else _Space(*told(found, processes)) for name, found in waiting.items()}


def _sockets(path: Path) -> list[Waiting] | None:
    try:
        with netns.entered(path):
            return sockets()
    except OSError:
        return None
