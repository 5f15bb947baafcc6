"""What all handlers need to read a query and to answer."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from aiohttp import web

from routemesh import wire
from routemesh.errors import RoutemeshError, UserError

Number = TypeVar("Number", int, float)
Default = TypeVar("Default")


def json_reply(value: object, status: int = 200) -> web.Response:
    """A shape of `wire` as an answer."""
    return web.Response(status=status, body=wire.encode(value), content_type="application/json")


def error_reply(status: int, text: str) -> web.Response:
    """One line that says what went wrong."""
    return json_reply(wire.Message(message=" ".join(text.split())), status)


def number(request: web.Request, key: str, kind: Callable[[str], Number], default: Default) -> Number | Default:
    """A number of at least 0 in the query. Raises UserError."""
    text = request.query.get(key)
    if text is None:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not value >= 0:
        raise UserError(f"{key}={text} in the query is no number of 0 or more")
    return value


@asynccontextmanager
async def stream(request: web.Request) -> AsyncIterator[web.StreamResponse]:
    """An answer that is written line by line; an error in the block becomes its last line, since the status is already sent."""
    reply = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await reply.prepare(request)
    try:
        yield reply
    except RoutemeshError as exc:
        await reply.write(f"(routemesh: {exc})\n".encode())
    except ConnectionError:
        return  # whoever asked has gone
    await reply.write_eof()
