"""The way on from the gateway: what its proxy decides about a request, and the connection that it opens for it. PURE.

An explanation that ends at the gateway's tasks and what their proxies do (`Passage`) become one, whose ways lead from the client
to a task of the service and back.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from routemesh.explain.answer import broken_first, explain, listed, once, passed_by, told
from routemesh.explain.ask import SOURCE_PORT, Asked, Target
from routemesh.explain.faults import Fault
from routemesh.explain.faults import told as told_fault
from routemesh.explain.ground import ground
from routemesh.explain.mend import Repairs
from routemesh.explain.nouns import Cause, Explanation, Outcome, Step, Way
from routemesh.explain.way import Places
from routemesh.model import Protocol
from routemesh.names import natural
from routemesh.reasons.causes import ProxyAnswers, ProxyUnlike, Reason
from routemesh.reasons.events import Decided
from routemesh.reasons.named import named
from routemesh.sightings import Headers
from routemesh.snapshot import ClusterSnapshot, Endpoint, NamedTask
from routemesh.values import differing, replace
from routemesh.walk import Network, Place, observed

_LEAST_ERROR = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What one part (`at`) of a proxy decided, why, and the command that shows it."""

    at: str
    decision: str
    why: str
    show: str

    @property
    def what(self) -> str:
        """For people."""
        return f"{self.at} {self.decision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """What a proxy does with the request. `servers`: the tasks that it may ask, by name, each as often as the others, or about so
    often (`estimated`); none where it answers itself, with `status`. `amiss`: what is not as the cluster wants it.
    """

    driver: str
    decisions: tuple[Decision, ...]
    servers: Mapping[str, Endpoint]
    status: int = 0
    estimated: bool = False
    amiss: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def through(
    cluster: ClusterSnapshot,
    first: Explanation,
    request: str,
    passages: Mapping[str, Passage],
    repairs: Repairs | None = None,
    network: Network | None = None,
) -> Explanation:
    """`first` (to the gateway) and all that follows. `passages` by the name of the gateway's task."""
    network = network or observed(cluster)
    walker = _Walker(cluster, Places(cluster), network, repairs or {}, {task.name: task for task in cluster.names.tasks})
    joined: list[_Joined] = []
    for number, way in enumerate(first.ways):
        found = list(walker.onward(way, passages[way.task])) if way.arrives and way.task in passages else [_Joined(way)]
        joined += (replace(each, before=number) for each in found)
    causes = once((*_of_first(first, joined), *walker.of_passages(joined, passages), *_of_legs(joined)))
    ways, causes = broken_first(tuple(each.way for each in joined), causes)
    outcome = _outcome(ways, causes, first, joined)
    behind = {walker.tasks[name].service for passage in passages.values() for name in passage.servers if name in walker.tasks}
    reached = tuple(sorted({way.task or way.node for way in ways if way.arrives}, key=natural))
    asked = first.question
    return replace(
        first,
        question=replace(asked, request=request),
        outcome=outcome,
        verdict=_verdict(f"{asked.node}:{asked.port}/{asked.protocol} for {request}", outcome, reached, causes, joined, passages),
        reached=reached,
        causes=causes,
        ways=ways,
        notes=tuple(dict.fromkeys((*first.notes, *_notes(joined, passages)))),
        ground=ground(cluster, {first.question.service, *behind}, passed_by(ways)),
    )


def leg(
    cluster: ClusterSnapshot,
    gateway: NamedTask,
    server: str,
    end: Endpoint,
    source_port: int,
    repairs: Repairs | None = None,
    network: Network | None = None,
) -> Explanation:
    """The connection that a proxy opens to a server, `end` of the task of that name."""
    networks = [each for each in cluster.names.networks if each.subnet is not None and end.address in each.subnet]
    own = next(address for each in networks for of, address in gateway.addresses.items() if of == each.id)
    asked = Asked(
        client=f"task {gateway.name}",
        start=Place(gateway.node, gateway.netns),
        source=Endpoint(own, source_port),
        destination=end,
        target=Target(node=server, port=end.port, protocol=Protocol.TCP),
        service=None,
    )
    return explain(cluster, asked, repairs, network)


@dataclass(frozen=True, slots=True)
class _Joined:
    """A way with what it is made of: which of the first ones, by which of the gateway's tasks, which of a leg's."""

    way: Way
    before: int = 0
    gateway: str = ""
    leg: Explanation | None = None
    number: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class _Walker:
    cluster: ClusterSnapshot
    places: Places
    network: Network
    repairs: Repairs
    tasks: Mapping[str, NamedTask]

    def onward(self, way: Way, passage: Passage) -> Iterator[_Joined]:
        """The ways that one to the gateway goes on in."""
        gateway = self.tasks[way.task]
        steps = tuple(self._decisions(gateway, way.there[-1].after, passage))
        there = (*way.there, *steps)
        if not passage.servers:
            yield _Joined(_answered(way, there, passage), gateway=gateway.name)
            return
        for name, end in passage.servers.items():
            onwards = leg(self.cluster, gateway, name, end, SOURCE_PORT, self.repairs, self.network)
            final = passage.decisions[-1]
            chosen = f"{final.at} {name}, {final.decision}" if len(passage.servers) > 1 else steps[-1].what
            opened = _opened(onwards)
            last = replace(steps[-1], what=chosen, after=opened, changed=_changed(steps[-1].before, opened))
            for number, onward in enumerate(onwards.ways):
                share = Fraction(*way.share) * Fraction(*onward.share) / len(passage.servers)
                whole = replace(
                    onward,
                    share=(share.numerator, share.denominator),
                    estimated=way.estimated or onward.estimated or passage.estimated,
                    there=(*way.there, *steps[:-1], last, *onward.there),
                    back=(*onward.back, *way.back) if onward.arrives else onward.back,
                )
                yield _Joined(whole, gateway=gateway.name, leg=onwards, number=number, offset=len(there))

    def of_passages(self, joined: Sequence[_Joined], passages: Mapping[str, Passage]) -> Iterator[Cause]:
        """What is wrong with the proxies that are passed, and what they refuse."""
        for name in _passed(joined):
            gateway, passage = self.tasks[name], passages[name]
            place = Place(gateway.node, gateway.netns)
            reasons: list[Reason] = [ProxyUnlike(what) for what in passage.amiss]
            if passage.status >= _LEAST_ERROR:
                reasons.append(ProxyAnswers(passage.status, passage.decisions[-1].why))
            for reason in reasons:
                yield told_fault(Fault(at=place, called=self.places.called(place), reason=reason))

    def _decisions(self, gateway: NamedTask, at: Headers, passage: Passage) -> Iterator[Step]:
        place = Place(gateway.node, gateway.netns)
        refused = passage.status >= _LEAST_ERROR
        for decision in passage.decisions:
            yield Step(
                node=place.node,
                namespace=place.netns,
                place=self.places.called(place),
                device=passage.driver,
                what=decision.what,
                event=named(Decided(decision.at)),
                kind="proxy",
                rule=decision.why,
                show=decision.show,
                before=at,
                after=at,
                service=gateway.service,
                task=gateway.name,
                failed=refused and decision is passage.decisions[-1],
            )


def _opened(leg: Explanation) -> Headers:
    """The first packet of the proxy's own connection."""
    first = next((step.before for way in leg.ways for step in way.there), None)
    asked = leg.question
    return first or Headers(protocol=asked.protocol, source=asked.source, destination=asked.destination)


def _changed(before: Headers, after: Headers) -> tuple[str, ...]:
    return differing(before, after)


def _answered(way: Way, there: tuple[Step, ...], passage: Passage) -> Way:
    refused = passage.status >= _LEAST_ERROR or not passage.status
    return replace(way, there=there, arrives=not refused, end=f"ends at {way.task}: {passage.decisions[-1].what}")


def _passed(joined: Iterable[_Joined]) -> list[str]:
    return list(dict.fromkeys(each.gateway for each in joined if each.gateway))


def _notes(joined: Sequence[_Joined], passages: Mapping[str, Passage]) -> Iterator[str]:
    for name in _passed(joined):
        yield from passages[name].notes
    for each in joined:
        yield from each.leg.notes if each.leg else ()


def _of_first(first: Explanation, joined: Sequence[_Joined]) -> Iterator[Cause]:
    """What was wrong on the way to the gateway, at its steps of the whole."""
    for cause in first.causes:
        number = next((index for index, each in enumerate(joined) if each.before == cause.way), -1)
        if cause.way < 0 or number < 0:
            yield cause
            continue
        whole, part = joined[number].way, first.ways[cause.way]
        on_the_way_back = cause.step >= len(part.there)
        moved = len(whole.there) + len(whole.back) - len(part.there) - len(part.back) if on_the_way_back else 0
        yield replace(cause, way=number, step=cause.step + moved)


def _of_legs(joined: Sequence[_Joined]) -> Iterator[Cause]:
    for number, each in enumerate(joined):
        for cause in each.leg.causes if each.leg else ():
            if cause.way == each.number or cause.way < 0:
                yield replace(cause, way=number, step=cause.step if cause.step < 0 else cause.step + each.offset)


def _outcome(ways: Sequence[Way], causes: Sequence[Cause], first: Explanation, joined: Sequence[_Joined]) -> Outcome:
    if any(way.arrives for way in ways):
        return "partly" if causes else "reaches"
    legs = [each.leg for each in joined if each.leg]
    ends = {leg.outcome for leg in legs} or {first.outcome}
    return "untold" if ends == {"untold"} else "broken"


def _verdict(
    subject: str,
    outcome: Outcome,
    reached: tuple[str, ...],
    causes: Sequence[Cause],
    joined: Sequence[_Joined],
    passages: Mapping[str, Passage],
) -> str:
    by = _passed(joined)
    if outcome == "reaches" and set(reached) <= set(by):
        return f"{subject} is answered by {listed(tuple(by))} itself: {passages[by[0]].decisions[-1].what}"
    whom = (f"{listed(reached)} by way of {listed(tuple(by))}",) if reached and by else reached
    return told(subject, outcome, whom, causes)
