"""The `process` driver: a task is a command on the host's file system, in namespaces of its own; needs util-linux alone.

    daemon ── nsenter --net ── unshare ── setsid ─┐        (gone once the task runs)
                                                  └─ init.sh ── command ── …
                                                     PID 1 of the task's pid namespace

All state is in the file system and the kernel, none in this process: a task outlives its daemon, and the next
ProcessRuntime finds it as this one does. In RUN_DIR/tasks/ID/: `environment`, what the command gets; `init`, which process
PID 1 is; `exit`, the command's exit status; `output` and `logging`: see logwriter. PID 1 writes `exit` unless it is killed, and
then the kernel kills everything in its namespace: a task without `exit` whose PID 1 is gone ended by SIGKILL.

Under systemd the daemon's unit needs KillMode=process, or tasks die with the daemon's cgroup.
Source: pid_namespaces(7), unshare(1), nsenter(1), setsid(1).
"""

import asyncio
import errno
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from routemesh import signals
from routemesh.errors import Conflict, NotFound, RoutemeshError, Unavailable, UserError
from routemesh.model import LogConfig, LogDriver, ServiceSpec, TaskId
from routemesh.programs import USUAL_PATH
from routemesh.runtime import Exit, Found, Prepared, Running, Tell
from routemesh.runtime.process import bounded, hostcommand
from routemesh.runtime.process.growth import Growth
from routemesh.runtime.process.logfile import LogReader, last_line
from routemesh.runtime.process.logpipe import LogWriter, drained
from routemesh.runtime.process.supervision import Init, ends_within, living, read_to_end, send, until_readable

P = ParamSpec("P")
T = TypeVar("T")

START_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 10.0
"""How long processes may take to die of SIGKILL; only one in an uninterruptible sleep needs any time."""
_READERS = 4
"""Threads that read logs: a caller that asks for many shares them with all others."""

_KILLED = Exit(128 + signal.SIGKILL)
_EXECUTING, _REFUSED = "exec\n", "refused"
"""What launch.sh answers."""
_SHELL_PREFIX = re.compile(r"^.*?: (?:line )?\d+: (?:exec: )?")
"""How dash and bash begin a complaint: the script and the line."""
_FOR_THE_SPEC = {errno.E2BIG, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP}
"""What execve(2) and chdir(2) refuse because of what the spec says, not because of what the machine has at the moment."""
_UMASK = 0o022
_INIT_SCRIPT = Path(__file__).with_name("init.sh")
_SYSTEM_ENVIRONMENT = {"PATH": USUAL_PATH}
# Mounts come in from the host and, above all, go as they go there: no task keeps a file system of the host busy.
_UNSHARE = ("unshare", "--mount", "--propagation=slave", "--uts", "--ipc", "--pid")
_NSENTER = ("nsenter", "--net", "--mount", "--uts", "--ipc", "--pid", "--wd")
_WITH_ENVIRONMENT = ("/bin/sh", "-c", 'unset PWD; . "$0"; exec "$@"')


class ProcessRuntime:
    """Tasks as processes of this machine; fulfils the contract `Runtime`. Lives in one event loop, until `close`."""

    def __init__(self, run_dir: Path, log_dir: Path) -> None:
        self._tasks = run_dir / "tasks"
        self._logs = log_dir
        for directory in (self._tasks, self._logs):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._writer = LogWriter(self._tasks, self._logs)
        self._growth = Growth()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="logs")

    def close(self) -> None:
        """Let go of what this process has; tasks and the writer of their logs go on."""
        self._writer.close()
        self._readers.shutdown(wait=True, cancel_futures=True)

    def check(self, spec: ServiceSpec) -> None:
        """Raise UserError for an image that is not `host`, a missing command and whatever else can't be carried out."""
        hostcommand.check(spec)

    def prepares(self, spec: ServiceSpec) -> bool:
        """Everything is on the node."""
        return False

    def offers(self, spec: ServiceSpec, program: str) -> bool:
        """Whether the machine has a program: a task sees its file system."""
        return hostcommand.finds(program)

    async def tasks(self) -> Mapping[TaskId, Found]:
        """Every task that was begun here and not removed; Exit(None) for one of which no more than files are left."""
        return await asyncio.to_thread(self._found)  # of thousands it takes a moment

    def _found(self) -> Mapping[TaskId, Found]:
        found: dict[TaskId, Found] = {}
        for directory in self._tasks.iterdir():
            task_id = TaskId(directory.name)
            init = self._init(task_id)
            if init is None:  # its daemon died before it could start the task
                found[task_id] = Exit(None)
                continue
            with living(init) as fd:
                found[task_id] = self._exit(task_id) if fd is None else Running(init.pid)
        # A log stays when the machine's end takes RUN_DIR away.
        left: dict[TaskId, Found] = {TaskId(log.name): Exit(None) for log in self._logs.iterdir() if log.is_dir()}
        return left | found

    async def has(self, task_id: TaskId) -> bool:
        """Whether it was begun here and not removed; its log may be all that is left."""
        return self._directory(task_id).exists() or self._log(task_id).exists()

    async def prepare(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, tell: Tell) -> Prepared:
        """Nothing is to be done but to look; leaves nothing. Raises UserError (no such program, working directory …)."""
        await asyncio.to_thread(self._variables, name, spec, hostname)
        self._check_new(task_id)
        return Prepared()

    async def start(self, task_id: TaskId, name: str, spec: ServiceSpec, hostname: str, netns: Path) -> Running:
        """Start the task; returns when its command is being executed.

        Raises UserError (no such program any more …), Conflict when the task is here already, and Unavailable
        when the machine can't do it (no privileges, no such namespace …); then nothing is left of the attempt. When it is
        cancelled the task may run; `tasks` tells.
        """
        variables = await asyncio.to_thread(self._variables, name, spec, hostname)  # it looks at any file system
        self._check_new(task_id)
        try:
            self._write_environment(task_id, variables)
            answer = await self._launch(task_id, spec, hostname, netns)
            init = self._init(task_id)
            if answer != _EXECUTING or init is None:
                raise await self._refusal(task_id, answer)
        except Exception as exc:
            await self.remove(task_id)
            if isinstance(exc, OSError):
                raise _not_started(exc) from exc
            raise
        return Running(init.pid)

    async def wait(self, task_id: TaskId) -> Exit:
        """Return when the task has ended, within milliseconds."""
        with living(self._known(task_id)) as fd:
            if fd is not None:
                self._writer.keep()
                await until_readable(fd)
        return self._exit(task_id)

    async def stop(self, task_id: TaskId, signal: str, grace_s: float) -> Exit:
        """Send `signal` to the command and after `grace_s` SIGKILL to everything in the task; return how it ended."""
        number = signals.number(signal)
        with living(self._known(task_id)) as fd:
            if fd is not None:
                send(fd, number)
                if not await ends_within(fd, grace_s):
                    await _kill(fd, task_id)
        return self._exit(task_id)

    async def execute(self, task_id: TaskId, command: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """Run a command in the task's namespaces, working directory and environment.

        Returns its exit code, or bounded.TIMED_OUT, and the end of its output. Raises Conflict when the task has ended, and
        Unavailable when the machine can't (no more processes …).
        """
        init = self._known(task_id)
        with living(init) as fd:
            if fd is None:
                raise Conflict(f"task {task_id} has ended; nothing can be executed in it")
            enter = (*_NSENTER, f"--target={init.pid}", *_WITH_ENVIRONMENT, str(self._environment(task_id)))
            try:
                return await bounded.run((*enter, *command), _SYSTEM_ENVIRONMENT, timeout_s)
            except OSError as exc:
                raise Unavailable(f"can't execute {command[0]!r} in task {task_id}: {exc.strerror}") from exc

    async def logs(self, task_id: TaskId, *, follow: bool, tail: int | None) -> AsyncGenerator[bytes]:
        """The task's output in blocks of lines, the last `tail` of them; with `follow` until the task has ended."""
        log = self._log(task_id)
        init = self._init(task_id) if log.exists() else self._known(task_id)
        if init is not None and not self._logging(task_id).exists():
            raise Conflict(f"task {task_id} keeps no output: its log driver is none")
        try:
            async with aclosing(self._moments(task_id, init, follow=follow)) as moments:
                await anext(moments)
                reader = await self._read(LogReader, log, tail)
                try:
                    while block := await self._read(reader.read):
                        yield block
                    async for _ in moments:
                        while block := await self._read(reader.read):
                            yield block
                finally:
                    reader.close()
                if reader.rest():
                    yield reader.rest()
        except FileNotFoundError:
            return  # it has said nothing yet, or was removed meanwhile

    async def remove(self, task_id: TaskId) -> None:
        """Kill what still runs and delete the task's directory and log; no error when there is no such task."""
        if (init := self._init(task_id)) is not None:
            with living(init) as fd:
                if fd is not None:
                    await _kill(fd, task_id)
        await self._settled(task_id)
        await asyncio.to_thread(_delete, self._directory(task_id), self._log(task_id))

    def _directory(self, task_id: TaskId) -> Path:
        return self._tasks / task_id

    def _environment(self, task_id: TaskId) -> Path:
        return self._directory(task_id) / "environment"

    def _log(self, task_id: TaskId) -> Path:
        return self._logs / task_id

    def _output(self, task_id: TaskId) -> Path:
        return self._directory(task_id) / "output"

    def _logging(self, task_id: TaskId) -> Path:
        return self._directory(task_id) / "logging"

    async def _read(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """Read from a disk, however long that takes, in one of the threads that are for it."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, partial(work, *given, **named))

    async def _moments(self, task_id: TaskId, init: Init | None, *, follow: bool) -> AsyncGenerator[None]:
        """Yield at once, with `follow` after the log has grown, and a last time when it is complete."""
        if init is None:
            yield
            return
        with living(init) as fd:
            if fd is not None:
                if not follow:
                    yield
                    return
                ended = asyncio.ensure_future(until_readable(fd))
                try:
                    with self._growth.of(self._log(task_id)) as grown:
                        while not ended.done():
                            grown.clear()
                            yield
                            await _first(grown.wait(), ended)
                finally:
                    ended.cancel()
                    # To its end: later the descriptor's number may be another's, who would never be woken then.
                    await asyncio.gather(ended, return_exceptions=True)
        await drained(self._output(task_id))
        yield

    def _init(self, task_id: TaskId) -> Init | None:
        try:
            return Init.parse((self._directory(task_id) / "init").read_text(errors="replace"))
        except FileNotFoundError:
            return None

    def _known(self, task_id: TaskId) -> Init:
        init = self._init(task_id)
        if init is None:
            raise NotFound(f"no task {task_id} on this node")
        return init

    def _exit(self, task_id: TaskId) -> Exit:
        """How a task ended, after its end."""
        try:
            code = int((self._directory(task_id) / "exit").read_bytes())
        except FileNotFoundError:
            return _KILLED
        except ValueError:
            # The disk was full.
            return Exit(None)
        return Exit(code)

    def _variables(self, name: str, spec: ServiceSpec, hostname: str) -> Mapping[str, str]:
        """A task's environment. Raises UserError where the spec can't be carried out."""
        hostcommand.check(spec)
        variables = hostcommand.environment(spec, name, hostname, self._tasks.parent)
        hostcommand.check_on_node(spec, variables["PATH"])
        return variables

    def _check_new(self, task_id: TaskId) -> None:
        if self._init(task_id) is not None:
            raise Conflict(f"task {task_id} was started on this node before; remove it first")

    def _write_environment(self, task_id: TaskId, variables: Mapping[str, str]) -> None:
        self._directory(task_id).mkdir(mode=0o700, exist_ok=True)
        with open(_private(self._environment(task_id), os.O_TRUNC), "wb") as file:
            file.write(hostcommand.export_lines(variables))

    async def _launch(self, task_id: TaskId, spec: ServiceSpec, hostname: str, netns: Path) -> str:
        """Start init.sh with the command and return what launch.sh answers (see there)."""
        argv = (
            # A shell can't undo what is ignored when it begins, as SIGHUP is below nohup(1).
            "env", "--default-signal", "nsenter", f"--net={netns}", *_UNSHARE, "setsid", "--fork",
            "/bin/sh", str(_INIT_SCRIPT), str(self._directory(task_id)), hostname, *spec.command,
        )  # fmt: skip
        answer, its_answer = os.pipe()
        with open(answer, "rb", buffering=0) as pipe:
            with open(its_answer, "wb") as stdout, open(await self._output_of(task_id, spec.logs), "wb") as output:
                stage = subprocess.Popen(
                    argv,
                    cwd=spec.workdir,
                    env=_SYSTEM_ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=output,
                    umask=_UMASK,
                )
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    return (await read_to_end(pipe.fileno())).decode(errors="replace")
            except TimeoutError:
                stage.kill()
                raise Unavailable(f"task {task_id} did not start within {START_TIMEOUT_S:.0f} s; try again") from None
            finally:
                stage.wait()

    async def _output_of(self, task_id: TaskId, logs: LogConfig) -> int:
        """Where a new task's output goes."""
        if logs.driver is LogDriver.NONE:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        await self._settled(task_id)
        end = self._writer.pipe(task_id, logs.max_bytes, logs.max_files)
        try:
            await self._writer.taken(task_id)
        except BaseException:
            os.close(end)
            raise
        return end

    async def _settled(self, task_id: TaskId) -> None:
        """Return when nobody reads what the task said before, in an attempt that is over."""
        output = self._output(task_id)
        if output.exists():
            self._writer.keep()
            await drained(output)
            output.unlink(missing_ok=True)

    async def _refusal(self, task_id: TaskId, answer: str) -> RoutemeshError:
        """The error for a task that did not start; its log holds what the shell or util-linux said."""
        await drained(self._output(task_id))
        said = last_line(self._log(task_id)) or "no reason given"
        if _REFUSED not in answer:
            return Unavailable(f"can't be started: {said}")
        reason = _SHELL_PREFIX.sub("", said)
        return UserError(f"can't execute {reason}; check the program and what its #! line names")


def _delete(*directories: Path) -> None:
    """Where a disk is busy, a file may take seconds."""
    for directory in directories:
        with suppress(FileNotFoundError):
            shutil.rmtree(directory)


def _not_started(exc: OSError) -> RoutemeshError:
    if exc.errno in _FOR_THE_SPEC:
        return UserError(f"can't be started: {exc.strerror}; shorten the command or change the working directory")
    return Unavailable(f"can't be started: {exc.filename}: {exc.strerror}")


def _private(path: Path, flag: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)


async def _kill(fd: int, task_id: TaskId) -> None:
    """SIGKILL to PID 1 of a task, and so to all its processes; returns when none is left."""
    send(fd, signal.SIGKILL)
    if not await ends_within(fd, KILL_TIMEOUT_S):
        raise Unavailable(
            f"task {task_id} did not die of SIGKILL within {KILL_TIMEOUT_S:.0f} s; a process of it hangs in the kernel"
        )


async def _first(*works: Awaitable[object]) -> None:
    """Return when one of them is done; coroutines are cancelled then, futures are somebody else's."""
    running = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for work in running:
            if work not in works:
                work.cancel()
