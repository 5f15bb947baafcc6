"""Question: what does a node's daemon take while nothing happens?

Setup: a lab of 3 nodes with one service of 2 replicas that nobody asks, left alone for 5 s; then processor time (user and system,
from /proc/PID/stat) and resident memory of each daemon over windows of 20 s.
Budget (issue): 0.5 % of a core, 80 MB.
"""

import time
from collections.abc import Iterator

from bench.cluster import client, lab, run_service
from bench.machine import processor_s, resident_mb
from bench.measurement import Limit, Measurement
from routemesh.lab import daemons
from routemesh.model import Publish, ServiceSpec

RUNS = 3
SHARE_PERCENT, RESIDENT_MB = 0.5, 80
SETTLE_S, WINDOW_S = 5, 20


def measure(runs: int) -> Iterator[Measurement]:
    """Every daemon: the leader has more to do than the others."""
    with lab() as cluster:
        publish = (Publish(published=8080, target=80),)
        command = ("sleep", "infinity")
        run_service(client(cluster), ServiceSpec(name="idle", command=command, replicas=2, publish=publish))
        time.sleep(SETTLE_S)
        pids = {name: pid for name in cluster.node_names if (pid := daemons.daemon_pid(cluster.node(name))) is not None}
        shares: dict[str, list[float]] = {name: [] for name in pids}
        resident: dict[str, list[float]] = {name: [] for name in pids}
        for _ in range(runs):
            before = {name: processor_s(pid) for name, pid in pids.items()}
            started = time.monotonic()
            time.sleep(WINDOW_S)
            for name, pid in pids.items():
                shares[name].append(100 * (processor_s(pid) - before[name]) / (time.monotonic() - started))
                resident[name].append(resident_mb(pid))
        leader = next(node.name for node in client(cluster).nodes() if node.leader)
    for name in pids:
        role = f"{name}, the leader" if name == leader else name
        yield Measurement(f"{role}: processor time, % of a core", shares[name], "%", Limit(SHARE_PERCENT))
        yield Measurement(f"{role}: resident memory", resident[name], "MB", Limit(RESIDENT_MB))
