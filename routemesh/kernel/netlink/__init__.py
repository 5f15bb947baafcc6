"""Netlink: messages, attributes, and a socket that sends requests and reads what comes back.

Only what rtnetlink needs. A request socket stays in the network namespace in which it was made, whichever namespace the calling
thread is in later; those of a Pool are opened in their namespace when needed, and those longest unused are closed. Refusals are
OSErrors whose strerror is the kernel's own sentence where it gave one (extended ACK).
Source: netlink(7), rtnetlink(7), include/uapi/linux/netlink.h; numbers are fixed by the kernel's ABI.
"""

import os
import re
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from errno import EBADMSG, EINVAL
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

from routemesh.legible import decoded

SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _GET_STRICT_CHECK = 10, 11, 12

REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_DUMP_INTERRUPTED, _HAS_ATTRIBUTES = 0x10, 0x200
_ERROR, _DONE = 2, 3
_ACK_TEXT = 1
_NESTED = 0x8000
_KIND_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct("=I")
_ERRNO = struct.Struct("=i")

_OCTET = re.compile("[0-9a-fA-F]{2}")

_BATCH = 256
"""Messages per send: their refusals, at worst one each, fit in the socket's receive buffer."""
_ANSWER_WITHIN_S = 10
_DUMP_ATTEMPTS = 5
BUFFER_BYTES = 65536

Attributes = dict[int, bytes]

P = ParamSpec("P")
T = TypeVar("T")


class Message(NamedTuple):
    """A request: message type, flags besides NLM_F_REQUEST, family header and attributes."""

    kind: int
    flags: int
    body: bytes


class Reply(NamedTuple):
    """A message that the kernel sent; `port` is the port id of the socket that caused it, 0 for the kernel itself."""

    kind: int
    flags: int
    sequence: int
    port: int
    body: bytes


# --- attributes --------------------------------------------------------------------------------------------------


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    """A string attribute."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """An 8-bit attribute."""
    return attribute(kind, bytes((value,)))


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the machine's byte order."""
    return attribute(kind, _U32.pack(value))


def mac(kind: int, value: str) -> bytes:
    """A MAC address as an attribute. Raises OSError when it is none."""
    octets = value.split(":")
    if len(octets) != 6 or not all(_OCTET.fullmatch(octet) for octet in octets):
        raise OSError(EINVAL, f"{value} is not a MAC address")
    return attribute(kind, bytes.fromhex("".join(octets)))


def nest(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def parse(data: bytes, offset: int = 0) -> Attributes:
    """The attributes in `data` from `offset` on, by kind; of repeated kinds the last."""
    found: Attributes = {}
    end = len(data) - 4
    while offset <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & _KIND_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def parse_list(data: bytes) -> Iterator[bytes]:
    """The values of the attributes in `data`, in order, where all are of one kind."""
    offset = 0
    while offset <= len(data) - 4:
        length, _ = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        yield data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def as_text(value: bytes) -> str:
    """A string attribute's value."""
    return decoded(value.rstrip(b"\0"))


def as_u32(value: bytes) -> int:
    """A 32-bit attribute's value."""
    return int(_U32.unpack(value)[0])


def reader(read: Callable[P, T]) -> Callable[P, T]:
    """For what takes a message apart: it raises OSError with EBADMSG where that is not made as the kernel's headers say."""

    @wraps(read)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (LookupError, ValueError, TypeError, struct.error) as exc:
            raise OSError(EBADMSG, f"the kernel's answer is not understood ({read.__name__}: {exc!r})") from exc

    return guarded


def replies(data: bytes) -> Iterator[Reply]:
    """The messages in one datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield Reply(kind, flags, sequence, port, data[offset + 16 : offset + length])
        offset += (length + 3) & ~3


# --- the socket --------------------------------------------------------------------------------------------------


class SocketPool:
    """At most `limit` open sockets of any number of Requests; for one thread at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[Requests, None] = {}

    def used(self, requests: "Requests") -> None:
        """Note that its socket is open and needed now."""
        self._open.pop(requests, None)
        self._open[requests] = None
        if len(self._open) > self._limit:
            next(iter(self._open)).close()

    def closed(self, requests: "Requests") -> None:
        """Note that its socket is closed."""
        self._open.pop(requests, None)


class Requests:
    """A socket bound to `port` (0: any), in the calling thread's network namespace or in the one to which `enter` leads.

    With `pool`, it is open for as long as that lets it; its methods then raise OSError where it can't be opened, too.
    """

    def __init__(
        self,
        port: int = 0,
        protocol: int = socket.NETLINK_ROUTE,
        enter: Callable[[], AbstractContextManager[None]] = nullcontext,
        pool: SocketPool | None = None,
    ) -> None:
        self._port = port
        self._protocol = protocol
        self._enter = enter
        self._pool = pool
        self._sequence = 0
        self._socket: socket.socket | None = None
        if pool is None:
            self._socket = self._opened()

    def execute(self, messages: Sequence[Message]) -> list[OSError | None]:
        """Send `messages` in order; per message its refusal, or None. A refusal does not stop those that follow."""
        outcome: list[OSError | None] = []
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            first = self._sequence + 1
            refused = {reply.sequence: _refusal(reply) for reply in self._exchange(batch) if reply.kind == _ERROR}
            outcome += [refused.get(first + number) for number in range(len(batch))]
        return outcome

    def ask(self, message: Message) -> list[Reply]:
        """What answers one request; raises OSError when it is refused."""
        found = self._exchange([message])
        for reply in found:
            if reply.kind == _ERROR:
                raise _refusal(reply)
        return found

    def dump(self, kind: int, body: bytes) -> list[Reply]:
        """A whole table; asked for again when it changed meanwhile. Raises OSError when it is refused."""
        message = Message(kind, _DUMP, body)
        for _ in range(_DUMP_ATTEMPTS):
            found = self.ask(message)
            if not any(reply.flags & _DUMP_INTERRUPTED for reply in found):
                break
        return found

    def close(self) -> None:
        """Close the socket; one of a pool is opened again when it is needed."""
        if self._socket is not None:
            self._socket.close()
        if self._pool is not None:
            self._socket = None
            self._pool.closed(self)

    def _opened(self) -> socket.socket:
        with self._enter():
            made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol)
        try:
            for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHECK):
                made.setsockopt(SOL_NETLINK, option, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _ANSWER_WITHIN_S, 0))
            made.bind((self._port, 0))
        except BaseException:
            made.close()
            raise
        return made

    def _ready(self) -> socket.socket:
        if self._socket is None:
            self._socket = self._opened()
        if self._pool is not None:
            self._pool.used(self)
        return self._socket

    def _exchange(self, messages: Sequence[Message]) -> list[Reply]:
        """Send in one datagram; what comes back. Only the last message asks for an acknowledgement, refusals come unasked."""
        last = self._sequence + len(messages)
        parts = []
        for message in messages:
            self._sequence += 1
            flags = message.flags | _REQUEST | (_ACK if self._sequence == last else 0)
            parts.append(_HEADER.pack(_HEADER.size + len(message.body), message.kind, flags, self._sequence, 0))
            parts.append(message.body)
        asked = self._ready()
        asked.send(b"".join(parts))
        return list(_until(asked, last, len(messages)))


def _until(asked: socket.socket, last: int, count: int) -> Iterator[Reply]:
    while True:
        for reply in replies(asked.recv(BUFFER_BYTES)):
            if not 0 <= last - reply.sequence < count:
                continue  # the late answer to a request that was given up
            ends = reply.kind in (_ERROR, _DONE)
            if not ends or _errno(reply):
                yield Reply(_ERROR, *reply[1:]) if ends else reply
            if ends and reply.sequence == last:
                return


@reader
def _errno(reply: Reply) -> int:
    return -int(_ERRNO.unpack_from(reply.body)[0])


def _refusal(reply: Reply) -> OSError:
    """The error with the kernel's own sentence, which stands in an attribute after the (capped) request's header."""
    number = _errno(reply)
    said = parse(reply.body, _ERRNO.size + _HEADER.size).get(_ACK_TEXT) if reply.flags & _HAS_ATTRIBUTES else None
    return OSError(number, as_text(said).rstrip(".") if said else os.strerror(number))
