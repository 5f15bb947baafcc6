"""Asking another node's daemon, for what only that node knows: its kernel and its tasks' output."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp
from aiohttp import web

from routemesh.api import wire
from routemesh.api.context import Context
from routemesh.errors import Unavailable
from routemesh.model import Node

ANSWER_TIMEOUT_S = 10.0
MAX_LINE_BYTES = 64 * 1024

_MEANT_FOR = "Routemesh-Node"
_SCHEME = "unix://"

T = TypeVar("T")


def is_here(request: web.Request, context: Context, node: Node) -> bool:
    """Whether the request is about the node that got it. Raises Unavailable when another daemon passed it on to the wrong one."""
    if node.id == context.node_id:
        return True
    if _MEANT_FOR in request.headers:
        raise Unavailable(f"node {node.name} can't be asked from here: {node.api} is another node's; ask on {node.name} itself")
    return False


async def get(node: Node, path: str, kind: type[T], *, within_s: float = ANSWER_TIMEOUT_S) -> T:
    """The JSON answer of another node's daemon."""
    async with _answer(node, path, within_s) as answer:
        return wire.decode(kind, await answer.read())


async def post(node: Node, path: str, kind: type[T]) -> T:
    """The same of something that it is to do."""
    async with _answer(node, path, ANSWER_TIMEOUT_S, "POST") as answer:
        return wire.decode(kind, await answer.read())


async def lines(node: Node, path: str) -> AsyncIterator[bytes]:
    """The lines that another node's daemon sends, until it ends them; one that is too long comes in pieces."""
    async with _answer(node, path, None) as answer:
        rest = b""
        async for chunk in answer.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line
            if len(rest) > MAX_LINE_BYTES:
                yield rest
                rest = b""
        if rest:
            yield rest


@asynccontextmanager
async def _answer(node: Node, path: str, total_s: float | None, method: str = "GET") -> AsyncIterator[aiohttp.ClientResponse]:
    if not node.api.startswith(_SCHEME):
        raise Unavailable(f"node {node.name} can't be asked from here: it has not said where its daemon answers")
    timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=ANSWER_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(node.api.removeprefix(_SCHEME)), timeout=timeout) as session,
            session.request(method, f"http://routemesh{wire.PREFIX}{path}", headers={_MEANT_FOR: node.id}) as answer,
        ):
            if answer.status >= web.HTTPBadRequest.status_code:
                raise wire.error(answer.status, await answer.read())
            yield answer
    except (aiohttp.ClientError, TimeoutError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or "no answer"
        raise Unavailable(f"node {node.name}'s daemon can't be asked at {node.api}: {reason}; is it running?") from exc
