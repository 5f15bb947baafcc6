"""The daemon's HTTP application and the unix socket on which it answers."""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from ssl import SSLContext

from aiohttp import web
from aiohttp.typedefs import Middleware

from routemesh import wire
from routemesh.api import checkups, cluster, dispatch, explanations, gateway, nodes, secrets, services, snapshots, traces
from routemesh.api.door import Listener, open_door
from routemesh.api.reply import CONTEXT, error_reply
from routemesh.ask.context import Context
from routemesh.errors import RoutemeshError, Unavailable

__all__ = ["Context", "make_app", "serve", "serving", "serving_network"]

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024 * 1024
SHUTDOWN_S = 0.5
"""How long requests that are under way may take when the daemon ends; those that wait for something are cancelled then."""
_PROBE_TIMEOUT_S = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(context: Context, *judges: Middleware) -> web.Application:
    """The application, not yet bound to anything; `judges` see each request before its handler and may refuse it."""
    app = web.Application(middlewares=[_errors, *judges], client_max_size=MAX_BODY_BYTES)
    app[CONTEXT] = context
    routes = (
        services.ROUTES,
        nodes.ROUTES,
        snapshots.ROUTES,
        explanations.ROUTES,
        checkups.ROUTES,
        traces.ROUTES,
        secrets.ROUTES,
        gateway.ROUTES,
        cluster.ROUTES,
        dispatch.ROUTES,
    )
    app.add_routes([web.get(f"{wire.PREFIX}/_ping", _ping), *(route for each in routes for route in each)])
    return app


async def serve(context: Context, path: Path) -> None:
    """Answer on the unix socket `path` until cancelled; see `serving`."""
    async with serving(context, path):
        await asyncio.Event().wait()


@asynccontextmanager
async def serving(context: Context, path: Path) -> AsyncIterator[None]:
    """Answer on the unix socket `path` while the block runs.

    A socket that a dead daemon left is replaced. Raises Unavailable when a live one answers there or the socket can't be made.
    """
    sock = _listening(path)
    logging.getLogger("aiohttp.server").addFilter(_is_untold)
    runner = web.AppRunner(
        make_app(context), access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S
    )
    try:
        await runner.setup()
        await web.SockSite(runner, sock).start()
        yield
    finally:
        # The name goes first: once nobody listens, the next daemon may take it.
        path.unlink(missing_ok=True)
        await runner.cleanup()
        sock.close()


@asynccontextmanager
async def serving_network(
    context: Context, address: IPv4Address, port: int, tls: Callable[[], SSLContext]
) -> AsyncIterator[Listener]:
    """Answer other nodes over HTTPS while the block runs, as the table of rights allows. Raises Unavailable, see `listening`."""
    async with open_door(lambda door: make_app(context, door.judge), context.store, address, port, tls, SHUTDOWN_S) as listener:
        yield listener


def _is_untold(record: logging.LogRecord) -> bool:
    """Whether a line of aiohttp's is news: that a body can't be read, which it tells with its stack, the client was answered."""
    return not (record.exc_info and isinstance(record.exc_info[1], web.RequestPayloadError))


def _listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        sock.bind(os.fspath(path))
        # Nobody can connect before listen(), so nobody slips in before the mode is set.
        path.chmod(0o600)
        sock.listen()
    except OSError as exc:
        sock.close()
        reason = exc.strerror or str(exc)
        raise Unavailable(f"can't listen on {path}: {reason}: choose another directory with --run-dir") from exc
    except Unavailable:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if not path.is_socket():
                raise Unavailable(f"can't listen on {path}: it is not a socket: move it away") from None
            path.unlink(missing_ok=True)
            return
        except (BlockingIOError, TimeoutError):
            pass
    raise Unavailable(f"can't listen on {path}: another daemon answers there: stop it first")


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RoutemeshError as exc:
        return error_reply(exc.status, str(exc))
    except web.HTTPException as exc:
        return error_reply(exc.status, _explained(request, exc))
    except web.RequestPayloadError as exc:
        reason = " ".join(str(exc).removeprefix("400, message:").split())
        return error_reply(400, f"{request.path}: the request's body can't be read: {reason}")
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return error_reply(500, f"{request.method} {request.path} failed: a bug in routemesh; the daemon's log has the details")


def _explained(request: web.Request, exc: web.HTTPException) -> str:
    match exc:
        case web.HTTPNotFound():
            return f"{request.path}: there is no such path; the API is below {wire.PREFIX}/"
        case web.HTTPMethodNotAllowed():
            return f"{request.path}: {exc.method} is not possible; use {' or '.join(sorted(exc.allowed_methods))}"
        case web.HTTPRequestEntityTooLarge():
            return f"{request.path}: the request's body is longer than {MAX_BODY_BYTES} bytes"
        case _:
            return f"{request.path}: {exc.reason}"


async def _ping(_: web.Request) -> web.Response:
    return web.Response(text="OK")
