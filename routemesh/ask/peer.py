"""Asking another node's daemon, for what only that node knows: its kernel and its tasks' output.

Daemons of one machine (a lab's) ask one another over unix sockets, those of a cluster that nodes have joined over HTTPS, each
proving by its certificate who it is: whoever answers at the address of a node but is not that node is not believed.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
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
_UNIX, _HTTPS = "unix://", "https://"
_FIRST_ERROR = 400

T = TypeVar("T")


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


class Peers:
    """The daemons of other nodes. Methods raise Unavailable, or what the other daemon refuses with."""

    def __init__(self, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        """`tls`: what to prove this node with, as it is now; None: it has no certificate."""
        self._tls = tls

    async def get(self, node: Node, path: str, kind: type[T], *, within_s: float = ANSWER_TIMEOUT_S) -> T:
        """The JSON answer of another node's daemon."""
        async with self._answer(node, path, within_s) as answer:
            return wire.decode(kind, await answer.read())

    async def post(self, node: Node, path: str, kind: type[T]) -> T:
        """The same of something that it is to do."""
        async with self._answer(node, path, ANSWER_TIMEOUT_S, "POST") as answer:
            return wire.decode(kind, await answer.read())

    async def lines(self, node: Node, path: str) -> AsyncIterator[bytes]:
        """The lines that another node's daemon sends, in blocks of whole ones, until it ends them; too long a one is cut."""
        async with self._answer(node, path, None) as answer:
            async for block in whole_lines(answer.content.iter_any(), MAX_LINE_BYTES):
                yield block

    @asynccontextmanager
    async def conversation(self, node: Node, path: str) -> AsyncIterator[Conversation]:
        """Talk with another node's daemon; leaving the block ends it."""
        talk = Conversation()

        async def listen() -> None:
            async with self._answer(node, path, None, "POST", talk._lines()) as answer:
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

    @asynccontextmanager
    async def _answer(
        self, node: Node, path: str, total_s: float | None, method: str = "GET", body: AsyncIterator[bytes] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=ANSWER_TIMEOUT_S)
        connector, base, expected = self._way(node)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(
                    method,
                    f"{base}{wire.PREFIX}{path}",
                    headers={MEANT_FOR: node.id},
                    data=body,
                    read_bufsize=MAX_LINE_BYTES,
                    server_hostname=expected,
                ) as answer,
            ):
                if answer.status >= _FIRST_ERROR:
                    raise wire.error(answer.status, await answer.read())
                yield answer
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError) as exc:
            raise silent(node, said_of(exc)) from exc

    def _way(self, node: Node) -> tuple[aiohttp.BaseConnector, str, str | None]:
        """How to connect, the beginning of the URL, and the name that must be in the certificate."""
        if node.api.startswith(_UNIX):
            return aiohttp.UnixConnector(node.api.removeprefix(_UNIX)), "http://routemesh", None
        if not node.api.startswith(_HTTPS):
            raise Unavailable(f"node {node.name} can't be asked from here: it has not said where its daemon answers")
        if self._tls is None:
            raise Unavailable(f"node {node.name} can't be asked from here: this node has no certificate of the cluster")
        return aiohttp.TCPConnector(ssl=self._tls()), node.api, node.id


def silent(node: Node, why: str) -> Unavailable:
    """What is said of a node's daemon that could not be asked."""
    return Unavailable(f"node {node.name}'s daemon can't be asked at {node.api}: {why}; is it running?")


def said_of(exc: Exception) -> str:
    """Why a daemon could not be asked, in a few words."""
    match exc:
        case aiohttp.ClientConnectorCertificateError():
            cause = exc.certificate_error
            return f"its certificate is not believed ({getattr(cause, 'verify_message', '') or cause})"
        case aiohttp.ServerDisconnectedError():  # with TLS 1.3 it refuses a certificate after the handshake
            return "it closed the connection at once; this node's certificate may have expired"
        case ssl.SSLError():
            return f"it refuses this node's certificate ({exc.reason or exc})"
        case aiohttp.ClientOSError() if isinstance(exc.__cause__, ssl.SSLError):
            return said_of(exc.__cause__)
        case OSError() if exc.strerror:
            return exc.strerror
        case _:
            return str(exc) or "no answer"


def _pass_on(done: "asyncio.Task[None]", answer: "asyncio.Future[Lines]") -> None:
    """The reason goes to those who wait for an answer."""
    failure = None if done.cancelled() else done.exception()
    if failure is not None and not answer.done():
        answer.set_exception(failure)
