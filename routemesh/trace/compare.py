"""What was seen beside what was predicted. PURE."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from routemesh.explain.nouns import Explanation, Step, Way
from routemesh.sightings import Observation, Sent
from routemesh.trace.nouns import VERSION, Hop, Trace, Traced, Where
from routemesh.trace.story import UNTRACED_FAMILIES, Sighting, Story, shown
from routemesh.trace.verdict import is_silent, is_untold, verdict
from routemesh.values import replace

_MOST_STRAYS = 12


def compare(traced: Traced, unwatched: Sequence[str] = ()) -> Trace:
    """Which of the predicted ways the packet took, what was seen of every step, and whether the two agree."""
    prediction, sent, kept = traced.prediction, traced.sent, traced.observations
    story = Story(kept)
    numbers = range(len(prediction.ways))
    hops = [_hops(way, story, sent.at) for way in prediction.ways]
    way = max(numbers, key=lambda number: _fit(prediction.ways[number], hops[number], sent), default=-1)
    taken = hops[way] if way >= 0 else ()
    steps = _steps(prediction.ways[way]) if way >= 0 else ()
    turn = len(prediction.ways[way].there) if way >= 0 else 0
    last, lost = _last(steps, taken, story, sent.at, turn), _lost(steps, taken)
    predicted = way >= 0 and prediction.ways[way].arrives
    unheard = way >= 0 and sent.only_accepted and is_silent(prediction.ways[way])
    arrives = (sent.outcome == "answered" and not unheard) or (sent.outcome == "live" and predicted and taken[-1].mark == "seen")
    strays = tuple(_strays(prediction, steps, story, sent.at))
    beyond = not predicted and any(_after(stray, last) for stray in strays)
    untold = way >= 0 and is_untold(prediction.ways[way])
    if untold and all(hop.mark != "missing" for hop in taken[:-1]):
        lost = None  # of the last step nobody can tell what it does
    agrees = None if untold and lost is None else way >= 0 and arrives == predicted and lost is None and not beyond
    stopped = story.stopped() if lost is None and predicted and not arrives else None
    if stopped is not None:
        last = _later(stopped, steps, sent.at)
    if last is None:
        last = _anywhere(prediction, story, sent.at)
    found = Trace(
        version=VERSION,
        prediction=prediction,
        way=way,
        sent=sent,
        hops=taken,
        agrees=agrees,
        arrives=arrives,
        verdict="",
        last=last,
        lost=lost,
        drops=tuple(dict.fromkeys(_drops(story))),
        strays=strays,
        observations=kept,
        notes=(*_notes(kept), *traced.notes),
        unwatched_nodes=tuple(unwatched),
        onward=None if traced.onward is None else compare(traced.onward),
    )
    return replace(found, verdict=verdict(found))


def _steps(way: Way) -> tuple[Step, ...]:
    return (*way.there, *way.back)


def _hops(way: Way, story: Story, start: float) -> tuple[Hop, ...]:
    """What was seen of a way's steps. One that nothing shows was passed if a later one was seen, unless its rule would tell."""
    found: list[Hop] = []
    for number, step in enumerate(_steps(way)):
        if not story.watched(step.node, step.namespace):
            found.append(Hop(step=number, mark="unwatched"))
            continue
        seen = story.evidence(step, back=number >= len(way.there))
        if seen is None:
            found.append(Hop(step=number, mark="missing"))
        else:
            found.append(Hop(step=number, mark="seen", evidence=shown(seen), at_s=seen.at - start))
    steps = _steps(way)
    reached = max((hop.step for hop in found if hop.mark == "seen"), default=-1)
    blind = _blind(steps, found, story)

    def mark(hop: Hop) -> Hop:
        if hop.mark != "missing":
            return hop
        if hop.step < reached and not _tells(steps[hop.step], story):
            return replace(hop, mark="passed")
        return replace(hop, mark="unwatched") if hop.step >= blind else hop

    return tuple(map(mark, found))


def _blind(steps: Sequence[Step], hops: Sequence[Hop], story: Story) -> int:
    """From which step on nothing can be seen, because the packet is to end in a namespace that it reached, by rules that are not
    traced there."""
    end = steps[-1] if steps else None
    if end is None or not end.failed or _traced(end, story):
        return len(steps)
    run = [hop for hop in hops if (steps[hop.step].node, steps[hop.step].namespace) == (end.node, end.namespace)]
    seen = [hop.step for hop in run if hop.mark == "seen"]
    return seen[-1] + 1 if seen and all(hop in run for hop in hops[seen[-1] :]) else len(steps)


def _tells(step: Step, story: Story) -> bool:
    """Whether a rule would have been traced if the packet had met it."""
    return step.tool == "nft" and step.family not in UNTRACED_FAMILIES and _traced(step, story)


def _traced(step: Step, story: Story) -> bool:
    return any(seen.how == "hook" for back in (False, True) for seen in story.at(step.node, step.namespace, back=back))


def _fit(way: Way, hops: Sequence[Hop], sent: Sent) -> tuple[int, int, bool]:
    seen = [hop.step < len(way.there) for hop in hops if hop.mark == "seen"]
    return sum(seen), len(seen), way.arrives == (sent.outcome == "answered")


def _last(steps: Sequence[Step], hops: Sequence[Hop], story: Story, start: float, turn: int) -> Where | None:
    """Where it was seen last of its way, with the hook in which it got stuck, if it did."""
    lost = next((steps[hop.step] for hop in hops if hop.mark == "missing"), None)
    number = len(steps) if lost is None else steps.index(lost)
    hop = next((hop for hop in reversed(hops) if hop.mark == "seen"), None)
    near = None if lost is None else story.latest(lost, back=number >= turn)
    if near is not None and lost is not None and (hop is None or hop.step < number):
        where = Where(
            node=lost.node, namespace=lost.namespace, place=lost.place, device=near.device, what=shown(near), at_s=near.at - start
        )
    elif hop is not None:
        where = _where(steps[hop.step], hop, hop.evidence)
    else:
        return None
    stuck = story.stuck(where.node, where.namespace, (where.at_s or 0.0) + start)
    return replace(where, what=f"{where.what}; it came to hook {stuck}, but not out of it") if stuck else where


def _later(stopped: Sighting, steps: Sequence[Step], start: float) -> Where:
    """Where a packet that followed was seen last."""
    node, seen = stopped
    place = next((step.place for step in steps if (step.node, step.namespace) == (node, seen.namespace)), node)
    what = f"{shown(seen)}, after the connection was opened"
    return Where(
        node=node, namespace=seen.namespace, place=place, device=seen.device, what=what, at_s=seen.at - start, later=True
    )


def _lost(steps: Sequence[Step], hops: Sequence[Hop]) -> Where | None:
    hop = next((hop for hop in hops if hop.mark == "missing"), None)
    return None if hop is None else _where(steps[hop.step], hop, steps[hop.step].what)


def _where(step: Step, hop: Hop, what: str) -> Where:
    return Where(node=step.node, namespace=step.namespace, place=step.place, device=step.device, what=what, at_s=hop.at_s)


def _strays(prediction: Explanation, steps: Sequence[Step], story: Story, start: float) -> Iterator[Where]:
    """Where links carried the packet, though its way leads through no such namespace; each once."""
    expected = {(step.node, step.namespace) for step in steps}
    expected |= {(prediction.question.client_node, prediction.question.client_namespace)}
    names = _names(prediction)
    found: dict[tuple[str, str, str, bool], Sighting] = {}
    for sighting in story.everything():
        place = (sighting.node, sighting.seen.namespace)
        if sighting.seen.how in ("in", "out") and not sighting.seen.elsewhere and place not in expected:
            found.setdefault((*place, sighting.seen.device, sighting.seen.back), sighting)
    for node, seen in list(found.values())[:_MOST_STRAYS]:
        yield _found(names, Sighting(node, seen), start)


def _anywhere(prediction: Explanation, story: Story, start: float) -> Where | None:
    """Where the packet was seen last, whether or not a step is there; None where it was seen nowhere."""
    own = (sighting for sighting in story.everything() if not sighting.seen.elsewhere)
    latest = max(own, key=lambda sighting: sighting.seen.at, default=None)
    return None if latest is None else _found(_names(prediction), latest, start)


def _names(prediction: Explanation) -> Mapping[tuple[str, str], str]:
    return {(step.node, step.namespace): step.place for way in prediction.ways for step in _steps(way)}


def _found(names: Mapping[tuple[str, str], str], sighting: Sighting, start: float) -> Where:
    node, seen = sighting
    called = names.get((node, seen.namespace), f"{node}: {seen.namespace}" if seen.namespace else node)
    return Where(node=node, namespace=seen.namespace, place=called, device=seen.device, what=shown(seen), at_s=seen.at - start)


def _after(stray: Where, last: Where | None) -> bool:
    return last is None or last.at_s is None or (stray.at_s or 0.0) > last.at_s


def _drops(story: Story) -> Iterator[str]:
    for node, seen in (*story.everything(), *story.later()):
        if seen.how == "rule" and seen.verdict == "drop":
            yield f"{node}{f' {seen.namespace}' if seen.namespace else ''}: {seen.chain}: {seen.rule}"


def _notes(observations: Iterable[Observation]) -> Iterator[str]:
    for each in observations:
        yield from (f"{each.node}: {why}" for why in each.unwatched)
        if each.lost:
            yield f"{each.node}: there was more to see than could be kept"
