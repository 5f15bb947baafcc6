"""Everything about a mesh as it was read: what is not as planned, the way of every published port, what nodes say. PURE."""

from collections.abc import Iterator, Mapping, Sequence

from routemesh.doctor import Finding, State, listed, load, overlay, planned, ways
from routemesh.doctor.facts import Difference, Facts, NodeFacts
from routemesh.snapshot import ClusterSnapshot, Unread
from routemesh.walk import observed

_ORDER = (State.WRONG, State.UNTOLD, State.OPTIONAL, State.UNKNOWN, State.OK)


def recorded(lacking: Mapping[str, Sequence[Difference]]) -> Facts:
    """What is known of nodes that only their recordings speak for. `lacking`: by node, what is not there as it should be."""
    nodes = {node: NodeFacts(node=node, differences=tuple(lacks)) for node, lacks in lacking.items()}
    return Facts(nodes=nodes, repairing=False)


def findings(cluster: ClusterSnapshot, facts: Facts) -> tuple[Finding, ...]:
    """Everything that is worth knowing of a cluster, what is wrong first."""
    walked = ways.walked(cluster, observed(cluster), facts.repairs())
    found = (
        *_silent(cluster, live=facts.repairing),
        *planned.findings(cluster, facts, walked.by_place),
        *ways.findings(walked),
        *overlay.findings(cluster, facts),
        *load.findings(cluster, facts),
        *_unread(cluster),
    )
    return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.state)))


def _silent(cluster: ClusterSnapshot, *, live: bool) -> Iterator[Finding]:
    """Nodes of which nothing was read; of a running cluster that is wrong, of recordings it is what they are."""
    for node in cluster.names.nodes:
        if node.absent:
            yield Finding(
                what="node",
                where=node.name,
                state=State.WRONG if live else State.UNKNOWN,
                found=f"not read: {node.absent}",
                effect="what it does with packets is unknown, and nothing is repaired there" if live else "its part is unknown",
                fix=f"on {node.name}: start its daemon (routemesh node; in a lab routemesh lab start {node.name})"
                if live
                else "",
            )


def _unread(cluster: ClusterSnapshot) -> Iterator[Finding]:
    lost: dict[str, list[str]] = {}
    nodes: dict[str, list[str]] = {}
    every: list[tuple[str, Unread]] = [("", each) for each in cluster.unread]
    for name, snapshot in cluster.nodes.items():
        spaces = [unread for space in snapshot.namespaces.values() for unread in space.unread]
        every += [(name, each) for each in (*snapshot.unread, *spaces)]
    for name, each in every:
        lost.setdefault(each.loses, []).append(f"{each.what} ({each.reason})")
        nodes.setdefault(each.loses, []).append(name)
    for loses, what in lost.items():
        yield Finding(
            what="reading",
            where=listed(filter(None, nodes[loses])),
            state=State.UNKNOWN,
            found=f"not read: {listed(what)}",
            effect=f"{loses} can't be told",
        )
