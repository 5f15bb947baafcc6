"""Brings one running HAProxy to a configuration: servers by its runtime API, everything else by a reload that breaks nothing.

What runs is asked, not remembered (rule 4): the generation is in `show info`, the servers in `show servers state`. Both are asked
by one connection, and an answer of the wrong generation counts for nothing: around a reload the old process may answer still.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path

from routemesh.errors import Unavailable
from routemesh.gateway.files import Directory
from routemesh.gateway.proxies import Inside, NotYet, Refused
from routemesh.proxy import haproxy, servers
from routemesh.proxy.observed import Seen
from routemesh.proxy.rendered import HAPROXY_MAIN, HAPROXY_MASTER_SOCKET, Rendered
from routemesh.proxy.routes import Table

ANSWER_TIMEOUT_S = 5.0
CHECK_TIMEOUT_S = 20.0
RELOAD_TIMEOUT_S = 20.0
_POLL_S = 0.02
_ROUNDS = 5
_FEW = 20
"""Of so many backends the servers are asked one by one; the whole list takes HAProxy and us a while."""
_REQUEST_BYTES = 8000
"""HAProxy reads a line of commands into one buffer (tune.bufsize, 16,384)."""
_MAP = re.compile(r"map_beg\((?P<path>[^)]+)\)")


class Haproxy:
    """One HAProxy in its task."""

    def __init__(self, directory: Directory, inside: Inside) -> None:
        self._directory = directory
        self._inside = inside

    async def apply(self, rendered: Rendered, table: Table) -> bool:
        """Return when the process does what was rendered from `table`; False while servers that went still have connections.

        Raises Refused where HAProxy does not take the configuration (the present one stays in use), NotYet where none answers.
        """
        if not self._directory.holds(rendered):
            candidate = self._directory.propose(rendered)
            if await self._generation() != rendered.generation:
                await self._check(candidate)
            self._directory.accept(rendered)
        await self._load(rendered.generation)
        present = await self._servers(rendered.generation)
        for _ in range(_ROUNDS):
            steps = servers.steps(present, table)
            if not steps.urgent:
                return await self._tidy(steps.late)
            said = await self._tell(steps.urgent)
            others = {key: server for key, server in present.items() if key[0] not in steps.backends}
            present = others | dict(await self._servers(rendered.generation, steps.backends))
        raise Unavailable(f"HAProxy does not take its servers: {said}")

    async def look(self, seen: Seen) -> Seen:
        """What the process has: its routes are the map that the configuration in use names."""
        found = _MAP.search(self._directory.text(HAPROXY_MAIN))
        path = found["path"] if found else ""
        info, _, state = (await self._ask(haproxy.ADMIN_SOCKET, ["show info", "show servers state"])).partition("\n\n")
        routes = await self._ask(haproxy.ADMIN_SOCKET, [f"show map {path}"])
        return replace(seen, running=_generation(info), map=path, routes=routes, servers=state)

    async def _check(self, candidate: Path) -> None:
        code, output = await self._inside.execute(("haproxy", "-c", "-q", "-f", str(candidate)), CHECK_TIMEOUT_S)
        if code != 0:
            alerts = [line.partition(" : ")[2] for line in output.splitlines() if line.startswith("[ALERT]")]
            raise Refused(f"HAProxy refuses the configuration: {alerts[0] if alerts else output.strip()[-200:]}")

    async def _load(self, generation: str) -> None:
        """Have the process run `generation`, by a reload unless it does."""
        running = await self._generation()
        if running is None:
            raise NotYet("HAProxy does not answer")
        if running == generation:
            return
        await self._ask(HAPROXY_MASTER_SOCKET, ["reload"])
        try:
            async with asyncio.timeout(RELOAD_TIMEOUT_S):
                while await self._generation() != generation:
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Refused(f"HAProxy did not take up its new configuration within {RELOAD_TIMEOUT_S:.0f} s") from None

    async def _generation(self) -> str | None:
        """Which generation the process that answers runs; None when none answers."""
        try:
            return _generation(await self._ask(haproxy.ADMIN_SOCKET, ["show info"]))
        except NotYet:
            return None

    async def _servers(self, generation: str, backends: Set[str] = frozenset()) -> Mapping[servers.Key, servers.Present]:
        """Those of some backends, or of all."""
        states = (
            [f"show servers state {name}" for name in sorted(backends)] if 0 < len(backends) <= _FEW else ["show servers state"]
        )
        async with asyncio.timeout(RELOAD_TIMEOUT_S):
            while True:
                info, _, state = (await self._ask(haproxy.ADMIN_SOCKET, ["show info", *states])).partition("\n\n")
                if _generation(info) == generation:
                    return servers.parse(state)
                await asyncio.sleep(_POLL_S)

    async def _tell(self, commands: Iterable[str]) -> str:
        """What it answered that is not empty, in one line."""
        said = [await self._ask(haproxy.ADMIN_SOCKET, batch) for batch in _batches(commands)]
        return " ".join(" ".join(said).split())[-200:]

    async def _tidy(self, late: tuple[str, ...]) -> bool:
        if late:
            await self._tell(late)
        return not late

    async def _ask(self, socket: str, commands: Iterable[str]) -> str:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reader, writer = await asyncio.open_unix_connection(self._directory.path / socket)
                try:
                    writer.write(f"{';'.join(commands)}\n".encode())
                    return (await reader.read()).decode(errors="replace")
                finally:
                    writer.close()
        except TimeoutError:
            raise NotYet(f"HAProxy gave no answer within {ANSWER_TIMEOUT_S:.0f} s") from None
        except OSError as exc:
            raise NotYet(f"HAProxy does not answer: {exc.strerror}") from exc


def _generation(info: str) -> str:
    for line in info.splitlines():
        key, _, value = line.partition(": ")
        if key.lower() == "description":
            return value.strip().removeprefix(haproxy.GENERATION)
    return ""


def _batches(commands: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for command in commands:
        if batch and sum(map(len, batch)) + len(batch) + len(command) > _REQUEST_BYTES:
            yield batch
            batch = []
        batch.append(command)
    if batch:
        yield batch
