"""PID 1 inside User-Mode Linux: makes a machine of the host's files, runs one command, tells its exit status, switches off.

The root is the host's file system, read-only, below a tmpfs (overlayfs): everything can be written, and nothing of it reaches the
host. Only the job's own directory is the host's, writable, at the same path on both sides.
Started by machine.py as `python -m tests.uml.init DIRECTORY`; see there for what is in DIRECTORY.
Source: overlayfs.rst, pivot_root(2), reboot(2), tty_ioctl(4).
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import traceback
from pathlib import Path
from typing import Any

from tests.uml import modules

_libc = ctypes.CDLL(None, use_errno=True)
_POWER_OFF = 0x4321FEDC
_CONSOLE = "/dev/tty0"
_LEGACY = Path("/usr/sbin/xtables-legacy-multi")
_IPTABLES = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")


def main() -> None:
    """Never returns: the machine is off afterwards."""
    directory = Path(sys.argv[1])
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        status = _run(json.loads((directory / "job.json").read_text()), directory)
        _write(directory / "status", str(status))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os.sync()
        Path("/proc/sys/kernel/printk").write_text("0")  # it would have the last word
        _libc.reboot(_POWER_OFF)


def _run(job: dict[str, Any], directory: Path) -> int:
    _mount("proc", "/proc")
    _mount("sysfs", "/sys")
    _mount("devtmpfs", "/dev")
    # Whatever shakes this kernel ends it at once, with its reason on the console, instead of hanging.
    Path("/proc/sys/kernel/panic_on_oops").write_text("1")
    modules.load(modules.OVERLAY)
    _make_root()
    directory.mkdir(parents=True, exist_ok=True)
    _mount("hostfs", str(directory), "-o", str(directory))
    modules.load(modules.NETWORK)
    _use_iptables_legacy()
    subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
    socket.sethostname("uml")
    os.chdir(job["cwd"])
    return _supervise(job)


def _make_root() -> None:
    """Become root of a copy-on-write view of the host's files, with file systems of our own where processes leave theirs."""
    _mount("tmpfs", "/run")
    upper, work, root = (Path("/run", name) for name in ("upper", "work", "root"))
    for place in (upper, work, root):
        place.mkdir()
    _mount("overlay", str(root), "-o", f"lowerdir=/,upperdir={upper},workdir={work}")
    for name in ("dev", "proc", "sys"):
        subprocess.run(("mount", "--move", f"/{name}", root / name), check=True)
    os.chdir(root)
    subprocess.run(("pivot_root", ".", "."), check=True)
    subprocess.run(("umount", "--lazy", "."), check=True)
    os.chdir("/")
    for place in (Path("/dev/pts"), Path("/dev/shm")):
        place.mkdir(exist_ok=True)
    _mount("devpts", "/dev/pts", "-o", "ptmxmode=666")
    _mount("tmpfs", "/dev/shm")
    _mount("tmpfs", "/run", "-o", "mode=755")
    Path("/run/tmp").mkdir(mode=0o1777)


def _use_iptables_legacy() -> None:
    """The kernel has no nf_tables for IPv4, so iptables-nft can't work; the alternative is changed in here alone."""
    if _LEGACY.exists():
        for name in _IPTABLES:
            link = _LEGACY.with_name(name)
            link.unlink(missing_ok=True)
            link.symlink_to(_LEGACY.name)


def _supervise(job: dict[str, Any]) -> int:
    """Run the command as a session of its own on the console; the orphans of all processes are buried meanwhile."""
    child = os.fork()
    if child == 0:
        _execute(job)
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _execute(job: dict[str, Any]) -> None:
    try:
        os.setsid()
        console = os.open(_CONSOLE, os.O_RDWR)  # which so becomes the session's terminal
        _set_up_terminal(console, job["terminal"])
        for standard in range(3):
            os.dup2(console, standard)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvpe(job["command"][0], job["command"], job["environment"])
    except OSError as exc:
        print(f"{job['command'][0]}: {exc.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)


def _set_up_terminal(console: int, size: list[int] | None) -> None:
    """Give it its size, in columns and lines; without one nobody types and output goes to a file, as it is."""
    if size is not None:
        columns, lines = size
        termios.tcsetwinsize(console, (lines, columns))
    else:
        mode = termios.tcgetattr(console)
        mode[1] &= ~termios.OPOST
        termios.tcsetattr(console, termios.TCSANOW, mode)


def _mount(kind: str, place: str, *options: str) -> None:
    subprocess.run(("mount", "-t", kind, *options, kind, place), check=True)


def _write(file: Path, text: str) -> None:
    with open(file, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


if __name__ == "__main__":
    main()
