"""libnftables, in a process of its own: what this one keeps open does not matter to it, nor does its end to us (docs/adr/0014).

It is not for several threads, even with a context each: two listings at once mix up the types of concatenations. The process
takes one question at a time. Source: libnftables(3).
"""

import atexit
import itertools
import os
from collections.abc import Sequence
from errno import ESTALE
from typing import NamedTuple

from routemesh.coprocess import nft
from routemesh.coprocess.client import Coprocess
from routemesh.errors import Unavailable
from routemesh.kernel import netns
from routemesh.legible import decoded

PROCESS = Coprocess("nft")
atexit.register(PROCESS.close)

_numbers = itertools.count(1)
_AT_ONCE = 0


class Answer(NamedTuple):
    """nft's return value (0: done), what it printed, and why it refused."""

    code: int
    printed: str
    error: str


class Context:
    """A context of the calling thread's namespace that is kept: a table with `flags owner` lives as long.

    Raises Unavailable where there is no libnftables, OSError when the process can't be asked or already has hundreds.
    """

    def __init__(self, text: str) -> None:
        """Carry out `text`; how that went is in `made`."""
        self._number = next(_numbers) & 0xFFFFFFFF or next(_numbers)
        self.made = _here(self._number, text, ())

    def run(self, text: str, *flags: str) -> Answer:
        """As the function `run`; raises OSError with ESTALE when the process has ended meanwhile, and the context with it."""
        return _ask(self._number, text, flags, ())

    def close(self) -> None:
        """Let go of it. Raises OSError."""
        _ask(self._number, "", (), ())


def run(text: str, *flags: str) -> Answer:
    """Carry out nft commands in the calling thread's namespace; `flags` are some of coprocess.nft.FLAGS.

    Raises Unavailable where there is no libnftables, OSError when the process can't be asked.
    """
    return _here(_AT_ONCE, text, flags)


def _here(number: int, text: str, flags: Sequence[str]) -> Answer:
    namespace = netns.open_current()
    try:
        return _ask(number, text, flags, (namespace,))
    finally:
        os.close(namespace)


def _ask(number: int, text: str, flags: Sequence[str], namespaces: Sequence[int]) -> Answer:
    words = " ".join(flags).encode()
    question = nft.QUESTION.pack(number, len(words)) + words + text.encode(errors="backslashreplace")
    answer = PROCESS.ask(question, namespaces)
    status, code, length = nft.ANSWER.unpack_from(answer)
    printed = answer[nft.ANSWER.size :][:length].decode(errors="replace")  # in JSON \\xff would be no character
    error = decoded(answer[nft.ANSWER.size + length :])
    if status == nft.NO_LIBRARY:
        raise Unavailable(f"nftables can't be used: {error}; install Debian's libnftables1")
    if status == nft.REFUSED:
        raise OSError(code, os.strerror(code))
    if status == nft.LOST:
        raise OSError(ESTALE, "the process that had the table has ended")
    return Answer(code, printed, error)
