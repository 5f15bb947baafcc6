"""What the gateway's tasks run: a program that dies is started again, one that was asked to end ends gently."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import wait_until

PROGRAM = """#!/bin/sh
echo $$ >>{at}/started
trap 'echo gently >>{at}/ended; exit 0' USR1
while :; do sleep 0.05; done
"""


@contextmanager
def supervised(tmp_path: Path, program: str = PROGRAM) -> Iterator[subprocess.Popen[str]]:
    """The supervisor of a program called haproxy, whose configuration is there."""
    fake = tmp_path / "bin" / "haproxy"
    fake.parent.mkdir()
    fake.write_text(program.format(at=tmp_path))
    fake.chmod(0o755)
    directory = tmp_path / "gateway" / "c0ffee"
    directory.mkdir(parents=True)
    (directory / "haproxy.cfg").touch()
    env = os.environ | {"PATH": f"{fake.parent}:/usr/bin:/bin", "ROUTEMESH_RUN_DIR": str(tmp_path), "HOSTNAME": "c0ffee"}
    command = (sys.executable, "-m", "routemesh", "gateway", "proxy", "haproxy")
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()  # not killed: its program would stay
        process.communicate(timeout=10)


def pids(tmp_path: Path) -> list[int]:
    started = tmp_path / "started"
    return [int(line) for line in started.read_text().split()] if started.exists() else []


def test_a_program_that_dies_is_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path) as supervisor:
        wait_until(lambda: pids(tmp_path), what="the start")
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        wait_until(lambda: len(pids(tmp_path)) == 2, what="the second start")
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(10) == 0
        assert (tmp_path / "ended").read_text() == "gently\n"


def test_without_a_configuration_it_waits_and_ends_when_asked(tmp_path: Path) -> None:
    with supervised(tmp_path) as supervisor:
        wait_until(lambda: pids(tmp_path), what="the start")
    (tmp_path / "gateway" / "c0ffee" / "haproxy.cfg").unlink()
    env = os.environ | {"PATH": f"{tmp_path}/bin:/usr/bin", "ROUTEMESH_RUN_DIR": str(tmp_path), "HOSTNAME": "c0ffee"}
    command = (sys.executable, "-m", "routemesh", "gateway", "proxy", "haproxy")
    with subprocess.Popen(command, env=env) as waiting:
        # While a process waits for signals the kernel shows them as not blocked.
        status, place = Path(f"/proc/{waiting.pid}/status"), Path(f"/proc/{waiting.pid}/wchan")
        try:
            wait_until(
                lambda: "SigBlk:\t0000000000014002" in status.read_text() or "sigtimedwait" in place.read_text(),
                what="its signals",
            )
        finally:
            waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(10) == 0
    assert len(pids(tmp_path)) == 1
    assert supervisor.returncode is not None


def test_one_that_never_lives_fails_the_task_and_says_so(tmp_path: Path) -> None:
    with supervised(tmp_path, "#!/bin/sh\nexit 3\n") as supervisor:
        said, _ = supervisor.communicate(timeout=30)
        assert supervisor.returncode == 1
        assert said.splitlines()[-1] == "gateway: haproxy ended 20 times in a row, the last time with status 3"


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    env = os.environ | {"PATH": str(tmp_path), "ROUTEMESH_RUN_DIR": str(tmp_path), "HOSTNAME": "c0ffee"}
    command = (sys.executable, "-m", "routemesh", "gateway", "proxy", "nginx")
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (
        127,
        "gateway: no program 'nginx' in PATH on this node; install Debian's package nginx\n",
    )
