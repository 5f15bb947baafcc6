"""Question: How much longer than its probe does `routemesh trace` take, with everything read, watched and removed again?

Setup: as bench.explain, a lab of three nodes, 10 services that publish 10 ports each, 3 tasks each.
Measured: the whole command, less what the probe itself took; and beside it `routemesh explain`, which is a part of it.
Budget (issue): 1 s.
"""

import json
from collections.abc import Iterator

from bench.cluster import lab, timed
from bench.explain import PORTS, QUESTION, SERVICES, TASKS, fill
from bench.measurement import Limit, Measurement
from routemesh.errors import Unavailable
from routemesh.lab.find import Lab

RUNS = 15
BUDGET_MS = 1000


def measure(runs: int) -> Iterator[Measurement]:
    """The same question over and over."""
    with lab() as made:
        fill(made)
        traces = [_trace_ms(made) for _ in range(runs)]
        explained = [timed(made, "explain", QUESTION)[0] * 1000 for _ in range(runs)]
    what = f"{SERVICES * PORTS} ports, {SERVICES * TASKS} tasks: the whole command, less its probe"
    yield Measurement(what, [whole - probe for whole, probe in traces], "ms", Limit(BUDGET_MS))
    yield Measurement("  the probe (an HTTP request)", [probe for _, probe in traces], "ms")
    yield Measurement("  routemesh explain for the same question", explained, "ms")


def _trace_ms(made: Lab) -> tuple[float, float]:
    took_s, printed = timed(made, "trace", "--http", "/", "--format", "json", QUESTION)
    found = json.loads(printed)
    if not found["agrees"]:
        raise Unavailable(f"the trace is not as predicted: {found['verdict']}")
    return took_s * 1000, found["sent"]["took_s"] * 1000
