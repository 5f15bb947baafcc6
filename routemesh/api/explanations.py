"""`GET /explain`."""

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, address, json_reply, request_to_gateway
from routemesh.ask.passages import fitting
from routemesh.ask.predictions import Question, predicted


async def _explain(request: web.Request) -> web.Response:
    """`target=NODE:PORT[/udp]`, `client` who asks, `outside` the address of somebody who is not a node.

    With `host` the way goes on through the gateway; what belongs to the request: reply.request_to_gateway.
    """
    from routemesh.explain.ask import target

    context, wanted = request.app[CONTEXT], target(request.query.get("target", ""))
    client, outside = request.query.get("client", ""), address(request.query.get("outside", ""))
    state = await context.store.snapshot()
    of_gateway = fitting(state, wanted.port, request_to_gateway(request)) if request.query.get("host") else None
    return json_reply((await predicted(context, state, Question(wanted, client, outside, of_gateway))).whole)


ROUTES = (web.get(f"{wire.PREFIX}/explain", _explain),)
