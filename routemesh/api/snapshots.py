"""`GET /snapshot` and `GET /nodes/REF/snapshot`: what is in the kernels of all nodes, or of one."""

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import CONTEXT, json_reply, number, said_by_node
from routemesh.ask.snapshots import asked, raw_cluster, raw_own
from routemesh.errors import UserError
from routemesh.model import Node, Protocol, State
from routemesh.snapshot import Connections


async def _node(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]

    async def own(_: State, node: Node) -> object:
        return await raw_own(context, node, _which(request), _namespaces(request))

    return await said_by_node(request, own, lambda node: asked(context, node, request.query_string))


async def _cluster(request: web.Request) -> web.Response:
    """All nodes at once. One that can't be read is told by its name, with the reason."""
    context = request.app[CONTEXT]
    return json_reply(await raw_cluster(context, await context.store.snapshot(), _which(request), request.query_string))


def _namespaces(request: web.Request) -> list[str] | None:
    """`netns=NAME`, any number of times: only these are read, besides the node's own."""
    return request.query.getall("netns", None)


def _which(request: web.Request) -> Connections:
    """Connections to `port=8080/tcp`, any number of times, or from `client=40000`, a port; all where nothing is said."""
    texts = request.query.getall("port", [])
    return Connections(ports=frozenset(map(_port, texts)) if texts else None, client_port=number(request, "client", int, None))


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
