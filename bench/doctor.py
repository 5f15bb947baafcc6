"""Question: how long does `routemesh doctor` take for 100 services?

Setup: the lab of bench/explain (three nodes, 10 services of 10 ports and 3 tasks each) and 90 services more, of one port and one
task each: 100 services, 190 published ports, 120 tasks, 570 ways. In 27 of the tasks nobody listens: 270 ways are found
broken, which costs more than to find them whole. Budget (issue): 3 s.
"""

import subprocess
import sys
import time
from collections.abc import Iterator

from bench.cluster import client, lab, run_service
from bench.explain import fill
from bench.measurement import Limit, Measurement
from routemesh.errors import Unavailable
from routemesh.lab.find import NAME_VARIABLE, Lab
from routemesh.model import Publish, ServiceSpec

RUNS = 7
BUDGET_S = 3
MORE, FIRST_PORT = 90, 21_000
_FINDINGS = (0, 3)


def measure(runs: int) -> Iterator[Measurement]:
    """The same question over and over."""
    with lab() as made:
        fill(made)
        for number in range(MORE):
            publish = (Publish(published=FIRST_PORT + number, target=80),)
            run_service(client(made), ServiceSpec(name=f"m{number}", command=("routemesh", "whoami"), publish=publish))
        whole = [_command_s(made) for _ in range(runs)]
    yield Measurement("100 services: the whole command", whole, "s", Limit(BUDGET_S))


def _command_s(made: Lab) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "routemesh", "doctor"]
    done = subprocess.run(command, env={NAME_VARIABLE: made.name, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}, capture_output=True)
    took = time.perf_counter() - started
    if done.returncode not in _FINDINGS:
        raise Unavailable(f"{' '.join(command)}: status {done.returncode}: {done.stderr.decode()}{done.stdout.decode()[-300:]}")
    return took
