"""What tests share: what they need of the machine, names that no other run uses, waiting for a condition."""

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import pytest

from tests.uml import xstate
from tests.uml.machine import is_inside

T = TypeVar("T")
Need = Literal[
    "root", "netns", "nf_tables", "ip_vs", "iptables-nft", "iptables-legacy", "conntrack", "tcpdump", "uml", "haproxy",
    "nginx", "etcd"
]  # fmt: skip

_POLL_S = 0.01
_MACHINE_FACTOR = 8 if is_inside() else 1
"""By how much waiting takes longer in User-Mode Linux, which does not see how busy the machine around it is."""
_MOST_PATIENCE = 10.0
_counter = itertools.count()

_PROBES: dict[Need, tuple[str, Callable[[], bool]]] = {
    "root": ("root", lambda: os.geteuid() == 0),
    "netns": ("network namespaces", lambda: _succeeds("unshare", "--net", "true")),
    "conntrack": ("conntrack(8), of Debian's package conntrack", lambda: shutil.which("conntrack") is not None),
    "haproxy": ("haproxy(1), of Debian's package haproxy", lambda: shutil.which("haproxy") is not None),
    "etcd": (
        "etcd(1) and etcdctl(1), of Debian's packages etcd-server and etcd-client",
        lambda: shutil.which("etcd") is not None and shutil.which("etcdctl") is not None,
    ),
    "nginx": ("nginx(8), of Debian's package nginx", lambda: shutil.which("nginx") is not None),
    "tcpdump": ("tcpdump(8), of Debian's package tcpdump", lambda: shutil.which("tcpdump") is not None),
    "nf_tables": ("nf_tables in the kernel", lambda: _succeeds("unshare", "--net", "nft", "add", "table", "ip", "probe")),
    "ip_vs": ("IPVS in the kernel", lambda: Path("/proc/net/ip_vs").exists() or _succeeds("modprobe", "ip_vs")),
    "iptables-nft": ("iptables-nft, and nf_tables for IPv4", lambda: _lists_rules("iptables-nft")),
    "iptables-legacy": ("iptables-legacy, and a kernel that has it", lambda: _lists_rules("iptables-legacy")),
    "uml": (
        "User-Mode Linux (Debian's user-mode-linux; with AMX, gcc and libc6-dev)",
        lambda: shutil.which("linux.uml") is not None and xstate.is_met(),
    ),
}


def require(*needs: Need) -> None:
    """Skip the calling test, module or fixture where the machine lacks something; the run's summary says so."""
    if missing := lacking(*needs):
        pytest.skip(f"needs {missing}", allow_module_level=True)


def lacking(*needs: Need) -> str:
    """The first of the needs that the machine does not meet, in words; "" if it meets all."""
    return next((_PROBES[need][0] for need in needs if not _has(need)), "")


def unique(prefix: str) -> str:
    """A name that no other test and no other run on this machine uses."""
    return f"{prefix}-{os.getpid()}-{next(_counter)}"


def patience() -> float:
    """By how much a deadline must be stretched now: 1 on a machine that is not busy, 4 where four programs want each processor.

    What wants a processor at this moment counts as well as the mean of the last minute, which follows slowly (proc(5), loadavg).
    """
    load, _, _, running, _ = Path("/proc/loadavg").read_text().split()
    wanted = max(float(load), float(running.partition("/")[0])) / len(os.sched_getaffinity(0))
    return min(max(wanted, 1.0), _MOST_PATIENCE)


def wait_until(condition: Callable[[], T], deadline_s: float = 10.0, what: str = "the condition") -> T:
    """The first true value of `condition`; fails, with its last value, when none comes in time.

    `deadline_s`: on an idle machine; a busy one is given more (`patience`).
    """
    __tracebackhide__ = True
    begun = asked = time.monotonic()
    factor = _MACHINE_FACTOR * patience()
    while not (value := condition()):
        answered = time.monotonic()
        if answered > begun + deadline_s * factor:
            factor = max(factor, _MACHINE_FACTOR * patience())
            if answered > begun + deadline_s * factor:
                pytest.fail(f"{what} did not come true within {deadline_s * factor:.1f} s; last seen: {value!r}")
        time.sleep(max(_POLL_S, answered - asked))  # as long as asking took: who is asked needs the processor, too
        asked = time.monotonic()
    return value


@cache
def _has(need: Need) -> bool:
    return _PROBES[need][1]()


def _lists_rules(program: str) -> bool:
    return _succeeds("unshare", "--net", program, "-t", "nat", "-S")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False
