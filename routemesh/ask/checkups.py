"""Check-ups: all nodes are read at once and judged where it is asked, so that only the findings travel.

Each node's daemon reads its kernel, compares it with its plan and sends packets to the others; all is judged on that alone.
"""

import asyncio
import os
import threading
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, NamedTuple

from routemesh import wire
from routemesh.ask import patience
from routemesh.ask.answers import of_tasks
from routemesh.ask.context import Context
from routemesh.ask.snapshots import cluster_snapshot
from routemesh.errors import RoutemeshError
from routemesh.model import VXLAN_OVERHEAD_BYTES, Node, NodeState, State
from routemesh.plan.view import view
from routemesh.snapshot import Connections

if TYPE_CHECKING:
    from routemesh.doctor import Report
    from routemesh.doctor.facts import Facts, NodeFacts
    from routemesh.doctor.mesh import Look

SETTLE_S = 1.0
"""What is wrong is looked at again after this time, in which nodes carry out what has just been changed."""


class _NobodyWaits(Exception):  # it is not an error
    """The asker has gone."""


async def doctor(context: Context, *, passive: bool = False) -> "Report":
    """All findings about the cluster; what is wrong was so in two looks. Others who ask meanwhile wait for their turn.

    Each look opens a connection to each task's port, unless `passive`.
    """
    from routemesh.doctor import Severity, report

    async with context.one_doctor:
        found = await _look(context, passive=passive)
        if any(finding.state in (Severity.WRONG, Severity.UNTOLD) for finding in found.findings):
            await asyncio.sleep(SETTLE_S)
            found = await _look(context, found, passive=passive)
        return report(found.findings)


async def _look(context: Context, before: "Look | None" = None, *, passive: bool) -> "Look":
    from routemesh.doctor.mesh import look
    from routemesh.explain.ask import SOURCE_PORT

    state = await context.store.snapshot()
    which = Connections(client_port=SOURCE_PORT)
    cluster, facts = await asyncio.gather(cluster_snapshot(context, state, which), _gathered(context, state, passive=passive))
    gone = threading.Event()

    def stop() -> None:
        if gone.is_set():
            raise _NobodyWaits

    try:
        return await asyncio.to_thread(look, cluster, facts, before, stop)
    finally:
        gone.set()  # a thread is not ended by its caller's being cancelled


async def _gathered(context: Context, state: State, *, passive: bool) -> "Facts":
    """What all nodes say of themselves; those that say nothing are left out, since their snapshots tell why."""
    from routemesh.doctor.facts import Facts

    told = await asyncio.gather(
        *(_attempt(context, state, node, passive=passive) for node in sorted(state.nodes.values(), key=lambda node: node.name))
    )
    errors = [f"{service.spec.name}: {service.error}" for service in state.services.values() if service.error]
    errors += [f"{node.name}: {node.error}" for node in state.nodes.values() if node.error]
    return Facts(
        nodes={each.facts.node: each.facts for each in told if each is not None},
        skews={each.facts.node: each.skew_s for each in told if each is not None},
        errors=tuple(sorted(errors)),
        asking=not passive,
    )


class _Told(NamedTuple):
    facts: "NodeFacts"
    skew_s: float


async def _attempt(context: Context, state: State, node: Node, *, passive: bool) -> _Told | None:
    from routemesh.doctor.facts import NodeFacts, skew_s

    asked = context.now()
    try:
        if node.id == context.node_id:
            facts = await own_facts(context, state, node, passive=passive)
        else:
            facts = await patience.get(context, node, f"/nodes/{node.id}/checkup?passive={int(passive)}", NodeFacts)
    except RoutemeshError:
        return None
    return _Told(facts, skew_s(facts.clock, asked, context.now()))


async def own_facts(context: Context, state: State, node: Node, *, passive: bool) -> "NodeFacts":
    """What this daemon's own node says of itself, and what its tasks answer unless it is to be `passive`."""
    from routemesh.doctor.disks import is_told
    from routemesh.doctor.facts import NodeFacts, differences

    seen = view(state, node.id)
    questions = [] if passive else of_tasks(state, node, state.services.values())
    ops, (probes, offloads), disks, answers = await asyncio.gather(
        context.strayed(seen), context.look(node, _peers(state, node)), context.disks(), context.ask(questions)
    )
    return NodeFacts(
        node=node.name,
        pid=os.getpid(),
        clock=context.now(),
        differences=differences(ops, context.netns_path),
        probes=probes,
        offloads=offloads,
        failures=tuple(failure for failure in context.with_troubles(node).failures if not is_told(failure, disks)),
        disks=tuple(disks),
        asked=not passive,
        answers=answers,
    )


def _peers(state: State, node: Node) -> Mapping[str, tuple[IPv4Address, int]]:
    """The other nodes' sandboxes, and how many bytes get there in one piece if all is well."""
    others = (other for other in state.nodes.values() if other.id != node.id and other.state is NodeState.READY)
    return {
        other.name: (address, min(node.mtu_bytes, other.mtu_bytes) - VXLAN_OVERHEAD_BYTES)
        for other in others
        if (address := state.on_ingress(other.attachments)) is not None
    }


# --- repairing ---------------------------------------------------------------------------------------------------


async def repair_all(context: Context) -> list[wire.RepairInfo]:
    """Let every node bring its kernel to its plan; what became of it, node by node."""
    state = await context.store.snapshot()

    async def attempt(node: Node) -> wire.RepairInfo:
        try:
            if node.id == context.node_id:
                return await repair_own(context, state, node)
            return await context.peers.post(node, f"/nodes/{node.id}/repair", wire.RepairInfo)
        except RoutemeshError as error:
            return wire.RepairInfo(node=node.name, error=str(error))

    nodes = sorted(state.nodes.values(), key=lambda node: node.name)
    return await asyncio.gather(*map(attempt, nodes))


async def repair_own(context: Context, state: State, node: Node) -> wire.RepairInfo:
    """Let this daemon's own node do so."""
    from routemesh.doctor.told import told

    if state.on_ingress(node.attachments) is None:
        return wire.RepairInfo(node=node.name, error="it has no plan yet: the manager has not given it an address")
    ops, failures = await context.repair(view(state, node.id), state.revision)
    failed = {failure.op for failure in failures}
    mended = tuple(f"{op.netns + ': ' if op.netns else ''}{told(op)}" for op in ops if op not in failed)
    return wire.RepairInfo(node=node.name, mended=mended, refused=tuple(map(str, failures)))
