"""Runtimes in memory: they pass the same contract as the real one (test_contract.py)."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from routemesh import signals
from routemesh.errors import Conflict, NotFound, UserError
from routemesh.model import ServiceSpec, TaskId
from routemesh.runtime import Exit, Found, Prepared, Running, Tell

PROGRAMS = {"serve", "sleep", "sh", "seq", "true", "routemesh"}
_FIRST_PID = 1000


@dataclass
class Machine:
    """What outlives daemons: tasks, what they wrote, and how often something about them changed."""

    known: dict[TaskId, Found] = field(default_factory=dict)
    written: dict[TaskId, list[bytes]] = field(default_factory=dict)
    programs: set["asyncio.Task[None]"] = field(default_factory=set)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


class FakeRuntime:
    """Runs programs that need no machine: `true`, `seq N`, `sh -c` with echo, sleep, exit and kill; all others run until stopped.

    `stopped` are the tasks that were asked to end, in order, and `netns` where each was started. `answers` are the results of
    what is executed in a task, the last one for ever; where there are none `healthy` decides. `asked` is what was executed.
    """

    image = "host"

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self.stopped: list[TaskId] = []
        self.netns: dict[TaskId, Path] = {}
        self.answers: list[tuple[int, str]] = []
        self.asked: list[tuple[str, ...]] = []
        self.healthy = True

    @property
    def known(self) -> dict[TaskId, Found]:
        """What it has."""
        return self.machine.known

    def check(self, spec: ServiceSpec) -> None:
        """See Runtime."""
        if spec.image != self.image:
            raise UserError(f"image {spec.image} can't run here")

    def prepares(self, spec: ServiceSpec) -> bool:
        """See Runtime."""
        return False

    def offers(self, spec: ServiceSpec, program: str) -> bool:
        """See Runtime."""
        return program in PROGRAMS

    async def tasks(self) -> Mapping[TaskId, Found]:
        """See Runtime."""
        return dict(self.known)

    async def has(self, task_id: TaskId) -> bool:
        """See Runtime."""
        return task_id in self.known

    async def prepare(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, tell: Tell) -> Prepared:
        """See Runtime."""
        self.check(spec)
        if spec.command[0] not in PROGRAMS:
            raise UserError(f"no program {spec.command[0]!r}")
        self._check_new(task_id)
        return Prepared()

    async def start(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, netns: Path) -> Running:
        """See Runtime."""
        self._check_new(task_id)
        running = Running(pid=_FIRST_PID + len(self.known))
        self.known[task_id] = running
        self.machine.written[task_id] = []
        self.netns[task_id] = netns
        program = asyncio.create_task(self._run(task_id, spec.command))
        self.machine.programs.add(program)
        program.add_done_callback(self.machine.programs.discard)
        return running

    async def wait(self, task_id: TaskId) -> Exit:
        """See Runtime."""
        self._must_know(task_id)
        async with self.machine.changed:
            await self.machine.changed.wait_for(lambda: isinstance(self.known.get(task_id), Exit))
        ended = self.known[task_id]
        assert isinstance(ended, Exit)
        return ended

    async def end(self, task_id: TaskId, code: int) -> None:
        """The process ends, unless it has ended."""
        async with self.machine.changed:
            if isinstance(self.known.get(task_id), Running):
                self.known[task_id] = Exit(code)
            self.machine.changed.notify_all()

    async def stop(self, task_id: TaskId, signal: str, grace_s: float) -> Exit:
        """See Runtime."""
        self._must_know(task_id)
        number = signals.number(signal)
        self.stopped.append(task_id)
        await self.end(task_id, 128 + number)
        return await self.wait(task_id)

    async def execute(self, task_id: TaskId, command: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """See Runtime."""
        self._must_know(task_id)
        if isinstance(self.known[task_id], Exit):
            raise Conflict(f"task {task_id} has ended")
        self.asked.append(tuple(command))
        if self.answers:
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        code = await _code(command, lambda _: None)
        if code is not None:
            return code, ""
        return (0, "") if self.healthy else (1, "sick")

    async def logs(self, task_id: TaskId, *, follow: bool, tail: int | None) -> AsyncGenerator[bytes]:
        """See Runtime."""
        self._must_know(task_id)
        if follow:
            await self.wait(task_id)
        lines = self.machine.written.get(task_id, [])
        for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
            yield line

    async def remove(self, task_id: TaskId) -> None:
        """See Runtime."""
        await self.end(task_id, 137)
        self.known.pop(task_id, None)
        self.machine.written.pop(task_id, None)

    def close(self) -> None:
        """See Runtime."""

    def _check_new(self, task_id: TaskId) -> None:
        if not isinstance(self.known.get(task_id, Prepared()), Prepared):
            raise Conflict(f"task {task_id} was started on this node before; remove it first")

    def _must_know(self, task_id: TaskId) -> None:
        if task_id not in self.known:
            raise NotFound(f"no task {task_id} on this node")

    async def _run(self, task_id: TaskId, command: Sequence[str]) -> None:
        code = await _code(command, self.machine.written[task_id].append)
        if code is not None:
            await self.end(task_id, code)


class SlowRuntime(FakeRuntime):
    """Runs the image `tea`, which takes its time: `served` says when it is there. Its tasks have namespaces of its making.

    `brewed` are the tasks that it began to prepare, `spilt` those whose preparation was cut short. `refusal` is what
    preparations end with.
    """

    image = "tea"

    def __init__(self, machine: Machine | None = None) -> None:
        super().__init__(machine)
        self.served = asyncio.Event()
        self.brewed: list[TaskId] = []
        self.spilt: list[TaskId] = []
        self.refusal: Exception | None = None

    def prepares(self, spec: ServiceSpec) -> bool:
        """See Runtime."""
        return True

    async def prepare(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, tell: Tell) -> Prepared:
        """See Runtime."""
        await super().prepare(task_id, name, spec, hostname, tell)
        self.brewed.append(task_id)
        tell("water is boiling:\n 40 of 100 °C")
        try:
            await self.served.wait()
        except asyncio.CancelledError:
            self.spilt.append(task_id)
            raise
        if self.refusal is not None:
            raise self.refusal
        made = Prepared(Path("/made/by/the/driver", hostname))
        self.known[task_id] = made
        return made


async def _code(command: Sequence[str], say: Callable[[bytes], None]) -> int | None:
    """The exit code of a program that ends by itself."""
    match command:
        case ["true"]:
            return 0
        case ["seq", last]:
            for number in range(1, int(last) + 1):
                say(b"%d\n" % number)
            return 0
        case ["sh", "-c", script]:
            for step in script.split("; "):
                word, _, rest = step.partition(" ")
                if word == "exit":
                    return int(rest)
                if word == "exec":
                    return 127  # all that are asked for are missing
                if word == "kill":
                    return 128 + signals.number(rest.removeprefix("-").removesuffix(" $$"))
                if word == "sleep":
                    await asyncio.sleep(float(rest))
                elif word == "echo":
                    say(f"{rest}\n".encode())
            return 0
        case _:
            return None
