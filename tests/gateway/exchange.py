"""Send a case to a port, and tell in words how what came of it differs from what comes of it without a proxy."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tests.gateway.cases import Case, Piece
from tests.gateway.message import Message, Stream, read_body, read_head
from tests.gateway.origin import Origin

LONGEST_S = 8.0
LATE_READER_S = 0.5
_OF_THE_CONNECTION = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"x-case"}
"""Fields that every hop writes for itself; bodies and connections are compared instead."""
_OF_THE_GATEWAY = {b"x-forwarded-for", b"x-real-ip", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"}

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Outcome:
    """What a client saw, in order, and what the task did. `end`: "" , "closed" or "silence" where answers are missing."""

    answers: list[Message]
    end: str
    asked: list[Message]

    @property
    def finals(self) -> list[Message]:
        """The answers without interim ones."""
        return [each for each in self.answers if not 100 <= each.status < 200 or each.status == 101]

    @property
    def interim(self) -> list[int]:
        """The statuses of the others."""
        return [each.status for each in self.answers if 100 <= each.status < 200 and each.status != 101]


def outcome(case: Case, key: str, port: int, origin: Origin) -> Outcome:
    """Send a case, named `key` in it, to a port of this machine."""
    origin.requests[key] = []
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST_S) as connection:
        sender = threading.Thread(target=_send, args=(connection, case.send, key), daemon=True)
        sender.start()
        if case.slowly:
            time.sleep(LATE_READER_S)
        answers, end = _read(Stream(connection), case)
        sender.join(LONGEST_S)
    return Outcome(answers, end, list(origin.requests[key]))


def _send(connection: socket.socket, pieces: tuple[Piece, ...], key: str) -> None:
    with suppress(OSError):
        for piece in pieces:
            match piece:
                case bytes():
                    connection.sendall(piece.replace(b"CASE", key.encode()))
                case None:
                    connection.shutdown(socket.SHUT_WR)
                case _:
                    time.sleep(piece)


def _read(stream: Stream, case: Case) -> tuple[list[Message], str]:
    answers: list[Message] = []
    missing = case.answers
    try:
        while missing:
            answers.append(answer := read_head(stream))
            if answer.status == 101:
                answer.body = stream.rest()
                return answers, ""
            if 100 <= answer.status < 200:
                continue
            missing -= 1
            if answer.status not in (204, 304) and not case.name.endswith("HEAD"):
                read_body(stream, answer, answer=True)
    except EOFError:
        return answers, "closed"
    except TimeoutError:
        return answers, "bytes without a head" if stream.held else "silence"
    return answers, ""


# --- words ---------------------------------------------------------------------------------------------------------------------


def told(case: Case, seen: Outcome, direct: Outcome) -> str:
    """How an outcome differs from the one without a proxy; "" where it does not."""
    if [each.status for each in seen.finals] != [each.status for each in direct.finals]:
        statuses = [str(each.status) for each in seen.finals]
        return ", ".join([*statuses, *([seen.end] if seen.end else [])])
    return "; ".join(_notes(case, seen, direct))


def _notes(case: Case, seen: Outcome, direct: Outcome) -> Iterator[str]:
    if seen.end != direct.end:
        yield f"{seen.end or 'answered'}"
    if seen.interim != direct.interim:
        yield f"interim answers: {', '.join(map(str, seen.interim)) or 'none'}"
    for here, there in zip(seen.finals, direct.finals, strict=True):
        for word in _parts(here, there):
            yield f"answer {word}"
    if case.early:
        return  # how much more of the request is passed on nobody knows
    if len(seen.asked) != len(direct.asked):
        yield f"the task is asked {('never', 'once')[len(seen.asked)] if len(seen.asked) < 2 else f'{len(seen.asked)} times'}"
        return
    for here, there in zip(seen.asked, direct.asked, strict=True):
        if here.first != there.first:
            yield f"the task reads `{here.first.decode('latin-1')[:40]}`"
        for word in _parts(here, there):
            yield f"request {word}"


def _parts(here: Message, there: Message) -> Iterator[str]:
    for name in dict.fromkeys(name for name, _ in (*there.fields, *here.fields)):
        own, other = here.get(name), there.get(name)
        if name in _OF_THE_CONNECTION or own == other or (name in _OF_THE_GATEWAY and not other):
            continue
        shown = f"`{name.decode('latin-1').title()[:20]}`"
        yield f"without {shown}" if not own else f"with {shown}" if not other else f"with another {shown}"
    if here.complete != there.complete:
        yield "whole" if here.complete else "cut off"
    if here.body != there.body:
        yield "with another body" if here.body and len(here.body) >= len(there.body) else "without all of its body"
    if here.trailers != there.trailers:
        yield "with other trailers" if here.trailers else "without its trailers"
