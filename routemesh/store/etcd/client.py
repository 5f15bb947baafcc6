"""Requests to etcd's members: the one that answered last is asked first, and the next where it does not.

Every request that is sent here may reach etcd twice, since an answer can be lost: they are such that this does no harm.
"""

import asyncio
import io
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import TypeVar

import aiohttp
import msgspec

from routemesh.errors import Unavailable
from routemesh.options import EtcdCluster
from routemesh.store.etcd import messages
from routemesh.store.etcd.faults import Missed, StaleToken, meaning, out_of_reach
from routemesh.store.etcd.messages import Answer, Json, Refusal, StatusAnswer, TokenAnswer, WatchAnswer, WatchPart
from routemesh.store.etcd.proof import Proof

PATIENCE_S = 6.0
"""So long a request is tried: longer than etcd takes to choose another leader."""
TRY_S = 2.0
"""So long one member may take; two fit into what a lease lasts."""
_CONNECT_S = 1.0
_STATUS_S = 0.5
_GOODBYE_S = 0.25
"""So long transports of TLS take to close, which nobody can wait for. Source: aiohttp's documentation, Graceful Shutdown."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 0.5
_OK = 200
_NEEDS_LEADER = {"Grpc-Metadata-hasleader": "true"}
"""A member that has lost its leader ends the watch, rather than be silent."""
_PROBES = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""A member that has lost its power is noticed after 5 s on a connection on which it has nothing to say. Source: tcp(7)."""

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


class Client:
    """Speaks to one etcd cluster, from one event loop."""

    def __init__(self, place: EtcdCluster) -> None:
        self._place = place
        self._proof = Proof(place)
        self._session = aiohttp.ClientSession()
        self._first = 0
        self._cluster_id = 0
        self._token = ""
        self._is_away = False

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await asyncio.sleep(_GOODBYE_S if self._proof.speaks_tls else 0)  # without TLS: the loop's next turn

    async def call(self, path: str, body: Json, answer: type[A]) -> A:
        """Ask the members in turn until one answers.

        Raises Unavailable with what to do when none does within PATIENCE_S, or one refuses; faults.Compacted, faults.NoLease. As
        long as none has answered since, each is asked once: whoever wants something now is told without delay.
        """
        loop = asyncio.get_running_loop()
        deadline, pause_s = loop.time() + (0 if self._is_away else PATIENCE_S), _FIRST_PAUSE_S
        missed: dict[str, Missed] = {}
        while True:
            for endpoint in self._in_turn():
                try:
                    found = await self._as_user(endpoint, path, body, answer)
                except Missed as exc:
                    missed[endpoint] = exc
                    self._pass_over(endpoint)
                else:
                    self._is_away = False
                    return found
            if loop.time() + pause_s > deadline or all(each.hopeless for each in missed.values()):
                self._is_away = True
                reasons = {endpoint: str(exc) for endpoint, exc in missed.items()}
                raise out_of_reach(self._place, reasons, await self._is_leaderless())
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)

    async def follow(self, first: str, end: str, revision: int) -> AsyncGenerator[WatchAnswer]:
        """Watch the keys from `first` to before `end` through one member, until it breaks off.

        Raises Missed then, and another is asked the next time; Unavailable and StaleToken as meaning() says.
        """
        endpoint = next(iter(self._in_turn()))
        try:
            await self._sign_in(endpoint)
            async with aclosing(self._lines(endpoint, "watch", messages.watch(first, end, revision))) as lines:
                async for line in lines:
                    part = _decoded(line, WatchPart)
                    if part.result is None:
                        break
                    yield part.result
            raise Missed("the watch was ended")
        except StaleToken:
            self._token = ""
            raise Missed("the token is no longer good") from None
        except Missed:
            self._pass_over(endpoint)
            raise

    def _in_turn(self) -> Iterator[str]:
        endpoints = self._place.endpoints
        return iter((*endpoints[self._first :], *endpoints[: self._first]))

    def _pass_over(self, endpoint: str) -> None:
        """Ask another first from now on, unless that was decided already."""
        endpoints = self._place.endpoints
        if endpoints[self._first] == endpoint:
            self._first = (self._first + 1) % len(endpoints)

    async def _as_user(self, endpoint: str, path: str, body: Json, answer: type[A]) -> A:
        try:
            await self._sign_in(endpoint)
            return await self._ask(endpoint, path, body, answer)
        except StaleToken:
            self._token = ""
        try:
            await self._sign_in(endpoint)
            return await self._ask(endpoint, path, body, answer)
        except StaleToken:
            raise Missed("it takes no token that it has just given") from None

    async def _sign_in(self, endpoint: str) -> None:
        if self._place.keys.user and not self._token:
            asked = {"name": self._place.keys.user, "password": self._proof.password()}
            self._token = (await self._ask(endpoint, "auth/authenticate", asked, TokenAnswer)).token

    async def _ask(self, endpoint: str, path: str, body: Json, answer: type[A]) -> A:
        lines = [line async for line in self._lines(endpoint, path, body)]
        found = _decoded(b"".join(lines), answer)
        self._check_cluster(endpoint, found)
        return found

    def _check_cluster(self, endpoint: str, answer: Answer) -> None:
        """Two clusters behind one store would be two truths."""
        self._cluster_id = self._cluster_id or answer.header.cluster_id
        if answer.header.cluster_id not in (0, self._cluster_id):
            raise Unavailable(f"{self._place}: {endpoint} is of another etcd cluster than the others; name members of one")

    async def _lines(self, endpoint: str, path: str, body: Json) -> AsyncGenerator[bytes]:
        """The lines of an answer, as they come."""
        context = self._proof.context()
        url = f"{'http' if context is None else 'https'}://{endpoint}/v3/{path}"
        headers = {"Authorization": self._token} if self._token else {}
        is_watch = path == "watch"
        try:
            async with self._session.post(
                url,
                data=io.BytesIO(messages.encode(body)),
                headers=headers | (_NEEDS_LEADER if is_watch else {}),
                ssl=True if context is None else context,
                timeout=aiohttp.ClientTimeout(total=None if is_watch else TRY_S, sock_connect=_CONNECT_S),
            ) as response:
                if response.status != _OK:
                    raise self._refusal(await response.read())
                if is_watch:
                    _probe(response)
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield line
                if rest:
                    yield rest
        except (aiohttp.ClientError, OSError) as exc:
            raise self._proof.missed(exc) from exc

    def _refusal(self, body: bytes) -> Exception:
        try:
            refusal = messages.decode(body, Refusal)
        except msgspec.MsgspecError:
            return Missed(self._proof.not_etcd(), hopeless=True)
        return meaning(refusal, self._place)

    async def _is_leaderless(self) -> bool:
        return any(await asyncio.gather(*(self._knows_no_leader(endpoint) for endpoint in self._place.endpoints)))

    async def _knows_no_leader(self, endpoint: str) -> bool:
        try:
            async with asyncio.timeout(_STATUS_S):
                return not (await self._ask(endpoint, "maintenance/status", {}, StatusAnswer)).leader
        except (TimeoutError, Missed, StaleToken, Unavailable):
            return False


def _decoded(body: bytes, answer: type[T]) -> T:
    try:
        return messages.decode(body, answer)
    except msgspec.MsgspecError as exc:
        raise Missed(f"what it answers is not etcd's ({exc})", hopeless=True) from exc


def _probe(response: aiohttp.ClientResponse) -> None:
    transport = response.connection.transport if response.connection is not None else None
    found: socket.socket | None = transport.get_extra_info("socket") if transport is not None else None
    if found is not None:
        for level, option, value in _PROBES:
            found.setsockopt(level, option, value)
