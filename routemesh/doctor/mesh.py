"""What is wrong in a mesh as it was read: the way of every published port from every node, and what namespaces lack. PURE."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from routemesh.doctor import Finding, State
from routemesh.errors import RoutemeshError
from routemesh.explain.answer import explain
from routemesh.explain.ask import Target, ask
from routemesh.explain.mend import Repair, Repairs
from routemesh.explain.nouns import Explanation
from routemesh.snapshot import ClusterSnapshot, NamedPort, NamedService, Unread
from routemesh.walk import Network, observed

_MOST_NAMED = 3
_STATES = {"reaches": State.OK, "partly": State.WRONG, "broken": State.WRONG, "untold": State.UNKNOWN}
_EFFECTS = {
    "reaches": "",
    "partly": "some connections fail, or some tasks get none",
    "broken": "every connection fails",
    "untold": "nobody knows whether connections succeed",
}


class Lack(NamedTuple):
    """Something that a namespace should have and has not: in words, and the command that makes it, to be run on the node."""

    netns: str
    what: str
    command: str


def repairs(lacking: Mapping[str, Sequence[Lack]]) -> Repairs:
    """What mends that, by node."""
    return {node: [Repair(lack.netns, lack.command) for lack in lacks if lack.command] for node, lacks in lacking.items()}


def findings(cluster: ClusterSnapshot, lacking: Mapping[str, Sequence[Lack]]) -> Iterator[Finding]:
    """Everything that is worth knowing of a cluster. `lacking`: by node, what is not there as it should be."""
    known, network = repairs(lacking), observed(cluster)
    for service in sorted(cluster.names.services, key=lambda service: service.name):
        for port in service.ports:
            if not port.host:
                nodes = filter(service.answers_on, cluster.nodes)
                yield from (_way(cluster, network, node, service, port, known) for node in nodes)
    for node, lacks in lacking.items():
        for lack in lacks:
            where = f"{node}: {lack.netns}" if lack.netns else node
            yield Finding(
                what="kernel", where=where, state=State.WRONG, found=lack.what, fix=lack.command and f"on {node}: {lack.command}"
            )
    yield from _unread(cluster)


def _way(
    cluster: ClusterSnapshot, network: Network, node: str, service: NamedService, port: NamedPort, known: Repairs
) -> Finding:
    """How a client outside of the cluster fares with a port of a node."""
    what = f"{service.name} {port.published}/{port.protocol}"
    try:
        asked = ask(cluster, Target(node=node, port=port.published, protocol=port.protocol), "", None)
        found = explain(cluster, asked, known, network)
    except RoutemeshError as error:
        return Finding(what=what, where=node, state=State.UNKNOWN, found=str(error), effect=_EFFECTS["untold"])
    return Finding(
        what=what,
        where=node,
        state=_STATES[found.outcome],
        found=found.verdict,
        effect=_EFFECTS[found.outcome],
        fix=_fix(found),
    )


def _fix(found: Explanation) -> str:
    """What mends the first cause that anybody can mend; the others may follow from it."""
    cause = next((cause for cause in found.causes if cause.mend), None)
    return "" if cause is None else f"on {cause.node}: {' && '.join(cause.mend)}"


def _unread(cluster: ClusterSnapshot) -> Iterator[Finding]:
    for node in cluster.names.nodes:
        if node.absent:
            why = f"not read: {node.absent}"
            yield Finding(
                what="node", where=node.name, state=State.UNKNOWN, found=why, effect="what it does with packets is unknown"
            )
    yield from _lost("", cluster.unread)
    for name, snapshot in cluster.nodes.items():
        spaces = [unread for space in snapshot.namespaces.values() for unread in space.unread]
        yield from _lost(name, (*snapshot.unread, *spaces))


def _lost(where: str, unread: Sequence[Unread]) -> Iterator[Finding]:
    """What could not be read, once for everything that can't be told without it."""
    for loses in dict.fromkeys(each.loses for each in unread):
        same = [f"{each.what} ({each.reason})" for each in unread if each.loses == loses]
        more = f" and {len(same) - _MOST_NAMED} more" if len(same) > _MOST_NAMED else ""
        found = f"not read: {', '.join(same[:_MOST_NAMED])}{more}"
        yield Finding(what="reading", where=where, state=State.UNKNOWN, found=found, effect=f"{loses} can't be told")
