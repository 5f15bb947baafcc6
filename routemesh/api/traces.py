"""`POST /trace` and `POST /nodes/REF/watch`: conversations, in lines of JSON both ways.

`/trace` is with the tracer: what is predicted, then the probe, then what all nodes saw of it (ask.traces). `/watch` is
with one node's daemon, which watches a connection there for as long as it lasts: first what to watch, answered when all is armed;
then orders, each answered; the request's end, a broken connection or the daemon's own end take everything away again.

What that needs is loaded when it is first asked for.
"""

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, address, is_here, node_asked, number
from routemesh.ask.lines import Lines
from routemesh.errors import Unavailable

if TYPE_CHECKING:
    from routemesh.trace.wanted import Asking

LONGEST_ORDER_BYTES = 1 << 20

T = TypeVar("T")


class _Talk:
    """The lines of one request and of its answer, which begins with the first line that is said."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._lines = Lines(request.content, LONGEST_ORDER_BYTES)
        self.reply = web.StreamResponse(headers={"Content-Type": "application/jsonl"})

    async def say(self, said: object) -> None:
        """Send a line."""
        if not self.reply.prepared:
            await self.reply.prepare(self._request)
        await self.reply.write(wire.encode(said) + b"\n")

    async def line(self) -> bytes:
        """The next line, b"" after the last. Raises UserError for one that is too long."""
        return await self._lines.next()

    async def heard(self, kind: type[T]) -> T | None:
        """What the next line says; None after the last. Raises UserError for what is no such thing."""
        line = await self.line()
        return wire.parse(kind, line) if line else None

    async def end(self) -> web.StreamResponse:
        """End the answer."""
        await self.reply.write_eof()
        return self.reply


async def _trace(request: web.Request) -> web.StreamResponse:
    from routemesh.ask.traces import trace
    from routemesh.trace.talk import Go

    asking, talk = _asking(request), _Talk(request)
    await trace(request.app[CONTEXT], asking, address(asking.outside), talk.say, partial(talk.heard, Go))
    return await talk.end()


def _asking(request: web.Request) -> "Asking":
    """What is to be traced. Raises UserError."""
    from routemesh.explain.ask import target
    from routemesh.trace.wanted import LIVE_TIMEOUT_S, TIMEOUT_S, Asking

    query, live = request.query, request.query.get("live") == "1"
    return Asking(
        target=target(query.get("target", "")),
        client=query.get("client", ""),
        outside=query.get("outside", ""),
        http=query.get("http", ""),
        host=query.get("host", ""),
        live=live,
        timeout_s=number(request, "timeout", float, LIVE_TIMEOUT_S if live else TIMEOUT_S),
    )


async def _watch(request: web.Request) -> web.StreamResponse:
    from routemesh.ask.watchers import watch
    from routemesh.trace.talk import Order, Watched

    _, node = await node_asked(request)
    if not is_here(request, node):
        raise Unavailable(f"{node.name} is another node; its own daemon watches there")
    talk = _Talk(request)
    await watch(request.app[CONTEXT], node, wire.parse(Watched, await talk.line()), partial(talk.heard, Order), talk.say)
    return await talk.end()


ROUTES = (
    web.post(f"{wire.PREFIX}/nodes/{{ref}}/watch", _watch),
    web.post(f"{wire.PREFIX}/trace", _trace),
)
