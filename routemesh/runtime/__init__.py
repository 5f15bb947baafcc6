"""The processes of tasks: the contract that every driver fulfils."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from routemesh.model import ServiceSpec, TaskId


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task's main process ended; `code` is 128 + signal for a signal, None when it can't be known any more."""

    code: int | None


@dataclass(frozen=True, slots=True)
class Running:
    """A task whose main process runs; `pid` is its init's, as the node sees it."""

    pid: int


class Runtime(Protocol):
    """What the agent needs of a runtime. A task outlives its daemon: a new Runtime finds what the old one started."""

    def check(self, spec: ServiceSpec) -> None:
        """Raise errors.UserError when this driver can't run such a task, naming the driver that can."""
        ...

    def offers(self, spec: ServiceSpec, program: str) -> bool:
        """Whether a task of such a spec would find a program by its name."""
        ...

    async def tasks(self) -> Mapping[TaskId, Running | Exit]:
        """Every task that was started here and not removed."""
        ...

    async def start(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, netns: Path) -> Running:
        """Start the task's process in the network namespace `netns`.

        `name` is web.1; ROUTEMESH_TASK, ROUTEMESH_SERVICE and HOSTNAME are in its environment.
        Raises errors.UserError when the command can't be started (no such program), in one line.
        """
        ...

    async def wait(self, task_id: TaskId) -> Exit:
        """Return when the task's main process has ended, at once if it has; also for adopted tasks."""
        ...

    async def stop(self, task_id: TaskId, signal: str, grace_s: float) -> Exit:
        """Send `signal` to the main process, SIGKILL everything in the task after `grace_s`, and return how it ended."""
        ...

    async def execute(self, task_id: TaskId, command: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """Run a command inside the task's namespaces: exit code and the end of its output; 124 after `timeout_s`."""
        ...

    def logs(self, task_id: TaskId, *, follow: bool, tail: int | None) -> AsyncIterator[bytes]:
        """The task's output in blocks of whole lines, standard output and error as they came; also of an ended task.

        The last line may lack its newline, and one that is very long comes in pieces. Raises Conflict where nothing is kept.
        """
        ...

    async def remove(self, task_id: TaskId) -> None:
        """Kill what still runs and forget the task with its logs."""
        ...
