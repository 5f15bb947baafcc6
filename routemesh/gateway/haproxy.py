"""Brings one running HAProxy to a configuration: servers by its runtime API, everything else by a reload that breaks nothing.

What runs is asked, not remembered (rule 4): the generation is in `show info`, the servers in `show servers state`. Both are asked
by one connection, and an answer of the wrong generation counts for nothing: around a reload the old process may answer still.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress

from routemesh.errors import Unavailable
from routemesh.gateway.files import Directory
from routemesh.gateway.proxies import ConfigRefused, Inside, NotYet, ask, verdict
from routemesh.proxy import haproxy, servers
from routemesh.proxy.observed import RunningProxy
from routemesh.proxy.rendered import HAPROXY_MAIN, HAPROXY_MASTER_SOCKET, Rendered
from routemesh.proxy.routes import RouteTable
from routemesh.values import replace

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

    async def refusal(self, rendered: Rendered) -> str:
        """What `haproxy -c` says against a configuration, or "". One that differs in servers alone is not checked, nor loaded."""
        if self._directory.holds(rendered) or await self._answering() == rendered.generation:
            return ""
        candidate = self._directory.propose(rendered)
        code, output = await self._inside.execute(("haproxy", "-c", "-f", str(candidate)), CHECK_TIMEOUT_S)
        alerts = (line.partition(" : ")[2] for line in output.splitlines() if line.startswith("[ALERT]"))
        said = [alert.removeprefix("config : ") for alert in alerts]
        return self._directory.relative(verdict("haproxy -c", code, said, output))

    async def apply(self, rendered: Rendered, table: RouteTable) -> bool:
        """Return when the process does what was rendered from `table`; False while servers that went still have connections.

        Raises ConfigRefused where HAProxy does not take up the configuration, NotYet where none answers.
        """
        if not self._directory.holds(rendered):
            self._directory.propose(rendered)
            self._directory.accept(rendered)
        if await self._generation() != rendered.generation:
            await self._reload(rendered.generation)
        present = await self._servers(rendered.generation)
        for _ in range(_ROUNDS):
            steps = servers.steps(present, table)
            if not steps.urgent:
                return await self._tidy(steps.late)
            said = await self._tell(steps.urgent)
            others = {key: server for key, server in present.items() if key[0] not in steps.backends}
            present = others | dict(await self._servers(rendered.generation, steps.backends))
        await self._reload(rendered.generation)  # its file has them
        raise Unavailable(f"HAProxy does not take its servers: {said}")

    async def look(self, seen: RunningProxy) -> RunningProxy:
        """What the process has: its routes are the map that the configuration in use names."""
        found = _MAP.search(self._directory.text(HAPROXY_MAIN))
        path = found["path"] if found else ""
        info, _, state = (await self._ask(haproxy.ADMIN_SOCKET, ["show info", "show servers state"])).partition("\n\n")
        routes = await self._ask(haproxy.ADMIN_SOCKET, [f"show map {path}"])
        return replace(seen, running=_generation(info), map=path, routes=routes, servers=state)

    async def _reload(self, generation: str) -> None:
        """Have a new process take over that runs `generation`."""
        await self._ask(HAPROXY_MASTER_SOCKET, ["reload"])
        try:
            async with asyncio.timeout(RELOAD_TIMEOUT_S):
                while await self._answering() != generation:
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ConfigRefused(f"HAProxy did not take up its new configuration within {RELOAD_TIMEOUT_S:.0f} s") from None

    async def _generation(self) -> str:
        """Which generation the process that answers runs. Raises NotYet."""
        return _generation(await self._ask(haproxy.ADMIN_SOCKET, ["show info"]))

    async def _answering(self) -> str:
        """The same; "" when none answers, as for a moment in a reload."""
        with suppress(NotYet):
            return await self._generation()
        return ""

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
        return await ask("HAProxy", self._directory.path / socket, f"{';'.join(commands)}\n".encode(), ANSWER_TIMEOUT_S)


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
