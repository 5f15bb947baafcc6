"""Requests and answers as clients and tasks really send them, and as neither should.

A case's name is what the table in docs/gateway.md calls it. `send` is what the client sends, in pieces: bytes, seconds to wait,
or None for the end of its half of the connection.
"""

import base64
import hashlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.gateway.origin import Answer, Asked

HOST = "a.example"
KIB = 1024
DATE = b"Date: Mon, 30 Nov 2026 12:00:00 GMT\r\nServer: task\r\n"
_PAUSE_S = 0.05
SILENT_S, TIMEOUT_S = 3.5, 3.0
"""How long a task is silent in a case about that; what routemesh.http.timeout allows in the tests."""

Piece = bytes | float | None


@dataclass(frozen=True)
class Case:
    """One exchange.

    `answers`: how many the client waits for. `slowly`: it begins to read only after a while. `early`: the task answers before the
    request has ended.
    """

    name: str
    send: tuple[Piece, ...]
    answer: Answer
    answers: int = 1
    slowly: bool = False
    early: bool = False


def answer(body: bytes = b"hello\n", status: str = "200 OK", fields: str = "", date: bytes = DATE) -> bytes:
    """A whole answer with a length."""
    return f"HTTP/1.1 {status}\r\n".encode() + date + fields.encode("latin-1") + b"Content-Length: %d\r\n\r\n" % len(body) + body


OK = answer()


def request(
    start: str = "GET / HTTP/1.1", fields: str = "", body: bytes = b"", host: str | None = HOST, case: str = "CASE"
) -> bytes:
    """A request; CASE becomes the case's number."""
    at = "" if host is None else f"Host: {host}\r\n"
    return f"{start}\r\n{at}X-Case: {case}\r\n{fields}\r\n".encode("latin-1") + body


def sized(start: str, body: bytes, fields: str = "") -> bytes:
    """A request with a length."""
    return request(start, f"Content-Length: {len(body)}\r\n{fields}", body)


def chunked(body: bytes, size: int = 10_000, trailers: bytes = b"", extension: bytes = b"") -> bytes:
    """A body in chunks."""
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n%s\r\n" % trailers


def cases() -> list[Case]:
    """All of them."""
    parts = (
        _methods,
        _targets,
        _versions,
        _hosts,
        _fields,
        _sizes,
        _bodies,
        _upgrades,
        _interim,
        _answers,
        _framing,
        _slow,
        _ends,
    )
    found = [case for part in parts for case in part()]
    assert len({case.name for case in found}) == len(found)
    return found


# --- requests ----------------------------------------------------------------------------------------------------------


def _plain(name: str, *send: Piece, answer: Answer = OK) -> Case:
    return Case(name, send, answer)


def _methods() -> Iterator[Case]:
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "PURGE", "REPORT", "M-SEARCH", "TRACE"]:
        yield _plain(f"method {method}", request(f"{method} / HTTP/1.1", "Content-Length: 0\r\n" if method[0] == "P" else ""))
    yield _plain("method HEAD", request("HEAD / HTTP/1.1"), answer=b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Length: 6\r\n\r\n")
    yield _plain("method in small letters", request("get / HTTP/1.1"))
    yield _plain("method with `_`", request("M_SEARCH / HTTP/1.1"))
    yield _plain("method with a digit", request("GET2 / HTTP/1.1"))
    yield _plain("method of 40 letters", request(f"{'M' * 40} / HTTP/1.1"))
    yield _plain("method CONNECT", request("CONNECT a.example:443 HTTP/1.1", host="a.example:443"))
    yield _plain("OPTIONS *", request("OPTIONS * HTTP/1.1"))


def _targets() -> Iterator[Case]:
    targets = {
        "query": "/x?a=1&b=2",
        "query of `?` alone": "/x?",
        "two slashes in the path": "//a//b",
        "encoded letter": "/%61",
        "encoded slash": "/a%2Fb",
        "encoded NUL": "/a%00b",
        "`%` without digits": "/%zz",
        "`%` without digits in the query": "/?q=%zz",
        "`.` in the path": "/a/./b",
        "path that leads upwards": "/a/../b",
        "path that leads upwards, encoded": "/a/%2e%2e/b",
        "path that leads above the first": "/../b",
        "`..` in the query": "/a?x=/../",
        "parameters in the path": "/a;b=c/d;e",
        "space in the path": "/a b",
        "UTF-8 in the path": "/\u00c3\u00a9",
        "backslash in the path": "/a\\b",
        "quotes and braces in the path": "/\"{}|^`<>'",
        "fragment": "/a#b",
        "absolute target": "http://a.example/x",
        "absolute target without a path": "http://a.example",
        "absolute target for another host": "http://b.example/x",
        "absolute target with https": "https://a.example/x",
        "target without a slash": "x",
        "target of 4 KiB": "/" + "x" * 4 * KIB,
        "target of 7 KiB": "/" + "x" * 7 * KIB,
        "target of 14 KiB": "/" + "x" * 14 * KIB,
        "target of 40 KiB": "/" + "x" * 40 * KIB,
    }
    for name, target in targets.items():
        yield _plain(name, request(f"GET {target} HTTP/1.1"))


def _versions() -> Iterator[Case]:
    yield _plain("HTTP/1.0", request("GET / HTTP/1.0"))
    yield _plain("HTTP/1.0 without a host", request("GET / HTTP/1.0", host=None))
    yield _plain("HTTP/1.0 that keeps the connection", request("GET / HTTP/1.0", "Connection: keep-alive\r\n"))
    yield _plain("HTTP/1.1 without a host", request(host=None))
    yield _plain("HTTP/1.2", request("GET / HTTP/1.2"))
    yield _plain("HTTP/2 in the first line", request("GET / HTTP/2.0"))
    yield _plain("HTTP in small letters", request("GET / http/1.1"))
    yield _plain("two spaces in the first line", request("GET  / HTTP/1.1"))
    yield _plain("empty lines before the request", b"\r\n\r\n" + request())
    yield _plain("lines that end with LF alone", request().replace(b"\r\n", b"\n"))
    yield _plain("TLS where HTTP is spoken", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"r" * 160)


def _hosts() -> Iterator[Case]:
    hosts = {
        "host with a port": "a.example:80",
        "host with another port": "a.example:8443",
        "host with a port that is not a number": "a.example:x",
        "host with a trailing dot": "a.example.",
        "host with a trailing dot and a port": "a.example.:80",
        "host with two trailing dots": "a.example..",
        "host in capitals": "A.EXAMPLE",
        "host that no service has": "b.example",
        "host that is empty": "",
        "host with a user": "user@a.example",
        "host with a slash": "a.example/b",
        "host with a space": "a.example b",
        "host with `_`": "a_b.example",
        "host that is an IPv4 address": "127.0.0.1",
        "host that is an IPv6 address": "[::1]:80",
        "host of 300 letters": "x" * 300,
        "two hosts in one field": "a.example, b.example",
    }
    for name, host in hosts.items():
        yield _plain(name, request(host=host))
    yield _plain("host twice, the same", request(fields="Host: a.example\r\n"))
    yield _plain("host twice, different", request(fields="Host: b.example\r\n"))


def _fields() -> Iterator[Case]:
    fields = {
        "field name with `_`": "X_Under: 1",
        "field name with a dot": "X.Dot: 1",
        "field name with other token letters": "X!#$%&'*+^`|~: 1",
        "field name with a space before the colon": "X-Space : 1",
        "field name with a space in it": "X Space: 1",
        "field name that is empty": ": 1",
        "field name in UTF-8": "X-\u00c3\u00a9: 1",
        "field name with a parenthesis": "X(1): 1",
        "field name of 300 letters": f"{'X' * 300}: 1",
        "line without a colon": "X-Colon",
        "field that is empty": "X-Empty:",
        "field without a space": "X-Tight:1",
        "field with spaces around": "X-Wide:   1 \t ",
        "field with a tab in it": "X-Tab: 1\t2",
        "field twice": "X-Twice: 1\r\nX-Twice: 2",
        "field on two lines": "X-Folded: 1\r\n 2",
        "field in Latin-1": "X-Latin: \u00e9",
        "field with a control character": "X-Control: 1\x012",
        "field with NUL": "X-Nul: 1\x002",
        "field with a bare CR": "X-Return: 1\r2",
        "X-Forwarded-For of the client's": "X-Forwarded-For: 1.2.3.4",
        "X_Forwarded_For of the client's": "X_Forwarded_For: 1.2.3.4",
        "X_Real-IP of the client's": "X_Real-IP: 1.2.3.4",
        "Forwarded of the client's": "Forwarded: for=1.2.3.4",
        "Connection that names a field": "Connection: X-Hop\r\nX-Hop: 1",
        "Connection: close": "Connection: close",
        "Proxy-Connection": "Proxy-Connection: keep-alive",
        "Keep-Alive": "Keep-Alive: timeout=5",
        "TE: trailers": "TE: trailers\r\nConnection: TE",
        "Authorization": "Authorization: Basic YTpi",
        "two Cookie lines": "Cookie: a=1\r\nCookie: b=2",
        "Accept-Encoding": "Accept-Encoding: gzip, br",
        "Range": "Range: bytes=0-1",
        "If-None-Match": 'If-None-Match: "x"',
        "Via": "Via: 1.1 other",
        "Max-Forwards": "Max-Forwards: 0",
        "X-Accel-Redirect of the client's": "X-Accel-Redirect: /x",
    }
    for name, text in fields.items():
        yield _plain(name, request(fields=f"{text}\r\n"))


def _sizes() -> Iterator[Case]:
    for size in (1, 4, 7, 14, 20, 70):
        yield _plain(f"request with a field of {size} KiB", request(fields=f"X-Long: {'x' * size * KIB}\r\n"))
    for count in (50, 90, 120, 900):
        yield _plain(f"request with {count} fields", request(fields="".join(f"X-{n}: {n}\r\n" for n in range(count))))
    for size in (1, 4, 6, 14, 20, 70):
        yield Case(f"answer with a field of {size} KiB", (request(),), answer(fields=f"X-Long: {'x' * size * KIB}\r\n"))
    for count in (50, 90, 120, 900):
        many = "".join(f"X-{n}: {n}\r\n" for n in range(count))
        yield Case(f"answer with {count} fields", (request(),), answer(fields=many))


def _bodies() -> Iterator[Case]:
    for size, name in {0: "0 bytes", 1: "1 byte", KIB: "1 KiB", 64 * KIB: "64 KiB", 5 * KIB * KIB: "5 MiB"}.items():
        body = b"b" * size
        yield _plain(f"POST of {name}", sized("POST / HTTP/1.1", body))
        coded = request("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n", chunked(body))
        yield _plain(f"POST of {name} in chunks", coded)
        yield Case(f"answer of {name}", (request(),), answer(body))
        yield Case(
            f"answer of {name} in chunks",
            (request(),),
            b"HTTP/1.1 200 OK\r\n" + DATE + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body),
        )
    yield _plain("PUT of 1 KiB", sized("PUT / HTTP/1.1", b"b" * KIB))
    yield _plain("GET with a body", sized("GET / HTTP/1.1", b"body"))
    yield _plain("DELETE with a body", sized("DELETE / HTTP/1.1", b"body"))
    yield _plain("POST without a length", request("POST / HTTP/1.1"))
    chunk = "Transfer-Encoding: chunked\r\n"
    yield _plain("chunks with extensions", request("POST / HTTP/1.1", chunk, chunked(b"body", extension=b";a=b")))
    yield _plain("request with trailers", request("POST / HTTP/1.1", chunk, chunked(b"body", trailers=b"X-Trailer: 1\r\n")))
    yield _plain("chunk size that is not a number", request("POST / HTTP/1.1", chunk, b"x\r\nbody\r\n0\r\n\r\n"))
    yield _plain("chunk size of 17 digits", request("POST / HTTP/1.1", chunk, b"10000000000000000\r\nbody\r\n0\r\n\r\n"))
    yield _plain("chunk longer than its size", request("POST / HTTP/1.1", chunk, b"2\r\nbody\r\n0\r\n\r\n"))
    yield _plain("length and chunks", request("POST / HTTP/1.1", f"Content-Length: 4\r\n{chunk}", chunked(b"body")))
    yield _plain("length twice, the same", sized("POST / HTTP/1.1", b"body", "Content-Length: 4\r\n"))
    yield _plain("length twice, different", sized("POST / HTTP/1.1", b"body", "Content-Length: 5\r\n"))
    yield _plain("length with a sign", request("POST / HTTP/1.1", "Content-Length: +4\r\n", b"body"))
    yield _plain("length that is negative", request("POST / HTTP/1.1", "Content-Length: -1\r\n"))
    yield _plain(
        "Transfer-Encoding: gzip, chunked", request("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n", chunked(b"body"))
    )
    yield _plain(
        "Transfer-Encoding: identity", request("POST / HTTP/1.1", "Transfer-Encoding: identity\r\nContent-Length: 4\r\n", b"body")
    )
    yield _plain("chunks in HTTP/1.0", request("POST / HTTP/1.0", chunk, chunked(b"body")))
    yield Case("two requests at once", (request() + request("GET /2 HTTP/1.1"),), OK, answers=2)
    yield Case("two requests after one another", (request(), 0.1, request("GET /2 HTTP/1.1")), OK, answers=2)
    yield Case("POST and GET at once", (sized("POST / HTTP/1.1", b"body") + request(),), OK, answers=2)


# --- more than one direction -------------------------------------------------------------------------------------------


def _echo(asked: Asked) -> None:
    protocol = b"".join(asked.request.get(b"upgrade")[:1])
    if not protocol:
        asked.send(OK)
        return
    key = b"".join(asked.request.get(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    asked.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n" % protocol)
    asked.send(b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept)
    asked.send(b"echo:" + asked.stream.exactly(5))
    raise EOFError


def _upgrades() -> Iterator[Case]:
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    for protocol in ("websocket", "h2c", "anything/1"):
        upgrade = request(fields=f"Connection: Upgrade\r\nUpgrade: {protocol}\r\n{key}")
        yield _plain(f"Upgrade: {protocol}", upgrade, 0.2, b"12345", answer=_echo)
    yield _plain("Upgrade that the task declines", request(fields=f"Connection: Upgrade\r\nUpgrade: websocket\r\n{key}"))
    yield _plain("Upgrade without Connection", request(fields=f"Upgrade: websocket\r\n{key}"), answer=_echo)
    yield _plain("WebSocket without a key", request(fields="Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    both = f"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n{key}"
    yield _plain("Upgrade beside keep-alive", request(fields=both), 0.2, b"12345", answer=_echo)


def _continue(asked: Asked) -> None:
    if asked.request.get(b"expect"):
        asked.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    asked.body()
    asked.send(OK)


def _decline(asked: Asked) -> None:
    asked.send(answer(status="417 Expectation Failed", fields="Connection: close\r\n"))
    raise EOFError


def _interim() -> Iterator[Case]:
    expecting = request("POST / HTTP/1.1", "Content-Length: 4\r\nExpect: 100-continue\r\n")
    yield _plain("Expect: 100-continue", expecting, 0.2, b"body", answer=_continue)
    yield _plain("Expect: 100-continue, sent without waiting", expecting + b"body", answer=_continue)
    yield _plain("Expect: 100-continue that the task declines", expecting, answer=_decline)
    yield _plain("Expect of something else", request(fields="Expect: wonders\r\n"))
    for status in ("102 Processing", "103 Early Hints", "199 Whatever"):
        interim = f"HTTP/1.1 {status}\r\nLink: </x>\r\n\r\n".encode()
        yield Case(f"answer {status[:3]} before the answer", (request(),), interim + OK)


# --- answers -----------------------------------------------------------------------------------------------------------


def _answers() -> Iterator[Case]:
    for status in (201, 202, 206, 301, 400, 401, 403, 404, 413, 418, 429, 431, 444, 494, 499, 500, 502, 503, 504, 599, 700, 999):
        yield Case(f"answer {status}", (request(),), answer(status=f"{status} Status"))
    for status in (204, 304):
        yield Case(f"answer {status}", (request(),), f"HTTP/1.1 {status} Status\r\n".encode() + DATE + b"\r\n")
    yield Case("answer 304 with a length", (request(),), b"HTTP/1.1 304 Status\r\n" + DATE + b"Content-Length: 6\r\n\r\n")
    fields = {
        "answer without Date and Server": "",
        "answer with X-Accel-Redirect": "X-Accel-Redirect: /x",
        "answer with X-Accel-Buffering": "X-Accel-Buffering: no",
        "answer with two Set-Cookie": "Set-Cookie: a=1\r\nSet-Cookie: b=2",
        "answer with a name with `_`": "X_Under: 1",
        "answer with a name with a space": "X Space: 1",
        "answer with a field on two lines": "X-Folded: 1\r\n 2",
        "answer with a field in Latin-1": "X-Latin: \u00e9",
        "answer with a control character": "X-Control: 1\x012",
        "answer with NUL": "X-Nul: 1\x002",
        "answer with Location": "Location: http://a.example/y",
        "answer with Connection that names a field": "Connection: X-Hop\r\nX-Hop: 1",
        "answer with Content-Encoding": "Content-Encoding: gzip",
        "answer with Expires and Vary": "Expires: 0\r\nVary: *",
        "answer with ETag and Last-Modified": 'ETag: "x"\r\nLast-Modified: Mon, 30 Nov 2026 12:00:00 GMT',
        "answer with Refresh": "Refresh: 1; url=http://a.example/",
        "answer with Upgrade that nobody asked for": "Upgrade: h2c\r\nConnection: Upgrade",
    }
    for name, text in fields.items():
        date = b"" if "without Date" in name else DATE
        yield Case(name, (request(),), answer(fields=f"{text}\r\n" if text else "", date=date))


def _raw(*data: bytes, pause_s: float = 0.0, reset: bool = False) -> Answer:
    """Send just that, then close."""

    def send(asked: Asked) -> None:
        asked.body()
        for piece in data:
            asked.send(piece)
            time.sleep(pause_s)
        if reset:
            asked.reset()
        raise EOFError

    return send


def _framing() -> Iterator[Case]:
    head = b"HTTP/1.1 200 OK\r\n" + DATE
    raw = {
        "answer that ends with the connection": head + b"\r\nhello\n",
        "answer in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + DATE + b"Content-Length: 6\r\n\r\nhello\n",
        "answer in HTTP/1.0 that ends with the connection": b"HTTP/1.0 200 OK\r\n" + DATE + b"\r\nhello\n",
        "answer that closes": head + b"Connection: close\r\nContent-Length: 6\r\n\r\nhello\n",
        "answer without a reason": b"HTTP/1.1 200\r\n" + DATE + b"Content-Length: 6\r\n\r\nhello\n",
        "answer with a reason in UTF-8": b"HTTP/1.1 200 \xc3\xa9\r\n" + DATE + b"Content-Length: 6\r\n\r\nhello\n",
        "answer with lines that end with LF alone": (head + b"Content-Length: 6\r\n\r\n").replace(b"\r\n", b"\n") + b"hello\n",
        "answer in HTTP/2": b"HTTP/2 200\r\n" + DATE + b"Content-Length: 6\r\n\r\nhello\n",
        "answer in HTTP/0.9": b"hello\n",
        "answer that is garbage": b"\x00\x01\x02\x03\r\n\r\n",
        "answer with trailers": head
        + b"Trailer: X-Trailer\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunked(b"hello\n", trailers=b"X-Trailer: 1\r\n"),
        "answer with length and chunks": head + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello\n"),
        "answer with its length twice": head + b"Content-Length: 6\r\nContent-Length: 6\r\n\r\nhello\n",
        "answer with two lengths": head + b"Content-Length: 6\r\nContent-Length: 7\r\n\r\nhello\n",
        "answer with a length that is not a number": head + b"Content-Length: x\r\n\r\nhello\n",
        "answer longer than its length": head + b"Content-Length: 3\r\n\r\nhello\n",
        "answer shorter than its length": head + b"Content-Length: 60\r\n\r\nhello\n",
        "answer that breaks off in its head": b"HTTP/1.1 200 OK\r\nDate",
        "answer that breaks off in a chunk": head + b"Transfer-Encoding: chunked\r\n\r\nff\r\nhello\n",
        "no answer, the connection closed": b"",
        "body after 204": b"HTTP/1.1 204 No Content\r\n" + DATE + b"Content-Length: 6\r\n\r\nhello\n",
    }
    for name, data in raw.items():
        yield _plain(name, request(), answer=_raw(data))
    yield _plain("no answer to a POST, the connection closed", sized("POST / HTTP/1.1", b"body"), answer=_raw(b""))
    yield _plain("no answer, the connection reset", request(), answer=_raw(b"", reset=True))
    length = b"Content-Length: 60\r\n\r\nhello\n"
    yield _plain("answer that is reset in its body", request(), answer=_raw(head + length, pause_s=_PAUSE_S, reset=True))
    yield _plain("body to HEAD", request("HEAD / HTTP/1.1"), answer=_raw(head + b"Content-Length: 6\r\n\r\nhello\n"))


# --- time --------------------------------------------------------------------------------------------------------------


def _slow() -> Iterator[Case]:
    def piecemeal(data: bytes) -> tuple[Piece, ...]:
        return tuple(piece for at in range(0, len(data), 4) for piece in (data[at : at + 4], 0.01))

    head = b"HTTP/1.1 200 OK\r\n" + DATE
    yield Case("request that comes by 4 bytes", piecemeal(request()), OK)
    yield Case("POST whose body pauses", (sized("POST / HTTP/1.1", b"b" * 8)[:-4], 0.3, b"bbbb"), OK)
    whole = answer()
    by_four = tuple(whole[at : at + 4] for at in range(0, len(whole), 4))
    yield _plain("answer that comes by 4 bytes", request(), answer=_raw(*by_four, pause_s=0.01))
    pausing = (head + b"Content-Length: 6\r\n\r\n", b"hel", b"lo\n")
    yield _plain("answer whose body pauses", request(), answer=_raw(*pausing, pause_s=0.3))
    yield _plain("answer later than the timeout", request(), answer=_late)
    yield Case("5 MiB for a client that reads late", (request(),), answer(b"b" * 5 * KIB * KIB), slowly=True)


def _late(asked: Asked) -> None:
    time.sleep(SILENT_S)
    asked.send(OK)


def _early(asked: Asked) -> None:
    asked.send(answer(status="413 Too Large"))
    asked.body()


def _early_end(asked: Asked) -> None:
    asked.send(answer(status="413 Too Large", fields="Connection: close\r\n"))
    asked.connection.shutdown(socket.SHUT_WR)
    asked.stream.rest()
    raise EOFError


def _ends() -> Iterator[Case]:
    big = sized("POST / HTTP/1.1", b"b" * 300 * KIB)
    yield Case("answer before the request's end", (big[: 100 * KIB], 0.3, big[100 * KIB :]), _early, early=True)
    yield Case("answer before the request's end, then closed", (big[: 100 * KIB], 0.3, big[100 * KIB :]), _early_end, early=True)
    yield Case("client that ends its half after the request", (request(), None), OK)
    yield Case("client that ends its half after a POST", (sized("POST / HTTP/1.1", b"body"), None), OK)
    yield Case("client that ends its half, and a late answer", (request(), None), _raw(b"", OK, pause_s=0.3))
    yield Case("body shorter than its length", (sized("POST / HTTP/1.1", b"b" * 8)[:-4], None), OK)
    yield Case("request that breaks off in its head", (b"GET / HTTP/1.1\r\nHost: a.ex", None), OK)
    yield Case(
        "request that breaks off in a chunk",
        (request("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n", b"8\r\nbody"), None),
        OK,
    )
