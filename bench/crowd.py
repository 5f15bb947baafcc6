"""Question: what does a node with 10,000 published ports and 2,000 tasks take?

Setup: a lab of one node; 10 services of 1,000 ports and one task each, then one of 1,990 tasks that sleep; three of the ports are
asked before and after. The node's daemon must be the same one all the time, and ready. Held up: the longest time that its event
loop had no turn, by its own log (from 0.1 s on); a lease lasts 5 s. Takes some minutes.
Budget (issue): 5 s held up; a descriptor for a task and none for a port.
"""

import os
import re
from collections.abc import Iterator

from bench.cluster import answer, as_client, client, lab, timed, until
from bench.machine import processor_s, resident_mb
from bench.measurement import Limit, Measurement
from routemesh.lab import daemons, topology
from routemesh.lab.find import Lab

RUNS = 1
SERVICES, PORTS, FIRST_PORT, SLEEPERS = 10, 1_000, 20_000, 1_990
HELD_S, OTHER_FILES = 5, 200
_PATIENCE = ("-q", "--timeout", "15m")
_HELD = re.compile(r"event loop held up for ([\d.]+) s")


def measure(runs: int) -> Iterator[Measurement]:
    """Once: what it makes is made once."""
    with lab(nodes=1, subnet="10.64.0.0/18") as made:
        node = made.node("node1")
        pid = daemons.daemon_pid(node)
        assert pid is not None
        yield Measurement("10,000 ports of 10 services are published", [_publish(made)], "s")
        _ask(made)
        started = timed(
            made, "service", "create", "--name", "many", "--replicas", str(SLEEPERS), *_PATIENCE, "host", "sleep", "1d"
        )
        yield Measurement("1,990 tasks more: all run", [started[0]], "s")
        _ask(made)
        files = len(os.listdir(f"/proc/{pid}/fd"))
        yield Measurement("descriptors of the daemon", [files], "", Limit(SERVICES + SLEEPERS + OTHER_FILES))
        yield Measurement("its resident memory", [resident_mb(pid)], "MB")
        yield Measurement("doctor, the whole command", [timed(made, "doctor", "--passive")[0]], "s")
        yield Measurement("scaled to none: all stopped", [timed(made, "service", "scale", *_PATIENCE, "many=0")[0]], "s")
        _ask(made)
        yield Measurement("the daemon's processor time for all that", [processor_s(pid)], "s")
        assert daemons.daemon_pid(node) == pid
        held = [float(each) for each in _HELD.findall((node.data_dir / "daemon.log").read_text(errors="replace"))]
        yield Measurement("its event loop was held up at most", [max(held, default=0.0)], "s", Limit(HELD_S))


def _publish(made: Lab) -> float:
    took = 0.0
    for service in range(SERVICES):
        ports = range(FIRST_PORT + service * PORTS, FIRST_PORT + (service + 1) * PORTS)
        options = [word for port in ports for word in ("-p", f"{port}:80")]
        took += timed(made, "service", "create", "--name", f"p{service}", *_PATIENCE, *options, "host", "routemesh", "whoami")[0]
    return took


def _ask(made: Lab) -> None:
    """One port of the first service, one between and the last one."""
    address = str(topology.address("node1"))
    assert [node.state for node in client(made).nodes()] == ["ready"]
    with as_client(made):
        for port in (FIRST_PORT, FIRST_PORT + SERVICES * PORTS // 2, FIRST_PORT + SERVICES * PORTS - 1):
            until(lambda port=port: answer(address, port), f"port {port} answered")  # type: ignore[misc]  # bound now
