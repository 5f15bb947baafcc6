"""Everything about a mesh as it was read: what is not as planned, the way of every published port, what nodes say. PURE."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from routemesh.doctor import Finding, Severity, answers, disks, listed, load, mtu, overlay, planned, twice, ways
from routemesh.doctor.facts import Difference, Facts, NodeFacts
from routemesh.doctor.ways import Stop, Walked
from routemesh.reasons.ends import TableFull, TooLarge
from routemesh.snapshot import ClusterSnapshot, Unread
from routemesh.values import replace
from routemesh.walk import observed

_ORDER = (Severity.WRONG, Severity.UNTOLD, Severity.OPTIONAL, Severity.UNKNOWN, Severity.OK)


def recorded(lacking: Mapping[str, Sequence[Difference]]) -> Facts:
    """What is known of nodes that only their recordings speak for. `lacking`: by node, what is not there as it should be."""
    nodes = {node: NodeFacts(node=node, differences=tuple(lacks)) for node, lacks in lacking.items()}
    return Facts(nodes=nodes, repairing=False)


@dataclass(frozen=True, slots=True)
class Look:
    """A cluster as it was read at one time, where its ways lead, and what to think of it."""

    cluster: ClusterSnapshot
    facts: Facts
    walked: Walked
    findings: tuple[Finding, ...]


def findings(cluster: ClusterSnapshot, facts: Facts) -> tuple[Finding, ...]:
    """Everything that is worth knowing of a cluster, what is wrong first."""
    return look(cluster, facts).findings


def look(cluster: ClusterSnapshot, facts: Facts, before: Look | None = None, stop: Stop = ways.never) -> Look:
    """The same. With a look `before`, only what that found too is wrong. `stop`: see ways.walked."""
    moving = frozenset[str]() if before is None else twice.changing(before.cluster, cluster)
    told = facts if before is None else twice.both_say(before.facts, facts)
    at_rest = twice.without(cluster, moving)
    network = observed(cluster)
    walked = ways.walked(at_rest, network, told.repairs(), stop)
    if before is not None:
        walked = twice.both_walked(before.walked, walked)
    found = (
        *_silent(cluster, live=told.repairing),
        *planned.findings(cluster, told, walked.by_place),
        *ways.findings(walked, _told_elsewhere(cluster), _confirmed(told)),
        *answers.findings(at_rest, told, _told_of(walked)),
        *mtu.findings(cluster, walked),
        *overlay.findings(cluster, told, network, walked.origins),
        *disks.findings(told),
        *_of_both(before, load.findings(at_rest, told, walked)),
        *twice.findings(moving, cluster),
        *_unread(cluster),
    )
    if not told.repairing:
        found = tuple(replace(each, basis="recorded") if each.basis == "asked" else each for each in found)
    return Look(cluster, facts, walked, tuple(sorted(found, key=lambda finding: _ORDER.index(finding.state))))


def _told_of(walked: Walked) -> Mapping[ways.Kept, object]:
    """The namespaces of which ways that fail are told."""
    causes = (cause for failing in walked.by_reason.values() for cause in failing.causes)
    return {**walked.by_place, **{(cause.node, cause.namespace): cause for cause in causes}}


def _confirmed(facts: Facts) -> Set[ways.Kept]:
    """Those of tasks that were asked, or looked at, and do not answer."""
    every = ((name, answer) for name, node in facts.nodes.items() for answer in node.answers)
    return {(name, answer.asked.netns) for name, answer in every if not answer.well and answer.outcome != "unasked"}


def _told_elsewhere(cluster: ClusterSnapshot) -> Set[ways.Origin]:
    """The ends of ways that have findings of their own."""
    return {(name, TableFull) for name in cluster.nodes} | {(name, TooLarge) for name in mtu.narrow(cluster)}


def _of_both(before: Look | None, found: Iterable[Finding]) -> Iterator[Finding]:
    known = None if before is None else {(each.what, each.where) for each in before.findings}
    return (each for each in found if known is None or (each.what, each.where) in known)


def _silent(cluster: ClusterSnapshot, *, live: bool) -> Iterator[Finding]:
    """Nodes of which nothing was read; of a running cluster that is wrong, of recordings it is what they are."""
    for node in cluster.names.nodes:
        if node.absent:
            yield Finding(
                what="node",
                where=node.name,
                state=Severity.WRONG if live else Severity.UNKNOWN,
                found=f"not read: {node.absent}",
                effect="what it does with packets is unknown, and nothing is repaired there" if live else "its part is unknown",
                fix=f"on {node.name}: start its daemon, of the others' version "
                f"(routemesh node; in a lab routemesh lab start {node.name})"
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
            state=Severity.UNKNOWN,
            found=f"not read: {listed(what)}",
            effect=f"{loses} can't be told",
        )
