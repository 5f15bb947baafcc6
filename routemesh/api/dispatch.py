"""What a worker asks a manager: news, and to take down its reports. Which worker it is, its certificate says."""

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, asking_node, json_reply, number
from routemesh.ask import dispatch
from routemesh.ask.joining import check_manager
from routemesh.store.stream.talk import CHANGES, HELLO, LEASE, REPORT, Beat, Hello, Report


async def _changes(request: web.Request) -> web.StreamResponse:
    """Lines, without end. `revision`: what the worker knows already."""
    context, node_id = request.app[CONTEXT], asking_node(request)
    check_manager(await context.store.snapshot())
    revision = number(request, "revision", int, 0)
    reply = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
    await reply.prepare(request)
    async for each in dispatch.news(context, context.recent, node_id, revision):
        await reply.write(wire.encode(each) + b"\n")
    return reply


async def _hello(request: web.Request) -> web.Response:
    said = wire.parse(Hello, await request.read())
    return json_reply(await dispatch.hello(request.app[CONTEXT], asking_node(request), said))


async def _report(request: web.Request) -> web.Response:
    said = wire.parse(Report, await request.read())
    return json_reply(await dispatch.report(request.app[CONTEXT], asking_node(request), said))


async def _lease(request: web.Request) -> web.Response:
    said = wire.parse(Beat, await request.read())
    return json_reply(await dispatch.beat(request.app[CONTEXT], asking_node(request), said))


ROUTES = (
    web.get(f"{wire.PREFIX}{CHANGES}", _changes),
    web.post(f"{wire.PREFIX}{HELLO}", _hello),
    web.post(f"{wire.PREFIX}{REPORT}", _report),
    web.post(f"{wire.PREFIX}{LEASE}", _lease),
)
