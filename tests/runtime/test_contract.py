"""What every runtime must do: one class of tests, one subclass per driver; the fakes pass it, too, and so can be trusted."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Protocol

import pytest

from routemesh.errors import Conflict, NotFound, Unavailable, UserError
from routemesh.model import ServiceSpec, TaskId
from routemesh.runtime import Exit, Prepared, Running, Runtime, Tell
from tests.runtime.fake import FakeRuntime, Machine, SlowRuntime
from tests.runtime.node import pid_namespace, process_node, processes_in
from tests.support import patience, require, wait_until

DEADLINE_S = 20.0
LONG_S = 600.0
"""Longer than any test: what waits for this has failed."""
TASK = TaskId("t1")
FOREVER = ("sleep", "1000")


class Node(Protocol):
    """Where a driver is tested."""

    @property
    def netns(self) -> Path: ...
    @property
    def image(self) -> str: ...
    def daemon(self) -> Runtime:
        """The runtime of a daemon that knows nothing of the ones before."""
        ...


P = ParamSpec("P")


def in_loop(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run a test in an event loop of its own, within the deadline, which a busy machine stretches."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), DEADLINE_S * patience()))

    return run


async def start(node: Node, *command: str, task: TaskId = TASK, **fields: Any) -> Running:
    """Prepare a task and start it, as an agent does."""
    spec = ServiceSpec(name="web", image=node.image, command=command, **fields)
    netns = (await prepare(node.daemon(), spec, task)).netns
    return await node.daemon().start(task, "web.1", spec, "c0ffee", netns or node.netns)


async def prepare(runtime: Runtime, spec: ServiceSpec, task: TaskId = TASK, tell: Tell = lambda _: None) -> Prepared:
    return await runtime.prepare(task, "web.1", spec, "c0ffee", tell)


async def start_script(node: Node, script: str, **fields: Any) -> Running:
    """Start a shell script and return when it has said `ready`."""
    running = await start(node, "sh", "-c", script, **fields)
    async for line in lines(node.daemon(), follow=True):
        if line == b"ready\n":
            return running
    raise AssertionError(f"the script ended before it was ready: {await output(node)}")


async def output(node: Node, tail: int | None = None) -> list[bytes]:
    return [line async for line in lines(node.daemon(), tail=tail)]


async def lines(runtime: Runtime, *, follow: bool = False, tail: int | None = None) -> AsyncIterator[bytes]:
    """The lines of a task's output one by one."""
    async for block in runtime.logs(TASK, follow=follow, tail=tail):
        for line in block.splitlines(keepends=True):
            yield line


async def said(node: Node, *command: str, **fields: Any) -> str:
    """What a command says as a task."""
    await start(node, *command, **fields)
    assert (await node.daemon().wait(TASK)).code == 0
    return b"".join(await output(node)).decode()


class RuntimeContract:
    """Subclasses give the fixture `node`."""

    # Start, end and what is known of them.

    @in_loop
    async def test_a_started_task_runs_and_is_known(self, node: Node) -> None:
        running = await start(node, *FOREVER)
        assert await node.daemon().tasks() == {TASK: running}
        assert await node.daemon().has(TASK)

    @in_loop
    async def test_nothing_is_known_at_first(self, node: Node) -> None:
        assert await node.daemon().tasks() == {}
        assert not await node.daemon().has(TASK)

    @pytest.mark.parametrize(
        ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("exit 127", 127), ("kill -KILL $$", 137), ("kill -TERM $$", 143)]
    )
    @in_loop
    async def test_the_exit_code_is_known_and_stays_known(self, node: Node, script: str, code: int) -> None:
        await start(node, "sh", "-c", script)
        assert await node.daemon().wait(TASK) == Exit(code)
        assert await node.daemon().wait(TASK) == Exit(code)
        assert await node.daemon().tasks() == {TASK: Exit(code)}

    @in_loop
    async def test_several_may_wait(self, node: Node) -> None:
        runtime = node.daemon()
        await start(node, "sh", "-c", "sleep 0.1; exit 3")
        assert set(await asyncio.gather(runtime.wait(TASK), runtime.wait(TASK), node.daemon().wait(TASK))) == {Exit(3)}

    @in_loop
    async def test_tasks_are_apart(self, node: Node) -> None:
        await start(node, "sh", "-c", "exit 3")
        other = await start(node, *FOREVER, task=TaskId("t2"))
        await node.daemon().wait(TASK)
        assert await node.daemon().tasks() == {TASK: Exit(3), TaskId("t2"): other}

    @in_loop
    async def test_a_task_is_started_once(self, node: Node) -> None:
        running = await start(node, *FOREVER)
        with pytest.raises(Conflict, match=r"^task t1 was started on this node before"):
            await start(node, *FOREVER)
        assert await node.daemon().tasks() == {TASK: running}

    @in_loop
    async def test_an_unknown_task_is_named(self, node: Node) -> None:
        runtime = node.daemon()
        for attempt in (runtime.wait(TASK), runtime.stop(TASK, "TERM", 0), runtime.execute(TASK, ["true"], 1), output(node)):
            with pytest.raises(NotFound, match="no task t1 on this node"):
                await attempt

    # What can't be started.

    @in_loop
    async def test_a_missing_program_is_an_error_and_leaves_nothing(self, node: Node) -> None:
        with pytest.raises(UserError, match="no-such-program"):
            await start(node, "no-such-program")
        assert await node.daemon().tasks() == {}
        await start(node, *FOREVER)

    # Prepare.

    @in_loop
    async def test_a_preparation_is_gone_on_with_by_the_next_daemon(self, node: Node) -> None:
        spec = ServiceSpec(name="web", image=node.image, command=FOREVER)
        made = await prepare(node.daemon(), spec)
        assert await prepare(node.daemon(), spec) == made
        assert (await node.daemon().tasks()).get(TASK, made) == made
        running = await start(node, *FOREVER)
        assert await node.daemon().tasks() == {TASK: running}

    @in_loop
    async def test_a_preparation_can_be_taken_back(self, node: Node) -> None:
        spec = ServiceSpec(name="web", image=node.image, command=FOREVER)
        await prepare(node.daemon(), spec)
        await node.daemon().remove(TASK)
        assert await node.daemon().tasks() == {}
        await start(node, *FOREVER)

    @in_loop
    async def test_what_can_not_be_run_is_not_prepared_and_leaves_nothing(self, node: Node) -> None:
        for image, command in ((node.image, "no-such-program"), ("no such image", "sleep")):
            with pytest.raises(UserError, match=r"no.such"):
                await prepare(node.daemon(), ServiceSpec(name="web", image=image, command=(command, "1000")))
        assert await node.daemon().tasks() == {}

    @in_loop
    async def test_a_task_that_has_started_is_not_prepared_again(self, node: Node) -> None:
        running = await start(node, *FOREVER)
        with pytest.raises(Conflict, match=r"^task t1 was started on this node before"):
            await prepare(node.daemon(), ServiceSpec(name="web", image=node.image, command=FOREVER))
        assert await node.daemon().tasks() == {TASK: running}

    # What a task finds.

    def test_what_it_offers_a_task_finds(self, node: Node) -> None:
        spec = ServiceSpec(name="web", image=node.image, command=FOREVER)
        assert node.daemon().offers(spec, "sleep")
        assert not node.daemon().offers(spec, "no-such-program")

    # Stop.

    @pytest.mark.parametrize("name", ["SIGTERM", "TERM", "term", "15"])
    @in_loop
    async def test_a_plain_sleep_can_be_stopped(self, node: Node, name: str) -> None:
        await start(node, *FOREVER)
        assert await node.daemon().stop(TASK, name, LONG_S) == Exit(143)

    @in_loop
    async def test_stopping_an_ended_task_tells_how_it_ended(self, node: Node) -> None:
        await start(node, "sh", "-c", "exit 3")
        await node.daemon().wait(TASK)
        assert await node.daemon().stop(TASK, "SIGTERM", LONG_S) == Exit(3)

    @in_loop
    async def test_an_unknown_signal_is_an_error_and_stops_nothing(self, node: Node) -> None:
        running = await start(node, *FOREVER)
        with pytest.raises(UserError, match="SIGNONE"):
            await node.daemon().stop(TASK, "SIGNONE", 0)
        assert await node.daemon().tasks() == {TASK: running}

    # Execute.

    @pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -KILL $$", 137), ("exec no-such-program", 127)])
    @in_loop
    async def test_a_probes_exit_code(self, node: Node, script: str, code: int) -> None:
        await start(node, *FOREVER)
        assert (await node.daemon().execute(TASK, ["sh", "-c", script], LONG_S))[0] == code

    @in_loop
    async def test_an_ended_task_can_not_be_probed(self, node: Node) -> None:
        await start(node, "true")
        await node.daemon().wait(TASK)
        with pytest.raises(Conflict, match="t1 has ended"):
            await node.daemon().execute(TASK, ["true"], LONG_S)

    # Logs.

    @pytest.mark.parametrize(("tail", "wanted"), [(0, []), (1, [b"3\n"]), (2, [b"2\n", b"3\n"]), (9, [b"1\n", b"2\n", b"3\n"])])
    @in_loop
    async def test_the_tail_of_logs(self, node: Node, tail: int, wanted: list[bytes]) -> None:
        await said(node, "seq", "3")
        assert await output(node, tail) == wanted

    @in_loop
    async def test_following_the_logs_of_an_ended_task_ends(self, node: Node) -> None:
        await said(node, "seq", "3")
        assert len([line async for line in lines(node.daemon(), follow=True)]) == 3

    # Remove.

    @in_loop
    async def test_removing_what_is_not_there_is_no_error(self, node: Node) -> None:
        await node.daemon().remove(TASK)

    # Check.

    @in_loop
    async def test_another_image_is_refused(self, node: Node) -> None:
        with pytest.raises(UserError):
            node.daemon().check(ServiceSpec(name="web", image="no such image", command=FOREVER))


class ProcessContract(RuntimeContract):
    """What a driver of real processes must do besides."""

    @in_loop
    async def test_it_is_a_process_of_the_machine(self, node: Node) -> None:
        os.kill((await start(node, *FOREVER)).pid, 0)

    # What can't be started.

    @in_loop
    async def test_a_missing_namespace_is_an_error_and_leaves_nothing(self, node: Node) -> None:
        spec = ServiceSpec(name="web", image=node.image, command=FOREVER)
        with pytest.raises(Unavailable, match="no-such-namespace"):
            await node.daemon().start(TASK, "web.1", spec, "c0ffee", node.netns.with_name("no-such-namespace"))
        assert await node.daemon().tasks() == {}

    # What a task finds.

    @in_loop
    async def test_the_environment_is_the_specs_and_ours_alone(self, node: Node) -> None:
        os.environ["LEAKED_FROM_THE_DAEMON"] = "yes"
        try:
            text = await said(node, "env", environment=('GREETING=it\'s "$HOME"', "EMPTY=", "ROUTEMESH_SERVICE=mine"))
        finally:
            del os.environ["LEAKED_FROM_THE_DAEMON"]
        found = dict(line.split("=", 1) for line in text.splitlines())
        assert found.pop("PATH")
        assert Path(found.pop("ROUTEMESH_RUN_DIR")).is_dir()
        assert found == {
            "GREETING": 'it\'s "$HOME"',
            "EMPTY": "",
            "HOSTNAME": "c0ffee",
            "ROUTEMESH_TASK": "web.1",
            "ROUTEMESH_SERVICE": "mine",
        }

    @in_loop
    async def test_the_spec_may_say_where_programs_are(self, node: Node) -> None:
        with pytest.raises(UserError, match="/nowhere"):
            await start(node, *FOREVER, environment=("PATH=/nowhere",))

    @in_loop
    async def test_arguments_arrive_as_they_are(self, node: Node) -> None:
        assert await said(node, "printf", "%s|", "a  b", "", "*", "$HOME", "it's", "-n") == "a  b||*|$HOME|it's|-n|"

    @in_loop
    async def test_it_has_a_hostname_a_directory_and_no_input(self, node: Node) -> None:
        text = await said(node, "sh", "-c", "cat /proc/sys/kernel/hostname; pwd; cat", workdir="/usr")
        assert text == "c0ffee\n/usr\n"

    @in_loop
    async def test_it_sees_its_own_processes_alone(self, node: Node) -> None:
        text = await said(node, "sh", "-c", "echo /proc/[0-9]*")
        assert len(text.split()) <= 3

    @in_loop
    async def test_it_is_in_the_network_namespace_that_was_given(self, node: Node) -> None:
        assert await said(node, "stat", "-L", "-c", "%i", "/proc/self/ns/net") == f"{node.netns.stat().st_ino}\n"

    @in_loop
    async def test_it_has_standard_descriptors_only(self, node: Node) -> None:
        # The fourth is the directory that ls reads.
        assert await said(node, "ls", "/proc/self/fd") == "0\n1\n2\n3\n"

    @in_loop
    async def test_orphans_are_reaped(self, node: Node) -> None:
        await start_script(node, "(sh -c 'sleep 0.05; exit 1' &); echo ready; exec sleep 1000")

        async def processes() -> list[str]:
            _, text = await node.daemon().execute(TASK, ["sh", "-c", "echo /proc/[0-9]*"], LONG_S)
            return text.split()

        # PID 1, the command and the probe; a zombie has a directory too.
        while len(await processes()) > 3:
            await asyncio.sleep(0.01)

    # Stop.

    @pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "ABRT", "USR1", "TSTP", "TTIN", "WINCH", "RTMIN+3"])
    @in_loop
    async def test_every_stop_signal_reaches_the_command(self, node: Node, name: str) -> None:
        number = signal.SIGRTMIN + 3 if name == "RTMIN+3" else signal.Signals[f"SIG{name}"]
        await start_script(node, f"trap 'exit 42' {number:d}; echo ready; while :; do sleep 0.01; done")
        assert await node.daemon().stop(TASK, name, LONG_S) == Exit(42)

    @in_loop
    async def test_no_signal_is_lost_between_two_waits(self, node: Node) -> None:
        script = "trap 'echo got' USR1; echo ready; while :; do sleep 0.01; done"
        running = await start(node, "sh", "-c", script)
        sent = 0
        async for line in lines(node.daemon(), follow=True):
            assert line == (b"got\n" if sent else b"ready\n")
            if sent == 100:
                return
            sent += 1
            os.kill(running.pid, signal.SIGUSR1)

    @in_loop
    async def test_after_the_grace_time_everything_is_killed(self, node: Node) -> None:
        running = await start_script(node, "trap '' TERM; setsid sleep 1000 & echo ready; while :; do sleep 0.01; done")
        with pid_namespace(running.pid) as namespace:
            begin = time.monotonic()
            assert await node.daemon().stop(TASK, "SIGTERM", 0.2) == Exit(137)
            assert time.monotonic() - begin >= 0.2
            assert not processes_in(namespace)

    @in_loop
    async def test_what_the_command_leaves_behind_ends_with_it(self, node: Node) -> None:
        running = await start_script(node, "trap 'exit 0' TERM; setsid sleep 1000 & echo ready; while :; do sleep 0.01; done")
        with pid_namespace(running.pid) as namespace:
            assert await node.daemon().stop(TASK, "SIGTERM", LONG_S) == Exit(0)
            assert not processes_in(namespace)

    @in_loop
    async def test_a_killed_pid_1_is_an_end(self, node: Node) -> None:
        running = await start(node, *FOREVER)
        waiting = asyncio.create_task(node.daemon().wait(TASK))
        os.kill(running.pid, signal.SIGKILL)
        assert await waiting == Exit(137)

    # Execute.

    @in_loop
    async def test_a_probe_runs_inside_the_task(self, node: Node) -> None:
        running = await start(node, *FOREVER, environment=("GREETING=hello",), workdir="/usr")
        show = "stat -L -c %i /proc/self/ns/net /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/uts /proc/self/ns/ipc; "
        show += "echo $GREETING $PWD $(cat /proc/sys/kernel/hostname)"
        code, text = await node.daemon().execute(TASK, ["sh", "-c", show], LONG_S)
        *namespaces, rest = text.splitlines()
        assert code == 0
        assert [int(each) for each in namespaces] == [
            os.stat(f"/proc/{running.pid}/ns/{name}").st_ino for name in ("net", "mnt", "pid", "uts", "ipc")
        ]
        assert rest == "hello /usr c0ffee"

    @in_loop
    async def test_of_a_probes_output_the_end_is_kept(self, node: Node) -> None:
        await start(node, *FOREVER)
        code, text = await node.daemon().execute(TASK, ["sh", "-c", "seq 100000; echo last >&2"], LONG_S)
        assert code == 0
        assert len(text) == 4096
        assert text.endswith("100000\nlast\n")

    @in_loop
    async def test_a_probe_that_takes_too_long_is_killed_whole(self, node: Node) -> None:
        running = await start(node, *FOREVER)
        with pid_namespace(running.pid) as namespace:
            before = processes_in(namespace)
            script = "trap '' TERM; echo begun; sleep 1000 & sleep 1000; sleep 1000"
            # On a busy machine a probe may not even begin in a short time.
            results = [await node.daemon().execute(TASK, ["sh", "-c", script], timeout_s) for timeout_s in (0.1, 0.5)]
            if (124, "begun\n") not in results:
                assert await node.daemon().execute(TASK, ["sh", "-c", script], 5) == (124, "begun\n")
            wait_until(lambda: processes_in(namespace) == before)

    @in_loop
    async def test_a_probe_that_floods_or_closes_its_output_is_bounded(self, node: Node) -> None:
        await start(node, *FOREVER)
        runtime = node.daemon()
        assert (await runtime.execute(TASK, ["yes"], 0.2))[0] == 124
        assert await runtime.execute(TASK, ["sh", "-c", "echo closing; exec >&- 2>&-; sleep 0.1"], LONG_S) == (0, "closing\n")
        assert await runtime.execute(TASK, ["sh", "-c", "echo left; sleep 1000 &"], LONG_S) == (0, "left\n")

    @in_loop
    async def test_a_cancelled_probe_is_killed(self, node: Node) -> None:
        running = await start(node, *FOREVER)
        with pid_namespace(running.pid) as namespace:
            before = processes_in(namespace)
            probe = asyncio.create_task(node.daemon().execute(TASK, FOREVER, LONG_S))
            while processes_in(namespace) == before:
                await asyncio.sleep(0.01)
            probe.cancel()
            await asyncio.wait([probe])
            wait_until(lambda: processes_in(namespace) == before)

    # Logs.

    @in_loop
    async def test_logs_hold_output_and_errors_in_order_and_stay(self, node: Node) -> None:
        await start(node, "sh", "-c", "echo 1; echo 2 >&2; echo 3; printf '4 without newline'")
        await node.daemon().wait(TASK)
        assert await output(node) == [b"1\n", b"2\n", b"3\n", b"4 without newline"]

    @in_loop
    async def test_following_logs_gives_lines_as_they_come_and_ends_with_the_task(self, node: Node) -> None:
        await start_script(node, "trap 'echo bye; exit 0' TERM; echo early; echo ready; while :; do sleep 0.01; done")
        runtime = node.daemon()
        seen = []
        async for line in lines(runtime, follow=True, tail=1):
            seen.append(line)
            if line == b"ready\n":
                await runtime.stop(TASK, "SIGTERM", LONG_S)
        assert seen == [b"ready\n", b"bye\n"]

    @in_loop
    async def test_following_gets_every_line_of_a_fast_writer(self, node: Node) -> None:
        await start(node, "seq", "200000")
        seen = [int(line) async for line in lines(node.daemon(), follow=True)]
        assert seen == list(range(1, 200001))

    # Remove.

    @in_loop
    async def test_remove_kills_and_forgets(self, node: Node) -> None:
        running = await start(node, *FOREVER)
        with pid_namespace(running.pid) as namespace:
            following = asyncio.create_task(_collect(node))
            await node.daemon().remove(TASK)
            assert await node.daemon().tasks() == {}
            assert await following == []
            assert not processes_in(namespace)
            with pytest.raises(NotFound):
                await output(node)


async def _collect(node: Node) -> list[bytes]:
    return [line async for line in lines(node.daemon(), follow=True)]


class TestProcessRuntime(ProcessContract):
    @pytest.fixture
    def node(self, tmp_path: Path) -> Iterator[Node]:
        require("root", "netns")
        with process_node(tmp_path) as node:
            yield node


@dataclass
class Memory:
    """A machine in memory: the daemons of a node know nothing but what it holds."""

    make: Callable[[Machine], FakeRuntime]
    machine: Machine = field(default_factory=Machine)
    netns: Path = Path("/nonexistent/netns")

    @property
    def image(self) -> str:
        return self.daemon().image

    def daemon(self) -> FakeRuntime:
        return self.make(self.machine)


class TestFakeRuntime(RuntimeContract):
    @pytest.fixture
    def node(self) -> Node:
        return Memory(FakeRuntime)


class TestSlowRuntime(RuntimeContract):
    @pytest.fixture
    def node(self) -> Node:
        return Memory(_prompt)


def _prompt(machine: Machine) -> SlowRuntime:
    runtime = SlowRuntime(machine)
    runtime.served.set()
    return runtime
