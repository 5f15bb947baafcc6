"""Question: what does one task's change cost a node, and does that grow with what the node already has?

Setup: a node without tasks of its own, in a private network namespace of the real kernel, with 10, 1,000 and 10,000 map elements:
services of 3 tasks on 50 other nodes, 6 elements each, every task with a neighbour and an FDB entry. A task on another node
crashes, then serves again. Measured is what follows the plan: read, diff and apply, together and each alone, and how long
this process and that of libnftables have a processor for it.
Budget (issue): 20 ms, whatever the number of elements.
"""

import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.machine import require_root
from bench.measurement import Limit, Measurement
from bench.plan_and_diff import CAPS, large_state
from routemesh import names
from routemesh.diff import diff
from routemesh.errors import Unavailable
from routemesh.kernel import netns
from routemesh.kernel.linux import LinuxKernel
from routemesh.model import Attachment, Node, NodeId, State, TaskState, TaskStatus
from routemesh.nodeplan import Element, NodePlan
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.values import replace

RUNS = 15
BUDGET_MS = 20
ELEMENTS = (10, 1_000, 10_000)
ELEMENTS_PER_SERVICE = 6
PROCESSOR = "processor time"
NODE = NodeId(names.derive_id("node", "bench"))
ADDRESS = IPv4Address("192.168.0.250")


def measure(runs: int) -> Iterator[Measurement]:
    """A task out and in again, next to ever more elements."""
    require_root()
    for elements in ELEMENTS:
        state = with_node(large_state(round(elements / ELEMENTS_PER_SERVICE)))
        serving, crashed = _plan(state), _plan(_with_a_crash(state))
        count = sum(isinstance(item, Element) for items in serving.namespaces.values() for item in items.values())
        with private_kernel() as kernel:
            one_pass(kernel, serving)
            one_pass(kernel, crashed)
            entering, leaving = [], []
            for _ in range(runs):
                entering.append(one_pass(kernel, serving))
                leaving.append(one_pass(kernel, crashed))
            one_pass(kernel, NodePlan())
        for what, passes in (("a task enters", entering), ("a task leaves", leaving)):
            total = [sum(taken for part, taken in one.items() if part != PROCESSOR) for one in passes]
            yield Measurement(f"{count:,} map elements: {what}", total, "ms", Limit(BUDGET_MS))
        for part in entering[0]:
            yield Measurement(f"  of which {part}", [one[part] for one in (*entering, *leaving)], "ms")


def one_pass(kernel: LinuxKernel, want: NodePlan) -> Mapping[str, float]:
    """What the agent does with a plan; milliseconds by part."""
    before = _processor_ms()
    times = [time.perf_counter()]
    have = kernel.read(want)
    times.append(time.perf_counter())
    ops = diff(have, want)
    times.append(time.perf_counter())
    failures = kernel.apply(ops)
    times.append(time.perf_counter())
    if failures:
        raise Unavailable(f"the kernel refused {len(failures)} operations, first: {failures[0]}")
    parts = zip(("read", "diff", "apply"), times, times[1:], strict=False)
    took = {part: (end - start) * 1000 for part, start, end in parts}
    return {**took, PROCESSOR: _processor_ms() - before}


def _processor_ms() -> float:
    """What this process has had of a processor so far, and libnftables' (its first thread, the only one)."""
    children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split()
    theirs = (int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) for child in children)
    return time.process_time() * 1000 + sum(theirs) / 1_000_000


def _plan(state: State) -> NodePlan:
    return plan(view(state, NODE), CAPS)


def with_node(state: State) -> State:
    """The state with NODE in it, the node that is measured."""
    assert state.ingress is not None
    own = Attachment(state.ingress.id, state.ingress.subnet[-2])
    node = Node(id=NODE, name="bench", address=ADDRESS, attachments=(own,))
    return replace(state, nodes={**state.nodes, NODE: node})


def _with_a_crash(state: State) -> State:
    task = list(state.tasks.values())[len(state.tasks) // 2]
    crashed = replace(task, status=TaskStatus(state=TaskState.FAILED, at=0))
    return replace(state, tasks={**state.tasks, task.id: crashed})


@contextmanager
def private_kernel() -> Iterator[LinuxKernel]:
    """The kernel of a machine with nothing but an underlay link, gone afterwards with all that was made on it."""
    with TemporaryDirectory(prefix="routemesh-bench-") as directory:
        run_dir, machine = Path(directory), Path(directory) / "machine"
        try:
            with netns.created(machine):
                _plug_in()
                with closing(LinuxKernel(run_dir, ADDRESS)) as kernel:
                    yield kernel
        finally:
            for namespace in (machine, *(run_dir / "netns").glob("*")):
                netns.remove(namespace)


def _plug_in() -> None:
    for what in (
        "link add eth0 type veth peer name wire",
        f"address add {ADDRESS}/24 dev eth0",
        "link set eth0 up",
        "link set wire up",
    ):
        subprocess.run(["ip", *what.split()], check=True)
