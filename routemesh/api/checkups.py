"""`GET /doctor`, `POST /doctor/repair`, and what one node's daemon is asked for them."""

from functools import partial

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, json_reply, said_by_node
from routemesh.ask import checkups

_BASE = f"{wire.PREFIX}/doctor"


def _passive(request: web.Request) -> bool:
    return request.query.get("passive") == "1"


async def _doctor(request: web.Request) -> web.Response:
    return json_reply(await checkups.doctor(request.app[CONTEXT], passive=_passive(request)))


async def _repair_all(request: web.Request) -> web.Response:
    return json_reply(await checkups.repair_all(request.app[CONTEXT]))


async def _check_up(request: web.Request) -> web.Response:
    """What one node says of itself."""
    from routemesh.doctor.facts import NodeFacts

    context, passive = request.app[CONTEXT], _passive(request)
    own = partial(checkups.own_facts, context, passive=passive)
    path = f"checkup?passive={int(passive)}"
    return await said_by_node(request, own, lambda node: context.peers.get(node, f"/nodes/{node.id}/{path}", NodeFacts))


async def _repair(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    own = partial(checkups.repair_own, context)
    return await said_by_node(request, own, lambda node: context.peers.post(node, f"/nodes/{node.id}/repair", wire.RepairInfo))


ROUTES = (
    web.get(_BASE, _doctor),
    web.post(f"{_BASE}/repair", _repair_all),
    web.get(f"{wire.PREFIX}/nodes/{{ref}}/checkup", _check_up),
    web.post(f"{wire.PREFIX}/nodes/{{ref}}/repair", _repair),
)
