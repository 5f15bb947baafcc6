"""What the loop needs of a proxy, whichever program it is."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from routemesh.errors import RoutemeshError, UserError
from routemesh.proxy.observed import Seen
from routemesh.proxy.rendered import Rendered
from routemesh.proxy.routes import Table

Execute = Callable[[Sequence[str], float], Awaitable[tuple[int, str]]]
"""Run a command in the proxy's task within so many seconds: its exit code and the end of its output."""


@dataclass(frozen=True, slots=True)
class Inside:
    """The task that a proxy runs in: how to run something in it, its first process as this machine sees it."""

    execute: Execute
    pid: int


class Refused(UserError):
    """The program does not take a configuration; the one that it has stays in use."""


class NotYet(RoutemeshError):
    """The program does not run at the moment; it is started again by its task, with the newest configuration."""

    status = 503


class Proxy(Protocol):
    """One running proxy."""

    async def apply(self, rendered: Rendered, table: Table) -> bool:
        """Bring it to what was rendered from `table`; False when something is left to tidy up. Raises Refused and NotYet."""
        ...

    async def look(self, seen: Seen) -> Seen:
        """Add what the proxy has to what is known of it. Raises NotYet."""
        ...
