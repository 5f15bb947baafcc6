import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.runtime.process.supervision import Init, is_readable, living

BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")
STAT = "17 (a) (b) ) S " + " ".join(str(number) for number in range(4, 53))


def _init(pid: int) -> Init:
    init = Init.parse(BOOT_FILE.read_text() + Path(f"/proc/{pid}/stat").read_text())
    assert init is not None
    return init


def test_a_process_is_its_boot_its_pid_and_its_start_whatever_its_name() -> None:
    assert Init.parse(f"b00t\n{STAT}\n") == Init("b00t", 17, 22)


@pytest.mark.parametrize("text", ["", "b00t\n", f"{STAT}\n", "b00t\n17 (sh) S 1 2 3\n", "b00t\nx (sh) S\n"])
def test_half_a_record_is_none(text: str) -> None:
    assert Init.parse(text) is None


@given(st.text())
def test_any_text_is_a_record_or_none(text: str) -> None:
    assert Init.parse(text) is None or text


def test_a_living_process_is_opened() -> None:
    with living(_init(os.getpid())) as fd:
        assert fd is not None
        assert not is_readable(fd)


def test_a_process_of_another_time_is_not() -> None:
    init = _init(os.getpid())
    for other in (Init(init.boot, init.pid, init.started - 1), Init("b00t", init.pid, init.started)):
        with living(other) as fd:
            assert fd is None


def test_a_dead_process_is_not_whether_reaped_or_not() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        init = _init(process.pid)
        end = os.pidfd_open(process.pid)
        process.kill()
        os.waitid(os.P_PIDFD, end, os.WEXITED | os.WNOWAIT)
        os.close(end)
        with living(init) as fd:
            assert fd is None
    with living(init) as fd:
        assert fd is None
