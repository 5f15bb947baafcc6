"""From a question and what was read to an Explanation. PURE."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from routemesh.explain import cause, deaf, faults, nearby
from routemesh.explain.ask import Asked
from routemesh.explain.blame import Blame, Mending
from routemesh.explain.faults import Fault
from routemesh.explain.ground import ground
from routemesh.explain.mend import Repairs
from routemesh.explain.nouns import VERSION, Cause, Explanation, Outcome, Question, Way
from routemesh.explain.stale import stale
from routemesh.explain.way import Places, arrives, failure_of, way
from routemesh.names import natural
from routemesh.reasons.causes import NoneServes, NotAnswering, NoTasks, UnlikePlanned, end_of
from routemesh.reasons.ends import NobodyListens
from routemesh.reasons.words import of_server, unchecked
from routemesh.snapshot import ClusterSnapshot, Place
from routemesh.values import replace
from routemesh.walk import OUTSIDE, Branch, Delivered, Network, Packet, Unclear, Walk, every_way, observed

_MOST_NOTES = 8


def explain(
    cluster: ClusterSnapshot, asked: Asked, repairs: Repairs | None = None, network: Network | None = None
) -> Explanation:
    """Every way that the first packet of a connection may take through what was read, and what to think of it.

    `repairs`: what nodes would change by themselves, where they were asked. `network`: observed(cluster), made once
    by a caller with many questions.
    """
    mending = mending_of(cluster, repairs or {}, network)
    branches = _walked(asked, mending.network)
    places = Places(cluster)
    ways = tuple(map(partial(_way, places, asked), branches))
    if asked.host_mode and (task := cause.host_task(places, asked)) is not None:
        ways = tuple(replace(each, task=each.task or task.name) for each in ways)
    arriving = [each.arrives for each in ways]
    found = _faults(places, asked, branches, arriving, mending, _walked)
    causes = tuple(map(faults.told, found))
    outcome = _outcome(branches, arriving, causes)
    ways, causes = broken_first(ways, causes)
    reached = tuple(sorted({each.task or each.node for each in ways if each.arrives}, key=natural))
    return Explanation(
        version=VERSION,
        question=_question(asked),
        outcome=outcome,
        verdict=told(f"{asked.target.node}:{asked.target.port}/{asked.target.protocol}", outcome, reached, causes),
        reached=reached,
        causes=causes,
        ways=ways,
        notes=(*_notes(places, asked, ways, causes), *checks(asked, found)),
        unread_nodes=tuple(node.name for node in cluster.names.nodes if node.absent),
        ground=ground(cluster, () if asked.service is None else (asked.service.name,), passed_by(ways)),
    )


def broken_first(ways: Sequence[Way], causes: Sequence[Cause]) -> tuple[tuple[Way, ...], tuple[Cause, ...]]:
    """The ways with those in front that do not arrive, or only in part; the causes with the numbers that these then have."""
    caused = {cause.way for cause in causes}
    order = sorted(range(len(ways)), key=lambda number: ways[number].arrives + (ways[number].arrives and number not in caused))
    places = {number: place for place, number in enumerate(order)}
    return tuple(ways[number] for number in order), tuple(replace(each, way=places.get(each.way, -1)) for each in causes)


def passed_by(ways: Iterable[Way]) -> frozenset[Place]:
    """The namespaces that ways lead through."""
    return frozenset(Place(step.node, step.namespace) for way in ways for step in (*way.there, *way.back))


def _way(places: Places, asked: Asked, branch: Branch) -> Way:
    found = way(places, branch, taken=cause.takes_it(places, asked, branch.outcome.place))
    silent = deaf.met(places.silent, branch) if found.arrives else None
    return found if silent is None else deaf.unanswered(found, silent)


def mending_of(cluster: ClusterSnapshot, repairs: Repairs, network: Network | None = None) -> Mending:
    """A cluster with all that is not as it should be; `network` as for explain."""
    return Mending(cluster, network or observed(cluster), nearby.with_links(cluster, repairs))


def _walked(asked: Asked, network: Network, *, full_size: bool = True) -> Walk:
    packet = Packet(protocol=asked.target.protocol, source=asked.source, destination=asked.destination)
    return every_way(network, packet, asked.start, full_size=full_size)


def judge(places: Places, asked: Asked, mending: Mending, *, full_size: bool = True) -> tuple[Outcome, tuple[Fault, ...]]:
    """What is wrong, without telling the ways, for hundreds of questions. `full_size`: large packets are tried too."""
    walked = partial(_walked, full_size=full_size)
    branches = walked(asked, mending.network)
    arriving = [
        arrives(branch) and cause.takes_it(places, asked, branch.outcome.place) and deaf.met(places.silent, branch) is None
        for branch in branches
    ]
    found = _faults(places, asked, branches, arriving, mending, walked)
    return _outcome(branches, arriving, found), found


def _faults(
    places: Places,
    asked: Asked,
    branches: Walk,
    arriving: Sequence[bool],
    mending: Mending,
    walked: Callable[[Asked, Network], Walk],
) -> tuple[Fault, ...]:
    """The first cause on the way comes first; a service without tasks explains everything else."""
    well = all(arriving) and all(failure_of(branch) is None for branch in branches)
    if well and not any(cause.of_service(places, asked, branches, {})):
        return ()
    blame = mending.blame(partial(walked, asked), branches)
    of_service = list(cause.of_service(places, asked, branches, blame.repairs))
    if any(isinstance(each.reason, NoTasks | NoneServes) for each in of_service) and not any(arriving):
        return once(of_service)  # then no node is to lead its ports anywhere
    of_ways: list[Fault] = []
    for number, (branch, arrived) in enumerate(zip(branches, arriving, strict=True)):
        of_ways += cause.of_branch(places, asked, branch, number, blame, arrived=arrived)
        if not arrived and arrives(branch) and (silent := deaf.met(places.silent, branch)) is not None:
            of_ways.append(deaf.fault(silent, branch, places.called(branch.outcome.place), number))
    of_ways += _behind(places, asked, branches, blame)
    found = [*of_ways, *of_service] if any(arriving) else [*of_service, *of_ways]
    return once(found)


def _behind(places: Places, asked: Asked, branches: Walk, blame: Blame) -> Iterator[Fault]:
    """What would still fail with all mended that is not as planned, and shows only then."""
    known = [branch.outcome for branch in branches]
    mended = Places(blame.cluster) if blame.walk is not branches else places
    for branch in blame.walk:
        if branch.outcome not in known and failure_of(branch) is not None:
            for each in cause.of_branch(mended, asked, branch, -1, replace(blame, repairs={}), arrived=arrives(branch)):
                yield replace(each, way=-1, step=-1)


AnyCause = TypeVar("AnyCause", Cause, Fault)


def once(causes: Iterable[AnyCause]) -> tuple[AnyCause, ...]:
    """Each cause once, and each command that mends."""
    seen: dict[object, AnyCause] = {}
    for each in causes:
        seen.setdefault((each.node, each.namespace, each.reason), each)
    return tuple(_each_command_once(seen.values()))


def _each_command_once(causes: Iterable[AnyCause]) -> Iterator[AnyCause]:
    told: set[tuple[str, str]] = set()
    for each in causes:
        fresh = tuple(command for command in each.mend if (each.node, command) not in told)
        told |= {(each.node, command) for command in fresh}
        yield replace(each, mend=fresh)


def _outcome(branches: Walk, arriving: Sequence[bool], causes: Sequence[Cause | Fault]) -> Outcome:
    if any(arriving):
        return "partly" if causes else "reaches"
    ends = (branch.outcome.reply if isinstance(branch.outcome, Delivered) else branch.outcome for branch in branches)
    return "untold" if all(isinstance(end, Unclear) for end in ends) else "broken"


def told(subject: str, outcome: Outcome, reached: tuple[str, ...], causes: Sequence[Cause]) -> str:
    """The verdict on `subject`, which was asked for, in one line."""
    first = "; ".join(f"{each.place}: {each.why}" for each in _one_of_each_node(causes))
    match outcome:
        case "reaches":
            return f"{subject} reaches {listed(reached)}"
        case "partly":
            return f"{subject} reaches {listed(reached)}, but {first}"
        case "broken":
            return f"{subject} is broken at {first}"
        case "untold":
            return f"where {subject} leads can't be told: {first}"


def _one_of_each_node(causes: Sequence[Cause]) -> Iterator[Cause]:
    """The first of each; what only differs from its plan beside that may follow from it."""
    told: set[str] = set()
    for each in causes:
        if each.node not in told and not (told and each.reason.is_a(UnlikePlanned)):
            told.add(each.node)
            yield each


def listed(words: tuple[str, ...]) -> str:
    """For people: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _question(asked: Asked) -> Question:
    return Question(
        client=asked.client,
        client_node=asked.start.node,
        client_namespace=asked.start.netns,
        source=str(asked.source),
        destination=str(asked.destination),
        protocol=asked.target.protocol.value,
        node=asked.target.node,
        port=asked.target.port,
        service=asked.service.name if asked.service is not None else "",
    )


def checks(asked: Asked, found: Iterable[Fault]) -> tuple[str, ...]:
    """That the service has no health check, where one would have kept connections from a server that does not answer."""
    service = asked.service
    if service is None or service.checked is not False:
        return ()
    kept = (isinstance(each.reason, NotAnswering) or isinstance(end_of(each.reason), NobodyListens) for each in found)
    return (unchecked(service.name),) if any(kept) else ()


def _notes(places: Places, asked: Asked, ways: tuple[Way, ...], causes: tuple[Cause, ...]) -> list[str]:
    cluster = places.cluster
    notes = [f"node {node.name} was not read: {node.absent}" for node in cluster.names.nodes if node.absent]
    notes += map(str, cluster.unread)
    if asked.host_mode and asked.service is not None:
        port = f"{asked.target.port}/{asked.target.protocol}"
        notes.append(
            f"{port} is published by {asked.service.name} in host mode: past the mesh, to the task of the entry node alone"
        )
    steps = ((step.node, step.namespace) for each in ways for step in (*each.there, *each.back))
    passed = dict.fromkeys((*steps, *((found.node, found.namespace) for found in causes)))
    for name, netns in passed:
        node = cluster.nodes.get(name)
        space = None if node is None else node.namespaces.get(netns)
        notes += [f"{name}: {unread}" for unread in (() if space is None else space.unread)]
    reached = {each.task for each in ways if each.arrives and each.task}
    busy = (each for each in deaf.deaf(cluster) if each.task.name in reached and not each.certain)
    notes += (f"{each.task.name} accepts, but may not answer: {of_server(each.reason)}" for each in busy)
    here = (asked.target.node, asked.target.protocol, asked.target.port)
    gone = (each for each in stale(cluster) if (each.node, each.protocol, each.port) == here)
    notes += (f"{each}; {each.command} lets go of them" for each in gone)
    if asked.service is not None and asked.service.keeps_client and asked.start == OUTSIDE:
        for each in ways:
            if each.arrives and each.peer != str(asked.source):
                who = each.task or each.node
                notes.append(
                    f"{who} sees {each.peer} instead of the client, though {asked.service.name} keeps the client's address"
                )
    return list(dict.fromkeys(notes))[:_MOST_NOTES]
