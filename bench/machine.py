"""The machine: what the numbers depend on, and what is needed of it."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from routemesh.errors import Unavailable

_CPU_MODEL = re.compile(r"^model name\s*: (.*)$", re.MULTILINE)
_HERE = Path(__file__).parent
_USER, _SYSTEM = 11, 12
"""Fields of /proc/PID/stat, counted from the one behind the name."""


def conditions() -> dict[str, str]:
    """Name and value, in the order in which they are to be printed."""
    return {
        "CPU": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB",
        "kernel": f"{platform.release()} {platform.machine()}",
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "nft": _first_line(["nft", "--version"]).removeprefix("nftables "),
        "python": platform.python_version(),
        "commit": _commit(),
        "load before": "{:.2f} {:.2f} {:.2f} (1, 5, 15 minutes)".format(*os.getloadavg()),
    }


def watch_programs() -> Callable[[], int]:
    """From now on count the programs that this process starts; the answer tells how many there were so far."""
    started: list[str] = []
    sys.addaudithook(lambda event, arguments: started.append(arguments[0]) if event == "subprocess.Popen" else None)
    return lambda: len(started)


def require_root() -> None:
    """Raise Unavailable for anybody else."""
    if os.geteuid() != 0:
        raise Unavailable("this needs root, for network namespaces; use sudo")


def processor_s(pid: int) -> float:
    """What a process has taken so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """What a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kibibytes) * 1024 / 1e6


def _cpu() -> str:
    found = _CPU_MODEL.search(Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _commit() -> str:
    commit = _first_line(["git", "-C", str(_HERE), "rev-parse", "--short=12", "HEAD"])
    changed = _first_line(["git", "-C", str(_HERE), "status", "--porcelain"]) != ""
    return (commit or "none") + (", with changes" if changed else "")


def _first_line(command: Sequence[str]) -> str:
    """What a command says first; "" when it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.partition("\n")[0] if done.returncode == 0 else ""
