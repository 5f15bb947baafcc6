"""Question: what does the ipvs engine cost beside the same path made by hand, and how long does it take to program it?

Setup: User-Mode Linux (a kernel that has IPVS, on one processor), in it a lab of 3 nodes and, beside it, the path made of plain
commands (byhand.py), which loses the client's address as Swarm's does. nginx is the task, on another node than the one that is
asked, the client wrk: 1 thread, 8 connections, kept alive or one per request. Rounds of 2 s in which all have their turn; ratios
are of one round. Connection tracking gets room for all connections of the run: the machine's own 8,192 places are soon taken by
those that were closed within two minutes, and then SYNs are lost, by hand too. Then a node's kernel is programmed, from nothing
and for one more, with 200 services that publish a port each; and the programs that are started for it are counted. Budget: about
1 for the ratio; no process per rule.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from bench import byhand, webserver
from bench.apply_one import NODE, one_pass, private_kernel, with_node
from bench.cluster import addresses, answer, client, lab, run_service, scratch, until
from bench.machine import watch_programs
from bench.measurement import Measurement, Rival
from bench.plan_and_diff import large_state
from bench.wrk import requests_per_s
from routemesh.errors import Unavailable
from routemesh.kernel import netns
from routemesh.lab import topology
from routemesh.model import Publish, ServiceSpec, State
from routemesh.nodeplan import NodePlan
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.values import replace
from tests.support import lacking
from tests.uml.machine import INSIDE, Machine

RUNS = 5
SECONDS, CONNECTIONS = 2, 8
SERVICES = 200
HOME, ENTRY, PORT = "node2", "node1", 8080
SNAT = "mesh, client-ip=snat"
_DEADLINE_S = 600
_TRACKED = 1 << 19
_RESULTS = "results.json"

Samples = Mapping[str, list[float]]


def measure(runs: int) -> Iterator[Measurement]:
    """Boot the machine, and tell what was measured in it. Raises Unavailable where there is none."""
    if missing := lacking("root", "uml"):
        raise Unavailable(f"this needs {missing}")
    with Machine((sys.executable, "-m", "bench.ipvs", str(runs))) as machine:
        status = machine.wait(_DEADLINE_S)
        results = machine.directory / _RESULTS
        if status != 0 or not results.exists():
            raise Unavailable(f"User-Mode Linux ended with {status}: {machine.last_words()}")
        found = json.loads(results.read_text())
    for kind, ways in found["speed"].items():
        by_hand = Rival("by hand", ways["by hand"])
        for name, samples in ways.items():
            yield Measurement(f"{kind}: {name}", samples, "requests/s", None if name == "by hand" else by_hand)
    for what, samples in found["programming"].items():
        yield Measurement(what, samples, "processes" if "processes" in what else "ms")


# --- inside ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure, and leave the results in the directory that both sides see."""
    runs, directory = int(sys.argv[1]), Path(os.environ[INSIDE])
    found = {"speed": _speeds(runs), "programming": _programming(runs)}
    (directory / _RESULTS).write_text(json.dumps(found))


def _speeds(runs: int) -> dict[str, Samples]:
    with ExitStack() as stack:
        cluster = stack.enter_context(lab("wrk", "nginx", "ipvsadm", "iptables", engine="ipvs"))
        directory = stack.enter_context(scratch())
        command = webserver.answering(directory, 80)
        for number, label in enumerate(("keep", "snat")):
            publish = (Publish(published=PORT + number, target=80),)
            labels = {"routemesh.client-ip": label}
            spec = ServiceSpec(
                name=f"web{number}", command=command, publish=publish, labels=labels, constraints=(f"node.hostname=={HOME}",)
            )
            run_service(client(cluster), spec)
        prefix = stack.enter_context(byhand.path())
        _serve(stack, prefix, command)
        entry = addresses(cluster)[ENTRY]
        Path("/proc/sys/net/netfilter/nf_conntrack_max").write_text(str(_TRACKED))
        Path("/proc/sys/net/netfilter/nf_conntrack_buckets").write_text(str(_TRACKED // 4))
        ways = {
            "by hand": (Path(f"/run/netns/{prefix}client"), byhand.ADDRESS, byhand.PORT),
            "mesh": (cluster.netns(topology.CLIENT), entry, PORT),
            SNAT: (cluster.netns(topology.CLIENT), entry, PORT + 1),
        }
        for name, (place, address, port) in ways.items():
            with netns.entered(place):
                until(partial(answer, address, port), f"the program answered: {name}")
        return {
            kind: _in_turn(ways, runs, words)
            for kind, words in (("keep-alive", ()), ("a connection each", ("--header", "Connection: close")))
        }


def _serve(stack: ExitStack, prefix: str, command: tuple[str, ...]) -> None:
    enter = ("ip", "netns", "exec", f"{prefix}task", *command)
    process = subprocess.Popen(enter, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def _in_turn(ways: Mapping[str, tuple[Path, str, int]], runs: int, words: tuple[str, ...]) -> Samples:
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for number in range(runs):
        first = number % len(order)
        for name in (*order[first:], *order[:first]):
            place, address, port = ways[name]
            with netns.entered(place):
                speeds[name].append(requests_per_s(f"http://{address}:{port}/", CONNECTIONS, SECONDS, *words))
    return speeds


def _programming(runs: int) -> Samples:
    """From nothing, one more service and back, nothing to do: what a pass takes, and the reading of what came of it."""
    found: dict[str, list[float]] = {}
    started = watch_programs()
    with private_kernel() as kernel:
        caps = kernel.capabilities()

        def wanted(services: int) -> NodePlan:
            return plan(view(_as_ipvs(with_node(large_state(services))), NODE), caps)

        few, many = wanted(SERVICES), wanted(SERVICES + 1)
        for _ in range(runs):
            for what, want in (
                (f"{SERVICES} services from nothing", few),
                (f"a node that has {SERVICES}: one more", many),
                (f"a node that has {SERVICES}: one less", few),
                (f"a node that has {SERVICES}: nothing to do", few),
            ):
                before = started()
                times = (*one_pass(kernel, want).values(), one_pass(kernel, want)["read"])
                found.setdefault(what, []).append(sum(times))
                found.setdefault(f"{what}: processes", []).append(started() - before)
            one_pass(kernel, NodePlan())
    return found


def _as_ipvs(state: State) -> State:
    return replace(state, nodes={name: replace(node, engine="ipvs") for name, node in state.nodes.items()})


if __name__ == "__main__":
    main()
