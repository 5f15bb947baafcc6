"""What the loop needs of a proxy, whichever program it is."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from routemesh.errors import RoutemeshError, UserError
from routemesh.proxy.observed import RunningProxy
from routemesh.proxy.rendered import Rendered
from routemesh.proxy.routes import RouteTable

_CHECKED_AND_BAD = 1
Execute = Callable[[Sequence[str], float], Awaitable[tuple[int, str]]]
"""Run a command in the proxy's task within so many seconds: its exit code and the end of its output."""


@dataclass(frozen=True, slots=True)
class Inside:
    """The task that a proxy runs in: how to run something in it, its first process as this machine sees it."""

    execute: Execute
    pid: int


class ConfigRefused(UserError):
    """The program does not take a configuration; the one that it has stays in use."""


class NotYet(RoutemeshError):
    """The program gives no answer at the moment."""

    status = 503


class NotRunning(NotYet):
    """Nothing listens where the program would answer: it serves nobody until its task starts it again."""


def verdict(checker: str, code: int, complaints: Sequence[str], output: str) -> str:
    """What a checker that ended with `code` has against a configuration, "" if nothing. Raises NotYet where it came to no end."""
    if code not in (0, _CHECKED_AND_BAD):
        raise NotYet(f"{checker} ended with status {code}: {output.strip()[-200:]}")
    return "" if code == 0 else next(iter(complaints), output.strip()[-200:]) or f"{checker} ended with status {code}"


async def ask(program: str, socket: Path, question: bytes, timeout_s: float) -> str:
    """What a program answers on a socket of its own until it closes. Raises NotRunning where nothing listens, NotYet else."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(question)
                return (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
    except TimeoutError:
        raise NotYet(f"{program} gave no answer within {timeout_s:.0f} s") from None
    except (ConnectionRefusedError, FileNotFoundError) as exc:
        raise NotRunning(f"{program} does not answer: {exc.strerror}") from exc
    except OSError as exc:
        raise NotYet(f"{program} does not answer: {exc.strerror}") from exc


class Proxy(Protocol):
    """One running proxy."""

    async def refusal(self, rendered: Rendered) -> str:
        """Why the program would not take a configuration, in its own words; "" if it would. Raises NotYet."""
        ...

    async def apply(self, rendered: Rendered, table: RouteTable) -> bool:
        """Bring it to what was rendered from `table`; False when something is left to tidy up.

        `refusal` has been asked and has nothing against it. Raises ConfigRefused and NotYet.
        """
        ...

    async def look(self, seen: RunningProxy) -> RunningProxy:
        """Add what the proxy has to what is known of it. Raises NotYet."""
        ...
