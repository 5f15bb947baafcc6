"""User-Mode Linux on processors with AMX, for whose registers it has no room, and what it is given there (xstate.c)."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("xstate.c")
COMPILER = "cc"


@cache
def is_needed() -> bool:
    """Whether this machine's processor has registers that User-Mode Linux does not know (up to Linux 6.12, Debian 13's)."""
    flags = (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    return "amx_tile" in next(flags, "").split()


def is_met() -> bool:
    """Whether what is needed can be had."""
    return not is_needed() or shutil.which(COMPILER) is not None


def library() -> Path:
    """What is to be preloaded; compiled, where it isn't there yet, beside Python: from /dev/shm a machine may let nothing be run.

    Raises subprocess.CalledProcessError and OSError.
    """
    built = Path(sys.prefix) / "uml-xstate.so"
    if not built.exists() or built.stat().st_mtime < SOURCE.stat().st_mtime:
        new = built.with_suffix(f".{os.getpid()}")
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O2", "-o", new, SOURCE, "-ldl"], check=True, capture_output=True)
        new.rename(built)
    return built
