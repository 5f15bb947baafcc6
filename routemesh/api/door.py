"""The network's way into a daemon: HTTPS on the node's address, mutual TLS, each request judged by the table of rights.

Requests that last are judged again whenever the state changes: a node that is removed loses its open ones, too.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from ssl import SSLContext

from aiohttp import web

from routemesh import wire
from routemesh.api.reply import SUBJECT
from routemesh.api.rights import refusal
from routemesh.errors import Forbidden, RoutemeshError, Unavailable
from routemesh.pki.subject import Subject, of_peer
from routemesh.store import Store

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_BACKLOG = 128
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Visit:
    """A request under way."""

    asked: str
    subject: Subject | None
    request: web.Request


class Door:
    """Judges the requests of one daemon's network side."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._inside: set[_Visit] = set()

    @web.middleware
    async def judge(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request in. Raises Forbidden."""
        asked, subject = _asked(request), _subject(request)
        if why := refusal(asked, subject, await self._store.snapshot()):
            raise Forbidden(why)
        if subject is not None:
            request[SUBJECT] = subject
        visit = _Visit(asked, subject, request)
        self._inside.add(visit)
        try:
            return await handler(request)
        finally:
            self._inside.remove(visit)

    async def look_again(self) -> None:
        """Break off the requests that would be refused now."""
        if not self._inside:
            return
        state = await self._store.snapshot()
        for visit in tuple(self._inside):
            transport = visit.request.transport
            if transport is not None and (why := refusal(visit.asked, visit.subject, state)):
                log.warning("broken off: %s of %s: %s", visit.asked, visit.request.remote, why)
                transport.abort()


def _asked(request: web.Request) -> str:
    """The row of a request in the table of rights; one that is in no row where the path is none of the API's."""
    resource = request.match_info.route.resource
    path = "" if resource is None else resource.canonical.removeprefix(wire.PREFIX)
    return f"{'GET' if request.method == 'HEAD' else request.method} {path}"


def _subject(request: web.Request) -> Subject | None:
    tls = None if request.transport is None else request.transport.get_extra_info("ssl_object")
    return None if tls is None else of_peer(tls.getpeercert())


class Listener:
    """The socket of the network side. It stays while the certificate changes, so that nobody is turned away meanwhile."""

    def __init__(self, runner: web.AppRunner, address: IPv4Address, port: int, tls: Callable[[], SSLContext]) -> None:
        self._runner, self._tls = runner, tls
        self._socket = listening(address, port)
        self._site: web.SockSite | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._socket.getsockname()[1]
        return port

    async def open(self) -> None:
        """Take connections with the certificate as it is now; those that there are go on with the old one."""
        if self._site is not None:
            await self._site.stop()
        self._site = web.SockSite(self._runner, self._socket.dup(), ssl_context=self._tls(), backlog=_BACKLOG)
        await self._site.start()

    async def close(self) -> None:
        """Take none any more."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        self._socket.close()


def listening(address: IPv4Address, port: int) -> socket.socket:
    """A socket at the node's own address. Raises Unavailable where it can't be had."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise Unavailable(
            f"can't listen on {address}:{port}: {exc.strerror}: the address must be this machine's, and the port free (ss -lntp)"
        ) from exc
    return sock


async def _watch(door: Door, store: Store) -> None:
    """A store that can't be watched for a while is watched again."""
    while True:
        with suppress(RoutemeshError):
            async for _ in store.watch():
                await door.look_again()
        await asyncio.sleep(_AGAIN_S)


@asynccontextmanager
async def open_door(
    make: Callable[[Door], web.Application],
    store: Store,
    address: IPv4Address,
    port: int,
    tls: Callable[[], SSLContext],
    shutdown_s: float,
) -> AsyncIterator[Listener]:
    """Answer at `address`:`port` while the block runs; `make` gives the application that the door's judgement belongs to."""
    door = Door(store)
    runner = web.AppRunner(
        make(door), access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=shutdown_s
    )
    await runner.setup()
    listener = None
    watching = asyncio.ensure_future(_watch(door, store))
    try:
        listener = Listener(runner, address, port, tls)
        await listener.open()
        yield listener
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        if listener is not None:
            await listener.close()
        await runner.cleanup()
