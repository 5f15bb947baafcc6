"""Brings one running nginx to a configuration: by a reload, after which old workers only end what they have begun.

What runs is asked, never remembered (rule 4): a socket of its own answers with the generation. A reload counts as done when a new
worker answers and no old one takes connections any more: nginx renames those to `worker process is shutting down`.
Source: nginx's ngx_process_cycle.c (ngx_master_process_cycle: new workers first, the old ones are told 100 ms later).
"""

import asyncio
from contextlib import suppress
from pathlib import Path

from routemesh.gateway.files import Directory
from routemesh.gateway.proxies import ConfigRefused, Inside, NotYet, ask, verdict
from routemesh.proxy.nginx import STATUS_SOCKET
from routemesh.proxy.observed import RunningProxy
from routemesh.proxy.rendered import NGINX_MAIN, Rendered
from routemesh.proxy.routes import RouteTable
from routemesh.values import replace

ANSWER_TIMEOUT_S = 5.0
CHECK_TIMEOUT_S = 20.0
RELOAD_TIMEOUT_S = 20.0
_POLL_S = 0.02
_WORKER = b"nginx: worker process"


class Nginx:
    """One nginx in its task."""

    def __init__(self, directory: Directory, inside: Inside) -> None:
        self._directory = directory
        self._inside = inside

    async def refusal(self, rendered: Rendered) -> str:
        """What `nginx -t` says against a configuration, or ""."""
        if self._directory.holds(rendered):
            return ""
        candidate = self._directory.propose(rendered)
        code, output = await self._inside.execute(("nginx", "-e", "stderr", "-t", "-q", "-c", str(candidate)), CHECK_TIMEOUT_S)
        complaints = [line.partition("] ")[2].partition(": ")[2] for line in output.splitlines() if "[emerg]" in line]
        return self._directory.relative(verdict("nginx -t", code, complaints, output))

    async def apply(self, rendered: Rendered, table: RouteTable) -> bool:
        """Return True when the process does what was rendered. Raises ConfigRefused and NotYet."""
        if not self._directory.holds(rendered):
            self._directory.propose(rendered)
            self._directory.accept(rendered)
        running = await self._generation()
        if running != rendered.generation:
            await self._reload(self._directory.path / rendered.main, rendered.generation)
        return True

    async def look(self, seen: RunningProxy) -> RunningProxy:
        """What nginx has: which generation it runs, and the file."""
        running = await self._generation()
        return replace(seen, running=running, servers=self._directory.text(NGINX_MAIN))

    async def _reload(self, main: Path, generation: str) -> None:
        old = workers(self._inside.pid)
        command = ("nginx", "-e", "stderr", "-c", str(main), "-s", "reload")
        code, output = await self._inside.execute(command, CHECK_TIMEOUT_S)
        if code != 0:
            raise NotYet(f"nginx can't be told to reload: {output.strip()[-200:]}")
        try:
            async with asyncio.timeout(RELOAD_TIMEOUT_S):
                while await self._answering() != generation or old & workers(self._inside.pid):
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ConfigRefused(f"nginx did not take up its new configuration within {RELOAD_TIMEOUT_S:.0f} s") from None

    async def _generation(self) -> str:
        """Which generation answers. Raises NotYet."""
        answer = await ask("nginx", self._directory.path / STATUS_SOCKET, b"GET / HTTP/1.0\r\n\r\n", ANSWER_TIMEOUT_S)
        return answer.rpartition("\r\n\r\n")[2].strip()

    async def _answering(self) -> str:
        """The same; "" when none does, as for a moment in a reload."""
        with suppress(NotYet):
            return await self._generation()
        return ""


def workers(pid: int) -> frozenset[int]:
    """The workers below a process that take connections."""
    found, seen = set(), [pid]
    for each in seen:
        with suppress(FileNotFoundError, ProcessLookupError):
            seen += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
            if Path(f"/proc/{each}/cmdline").read_bytes().rstrip(b"\0") == _WORKER:
                found.add(each)
    return frozenset(found)
