"""Question: how long does `routemesh doctor` take for 100 services?

Setup: the lab of bench/explain (three nodes, 10 services of 10 ports and 3 tasks each) and 90 services more, of one port and one
task each: 100 services, 190 published ports, 120 tasks, 570 ways. In 27 of the tasks nobody listens: 270 ways are found
broken, which costs more than to find them whole. Of the daemons the processor time too. Budget (issue): 3 s.
"""

from collections.abc import Iterator

from bench.cluster import client, daemons_processor_s, lab, run_service, timed
from bench.explain import fill
from bench.measurement import Limit, Measurement
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
        whole, processor = [], []
        for _ in range(runs):
            before = daemons_processor_s(made)
            whole.append(timed(made, "doctor", statuses=_FINDINGS)[0])
            processor.append(daemons_processor_s(made) - before)
    yield Measurement("100 services: the whole command", whole, "s", Limit(BUDGET_S))
    yield Measurement("  the daemons have a processor, together", processor, "s")
