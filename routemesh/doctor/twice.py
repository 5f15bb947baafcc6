"""Two looks at a cluster that goes on changing: what counts as wrong is what both found. PURE.

Nodes are read one beside the other, and a manager's names at a time of their own: of a service whose tasks come and go, every
look finds something else half done.
"""

from collections.abc import Iterator, Mapping

from routemesh.doctor import Finding, Severity, listed
from routemesh.doctor.facts import Facts, NodeFacts
from routemesh.doctor.ways import Walked
from routemesh.snapshot import ClusterSnapshot, NamedTask
from routemesh.values import replace

Tasks = frozenset[tuple[str, str, bool, str]]


def changing(before: ClusterSnapshot, after: ClusterSnapshot) -> frozenset[str]:
    """The services whose tasks, or whose ports, are not those of the first look any more."""
    was, now = _of_services(before), _of_services(after)
    return frozenset(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))


def _of_services(cluster: ClusterSnapshot) -> Mapping[str, tuple[object, Tasks]]:
    tasks: dict[str, set[tuple[str, str, bool, str]]] = {}
    for task in cluster.names.tasks:
        tasks.setdefault(task.service, set()).add((task.id, task.node, task.serving, task.state))
    return {service.name: (service.ports, frozenset(tasks.get(service.name, ()))) for service in cluster.names.services}


def without(cluster: ClusterSnapshot, services: frozenset[str]) -> ClusterSnapshot:
    """The same, but nothing is asked about these services."""
    left = tuple(service for service in cluster.names.services if service.name not in services)
    return replace(cluster, names=replace(cluster.names, services=left))


def both_say(before: Facts, after: Facts) -> Facts:
    """What nodes say of themselves in the second look, of differences, failures and answers what they said before too."""
    return replace(after, nodes={name: _both(before.nodes.get(name), node) for name, node in after.nodes.items()})


def _both(before: NodeFacts | None, after: NodeFacts) -> NodeFacts:
    if before is None:
        return after
    known, failed = set(before.differences), set(before.failures)
    well = {answer.asked for answer in before.answers if answer.well}
    return replace(
        after,
        differences=tuple(each for each in after.differences if each in known),
        failures=tuple(each for each in after.failures if each in failed),
        answers=tuple(each for each in after.answers if each.well or each.asked not in well),
    )


def both_walked(before: Walked, after: Walked) -> Walked:
    """Of the ways that fail those that fail for a reason, or at a place, of the first look; of the others nothing is told."""
    return replace(
        after,
        by_reason={key: failing for key, failing in after.by_reason.items() if key in before.by_reason},
        by_place={key: failing for key, failing in after.by_place.items() if key in before.by_place},
        unasked={why: ways for why, ways in after.unasked.items() if why in before.unasked},
    )


def findings(services: frozenset[str], cluster: ClusterSnapshot) -> Iterator[Finding]:
    """The services that were not judged, since they changed meanwhile."""
    for name in sorted(services):
        tasks = [task for task in cluster.names.tasks if task.service == name]
        yield Finding(
            what="tasks",
            where=f"service {name}",
            state=Severity.OPTIONAL,
            found=f"they changed while they were looked at{_now(tasks)}",
            effect="whether a connection to it succeeds changes from one moment to the next; its ways are not judged",
            fix=f"routemesh service ps {name}, and routemesh doctor again when it is stable",
        )


def _now(tasks: list[NamedTask]) -> str:
    states = listed(f"{task.name} is {task.state}" for task in sorted(tasks, key=lambda task: task.name))
    return f"; now {states}" if tasks else ""
