"""libnftables in a process of its own: its sockets must stay below FD_SETSIZE, and it ends its process where it gets none.

A question: struct QUESTION, the output flags as words, and nft's text, with a descriptor of the namespace in which a context is
to be made. Context 0 is made for one command; others are kept until a question without text. An answer: struct ANSWER, what
nft printed, why it refused.
Source: libnftables(3); src/mnl.c (mnl_batch_talk: FD_SET), src/libnftables.c, src/netlink.c (exit in netlink_open_error).
"""

import ctypes
import os
import resource
import signal
import socket
import struct
from contextlib import suppress
from errno import EMFILE
from typing import TYPE_CHECKING

from routemesh.coprocess import frames

if TYPE_CHECKING:
    from nftables import Nftables

QUESTION = struct.Struct("=II")
"""The context, and the length of the flags."""
ANSWER = struct.Struct("=iiI")
"""One of the next four; nft's return value or an errno; how many of the bytes that follow were printed."""
DONE, REFUSED, LOST, NO_LIBRARY = 0, 1, 2, 3
"""Carried out, though nft may have refused it; the system refused; no such context (any more); no libnftables on this machine."""
FLAGS = ("handle", "json", "numeric_proto", "stateless", "terse")
"""Output flags that can be asked for, as the binding calls them."""

_FD_SETSIZE = 1024
_MOST_CONTEXTS = _FD_SETSIZE // 2
_CLONE_NEWNET = 0x40000000
_STDERR = 2


class _Server:
    """Raises OSError where there is no libnftables."""

    def __init__(self) -> None:
        from nftables import Nftables

        self._make = Nftables
        self._make()
        self._kept: dict[int, Nftables] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        with suppress(OSError):  # without privileges every question is refused anyway
            self._check(self._libc.unshare(_CLONE_NEWNET))  # its own namespace, so that it keeps nobody else's alive
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def answer(self, question: frames.Frame) -> bytes:
        number, length = QUESTION.unpack_from(question.body)
        flags = question.body[QUESTION.size : QUESTION.size + length].decode().split()
        text = question.body[QUESTION.size + length :]
        if not text:
            self._kept.pop(number, None)
            return _answer(DONE)
        try:
            context = self._context(number, question.descriptors)
        except OSError as exc:
            return _answer(REFUSED, exc.errno or 0)
        if context is None:
            return _answer(LOST)
        for flag in FLAGS:
            getattr(context, f"set_{flag}_output")(flag in flags)
        code, printed, error = context.cmd(text)  # bytes in, bytes out: names need not be UTF-8
        return _answer(DONE, code, printed, error)

    def _context(self, number: int, namespaces: list[int]) -> "Nftables | None":
        if not namespaces:
            return self._kept.get(number)
        if number and len(self._kept) >= _MOST_CONTEXTS:
            raise OSError(EMFILE, os.strerror(EMFILE))
        self._check(self._libc.setns(namespaces[0], _CLONE_NEWNET))
        try:
            context = self._make()
        finally:
            self._check(self._libc.setns(self._home, _CLONE_NEWNET))
        if number:
            self._kept[number] = context
        return context

    @staticmethod
    def _check(result: int) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def _answer(status: int, number: int = 0, printed: bytes = b"", error: bytes = b"") -> bytes:
    return ANSWER.pack(status, number, len(printed)) + printed + error


def main() -> None:
    """Answer questions from standard input, a socket, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _FD_SETSIZE), hard))
    asked = socket.socket(fileno=0)
    server: _Server | None = None
    missing = ""
    try:
        server = _Server()
    except OSError as exc:
        missing = str(exc)
    while (question := frames.receive(asked)) is not None:
        os.ftruncate(_STDERR, 0)  # nft's complaints while it answered others
        os.lseek(_STDERR, 0, os.SEEK_SET)
        reply = _answer(NO_LIBRARY, error=missing.encode()) if server is None else server.answer(question)
        for descriptor in question.descriptors:
            os.close(descriptor)
        frames.send(asked, reply)


if __name__ == "__main__":
    main()
