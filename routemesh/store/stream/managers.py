"""A worker's way to the managers: the one that answers is kept, and another is tried when it does not."""

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import aiohttp

from routemesh import wire
from routemesh.errors import Unavailable
from routemesh.model import Role
from routemesh.pki.subject import role_name

ANSWER_S = 3.0
"""So long a manager may be silent before another one is asked: less than what a lease lasts."""
_FIRST_ERROR = 400
_JSON = {"Content-Type": "application/json"}

T = TypeVar("T")


class Managers:
    """The managers of a cluster. `endpoints`: HOST:PORT each; `tls`: what to prove this node with, as it is now."""

    def __init__(self, endpoints: Sequence[str], tls: Callable[[], ssl.SSLContext]) -> None:
        self._endpoints = list(endpoints)
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Whom to ask, in this order."""
        return tuple(self._endpoints)

    def know(self, endpoints: Sequence[str]) -> None:
        """Take these for the cluster's managers; those that were known keep their places."""
        if endpoints:
            kept = [each for each in self._endpoints if each in endpoints]
            self._endpoints = kept + [each for each in endpoints if each not in kept]

    async def post(self, path: str, body: object, kind: type[T]) -> T:
        """What the first manager that answers says. Raises what it refuses with, and Unavailable where none answers."""
        said, timeout = wire.encode(body), aiohttp.ClientTimeout(total=ANSWER_S)
        async with self._asked("POST", path, timeout, said) as answer:
            return wire.decode(kind, await answer.read())

    @asynccontextmanager
    async def lines(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines that a manager sends until it ends them, each however long. Raises as `post`, also while they come."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=ANSWER_S)
        async with self._asked("GET", path, timeout, None) as answer:
            yield _lines(answer)

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, timeout: aiohttp.ClientTimeout, body: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        failures = []
        for endpoint in self.endpoints:
            reached = False
            try:
                async with self._request(method, endpoint, path, timeout, body) as answer:
                    if answer.status >= _FIRST_ERROR:
                        raise wire.error(answer.status, await answer.read())
                    reached = True
                    yield answer
                    return
            except (aiohttp.ClientError, TimeoutError, ssl.SSLError) as exc:
                self._last(endpoint)
                if reached:
                    raise Unavailable(f"manager {endpoint} went away: {_why(exc)}") from exc
                failures.append(f"{endpoint}: {_why(exc)}")
        raise Unavailable(f"no manager answers ({'; '.join(failures)}): is one running, and is port 2377 open between the nodes?")

    def _request(
        self, method: str, endpoint: str, path: str, timeout: aiohttp.ClientTimeout, body: bytes | None
    ) -> "aiohttp.client._RequestContextManager":
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session.request(
            method,
            f"https://{endpoint}{wire.PREFIX}{path}",
            data=body,
            headers=_JSON if body is not None else None,
            timeout=timeout,
            ssl=self._tls(),
            server_hostname=role_name(Role.MANAGER),
        )

    def _last(self, endpoint: str) -> None:
        """Ask the others first from now on."""
        if endpoint in self._endpoints:  # others may be known meanwhile
            self._endpoints.remove(endpoint)
            self._endpoints.append(endpoint)

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    parts: list[bytes] = []
    async for chunk in answer.content.iter_any():
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            yield b"".join((*parts, line))
            parts = []
        parts.append(rest)


def _why(exc: Exception) -> str:
    match exc:
        case aiohttp.ClientConnectorCertificateError():
            cause = exc.certificate_error
            return f"its certificate is not believed ({getattr(cause, 'verify_message', '') or cause})"
        case TimeoutError():
            return f"no answer within {ANSWER_S:.0f} s"
        case OSError() if exc.strerror:
            return exc.strerror
        case _:
            return str(exc) or type(exc).__name__
