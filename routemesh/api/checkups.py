"""`GET /doctor`, `POST /doctor/repair`, and what one node's daemon is asked for them."""

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, is_here, json_reply, node_asked
from routemesh.ask import checkups, peer

_BASE = f"{wire.PREFIX}/doctor"


async def _doctor(request: web.Request) -> web.Response:
    return json_reply(await checkups.doctor(request.app[CONTEXT]))


async def _repair_all(request: web.Request) -> web.Response:
    return json_reply(await checkups.repair_all(request.app[CONTEXT]))


async def _check_up(request: web.Request) -> web.Response:
    """What one node says of itself."""
    from routemesh.doctor.facts import NodeFacts

    state, node = await node_asked(request)
    if not is_here(request, node):
        return json_reply(await peer.get(node, f"/nodes/{node.id}/checkup", NodeFacts))
    return json_reply(await checkups.own_facts(request.app[CONTEXT], state, node))


async def _repair(request: web.Request) -> web.Response:
    state, node = await node_asked(request)
    if not is_here(request, node):
        return json_reply(await peer.post(node, f"/nodes/{node.id}/repair", wire.RepairInfo))
    return json_reply(await checkups.repair_own(request.app[CONTEXT], state, node))


ROUTES = (
    web.get(_BASE, _doctor),
    web.post(f"{_BASE}/repair", _repair_all),
    web.get(f"{wire.PREFIX}/nodes/{{ref}}/checkup", _check_up),
    web.post(f"{wire.PREFIX}/nodes/{{ref}}/repair", _repair),
)
