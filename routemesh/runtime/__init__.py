"""The processes of tasks: the contract that every driver fulfils.

prepare ── a network namespace, made by the mesh or handed over by the driver ── start ── stop ── remove
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task that can be started; `netns`: the file of the network namespace that its driver made for it, None where the mesh is
    to make it."""

    netns: Path | None = None


Found = Prepared | Running | Exit
"""How far a task is that a runtime has."""

Tell = Callable[[str], None]
"""Takes one line that says how far something is, as often as there is one; to be called in the event loop."""


class Runtime(Protocol):
    """What a node needs of a runtime. A task outlives its daemon: a new Runtime finds what the old one started."""

    def check(self, spec: ServiceSpec) -> None:
        """Raise errors.UserError when no such task can be run here, saying which can."""
        ...

    def prepares(self, spec: ServiceSpec) -> bool:
        """Whether `prepare` takes its time, or hands over a namespace; False too for what can't be run here.

        Where it is False, the mesh makes the task's namespace at once, and nobody is told of `prepare`.
        """
        ...

    def offers(self, spec: ServiceSpec, program: str) -> bool:
        """Whether a task of such a spec would find a program by its name."""
        ...

    async def tasks(self) -> Mapping[TaskId, Found]:
        """Every task that was started here and not removed, and every one that was prepared, where something is left of that."""
        ...

    async def has(self, task_id: TaskId) -> bool:
        """Whether it is one of these."""
        ...

    async def prepare(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, tell: Tell) -> Prepared:
        """Get everything that the task needs but its network; may take minutes, and tells how far it is.

        Once more for the same task, by this daemon or the next, it goes on or begins anew. When it is cancelled, `remove` takes
        away what it had got. Raises errors.UserError when such a task can't be run (no such program), in one line, and leaves
        nothing then.
        """
        ...

    async def start(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, netns: Path) -> Running:
        """Start the process of a task that has been prepared, in the network namespace `netns`: the one that was handed over,
        or one of the mesh's making.

        `name` is web.1; ROUTEMESH_TASK, ROUTEMESH_SERVICE and HOSTNAME are in its environment.
        Raises errors.UserError when the command can't be started, in one line, and leaves nothing then.
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

    def logs(self, task_id: TaskId, *, follow: bool, tail: int | None) -> AsyncGenerator[bytes]:
        """The task's output in blocks of whole lines, standard output and error as they came; also of an ended task.

        The last line may lack its newline, and one that is very long comes in pieces. Raises Conflict where nothing is kept.
        """
        ...

    async def remove(self, task_id: TaskId) -> None:
        """Kill what still runs and forget the task with its logs and all that was prepared for it; fine when it is gone."""
        ...

    def close(self) -> None:
        """Let go of what this process has; tasks go on."""
        ...
