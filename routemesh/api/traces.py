"""`POST /trace` and `POST /nodes/REF/watch`: conversations, in lines of JSON both ways.

`/trace` is with the tracer: what is predicted, then the probe, then what all nodes saw of it (ask.traces). `/watch` is
with one node's daemon, which watches a connection there for as long as it lasts: first what to watch, answered when all is armed;
then orders, each answered; the request's end, a broken connection or the daemon's own end take everything away again.

What that needs is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, address, is_here, node_asked, number
from routemesh.ask.lines import Lines
from routemesh.errors import RoutemeshError, Unavailable, UserError

if TYPE_CHECKING:
    from routemesh.ask.watchers import Watcher
    from routemesh.trace.talk import Go, Told

LONGEST_ORDER_BYTES = 1 << 20
_MOST_S = 3600.0


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

    async def end(self) -> web.StreamResponse:
        """End the answer."""
        await self.reply.write_eof()
        return self.reply


async def _trace(request: web.Request) -> web.StreamResponse:
    from routemesh.ask.traces import trace
    from routemesh.explain.ask import target
    from routemesh.trace.talk import Go
    from routemesh.trace.wanted import LIVE_TIMEOUT_S, TIMEOUT_S, Asking

    query, live, talk = request.query, request.query.get("live") == "1", _Talk(request)
    asking = Asking(
        target=target(query.get("target", "")),
        client=query.get("client", ""),
        outside=query.get("outside", ""),
        http=query.get("http", ""),
        host=query.get("host", ""),
        live=live,
        timeout_s=number(request, "timeout", float, LIVE_TIMEOUT_S if live else TIMEOUT_S),
    )

    async def go() -> "Go | None":
        line = await talk.line()
        return wire.parse(Go, line) if line else None

    await trace(request.app[CONTEXT], asking, address(asking.outside), talk.say, go)
    return await talk.end()


async def _watch(request: web.Request) -> web.StreamResponse:
    from routemesh.ask.watchers import here
    from routemesh.trace.talk import Told, Watched

    _, node = await node_asked(request)
    if not is_here(request, node):
        raise Unavailable(f"{node.name} is another node; its own daemon watches there")
    talk = _Talk(request)
    watched = wire.parse(Watched, await talk.line())
    async with here(request.app[CONTEXT], node, watched) as watcher:
        await talk.say(Told())
        while (told := await _carried_out(watcher, talk)) is not None:
            await talk.say(told)
    return await talk.end()


async def _carried_out(watcher: "Watcher", talk: _Talk) -> "Told | None":
    """What came of the next order; None where there is none any more."""
    from routemesh.trace.talk import Order, Told

    try:
        line = await talk.line()
        if not line:
            return None
        order = wire.parse(Order, line)
        match order.kind:
            case "send":
                if order.probe is None:
                    raise UserError("an order to send has no probe")
                return Told(sent=await watcher.send(order.probe))
            case "first":
                if order.opening is None:
                    raise UserError("an order to wait for a packet does not say for which one (opening)")
                return Told(seen=await watcher.first(order.opening, min(order.within_s, _MOST_S)))
            case "collect":
                return Told(observation=await watcher.collect(order.port))
    except RoutemeshError as error:
        return Told(error=str(error))


ROUTES = (
    web.post(f"{wire.PREFIX}/nodes/{{ref}}/watch", _watch),
    web.post(f"{wire.PREFIX}/trace", _trace),
)
