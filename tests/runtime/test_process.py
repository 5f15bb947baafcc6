"""The process driver alone: what its daemons leave to one another, what it refuses, what it leaves in the file system."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from routemesh.errors import Conflict, Unavailable, UserError
from routemesh.model import LogConfig, LogDriver, ServiceSpec, TaskId
from routemesh.runtime import Exit, Running
from routemesh.runtime.process import driver
from routemesh.runtime.process.supervision import is_readable, send
from tests.runtime.node import ProcessNode, children, process_node
from tests.runtime.test_contract import FOREVER, LONG_S, TASK, in_loop, lines, output, said, start, start_script
from tests.support import require, wait_until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ProcessNode]:
    require("root", "netns")
    with process_node(tmp_path) as node:
        yield node


# A task outlives its daemon.


@pytest.fixture
def orphan(node: ProcessNode) -> Running:
    """A task whose daemon was killed; it ends with 5 when it gets SIGUSR1."""
    daemon = subprocess.Popen([sys.executable, "-m", "tests.runtime.daemon", "hold", str(node.directory)], stdout=subprocess.PIPE)
    with daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"started\n"
        daemon.kill()
    found = asyncio.run(node.daemon().tasks())[TASK]
    assert isinstance(found, Running)
    return found


@in_loop
async def test_a_task_whose_daemon_was_killed_is_adopted(node: ProcessNode, orphan: Running) -> None:
    runtime = node.daemon()
    waiting = asyncio.create_task(runtime.wait(TASK))
    assert await runtime.execute(TASK, ["sh", "-c", "echo $ROUTEMESH_TASK"], LONG_S) == (0, "web.1\n")
    assert await runtime.stop(TASK, "USR1", LONG_S) == Exit(5)
    assert await waiting == Exit(5)
    assert await output(node) == [b"ready\n"]


@in_loop
async def test_the_exit_code_is_known_when_no_daemon_saw_the_end(node: ProcessNode, orphan: Running) -> None:
    end = os.pidfd_open(orphan.pid)
    os.kill(orphan.pid, signal.SIGUSR1)
    wait_until(lambda: is_readable(end))
    os.close(end)
    assert await node.daemon().tasks() == {TASK: Exit(5)}
    assert await node.daemon().wait(TASK) == Exit(5)


@in_loop
async def test_what_its_daemon_could_not_start_is_started_or_removed_by_the_next(node: ProcessNode) -> None:
    directory = node.directory / "run/tasks" / TASK
    node.daemon()
    for leave in (directory.mkdir, (directory / "environment").touch, (directory / "init").touch):
        leave()
        assert await node.daemon().tasks() == {TASK: Exit(None)}
    assert await said(node, "echo", "hello") == "hello\n"
    await node.daemon().remove(TASK)
    directory.mkdir()
    await node.daemon().remove(TASK)
    _nothing_is_left(node)


@in_loop
async def test_another_process_with_the_pid_is_not_the_task(node: ProcessNode) -> None:
    await start(node, *FOREVER)
    init = node.directory / "run/tasks" / TASK / "init"
    written = init.read_text()
    with subprocess.Popen(FOREVER) as other:
        try:
            # It has the task's pid, as it were, but began a tick (10 ms) later than the record says.
            fields = Path(f"/proc/{other.pid}/stat").read_text().split()
            fields[21] = str(int(fields[21]) - 1)
            init.write_text(f"{written.partition(chr(10))[0]}\n{' '.join(fields)}\n")
            assert await node.daemon().tasks() == {TASK: Exit(137)}
            assert await node.daemon().stop(TASK, "SIGTERM", LONG_S) == Exit(137)
            assert other.poll() is None
        finally:
            other.kill()
            init.write_text(written)


@in_loop
async def test_of_a_task_that_went_with_its_machine_the_log_is_left_until_it_is_removed(node: ProcessNode) -> None:
    await said(node, "seq", "2")
    shutil.rmtree(node.directory / "run")
    runtime = node.daemon()
    assert await runtime.tasks() == {TASK: Exit(None)}
    for follow in (False, True):
        assert [line async for line in lines(runtime, follow=follow)] == [b"1\n", b"2\n"]
    await runtime.remove(TASK)
    assert await runtime.tasks() == {}
    _nothing_is_left(node)


# Supervision.


@in_loop
async def test_a_killed_command_is_an_end(node: ProcessNode) -> None:
    running = await start(node, *FOREVER)
    waiting = asyncio.create_task(node.daemon().wait(TASK))
    (main,) = children(running.pid)
    os.kill(main, signal.SIGKILL)
    assert await waiting == Exit(137)
    assert await output(node) == []


@in_loop
async def test_a_person_can_signal_pid_1(node: ProcessNode) -> None:
    running = await start(node, *FOREVER)
    os.kill(running.pid, signal.SIGTERM)
    assert await node.daemon().wait(TASK) == Exit(143)


@in_loop
async def test_signals_that_come_while_it_ends_do_not_change_the_exit_code(node: ProcessNode) -> None:
    script = "trap : USR1; echo ready; i=0; while [ $i -lt 50 ]; do i=$((i+1)); /bin/true & done; exit 5"
    running = await start_script(node, script)
    end = os.pidfd_open(running.pid)
    while not is_readable(end):
        send(end, signal.SIGUSR1)
    os.close(end)
    assert await node.daemon().wait(TASK) == Exit(5)


@in_loop
async def test_the_command_ignores_no_signal_and_has_a_session_of_its_own(node: ProcessNode) -> None:
    running = await start(node, *FOREVER)
    (main,) = children(running.pid)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{main}/status").read_text().splitlines())
    assert int(status["SigIgn"], 16) == int(status["SigBlk"], 16) == 0
    assert os.getsid(main) == main
    assert os.getsid(running.pid) == running.pid


@in_loop
async def test_the_command_heeds_what_its_daemon_ignores(node: ProcessNode) -> None:
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGHUP, signal.SIGQUIT)}
    try:
        running = await start(node, *FOREVER)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    (main,) = children(running.pid)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{main}/status").read_text().splitlines())
    assert int(status["SigIgn"], 16) == 0


@in_loop
async def test_no_child_stays_with_the_daemon(node: ProcessNode) -> None:
    before = children(os.getpid())
    await start(node, *FOREVER)
    await node.daemon().execute(TASK, ["true"], LONG_S)
    await node.daemon().stop(TASK, "TERM", LONG_S)
    with pytest.raises(UserError):
        await start(node, "no-such-program", task=TaskId("t2"))
    assert children(os.getpid()) == before


def test_it_works_where_nobody_reaps_orphans(node: ProcessNode) -> None:
    """In a container the daemon may itself be the init. A zombie in a task's pid namespace would keep it from ending."""
    container = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    daemon = (sys.executable, "-m", "tests.runtime.daemon", "interrupt", str(node.directory))
    done = subprocess.run([*container, *daemon], capture_output=True, text=True, timeout=LONG_S)
    assert done.stdout == "124 124 124 124 124 5\n", done.stderr


@in_loop
async def test_an_exit_code_that_was_lost_is_unknown(node: ProcessNode) -> None:
    await said(node, "true")
    (node.directory / "run/tasks" / TASK / "exit").write_text("")
    assert await node.daemon().wait(TASK) == Exit(None)


# What can't be started.


def _file(path: Path, text: str, mode: int) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@in_loop
async def test_a_program_that_can_not_be_executed_is_an_error_and_leaves_nothing(node: ProcessNode, tmp_path: Path) -> None:
    plain = _file(tmp_path / "plain", "", 0o644)
    lost = _file(tmp_path / "lost", "#!/no/such/interpreter\n", 0o755)
    alien = _file(tmp_path / "alien", "\x7fELF\x02\x01\x01 of no known machine", 0o755)
    for program, reason in [
        ("/no/such", "does not exist on this node"),
        ("./no-such", "does not exist on this node"),
        ("/etc", "not a program but a directory"),
        (plain, "not executable; chmod"),
        (lost, f"can't execute {lost}: not found; check the program and what its #! line names"),
        (alien, f"can't execute {alien}: Exec format error"),
    ]:
        with pytest.raises(UserError) as caught:
            await start(node, program)
        assert reason in str(caught.value)
        assert "web.1" not in str(caught.value)  # whoever shows it says whose it is
        assert "\n" not in str(caught.value)
    _nothing_is_left(node)


@in_loop
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"command": ("/" + "x" * 300,)}, "File name too long"),
        ({"command": ("x" * 300,)}, "no program"),
        ({"command": ("/bin/true/x",)}, "Not a directory"),
        ({"command": ("no-such",), "environment": (f"PATH=/{'x' * 300}:/bin",)}, "no program 'no-such'"),
        ({"command": ("echo", "x" * 200_000)}, "can't be started: Argument list too long"),
        ({"command": ("true",), "environment": (f"BIG={'x' * 200_000}",)}, "Argument list too long"),
        ({"command": ("true",), "workdir": f"/{'x' * 300}"}, "does not exist on this node"),
        ({"command": ("true",), "workdir": f"/{'x/' * 3000}"}, "does not exist on this node"),
    ],
    ids=range(8),
)
async def test_what_is_too_long_is_the_specs_fault(node: ProcessNode, fields: dict[str, Any], says: str) -> None:
    spec = ServiceSpec(name="web", **fields)
    with pytest.raises(UserError) as refused:
        await node.daemon().start(TASK, "web.1", spec, "c0ffee", node.netns)
    assert says in str(refused.value)
    _nothing_is_left(node)


@in_loop
async def test_a_path_that_can_not_be_searched_hides_no_program_behind_it(node: ProcessNode) -> None:
    assert await said(node, "echo", "hello", environment=(f"PATH=/{'x' * 300}:/bin:/usr/bin",)) == "hello\n"


@in_loop
async def test_a_missing_working_directory_is_an_error(node: ProcessNode) -> None:
    with pytest.raises(UserError, match=r"^working directory '/no/such' does not exist on this node"):
        await start(node, *FOREVER, workdir="/no/such")
    _nothing_is_left(node)


@in_loop
async def test_a_program_is_found_from_the_working_directory(node: ProcessNode, tmp_path: Path) -> None:
    _file(tmp_path / "hello", "#!/bin/sh\necho hello $0\n", 0o755)
    assert await said(node, "./hello", workdir=str(tmp_path)) == "hello ./hello\n"


@in_loop
async def test_a_machine_that_can_not_says_why(node: ProcessNode, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ServiceSpec(name="web", command=FOREVER)
    with pytest.raises(Unavailable, match=r"^can't be started: nsenter: cannot open .*/gone: No such file"):
        await node.daemon().start(TASK, "web.1", spec, "c0ffee", node.directory / "gone")
    monkeypatch.setattr(driver, "_SYSTEM_ENVIRONMENT", {"PATH": "/nowhere"})
    with pytest.raises(Unavailable, match=r"^can't be started: env: No such file"):
        await start(node, *FOREVER)
    _nothing_is_left(node)


def _nothing_is_left(node: ProcessNode) -> None:
    assert [*(node.directory / "run/tasks").iterdir(), *(node.directory / "logs").iterdir()] == []


# Files and mounts.


@in_loop
async def test_what_it_writes_is_private(node: ProcessNode) -> None:
    await said(node, "sh", "-c", "umask")
    directory = node.directory / "run/tasks" / TASK
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, directory / "environment")}
    log = node.directory / "logs" / TASK / "1"
    assert modes == {TASK: 0o700, "environment": 0o600}
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    assert log.read_text() == "0022\n"


@in_loop
async def test_secrets_are_in_no_command_line(node: ProcessNode) -> None:
    running = await start(node, *FOREVER, environment=("PASSWORD=hunter2",))
    for pid in (running.pid, *children(running.pid)):
        assert "hunter2" not in Path(f"/proc/{pid}/cmdline").read_text()


@in_loop
async def test_a_namespace_file_may_go_while_the_task_runs(node: ProcessNode) -> None:
    await start(node, *FOREVER)
    number = node.netns.stat().st_ino
    subprocess.run(["umount", node.netns], check=True)
    node.netns.unlink()
    code, text = await node.daemon().execute(TASK, ["stat", "-L", "-c", "%i", "/proc/self/ns/net"], LONG_S)
    assert (code, text) == (0, f"{number}\n")
    assert await node.daemon().stop(TASK, "TERM", LONG_S) == Exit(143)


@in_loop
async def test_a_task_does_not_hold_another_tasks_namespace(node: ProcessNode) -> None:
    other = node.netns.with_name("other")
    other.touch()
    subprocess.run(["unshare", f"--net={other}", "true"], check=True)
    running = await start(node, *FOREVER)
    subprocess.run(["umount", other], check=True)
    other.unlink()
    assert str(other) not in Path(f"/proc/{running.pid}/mountinfo").read_text()


@in_loop
async def test_the_node_keeps_its_proc_and_its_hostname(node: ProcessNode) -> None:
    def seen() -> tuple[str, list[str]]:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return os.uname().nodename, [line for line in mounts if line.split()[4].startswith("/proc")]

    before = seen()
    await start(node, *FOREVER)
    assert seen() == before


# Logs and their writer.


def _log(node: ProcessNode) -> Path:
    return node.directory / "logs" / TASK


def _writer(node: ProcessNode) -> int | None:
    """The process that writes the logs of a node."""
    wanted = os.fsencode(node.directory / "run/tasks")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in words and any(word.endswith(b"logwriter.py") for word in words):
            return int(process.name)
    return None


async def _kill_writers(node: ProcessNode, times: int) -> None:
    killed: set[int] = set()
    while len(killed) < times:
        if (pid := _writer(node)) is not None and pid not in killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        await asyncio.sleep(0.005)


@in_loop
async def test_a_flood_takes_no_more_of_the_disk_than_it_may(node: ProcessNode) -> None:
    logs = LogConfig(max_bytes=1 << 20, max_files=3)
    await start(node, "sh", "-c", "seq 1000000; echo done", logs=logs)
    waiting = asyncio.create_task(node.daemon().wait(TASK))
    most = 0
    while not waiting.done():
        with suppress(FileNotFoundError):  # the oldest goes
            most = max(most, _taken(node))
        await asyncio.sleep(0.005)
    kept = await output(node)
    most = max(most, _taken(node))
    assert kept[-1] == b"done\n"
    assert [int(line) for line in kept[:-1]] == list(range(1_000_002 - len(kept), 1_000_001))
    assert 2 << 20 <= len(b"".join(kept)) <= most <= 3 << 20


def _taken(node: ProcessNode) -> int:
    """The bytes of a task's output that are on the disk."""
    return sum(path.stat().st_size for path in _log(node).iterdir())


@in_loop
async def test_without_a_log_driver_nothing_is_kept(node: ProcessNode) -> None:
    await start(node, "sh", "-c", "echo secret; exec sleep 1000", logs=LogConfig(driver=LogDriver.NONE))
    with pytest.raises(Conflict, match="log driver is none"):
        await output(node)
    assert not _log(node).exists()
    await node.daemon().stop(TASK, "KILL", LONG_S)


@in_loop
async def test_another_writer_takes_over_from_one_that_was_killed_and_no_line_is_lost(node: ProcessNode) -> None:
    await start_script(
        node, "echo ready; for n in $(seq 100); do seq $((n * 1000 - 999)) $((n * 1000)); done; echo last; exec sleep 1000"
    )
    waiting = asyncio.create_task(node.daemon().wait(TASK))
    killing = asyncio.create_task(_kill_writers(node, 2))
    async for line in lines(node.daemon(), follow=True):
        if line == b"last\n":
            break
    await killing
    assert [*map(int, (await output(node))[1:-1])] == list(range(1, 100_001))
    await node.daemon().remove(TASK)
    assert await waiting == Exit(137)


def test_a_task_goes_on_without_daemon_and_even_without_writer(node: ProcessNode) -> None:
    """What it says waits in the pipe then; it gets no signal, and the next daemon's writer has it all."""

    @in_loop
    async def begun() -> None:
        await start_script(node, "echo ready; read go <go; seq 50000; echo last; exec sleep 1000", workdir=str(node.directory))
        for daemon in node.daemons:
            daemon.close()

    @in_loop
    async def taken_over() -> None:
        runtime = node.daemon()
        waiting = asyncio.create_task(runtime.wait(TASK))
        async for line in lines(runtime, follow=True):
            if line == b"last\n":
                break
        assert [*map(int, (await output(node))[1:-1])] == list(range(1, 50_001))
        await runtime.remove(TASK)
        assert await waiting == Exit(137)
        runtime.close()

    os.mkfifo(node.directory / "go")
    begun()
    writer = _writer(node)
    assert writer is not None
    os.kill(writer, signal.SIGKILL)
    wait_until(lambda: _writer(node) is None)
    (node.directory / "go").write_text("go\n")
    taken_over()
    wait_until(lambda: _writer(node) is None, what="the end of a writer without daemon and tasks")


@in_loop
async def test_a_task_is_not_ended_by_a_disk_that_takes_nothing(node: ProcessNode) -> None:
    _log(node).mkdir(parents=True)
    (_log(node) / "1").symlink_to("/dev/full")
    await start(node, "sh", "-c", "seq 100000 || exit 3; exit 7")
    assert await node.daemon().wait(TASK) == Exit(7)
