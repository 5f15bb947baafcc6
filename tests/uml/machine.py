"""A virtual machine with a kernel that has IPVS: User-Mode Linux on the host's own files.

    with Machine(("ipvsadm", "-Ln")) as machine:
        machine.wait(60)

What the command changes is gone with the machine, but for what it writes into `directory`, which both sides see at one path.
All of a machine's processes are in a PID namespace that ends with it, and it ends with the process that started it.
Speed, measured on two cores, beside the same without it: a command begins 3 s after the start (1.4 s of it are the kernel's, the
rest are Python, mounts and 70 modules). A system call takes 15 to 20 us (0.25), a page fault 50 to 90 us (0.7), /bin/true 10 ms
(1.3), an empty Python 130 ms (14), `routemesh version` 0.6 s (0.1): what costs is memory touched for the first time, thus each
new process, and not computing. So a test here should start few processes. What was tried and makes no difference: the amount of
memory, keeping all on one processor, overlayfs instead of plain hostfs, Python's files on a tmpfs (a tenth faster; copying them
takes 6 s). Two machines side by side are no gain, since the outer run keeps the second core busy.

Source: linux.uml --help, Documentation/virt/uml/user_mode_linux_howto_v2.rst.
"""

import fcntl
import json
import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.uml import xstate

ROOT = Path(__file__).parents[2]
KERNEL = "linux.uml"
ORDER, WORDS, COVERAGE = "order", "words", "coverage"
"""Files in the machine's directory: what is to be run, what became of it, what was measured."""

TIMEOUT_S = 600
"""How long pytest inside allows a test."""
INSIDE = "ROUTEMESH_UML"
"""The variable that every process in the machine has: the directory that it shares with the outside."""

_MEMORY_MIB = 1024
_PREFIX, _CLAIM = "routemesh-uml-", "claim"
_SHM = Path("/dev/shm")
_TAIL_LINES = 40
_DEATH_S = 10.0
_ENVIRONMENT = ("HOME", "LANG", "TERM", "USER")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def is_inside() -> bool:
    """Whether this process runs in such a machine."""
    return INSIDE in os.environ


class Machine:
    """A machine that runs one command and is off when that has ended.

    `files` are put into `directory`. With `on_stdio` the console is this process's own standard input and output, else what is
    written to it goes to a file. Raises OSError when it can't be started.
    """

    def __init__(self, command: Sequence[str], files: Mapping[str, str] | None = None, *, on_stdio: bool = False) -> None:
        self.directory, self._claim = _claimed_directory(_roomy())
        self._console = self.directory / "console"
        self._alive: int | None = None
        """The end of a pipe whose other end every process of the machine has."""
        try:
            for name, text in (files or {}).items():
                (self.directory / name).write_text(text)
            self._describe(command, on_stdio and sys.stdin.isatty() and sys.stdout.isatty())
            self._alive, held = os.pipe()
            try:
                self._process = self._start(on_stdio, held)
            finally:
                os.close(held)
        except BaseException:
            shutil.rmtree(self.directory)
            os.close(self._claim)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether it is on."""
        return self._process.poll() is None

    def wait(self, deadline_s: float | None) -> int | None:
        """Wait until it is off; see `status`. Raises subprocess.TimeoutExpired."""
        self._process.wait(deadline_s)
        return self.status()

    def status(self) -> int | None:
        """The command's exit status, negative for a signal; None when it has not ended, and when the kernel ended first."""
        try:
            return int((self.directory / "status").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def last_words(self) -> str:
        """The end of what was written to the console."""
        text = self._console.read_bytes().decode(errors="replace") if self._console.exists() else ""
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def close(self) -> None:
        """Switch it off at once, wait until no process of it is left, and remove its directory."""
        if self._alive is None:
            return
        self._process.kill()
        self._process.wait()
        select.select([self._alive], [], [], _DEATH_S)
        os.close(self._alive)
        self._alive = None
        shutil.rmtree(self.directory)
        os.close(self._claim)

    def _describe(self, command: Sequence[str], terminal: bool) -> None:
        usual = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        path = f"{Path(sys.executable).parent}:{_PATH}"
        job = {
            "command": command,
            "cwd": str(ROOT),
            "environment": {**usual, "PATH": path, "TMPDIR": "/run/tmp", INSIDE: str(self.directory)},
            "terminal": os.get_terminal_size() if terminal else None,
        }
        (self.directory / "job.json").write_text(json.dumps(job))
        init = self.directory / "init"
        start = shlex.join((sys.executable, "-m", "tests.uml.init", str(self.directory)))
        init.write_text(f"#!/bin/sh\ncd {shlex.quote(str(ROOT))} && exec {start}\n")
        init.chmod(0o755)

    def _start(self, on_stdio: bool, held: int) -> subprocess.Popen[bytes]:
        kernel = (
            KERNEL, "root=/dev/root", "rootfstype=hostfs", "ro", f"mem={_MEMORY_MIB}M", f"init={self.directory / 'init'}",
            f"umid={self.directory.name}", f"uml_dir={self.directory}", "quiet",
            "devtmpfs.mount=0",  # on top of the host's /dev it would hide /dev/shm, where our directory may be
        )  # fmt: skip
        # setpriv's process (the first unshare) dies with this one, the namespace's PID 1 (the second) with the first, and all
        # others with PID 1. The kernel itself must not be PID 1, whom an abort() does not end.
        command = ("setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--fork", "--kill-child", "unshare", "--fork", *kernel)
        environment = {**os.environ, "TMPDIR": str(self.directory)}
        if xstate.is_needed():
            # For User-Mode Linux alone; the programs before it have their own memory, and no ptrace.
            environment["LD_PRELOAD"] = str(xstate.library())
        if on_stdio:
            console = (f"con0={'fd:0' if sys.stdin.isatty() else 'null'},fd:1", "con=null", "loglevel=1")
            return subprocess.Popen((*command, *console), env=environment, pass_fds=(held,))
        with open(self._console, "wb") as output:
            return subprocess.Popen(
                (*command, "con0=null,fd:1", "con=null"),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(held,),
            )


def _roomy() -> Path:
    """Where a machine's memory fits: a tmpfs if possible, since it is a file; a container's may be too small."""
    if os.access(_SHM, os.W_OK) and shutil.disk_usage(_SHM).free > 2 * _MEMORY_MIB << 20:
        return _SHM
    return Path(tempfile.gettempdir())


def _claimed_directory(parent: Path) -> tuple[Path, int]:
    """A new directory, and a file in it that is locked as long as this process lives; removes those whose process was killed."""
    for claim in parent.glob(f"{_PREFIX}*/{_CLAIM}"):
        with suppress(OSError), open(claim, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(claim.parent)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    new = directory / f"new-{_CLAIM}"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    new.rename(directory / _CLAIM)  # seen from now on, and already locked
    return directory, descriptor
