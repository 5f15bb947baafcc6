"""Question: what does publishing a port cost a node that balances with iptables and IPVS, and how many processes?

Setup: DOCKER-INGRESS in nat and filter and the rules around it, as the ipvs engine plans them for 200 services of a port each, in
a private network namespace of the real kernel, for both variants of iptables. One more port is published, then taken away.
Measured is what follows the plan: read, diff and apply; what was written is read at the next pass.
Budget (issue): the number of processes does not depend on the number of rules.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.apply_one import one_pass, private_kernel
from bench.machine import require_root, watch_programs
from bench.measurement import Limit, Measurement
from bench.plan_and_diff import large_state
from routemesh.kernel.linux import LinuxKernel
from routemesh.kernel.tables.xttools import VARIANTS, Variant
from routemesh.language.xtables import XT_ITEMS
from routemesh.nodeplan import HOST, Capabilities, NodePlan, XtChain, namespace
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.values import replace

RUNS = 9
PORTS = 200
CAPS = Capabilities(nf_tables=True, ip_vs=True, kernel="6.1", iptables="nft")


def measure(runs: int) -> Iterator[Measurement]:
    """From nothing, one port more and less, nothing."""
    require_root()
    started = watch_programs()
    full, more = _rules(PORTS), _rules(PORTS + 1)
    rules = sum(len(item.rules) for item in full.namespaces[HOST].values() if isinstance(item, XtChain))
    for variant in VARIANTS:
        with _preferring(variant), private_kernel() as kernel:
            if kernel.capabilities().iptables != variant:
                continue
            passes = {
                f"{PORTS} ports, {rules} rules, from nothing": [_counted(kernel, started, NodePlan(), full) for _ in range(runs)],
                "a port more": [_counted(kernel, started, full, more) for _ in range(runs)],
                "a port less": [_counted(kernel, started, more, full) for _ in range(runs)],
                "nothing": [_counted(kernel, started, full, full) for _ in range(runs)],
            }
        for what, samples in passes.items():
            yield Measurement(f"iptables-{variant}: {what}", [sample[0] for sample in samples], "ms")
            yield Measurement("  starts", [sample[1] for sample in samples], "processes", Limit(2))


def _counted(kernel: LinuxKernel, started: Callable[[], int], before: NodePlan, wanted: NodePlan) -> tuple[float, float]:
    """Milliseconds and processes of the pass that leads from one plan to the next, and of reading what came of it."""
    one_pass(kernel, before)
    one_pass(kernel, before)
    before_that = started()
    times = (*one_pass(kernel, wanted).values(), one_pass(kernel, wanted)["read"])
    return sum(times), started() - before_that


def _rules(services: int) -> NodePlan:
    """Of a node's own namespace, just what is iptables'."""
    state = large_state(services)
    node_id = next(iter(state.nodes))
    state = replace(state, nodes={**state.nodes, node_id: replace(state.nodes[node_id], engine="ipvs")})
    items = plan(view(state, node_id), CAPS).namespaces[HOST].values()
    return NodePlan({HOST: namespace(item for item in items if isinstance(item, XT_ITEMS))})


@contextmanager
def _preferring(variant: Variant) -> Iterator[None]:
    """`iptables` on PATH is that variant."""
    path = os.environ["PATH"]
    with TemporaryDirectory(prefix="routemesh-bench-") as directory:
        Path(directory, "iptables").symlink_to(f"/usr/sbin/iptables-{variant}")
        os.environ["PATH"] = f"{directory}:{path}"
        try:
            yield
        finally:
            os.environ["PATH"] = path
