"""Explanations: all nodes are read and the way is walked where it is asked, so that only the answer travels.

First just what is on the way as it should be is read: of the tasks, those of the service. Only where that leaves something untold
all is read. Reading and walking are done in threads; what they need is loaded when first asked for.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import msgspec

from routemesh import names, wire
from routemesh.ask.context import Context
from routemesh.ask.passages import behind, passages
from routemesh.ask.snapshots import cluster_snapshot
from routemesh.codec.plain import restored_op
from routemesh.errors import RoutemeshError
from routemesh.language import command
from routemesh.model import Node, State, Task
from routemesh.plan.view import view
from routemesh.snapshot import Connections, endpoint
from routemesh.values import replace

if TYPE_CHECKING:
    from routemesh.explain.ask import Target
    from routemesh.explain.mend import Repairs
    from routemesh.explain.nouns import Explanation
    from routemesh.explain.through import Passage
    from routemesh.proxy.request import Request
    from routemesh.snapshot import ClusterSnapshot


SETTLE_S = 0.7
_MOST_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Predicted:
    """What was read, where its client's own connection goes, and, of a request, what the gateway's proxies that this leads to do
    with it (by the names of their tasks), and all of its way.
    """

    cluster: "ClusterSnapshot"
    first: "Explanation"
    passages: "Mapping[str, Passage]"
    whole: "Explanation"


@dataclass(frozen=True, slots=True)
class Question:
    """NODE:PORT[/udp], who asks, the address of somebody who is not a node, and what is asked of the gateway, if it is.

    `source_port`: the client's where it names none.
    """

    wanted: "Target"
    client: str
    outside: IPv4Address | None
    request: "Request | None" = None
    source_port: int | None = None


async def predicted(context: Context, state: State, question: Question) -> Predicted:
    """The explanation, and what it was made of. What is found to be wrong was so in two looks, where it comes to rest at all."""
    found = await _predicted(context, state, question)
    for _ in range(_MOST_LOOKS - 1):
        before = _wrong(found)
        if not before:
            break
        await asyncio.sleep(SETTLE_S)
        found = await _predicted(context, await context.store.snapshot(), question)
        if _wrong(found) == before:
            break
    return found


def _wrong(found: Predicted) -> "frozenset[tuple[str, str, str]]":
    return frozenset((cause.node, cause.namespace, cause.why) for cause in found.whole.causes)


async def _predicted(context: Context, state: State, question: Question) -> Predicted:
    """By one look at the cluster."""
    wanted = question.wanted
    which = Connections(ports={(wanted.protocol, wanted.port)})
    cluster = await cluster_snapshot(context, state, which, on_the_way(state, question))
    found = await _answered(context, state, cluster, question)
    if found.whole.outcome != "reaches" and not _is_told_by_proxies(found.whole):
        cluster = await cluster_snapshot(context, state, which)
        found = await _answered(context, state, cluster, question)
    if found.whole.outcome in ("partly", "broken"):
        found = await _answered(context, state, cluster, question, await _repairs(context, state, found.whole))
    return found


async def _answered(
    context: Context, state: State, cluster: "ClusterSnapshot", question: Question, repairs: "Repairs | None" = None
) -> Predicted:
    from routemesh.explain.answer import explain
    from routemesh.explain.ask import SOURCE_PORT, ask
    from routemesh.explain.through import through
    from routemesh.walk import observed

    asked = ask(cluster, question.wanted, question.client, question.outside, question.source_port or SOURCE_PORT)
    network = observed(cluster)
    found = await asyncio.to_thread(lambda: explain(cluster, asked, repairs, network))
    if question.request is None:
        return Predicted(cluster, found, {}, found)
    clients = {way.task: endpoint(way.peer).address for way in found.ways if way.arrives}
    requests = {name: replace(question.request, source=client) for name, client in clients.items()}
    by = await passages(context, state, requests)
    whole = await asyncio.to_thread(lambda: through(cluster, found, str(question.request), by, repairs, network))
    return Predicted(cluster, found, by, whole)


def _is_told_by_proxies(found: "Explanation") -> bool:
    """Whether the gateway answers itself whatever way is taken: nothing that was not read has a part in it."""
    return all(way.there and way.there[-1].kind == "proxy" for way in found.ways)


def on_the_way(state: State, question: Question) -> Mapping[str, Collection[str]]:
    """The namespaces to be read by node name, besides the nodes' own, sandboxes and overlays."""
    found: dict[str, set[str]] = {node.name: set() for node in state.nodes.values()}
    if state.cluster is None:
        return found
    asked = {task.id for task in behind(state, question.request)} if question.request is not None else ()
    for task in state.tasks.values():
        node = None if task.node_id is None or not task.status.state.may_live else state.nodes.get(task.node_id)
        wanted = (question.wanted.protocol, question.wanted.port)
        meant = task.id in asked or any((port.protocol, port.published) == wanted for port in task.spec.publish)
        if node is not None and (meant or _is(task, node, question.client.partition(":")[0])):
            found[node.name].add(names.container_id(task.id))
    for spaces in found.values():
        spaces |= {names.SANDBOX, names.overlay_netns(state.cluster.ingress_id)}
    return found


def _is(task: Task, node: Node, client: str) -> bool:
    return client in (names.task_name(task.spec.name, task.slot, node.name), names.container_id(task.id))


async def _repairs(context: Context, state: State, found: "Explanation") -> "Repairs":
    """What the nodes on the way would change by themselves; one that does not say is left out."""
    from routemesh.explain.mend import Repair

    passed = {step.node for way in found.ways for step in (*way.there, *way.back)} | {cause.node for cause in found.causes}
    nodes = [node for node in state.nodes.values() if node.name in passed]

    async def diff(node: Node) -> list[Repair]:
        try:
            if node.id == context.node_id:
                ops = await context.strayed(view(state, node.id))
                return [Repair(op.netns, command(op, context.netns_path), op) for op in ops]
            told = await context.peers.get(node, f"/nodes/{node.id}/diff?strayed=1", wire.DiffInfo)
        except RoutemeshError:
            return []
        return [Repair(op.netns, op.command, restored_op(msgspec.structs.asdict(op))) for op in told.ops]

    return dict(zip((node.name for node in nodes), await asyncio.gather(*map(diff, nodes)), strict=True))
