"""A task that takes whatever comes and answers as each case has it; it keeps what it was asked."""

import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress

from tests.gateway.message import Message, Stream, read_body, read_head

PATIENCE_S = 5.0
Answer = bytes | Callable[["Asked"], None]


class Asked:
    """One request under way: for answers that are more than bytes after it."""

    def __init__(self, connection: socket.socket, stream: Stream, request: Message) -> None:
        self.connection, self.stream, self.request = connection, stream, request

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def body(self) -> None:
        """Read the request's body."""
        read_body(self.stream, self.request, answer=False)

    def reset(self) -> None:
        """Leave with a RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raise EOFError


class Origin:
    """Listens on 127.0.0.1 until it is closed. `answers` by the name of a case, which requests have as X-Case."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = answers
        self.requests: dict[str, list[Message]] = defaultdict(list)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):  # it was closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError, EOFError):
            connection.settimeout(PATIENCE_S)
            stream = Stream(connection)
            while True:
                request = read_head(stream)
                case = b"".join(request.get(b"x-case")[:1]).decode()
                self.requests[case].append(request)
                answer = self.answers.get(case, b"HTTP/1.1 404 No Such Case\r\nContent-Length: 0\r\n\r\n")
                asked = Asked(connection, stream, request)
                if callable(answer):
                    answer(asked)
                    continue
                asked.body()
                connection.sendall(answer)
                if b"\r\nConnection: close" in answer:
                    return
