"""The way of every published port from every node, and what the ways that fail have in common. PURE.

A fault breaks the ways of a hundred ports at once: they are put together by the place where they fail and why.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from routemesh.doctor import Finding, Severity, listed
from routemesh.errors import RoutemeshError
from routemesh.explain.answer import checks, judge, mending_of
from routemesh.explain.ask import Target, ask
from routemesh.explain.blame import Mending
from routemesh.explain.faults import Fault
from routemesh.explain.mend import Repairs
from routemesh.explain.nouns import Outcome
from routemesh.explain.way import Places
from routemesh.reasons.causes import AnswerLost, AnswerUntold, ByOthers, Lost, NotAnswering, OfDoubt, Reason, Untold, end_of
from routemesh.reasons.ends import End, LinkDown
from routemesh.reasons.named import kind_of, named
from routemesh.reasons.words import NOT_OURS, of_cause
from routemesh.snapshot import ClusterSnapshot, NamedPort, NamedService
from routemesh.values import replace
from routemesh.walk import Network

_MOST_FIXES = 3
_MOST_WITHIN = 100
"""So many ways are asked from within; more take too long."""
_LOOPBACK = "127.0.0.1"

Stop = Callable[[], None]
Kept = tuple[str, str]
"""A node and a namespace of it."""


class Failed(NamedTuple):
    """A way that fails: of a port of a service, through a node. `client`: who asks, "" for clients outside of the cluster.
    `checks`: as explain.answer.checks has them."""

    outcome: Outcome
    causes: Sequence[Fault]
    port: str
    node: str
    client: str
    checks: tuple[str, ...] = ()


@dataclass(slots=True)
class Failing:
    """Ways that fail for one reason. `causes`: each of them, of which the first is told; `whole`: no connection gets through."""

    causes: list[Fault] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    whole: bool = True
    untold: bool = True

    def add(self, cause: Fault, failed: Failed) -> None:
        """Another way that fails."""
        self.causes.append(cause)
        self.ports.append(failed.port)
        self.nodes.append(failed.node)
        self.clients.append(failed.client)
        self.checks += failed.checks
        self.whole &= failed.outcome == "broken"
        self.untold &= failed.outcome == "untold" or isinstance(cause.reason, OfDoubt)

    @property
    def effect(self) -> str:
        """What that costs."""
        who = f"{listed(self.ports)} through {listed(self.nodes)}"
        if all(self.clients):
            who += f", where {listed(self.clients)} asks"
        if self.untold:
            return f"whether connections succeed is not known: {who}"
        check = f"; {listed(self.checks)}" if self.checks else ""
        return f"{'every connection fails' if self.whole else 'connections fail or tasks get none'}: {who}{check}"


@dataclass(slots=True)
class Walked:
    """What came of all ways: how many there are, and those that fail, by reason; of those that fail where a node knows that
    something is not as planned, by that place."""

    ways: int = 0
    nodes: Sequence[str] = ()
    whole: int = 0
    asked_as: set[str] = field(default_factory=set)
    by_reason: dict[tuple[object, ...], Failing] = field(default_factory=dict)
    by_place: dict[Kept, Failing] = field(default_factory=dict)
    unasked: dict[str, list[str]] = field(default_factory=dict)

    @property
    def origins(self) -> frozenset["Origin"]:
        """Where ways fail, and by which kinds of end; links that are off among them."""
        off = {
            (each.node, LinkDown)
            for failing in self.by_reason.values()
            for each in failing.causes
            if isinstance(each.reason, LinkDown)
        }
        return frozenset(map(_origin, self.by_reason.values())) | off

    def by_end(self, node: str, kind: type[End]) -> Failing | None:
        """All of the node that fail by one kind of end."""
        alike = [failing for failing in self.by_reason.values() if _origin(failing) == (node, kind)]
        return _together(alike) if alike else None


Origin = tuple[str, type[End] | None]
"""A node, and by which kind of end ways fail there."""


def _origin(failing: Failing) -> Origin:
    end = end_of(failing.causes[0].reason)
    return failing.causes[0].node, None if end is None else type(end)


def _together(several: Sequence[Failing]) -> Failing:
    found = Failing(whole=all(each.whole for each in several), untold=all(each.untold for each in several))
    for each in several:
        found.causes += each.causes
        found.ports += each.ports
        found.nodes += each.nodes
        found.clients += each.clients
    return found


def never() -> None:
    """Go on to the end."""


def walked(cluster: ClusterSnapshot, network: Network, repairs: Repairs, stop: Stop = never) -> Walked:
    """Walk them all. `repairs`: what the nodes would change. `stop` is asked before each, and raises where nobody waits."""
    places, found = Places(cluster), Walked(nodes=tuple(cluster.nodes))
    mending = mending_of(cluster, repairs, network)
    for service in sorted(cluster.names.services, key=lambda service: service.name):
        for port in service.ports:
            for node in () if port.host else filter(service.answers_on, cluster.nodes):
                stop()
                found.ways += 1
                _walk(places, mending, found, node, service, port)
    for way in _from_within(cluster):
        stop()
        _walk_from_within(places, mending, found, way)
    return found


def _walk(places: Places, mending: Mending, found: Walked, node: str, service: NamedService, port: NamedPort) -> None:
    """A client outside of the cluster asks a port of a node."""
    called = f"{service.name} {port.published}/{port.protocol}"
    try:
        asked = ask(places.cluster, Target(node=node, port=port.published, protocol=port.protocol), "", None)
        outcome, causes = judge(places, asked, mending)
        found.asked_as.add(str(asked.source.address))
    except RoutemeshError as error:
        found.unasked.setdefault(str(error), []).append(f"{called} through {node}")
        return
    if outcome == "reaches":
        found.whole += 1
    else:
        _sort_in(found, Failed(outcome, causes, called, node, "", checks(asked, causes)))


# --- from within ----------------------------------------------------------------------------------------------------


class _Within(NamedTuple):
    """A client in the cluster: what `ask` calls it, what people do, which port it asks through which node."""

    client: str
    called: str
    node: str
    service: NamedService
    port: NamedPort


def _from_within(cluster: ClusterSnapshot) -> Iterator[_Within]:
    """A node's own processes by 127.0.0.1 and by its address, and a task of it. Of many services each asks through one node."""
    tasks = {task.node: task for task in cluster.names.tasks if task.netns and task.serving}
    ways = [
        (node, service, port)
        for service in cluster.names.services
        for port in service.ports
        if not port.host
        for node in filter(service.answers_on, cluster.nodes)
    ]
    every = max(1, len(ways) // _MOST_WITHIN)
    for node, service, port in ways[::every]:
        yield _Within(_LOOPBACK, f"{node} itself, by {_LOOPBACK},", node, service, port)
        yield _Within(node, f"{node} itself", node, service, port)
        if node in tasks:
            yield _Within(tasks[node].name, f"a task on {node}", node, service, port)


def _walk_from_within(places: Places, mending: Mending, found: Walked, way: _Within) -> None:
    """Only what fails for certain counts: nobody has asked."""
    port = way.port
    try:
        asked = ask(places.cluster, Target(node=way.node, port=port.published, protocol=port.protocol), way.client, None)
        outcome, causes = judge(places, asked, mending, full_size=False)
    except RoutemeshError:
        return
    certain = [cause for cause in causes if not isinstance(cause.reason, OfDoubt)]
    if outcome in ("partly", "broken") and certain:
        called = f"{way.service.name} {port.published}/{port.protocol}"
        _sort_in(found, Failed(outcome, certain, called, way.node, way.called))


# --- what they have in common ----------------------------------------------------------------------------------------


def _sort_in(found: Walked, failed: Failed) -> None:
    """What mending all would not change counts by itself, as does what others have made; the rest is due to what is not as
    planned, if there is anything.
    """
    ours = [cause for cause in failed.causes if not cause.by]
    planned = {(cause.node, cause.namespace): cause for cause in ours if cause.planned}
    left = [cause for cause in ours if not cause.planned and (cause.remains or not planned)]
    for place, cause in planned.items():
        found.by_place.setdefault(place, Failing()).add(cause, failed)
    first = {cause.way: cause for cause in reversed(left)}
    theirs = (cause for cause in failed.causes if cause.by and not (cause.goes and planned))
    for cause in (*theirs, *reversed(first.values())):
        found.by_reason.setdefault(_alike(cause), Failing()).add(cause, failed)


def _alike(cause: Fault) -> tuple[object, ...]:
    """Equal for causes that differ in numbers and names alone: in port, mark, address, task."""
    return cause.node, cause.namespace, cause.by, kind_of(_there_or_back(cause.reason))


def _there_or_back(reason: Reason) -> Reason:
    """It is one fault, whether it loses a request or an answer."""
    match reason:
        case AnswerLost(end):
            return Lost(end)
        case ByOthers(failure=AnswerLost(end)):
            return replace(reason, failure=Lost(end))
        case AnswerUntold(doubt):
            return Untold(doubt)
        case _:
            return reason


def findings(found: Walked, elsewhere: Set[Origin] = frozenset(), confirmed: Set[Kept] = frozenset()) -> Iterator[Finding]:
    """The ways that fail, by reason, but for those that are by place; and how many there are. `elsewhere`: whose findings are not
    of ways. `confirmed`: the namespaces of tasks that were asked, and did not answer."""
    for failing in found.by_reason.values():
        cause = failing.causes[0]
        if _origin(failing) in elsewhere:
            continue
        alike = len({_there_or_back(each.reason) for each in failing.causes}) - 1
        yield Finding(
            what=_topic(cause),
            where=_where(cause),
            state=Severity.UNTOLD if failing.untold else Severity.WRONG,
            found=f"{of_cause(cause.reason)}{f'; and {alike} more like it' if alike else ''}",
            effect=failing.effect,
            fix=_fix(failing.causes),
            reason=named(cause.reason),
            basis="asked" if (cause.node, cause.namespace) in confirmed else "predicted",
            effect_basis="predicted",
        )
    for why, ways in found.unasked.items():
        yield Finding(
            what="way", where="", state=Severity.UNTOLD, found=why, effect=f"not told: {listed(ways)}", basis="predicted"
        )
    if found.whole:
        good = f"{found.whole} of {found.ways} ways" if found.whole < found.ways else f"all {found.ways} ways"
        yield Finding(
            what="ways",
            where=listed(found.nodes, 8),
            state=Severity.OK,
            found=f"{good} of published ports reach every task, and the answers come back to {listed(sorted(found.asked_as))}",
            basis="predicted",
        )


def _topic(cause: Fault) -> str:
    return "task" if isinstance(cause.reason, NotAnswering) else "firewall" if cause.by else "way"


def _where(cause: Fault) -> str:
    return cause.called or cause.node


def _fix(causes: Sequence[Fault]) -> str:
    """The commands of the first that anybody can mend, and of some that are like it; of what is not the mesh's, those that show
    it come first.
    """
    look, mend = _by_node(causes, lambda cause: cause.look), _by_node(causes, lambda cause: cause.mend)
    if not look:
        return mend
    return f"{NOT_OURS}; look {look}" + (f"; if its owner agrees, let this pass {mend}" if mend else "")


def _by_node(causes: Sequence[Fault], of: Callable[[Fault], Sequence[str]]) -> str:
    commands: dict[str, list[str]] = {}
    for cause in causes:
        commands.setdefault(cause.node, []).extend(each for each in of(cause) if each not in commands.get(cause.node, ()))
    told = [f"{f'on {node}: ' if node else ''}{' && '.join(each[:_MOST_FIXES])}" for node, each in commands.items() if each]
    return "; ".join(told)
