"""What all handlers need to read a query and to answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import TypeVar

from aiohttp import web

from routemesh import wire
from routemesh.ask import peer
from routemesh.ask.context import Context
from routemesh.decide import admit
from routemesh.errors import RoutemeshError, Unavailable, UserError
from routemesh.model import Node, NodeId, State
from routemesh.pki.subject import Subject
from routemesh.proxy.request import Request

CONTEXT = web.AppKey("context", Context)
SUBJECT = web.RequestKey("subject", Subject)
"""Whose certificate a request came with; root, at the unix socket, has none."""

Number = TypeVar("Number", int, float)
Default = TypeVar("Default")


def json_reply(value: object, status: int = 200) -> web.Response:
    """A shape of `wire` as an answer."""
    return web.Response(status=status, body=wire.encode(value), content_type="application/json")


def error_reply(status: int, text: str) -> web.Response:
    """One line that says what went wrong."""
    return json_reply(wire.Message(message=" ".join(text.split())), status)


def is_here(request: web.Request, node: Node) -> bool:
    """Whether the request is about the node that got it. Raises Unavailable when another daemon passed it on to the wrong one."""
    if node.id == request.app[CONTEXT].node_id:
        return True
    if peer.MEANT_FOR in request.headers:
        raise Unavailable(f"node {node.name} can't be asked from here: {node.api} is another node's; ask on {node.name} itself")
    return False


def asking_node(request: web.Request) -> NodeId:
    """The node that asks. Raises UserError where none does."""
    subject = request.get(SUBJECT)
    if subject is None:
        raise UserError(f"{request.path}: only a node can ask this, with its certificate, over the network")
    return NodeId(subject.node)


def node_named(request: web.Request, state: State) -> Node:
    """The node that the path names. Raises NotFound."""
    ref = request.match_info["ref"]
    return request.app[CONTEXT].this_node(state) if ref == wire.SELF else admit.find_node(state, ref)


async def node_asked(request: web.Request) -> tuple[State, Node]:
    """The newest state, and the node that the path names. Raises NotFound."""
    state = await request.app[CONTEXT].store.snapshot()
    return state, node_named(request, state)


async def said_by_node(
    request: web.Request, own: Callable[[State, Node], Awaitable[object]], theirs: Callable[[Node], Awaitable[object]]
) -> web.Response:
    """What the node says that the path names: this one by itself, another by its daemon."""
    state, node = await node_asked(request)
    return json_reply(await (own(state, node) if is_here(request, node) else theirs(node)))


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
        raise UserError(f"{key}={text} in the query is not a number of 0 or more")
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
        return  # the asker has gone
    await reply.write_eof()


def request_to_gateway(request: web.Request) -> Request:
    """What is asked of the gateway: `host`, `path`, `tls=1`, `cookie`, `source`, and any number of `header=NAME:VALUE`."""
    query = request.query
    headers = [text.partition(":") for text in query.getall("header", [])]
    try:
        source = IPv4Address(query["source"]) if query.get("source") else None
    except ValueError:
        raise UserError(f"source={query['source']} in the query is not an IPv4 address") from None
    return Request(
        host=query.get("host", ""),
        path=query.get("path", "/"),
        tls=query.get("tls", "") == "1",
        cookie=query.get("cookie", ""),
        headers=tuple((name.strip(), value.strip()) for name, _, value in headers),
        source=source,
    )


def address(text: str) -> IPv4Address | None:
    """The address of somebody outside, None for "". Raises UserError."""
    try:
        return IPv4Address(text) if text else None
    except ValueError:
        raise UserError(f"outside={text} in the query is not an IPv4 address") from None
