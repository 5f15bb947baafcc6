"""What carries out a task asks of the agent around it."""

from pathlib import Path
from typing import Protocol

from routemesh import loops
from routemesh.model import State, Task, TaskStatus
from routemesh.runtime import Runtime


class Surroundings(Protocol):
    """What a task needs of its agent."""

    runtime: Runtime
    troubles: loops.Troubles

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def netns_path(self, name: str) -> Path:
        """The file of a namespace."""
        ...

    async def hand_over(self, name: str, namespace: Path | None) -> None:
        """Have the kernel take a namespace of the driver's when `name` is made; None: make one."""
        ...

    async def namespace_ready(self, name: str) -> None:
        """Return when the kernel has everything that is planned for the namespace."""
        ...

    async def acknowledged(self, revision: int) -> None:
        """Return when every live node has applied `revision`, or after a bounded time."""
        ...

    async def hang_up(self, name: str) -> None:
        """Let the connections of a namespace whose process has ended come to their end, within a bounded time."""
        ...

    async def report(self, task: Task, status: TaskStatus) -> State:
        """Commit what was observed of a task."""
        ...
