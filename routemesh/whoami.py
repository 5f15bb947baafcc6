"""A small server that says who answered and who asked: over HTTP as the tutorial's whoami image does, over UDP likewise.

    GET /          Name, Hostname, every IP, RemoteAddr, then the request as it came in
    GET /health    200, or the status code that the last POST /health had as its body
    a datagram     the same head, then `Echo: ` and the datagram

Many of these start at once on few processors, hence one thread, one selector, and no slow module of the standard library
(asyncio 35 ms, http.server 35 ms, dataclasses 13 ms, argparse 6 ms). Sources: github.com/traefik/whoami app.go; RFC 9112.
"""

import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 1024 * 1024
MAX_OUTBOX_BYTES = 256 * 1024
CACHE_S = 1.0
LINGER_S = 0.5
"""How long connections that still owe or are owed something may stay open after SIGTERM."""

PHRASES = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 411: "Length Required",
    413: "Content Too Large", 431: "Request Header Fields Too Large", 503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}  # fmt: skip


class RequestRefused(Exception):
    """A request that gets an error status and the end of its connection."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Request:
    """One HTTP/1.x request. `headers` are its lines as they came in."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "start_line")

    def __init__(self, start_line: str, headers: list[str]) -> None:
        parts = start_line.split(" ")
        if len(parts) != 3 or not all(parts):
            raise RequestRefused(400)
        self.method, self.path, version = parts
        if not version.startswith("HTTP/1."):
            raise RequestRefused(505 if version.startswith("HTTP/") else 400)
        self.start_line = start_line
        self.headers = headers
        self.body = b""
        connection = _field(headers, "connection").lower()
        self.keep_alive = "keep-alive" in connection if version == "HTTP/1.0" else "close" not in connection


def _field(headers: list[str], name: str) -> str:
    for line in headers:
        key, _, value = line.partition(":")
        if key.lower() == name:
            return value.strip(" \t")
    return ""


def _body_length(headers: list[str]) -> int:
    if any(not line.partition(":")[1] or line[0] in " \t" or " " in line.partition(":")[0] for line in headers):
        raise RequestRefused(400)
    if _field(headers, "transfer-encoding"):
        raise RequestRefused(411)
    length = _field(headers, "content-length") or "0"
    if not (length.isascii() and length.isdigit()) or len(length) > 18:
        raise RequestRefused(400)
    if int(length) > MAX_BODY_BYTES:
        raise RequestRefused(413)
    return int(length)


def take_request(inbox: bytearray) -> Request | None:
    """Take the first whole request off `inbox`; None when there is none yet. Raises RequestRefused."""
    while inbox[:2] == b"\r\n":
        del inbox[:2]
    end = inbox.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
    if end < 0:
        if len(inbox) >= MAX_HEAD_BYTES:
            raise RequestRefused(431)
        return None
    start_line, *headers = inbox[:end].decode("latin-1").split("\r\n")
    request = Request(start_line, headers)
    body = end + 4
    body_end = body + _body_length(headers)
    if len(inbox) < body_end:
        return None
    request.body = bytes(inbox[body:body_end])
    del inbox[:body_end]
    return request


def addresses() -> list[str]:
    """Every address of every interface of this network namespace, in the interfaces' order. Source: rtnetlink(7)."""
    get_address, dump, done_or_error = 22, 0x301, (2, 3)
    found: list[tuple[int, str]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.send(struct.pack("=IHHIIBBBBI", 24, get_address, dump, 1, 0, 0, 0, 0, 0, 0))
        while True:
            reply = netlink.recv(65536)
            while reply:
                length, kind = struct.unpack_from("=IH", reply)
                if kind in done_or_error:
                    return [address for _, address in sorted(found, key=lambda entry: entry[0])]
                found.extend(_address_message(reply[16:length]))
                reply = reply[(length + 3) & ~3 :]


def _address_message(message: bytes) -> Iterator[tuple[int, str]]:
    family, _, _, _, index = struct.unpack_from("=BBBBI", message)
    wanted = {socket.AF_INET: 2, socket.AF_INET6: 1}.get(family)  # IFA_LOCAL, IFA_ADDRESS
    rest = message[8:]
    while len(rest) >= 4:
        length, kind = struct.unpack_from("=HH", rest)
        if kind == wanted:
            yield index, socket.inet_ntop(family, rest[4:length])
        rest = rest[(length + 3) & ~3 :]


class Answers:
    """What is answered to whom. `health` is the status of /health."""

    def __init__(self, name: str) -> None:
        self.health = 200
        self._name = name
        self._read_at = -CACHE_S
        self._head = self._date = ""

    def _refresh(self) -> None:
        now = time.monotonic()
        if now < self._read_at + CACHE_S:
            return
        self._read_at = now
        lines = [f"Name: {self._name}"] if self._name else []
        lines += [f"Hostname: {socket.gethostname()}", *(f"IP: {address}" for address in addresses())]
        self._head = "\n".join(lines)
        self._date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())

    def datagram(self, data: bytes, peer: tuple[str, int]) -> bytes:
        """The answer to a datagram."""
        self._refresh()
        return f"{self._head}\nRemoteAddr: {peer[0]}:{peer[1]}\nEcho: ".encode() + data

    def response(self, request: Request, peer: tuple[str, int], *, close: bool) -> bytes:
        """The answer to a request, whole."""
        self._refresh()
        if request.path.partition("?")[0] == "/health":
            return self._response(self._health(request), "", close=close, body_wanted=False)
        head = "\n".join((self._head, f"RemoteAddr: {peer[0]}:{peer[1]}", request.start_line, *request.headers))
        return self._response(200, head + "\n\n", close=close, body_wanted=request.method != "HEAD")

    def refusal(self, status: int) -> bytes:
        """The answer to what is not an acceptable request; the connection ends with it."""
        self._refresh()
        return self._response(status, f"{status} {PHRASES[status]}\n", close=True, body_wanted=True)

    def _health(self, request: Request) -> int:
        if request.method != "POST":
            return self.health
        code = request.body.decode("latin-1").strip()
        if not (len(code) == 3 and code.isascii() and code.isdigit() and "200" <= code <= "599"):
            return 400
        self.health = int(code)
        return 200

    def _response(self, status: int, text: str, *, close: bool, body_wanted: bool) -> bytes:
        body = text.encode("latin-1", "replace")
        head = (
            f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\nDate: {self._date}\r\n"
            f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        )
        end = "Connection: close\r\n\r\n" if close else "\r\n"
        return (head + end).encode() + (body if body_wanted else b"")


class Connection:
    """One client over TCP. `last`: it ends when the outbox is sent. `refused`: what it still sends is thrown away first."""

    __slots__ = ("_refused", "answered", "discarded", "inbox", "last", "outbox", "peer", "sock")

    def __init__(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.sock = sock
        self.peer = peer
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.answered = self.last = self._refused = False
        self.discarded = 0

    @property
    def idle(self) -> bool:
        """Whether it has had an answer and owes or is owed nothing."""
        return self.answered and not self.inbox and not self.outbox

    def step(self, answers: Answers, *, readable: bool, closing: bool) -> int:
        """Read, answer and send what is possible now; the events to wait for next, 0 to close."""
        ended = False
        if readable:
            data = self.sock.recv(65536)
            ended = not data
            self.inbox += data
        if self._refused and not self.outbox:
            return self._discard(ended)
        self._answer(answers, closing)
        while self.outbox:
            del self.outbox[: self._send()]
            if self.outbox:
                return selectors.EVENT_WRITE
            self._answer(answers, closing)
        if self._refused:
            self.sock.shutdown(socket.SHUT_WR)
            return self._discard(ended)
        return 0 if ended or self.last else selectors.EVENT_READ

    def _answer(self, answers: Answers, closing: bool) -> None:
        """Put the answers to what has come in whole into the outbox, until that is full."""
        while not self.last and len(self.outbox) < MAX_OUTBOX_BYTES:
            try:
                request = take_request(self.inbox)
            except RequestRefused as refused:
                self.outbox += answers.refusal(refused.status)
                self.last = self._refused = True
                return
            if request is None:
                return
            self.last = closing or not request.keep_alive
            self.outbox += answers.response(request, self.peer, close=self.last)
            self.answered = True

    def _send(self) -> int:
        try:
            return self.sock.send(self.outbox)
        except BlockingIOError:
            return 0

    def _discard(self, ended: bool) -> int:
        """Closing with unread input would reset the connection, and the client might never see its answer."""
        self.discarded += len(self.inbox)
        self.inbox.clear()
        return 0 if ended or self.discarded > MAX_BODY_BYTES else selectors.EVENT_READ


class Server:
    """One TCP and one UDP socket on one port, served until `stop` or SIGTERM."""

    def __init__(self, port: int, answers: Answers) -> None:
        self._answers = answers
        self._connections: dict[int, Connection] = {}
        self._selector = selectors.DefaultSelector()
        self._stop_at: float | None = None
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._tcp = _bound(socket.SOCK_STREAM, port)
        self.port: int = self._tcp.getsockname()[1]
        self._udp = _bound(socket.SOCK_DGRAM, self.port)
        self._udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._tcp.listen(4096)
        for sock, handler in ((self._wake, self._woken), (self._tcp, self._accept), (self._udp, self._datagrams)):
            self._selector.register(sock, selectors.EVENT_READ, handler)

    def stop(self) -> None:
        """Stop accepting and end when what came in is answered; safe in a signal handler, from any thread, and after the end."""
        with suppress(OSError):  # it has ended
            self._waker.send(b"x")

    def run(self) -> None:
        """Serve until stopped."""
        while self._stop_at is None or (self._connections and time.monotonic() < self._stop_at):
            timeout = None if self._stop_at is None else max(0.0, self._stop_at - time.monotonic())
            for key, events in self._selector.select(timeout):
                if isinstance(key.data, Connection):
                    self._serve(key.data, events)
                else:
                    key.data()
        for connection in tuple(self._connections.values()):
            self._drop(connection)
        for sock in (self._udp, self._wake, self._waker):
            sock.close()
        self._selector.close()

    def _woken(self) -> None:
        self._wake.recv(64)
        if self._stop_at is not None:
            return
        self._stop_at = time.monotonic() + LINGER_S
        self._accept()
        self._selector.unregister(self._tcp)
        self._tcp.close()
        for connection in tuple(self._connections.values()):
            if connection.idle:
                self._drop(connection)

    def _accept(self) -> None:
        for _ in range(128):
            try:
                sock, peer = self._tcp.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor left (accept(2) EMFILE), or the client has gone already
                self._drop_oldest()
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, peer)
            self._connections[sock.fileno()] = connection
            self._selector.register(sock, selectors.EVENT_READ, connection)

    def _serve(self, connection: Connection, events: int) -> None:
        if connection.sock.fileno() < 0:
            return  # dropped by an earlier event of this round
        closing = self._stop_at is not None
        try:
            wanted = connection.step(self._answers, readable=bool(events & selectors.EVENT_READ), closing=closing)
        except OSError:
            wanted = 0
        if not wanted or (closing and connection.idle):
            self._drop(connection)
        elif self._selector.get_key(connection.sock).events != wanted:
            self._selector.modify(connection.sock, wanted, connection)

    def _drop(self, connection: Connection) -> None:
        del self._connections[connection.sock.fileno()]
        self._selector.unregister(connection.sock)
        connection.sock.close()

    def _drop_oldest(self) -> None:
        if self._connections:
            self._drop(next(iter(self._connections.values())))

    def _datagrams(self) -> None:
        for _ in range(128):
            try:
                data, ancillary, _, peer = self._udp.recvmsg(65535, 64)
                self._udp.sendmsg([self._answers.datagram(data, peer)], _reply_source(ancillary), 0, peer)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier answer, or an answer longer than a datagram


_IP_PKTINFO = 8


def _reply_source(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Answer from the address that was asked: the route to the client may prefer another. Source: ip(7) IP_PKTINFO."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            return [(level, kind, struct.pack("=i", 0) + data[4:8] + b"\0\0\0\0")]
    return []


def _bound(kind: socket.SocketKind, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setblocking(False)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("", port))
    except OSError as error:
        sock.close()
        protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
        error.strerror = f"can't listen on port {port}/{protocol}: {error.strerror}; choose another with --port"
        raise
    return sock


def _options(argv: list[str]) -> tuple[int, str, float]:
    """Port, name, delay in seconds. argparse is loaded only when there is something to parse."""
    port, name, delay_s = 80, os.environ.get("WHOAMI_NAME", ""), 0.0
    if not argv:
        return port, name, delay_s
    import argparse

    parser = argparse.ArgumentParser("routemesh whoami", description="Answer over HTTP and UDP: who answers, who asks.")
    parser.add_argument("--port", type=int, default=port, help="TCP and UDP port to listen on (default 80)")
    parser.add_argument("--name", default=name, help="a name to tell (default: $WHOAMI_NAME)")
    parser.add_argument("--delay", type=float, default=delay_s, metavar="SECONDS", help="wait before listening")
    options = parser.parse_args(argv)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port {options.port} is out of range 0-65535")
    return options.port, options.name, options.delay


def main(argv: list[str]) -> int:
    """Run the server until SIGTERM or SIGINT; the exit status."""
    port, name, delay_s = _options(argv)
    if delay_s > 0:
        time.sleep(delay_s)
    try:
        server = Server(port, Answers(name))
    except OSError as error:
        print(f"routemesh whoami: {error.strerror}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.stop())
    print(f"whoami listens on port {server.port} (tcp, udp)", flush=True)
    server.run()
    return 0
