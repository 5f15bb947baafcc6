"""`GET /snapshot` and `GET /nodes/REF/snapshot`: what is in the kernels of all nodes, or of one."""

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, is_here, json_reply, node_asked
from routemesh.ask.snapshots import Ports, asked, raw_cluster
from routemesh.codec.plain import plain
from routemesh.errors import UserError
from routemesh.model import Protocol


async def _node(request: web.Request) -> web.Response:
    _, node = await node_asked(request)
    if not is_here(request, node):
        return json_reply(await asked(node, request.query_string))
    found = await request.app[CONTEXT].observe(node, _ports(request), _namespaces(request))
    return json_reply(plain(found, compact=True))


async def _cluster(request: web.Request) -> web.Response:
    """All nodes at once. One that can't be read is told by its name, with the reason."""
    context = request.app[CONTEXT]
    return json_reply(await raw_cluster(context, await context.store.snapshot(), _ports(request), request.query_string))


def _namespaces(request: web.Request) -> list[str] | None:
    """`netns=NAME`, any number of times: only these are read, besides the node's own."""
    return request.query.getall("netns", None)


def _ports(request: web.Request) -> Ports | None:
    """`port=8080/tcp`, any number of times: only connections that asked for one of these are told."""
    texts = request.query.getall("port", [])
    return frozenset(map(_port, texts)) if texts else None


def _port(text: str) -> tuple[Protocol, int]:
    number, _, protocol = text.partition("/")
    try:
        return Protocol(protocol), int(number)
    except ValueError:
        raise UserError(f"port={text} in the query is none: 8080/tcp is one") from None


ROUTES = (
    web.get(f"{wire.PREFIX}/snapshot", _cluster),
    web.get(f"{wire.PREFIX}/nodes/{{ref}}/snapshot", _node),
)
