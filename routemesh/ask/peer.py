"""Asking another node's daemon, for what only that node knows: its kernel and its tasks' output."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp

from routemesh import wire
from routemesh.ask.lines import Lines, whole_lines
from routemesh.errors import Unavailable
from routemesh.model import Node

ANSWER_TIMEOUT_S = 10.0
MAX_LINE_BYTES = 64 * 1024
MAX_ANSWER_LINE_BYTES = 16 * 1024 * 1024
"""What a node saw of a connection is one line."""

MEANT_FOR = "Routemesh-Node"
"""The header that says which node a daemon means."""
_SCHEME = "unix://"
_FIRST_ERROR = 400

T = TypeVar("T")


async def get(node: Node, path: str, kind: type[T], *, within_s: float = ANSWER_TIMEOUT_S) -> T:
    """The JSON answer of another node's daemon."""
    async with _answer(node, path, within_s) as answer:
        return wire.decode(kind, await answer.read())


async def post(node: Node, path: str, kind: type[T]) -> T:
    """The same of something that it is to do."""
    async with _answer(node, path, ANSWER_TIMEOUT_S, "POST") as answer:
        return wire.decode(kind, await answer.read())


async def lines(node: Node, path: str) -> AsyncIterator[bytes]:
    """The lines that another node's daemon sends, in blocks of whole ones, until it ends them; one that is too long is cut."""
    async with _answer(node, path, None) as answer:
        async for block in whole_lines(answer.content.iter_any(), MAX_LINE_BYTES):
            yield block


class Conversation:
    """Lines to another node's daemon, and lines from it, over one request that lasts as long as both have something to say."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._answer: asyncio.Future[Lines] = asyncio.get_running_loop().create_future()

    async def say(self, line: bytes) -> None:
        """Send a line."""
        await self._said.put(line + b"\n")

    async def hear(self) -> bytes:
        """The next line; b"" when the other side has ended."""
        return await (await self._answer).next()

    async def _lines(self) -> AsyncIterator[bytes]:
        while (line := await self._said.get()) is not None:
            yield line


@asynccontextmanager
async def conversation(node: Node, path: str) -> AsyncIterator[Conversation]:
    """Talk with another node's daemon; leaving the block ends it. Raises Unavailable."""
    talk = Conversation()

    async def listen() -> None:
        async with _answer(node, path, None, "POST", talk._lines()) as answer:
            talk._answer.set_result(Lines(answer.content, MAX_ANSWER_LINE_BYTES))
            await ended.wait()

    ended = asyncio.Event()
    listening = asyncio.ensure_future(listen())
    listening.add_done_callback(lambda task: _pass_on(task, talk._answer))
    try:
        yield talk
    finally:
        ended.set()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def _pass_on(done: "asyncio.Task[None]", answer: "asyncio.Future[Lines]") -> None:
    """The reason goes to those who wait for an answer."""
    failure = None if done.cancelled() else done.exception()
    if failure is not None and not answer.done():
        answer.set_exception(failure)


@asynccontextmanager
async def _answer(
    node: Node, path: str, total_s: float | None, method: str = "GET", body: AsyncIterator[bytes] | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    if not node.api.startswith(_SCHEME):
        raise Unavailable(f"node {node.name} can't be asked from here: it has not said where its daemon answers")
    timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=ANSWER_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(node.api.removeprefix(_SCHEME)), timeout=timeout) as session,
            session.request(
                method,
                f"http://routemesh{wire.PREFIX}{path}",
                headers={MEANT_FOR: node.id},
                data=body,
                read_bufsize=MAX_LINE_BYTES,
            ) as answer,
        ):
            if answer.status >= _FIRST_ERROR:
                raise wire.error(answer.status, await answer.read())
            yield answer
    except (aiohttp.ClientError, TimeoutError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or "no answer"
        raise Unavailable(f"node {node.name}'s daemon can't be asked at {node.api}: {reason}; is it running?") from exc
