"""Question: what do view + plan + diff cost a node of a large cluster, from scratch (no kernel)?

Setup: N services of 3 tasks on 50 nodes, everything serving; one node's share, with an empty kernel and with one up to date.
Of both the processor time too: on a machine that others use as well it tells more.
Budget (issue): 300 ms for 1,000 services.
"""

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from bench.measurement import Limit, Measurement
from routemesh import names
from routemesh.diff import diff
from routemesh.model import (
    Attachment,
    Cluster,
    Network,
    NetworkId,
    NetworkKind,
    Node,
    NodeId,
    Protocol,
    Publish,
    Service,
    ServiceId,
    ServiceSpec,
    State,
    Task,
    TaskId,
    TaskState,
    TaskStatus,
)
from routemesh.nodeplan import Capabilities, NodePlan
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.values import replace

RUNS = 9
BUDGET_MS = 300
NODES, TASKS = 50, 3
CAPS = Capabilities(nf_tables=True, ip_vs=False, kernel="bench")


def large_state(services: int) -> State:
    """A cluster in which every task serves."""
    ingress = Network(
        id=NetworkId(names.derive_id("ingress")), name="ingress", kind=NetworkKind.INGRESS,
        subnet=IPv4Network("10.0.0.0/16"), created_at=0,
    )  # fmt: skip
    cluster = Cluster(id="c", ingress_id=ingress.id, created_at=0)
    addresses = (Attachment(ingress.id, address) for address in ingress.subnet.hosts())
    next(addresses)
    nodes = {}
    for number in range(NODES):
        node_id = NodeId(names.derive_id("node", number))
        address = IPv4Address("192.168.0.10") + number
        nodes[node_id] = Node(id=node_id, name=f"node{number}", address=address, attachments=(next(addresses),))
    node_ids = list(nodes)
    made: dict[ServiceId, Service] = {}
    tasks: dict[TaskId, Task] = {}
    status = TaskStatus(state=TaskState.RUNNING, at=0)
    for number in range(services):
        spec = ServiceSpec(name=f"s{number}", replicas=TASKS, publish=(Publish(published=10_000 + number, target=80),))
        service_id = ServiceId(names.derive_id("service", number))
        made[service_id] = Service(
            id=service_id, spec=spec, version=1, created_at=0, updated_at=0, vips=(next(addresses),), fwmark=256 + number,
            mark_port=(Protocol.TCP, 10_000 + number),
        )  # fmt: skip
        for slot in range(1, TASKS + 1):
            task_id = TaskId(names.derive_id("task", number, slot))
            place = (number * TASKS + slot) % NODES
            tasks[task_id] = Task(
                id=task_id, service_id=service_id, service_version=1, spec=spec, slot=slot, desired=TaskState.RUNNING,
                status=status, created_at=0, node_id=node_ids[place], attachments=(next(addresses),),
                gateway_address=IPv4Address("172.18.0.3") + (number * TASKS + slot) // NODES,
            )  # fmt: skip
    return State(revision=1, cluster=cluster, networks={ingress.id: ingress}, nodes=nodes, services=made, tasks=tasks)


def measure(runs: int) -> Iterator[Measurement]:
    """From scratch with an empty kernel, and with one that is up to date."""
    for services in (10, 100, 1000):
        state = large_state(services)
        node_id = next(iter(state.nodes))
        have = plan(view(state, node_id), CAPS)
        items = sum(map(len, have.namespaces.values()))
        limit = Limit(BUDGET_MS) if services == 1000 else None
        for what, present in (("from scratch", NodePlan()), ("nothing to change", have)):
            whole, processor = zip(*(_plan_and_diff_ms(replace(state), node_id, present) for _ in range(runs)), strict=True)
            yield Measurement(f"{services:,} services, {items:,} items: {what}", whole, "ms", limit)
            yield Measurement("  of which it has a processor", processor, "ms")


def _plan_and_diff_ms(state: State, node_id: NodeId, have: NodePlan) -> tuple[float, float]:
    started, before = time.perf_counter(), time.process_time()
    diff(have, plan(view(state, node_id), CAPS))
    return (time.perf_counter() - started) * 1000, (time.process_time() - before) * 1000
