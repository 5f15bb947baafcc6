"""Messages on a stream socket between a process and its coprocess: a length, that many bytes, and descriptors with the length."""

import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

_LENGTH = struct.Struct("=I")
_BLOCK_BYTES = 1 << 16
_MOST_DESCRIPTORS = 4


class Frame(NamedTuple):
    """A message, and the descriptors that came with it: the receiver closes them."""

    body: bytes
    descriptors: list[int]


def send(to: socket.socket, body: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send a message of less than 4 GiB. Raises OSError, TimeoutError as the socket does."""
    length = _LENGTH.pack(len(body))
    if descriptors:
        socket.send_fds(to, [length], descriptors)
        to.sendall(body)
    else:
        to.sendall(length + body)


def receive(of: socket.socket) -> Frame | None:
    """The next message; None when the other side is gone. Raises OSError, TimeoutError as the socket does."""
    head, descriptors, _, _ = socket.recv_fds(of, _LENGTH.size, _MOST_DESCRIPTORS)
    body = None
    if head and (rest := _exactly(of, _LENGTH.size - len(head))) is not None:
        body = _exactly(of, _LENGTH.unpack(head + rest)[0])
    if body is None:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    return Frame(body, descriptors)


def _exactly(of: socket.socket, count: int) -> bytes | None:
    blocks = []
    while count:
        block = of.recv(min(count, _BLOCK_BYTES))
        if not block:
            return None
        blocks.append(block)
        count -= len(block)
    return b"".join(blocks)
