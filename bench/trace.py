"""Question: How much longer than its probe does `routemesh trace` take, with everything read, watched and removed again?

Setup: as bench.explain, a lab of three nodes, 10 services that publish 10 ports each, 3 tasks each.
Measured: the whole command, less what the probe itself took; and beside it `routemesh explain`, which is a part of it.
Budget (issue): 1 s.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.cluster import lab
from bench.explain import PORTS, QUESTION, SERVICES, TASKS, fill
from bench.measurement import Limit, Measurement
from routemesh.errors import Unavailable
from routemesh.lab.find import NAME_VARIABLE, Lab

RUNS = 15
BUDGET_MS = 1000


def measure(runs: int) -> Iterator[Measurement]:
    """The same question over and over."""
    with lab() as made:
        fill(made)
        traces = [_trace_ms(made) for _ in range(runs)]
        explained = [_run_ms(made, "explain")[0] for _ in range(runs)]
    what = f"{SERVICES * PORTS} ports, {SERVICES * TASKS} tasks: the whole command, less its probe"
    yield Measurement(what, [whole - probe for whole, probe in traces], "ms", Limit(BUDGET_MS))
    yield Measurement("  the probe (an HTTP request)", [probe for _, probe in traces], "ms")
    yield Measurement("  routemesh explain for the same question", explained, "ms")


def _trace_ms(made: Lab) -> tuple[float, float]:
    took, printed = _run_ms(made, "trace", "--http", "/", "--format", "json")
    found = json.loads(printed)
    if not found["agrees"]:
        raise Unavailable(f"the trace is not as predicted: {found['verdict']}")
    return took, found["sent"]["took_s"] * 1000


def _run_ms(made: Lab, *words: str) -> tuple[float, bytes]:
    command = [sys.executable, "-m", "routemesh", *words, QUESTION]
    started = time.perf_counter()
    done = subprocess.run(command, env={NAME_VARIABLE: made.name, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}, capture_output=True)
    took = (time.perf_counter() - started) * 1000
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command)}: status {done.returncode}: {done.stderr.decode()}")
    return took, done.stdout
