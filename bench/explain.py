"""Question: how long does `routemesh explain` take, with everything read from the kernels of all nodes?

Setup: a lab of three nodes, 10 services that publish 10 ports each, 3 tasks each: 100 published ports, 30 tasks. Measured: the
whole command, and of it what the daemon takes for the answer (all read their kernels, one walks) and what to print it; how long
the command and the daemons have a processor.
Budget (issue): 300 ms.
"""

import resource
import time
from collections.abc import Iterator

from bench.cluster import client, daemons_processor_s, lab, run_service, timed
from bench.measurement import Limit, Measurement
from routemesh.explain.text import text
from routemesh.lab.find import Lab
from routemesh.model import Publish, ServiceSpec

RUNS = 15
BUDGET_MS = 300
SERVICES, PORTS, TASKS = 10, 10, 3
FIRST_PORT = 20_000
QUESTION = f"node1:{FIRST_PORT}"


def measure(runs: int) -> Iterator[Measurement]:
    """The same question over and over."""
    with lab() as made:
        fill(made)
        whole, processor, daemons = zip(*(_command_ms(made) for _ in range(runs)), strict=True)
        parts = [_parts_ms(made) for _ in range(runs)]
    ports = SERVICES * PORTS
    yield Measurement(f"{ports} ports, {SERVICES * TASKS} tasks: the whole command", whole, "ms", Limit(BUDGET_MS))
    yield Measurement("  of which the command itself has a processor", processor, "ms")
    yield Measurement("  the daemons have a processor, together", daemons, "ms")
    for number, part in enumerate(("the daemon's answer", "printing it")):
        yield Measurement(f"  of which {part}", [one[number] for one in parts], "ms")


def fill(made: Lab) -> None:
    """The services; the tasks of the first answer, the others just run."""
    for number in range(SERVICES):
        publish = tuple(Publish(published=FIRST_PORT + number * PORTS + port, target=80 + port) for port in range(PORTS))
        command = ("sleep", "1000000") if number else ("routemesh", "whoami")
        run_service(client(made), ServiceSpec(name=f"s{number}", command=command, replicas=TASKS, publish=publish))


def _command_ms(made: Lab) -> tuple[float, float, float]:
    """How long it takes, how long it has a processor, and how long the daemons."""
    before, of_daemons = _processor_s(), daemons_processor_s(made)
    took, _ = timed(made, "explain", QUESTION)
    return took * 1000, (_processor_s() - before) * 1000, (daemons_processor_s(made) - of_daemons) * 1000


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _parts_ms(made: Lab) -> tuple[float, float]:
    times = [time.perf_counter()]
    found = client(made).explain(QUESTION, "", str(made.client))
    times.append(time.perf_counter())
    text(found)
    times.append(time.perf_counter())
    return (times[1] - times[0]) * 1000, (times[2] - times[1]) * 1000
