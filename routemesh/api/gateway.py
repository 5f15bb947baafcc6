"""What is asked and told about the gateway: its proxies and its routes."""

from functools import partial

from aiohttp import web

from routemesh import wire
from routemesh.api.describe import gateway_explanation, gateway_info
from routemesh.api.reply import CONTEXT, json_reply, request_to_gateway, said_by_node
from routemesh.ask import proxies
from routemesh.proxy.explain import explain

_BASE = f"{wire.PREFIX}/gateway"


async def _get(request: web.Request) -> web.Response:
    """With `keys=1` all nodes are asked where they have the keys of certificates."""
    context = request.app[CONTEXT]
    state = await context.store.snapshot()
    service = proxies.the_gateway(state)
    keys = await proxies.keys_on_disk(context, state) if request.query.get("keys", "") == "1" else {}
    return json_reply(gateway_info(state, service, context.now(), keys))


async def _config(request: web.Request) -> web.Response:
    """A configuration for a proxy outside of the cluster, as text."""
    state = await request.app[CONTEXT].store.snapshot()
    query = request.query
    return json_reply(wire.Message(message=proxies.external_config(state, query.get("for", ""), query.get("to", "nodes"))))


async def _proxies_of(request: web.Request) -> web.Response:
    """What the proxies of a node have."""
    context = request.app[CONTEXT]
    own = partial(proxies.proxies_of, context)
    return await said_by_node(request, lambda _, node: own(node), own)


async def _explain(request: web.Request) -> web.Response:
    found = explain(await request.app[CONTEXT].store.snapshot(), request_to_gateway(request))
    return json_reply(gateway_explanation(found))


ROUTES = (
    web.get(_BASE, _get),
    web.get(f"{_BASE}/config", _config),
    web.get(f"{_BASE}/explain", _explain),
    web.get(f"{wire.PREFIX}/nodes/{{ref}}/proxies", _proxies_of),
)
