"""HTTP/1 messages as they are on the wire: only framing is understood, so that no parser hides what a proxy changed."""

import socket
from dataclasses import dataclass, field

BLOCK = 65536


class Stream:
    """What comes from a socket, read in pieces."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.held = b""

    def more(self) -> bool:
        """Read some; False at the end, also where it is a reset."""
        try:
            block = self.connection.recv(BLOCK)
        except ConnectionError:
            return False
        self.held += block
        return bool(block)

    def until(self, *ends: bytes) -> bytes:
        """Up to the first of some ends, with it; raises EOFError where none comes."""
        while not (found := [at + len(end) for end in ends if (at := self.held.find(end)) >= 0]):
            if not self.more():
                raise EOFError
        return self.take(min(found))

    def exactly(self, size: int) -> bytes:
        """So many bytes; fewer at the end."""
        while len(self.held) < size and self.more():
            pass
        return self.take(size)

    def rest(self) -> bytes:
        """All until the end."""
        while self.more():
            pass
        return self.take(len(self.held))

    def take(self, size: int) -> bytes:
        """What is held, up to a size."""
        taken, self.held = self.held[:size], self.held[size:]
        return taken


@dataclass
class Message:
    """A request or an answer. Names of fields are in small letters; `complete`: its end was seen."""

    first: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    complete: bool = True

    def get(self, name: bytes) -> list[bytes]:
        """The values of a field."""
        return [value for key, value in self.fields if key == name]

    @property
    def status(self) -> int:
        """Of an answer; 0 where there is none in it."""
        words = self.first.split()
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def read_head(stream: Stream) -> Message:
    """The first line and the fields. Raises EOFError."""
    while not stream.held.lstrip(b"\r\n") and stream.more():
        stream.held = stream.held.lstrip(b"\r\n")
    head = stream.until(b"\r\n\r\n", b"\n\n")
    first, *lines = head.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    return Message(first, [_field(line) for line in lines])


def read_chunks(stream: Stream, message: Message) -> None:
    """A chunked body and its trailers."""
    pieces = []
    try:
        while size := int(stream.until(b"\n").split(b";")[0].strip(), 16):
            pieces.append(stream.exactly(size))
            stream.until(b"\n")
        while line := stream.until(b"\n").strip():
            message.trailers.append(_field(line))
    except (EOFError, ValueError):
        message.complete = False
    message.body = b"".join(pieces)


def read_body(stream: Stream, message: Message, *, answer: bool) -> None:
    """What follows the head, by what it says of it."""
    if any(b"chunked" in value.lower() for value in message.get(b"transfer-encoding")):
        read_chunks(stream, message)
    elif lengths := message.get(b"content-length"):
        size = int(lengths[0]) if lengths[0].isdigit() else 0
        message.body = stream.exactly(size)
        message.complete = len(message.body) == size
    elif answer:
        message.body = stream.rest()


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")
