"""What was seen beside what was predicted. PURE."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from routemesh.explain.nouns import Explanation, Step, Way
from routemesh.sightings import Observation, Sent
from routemesh.trace.nouns import VERSION, Hop, Trace, Traced, Where
from routemesh.trace.story import UNTRACED_FAMILIES, Sighting, Story, shown

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
    arrives = sent.outcome == "answered" or (sent.outcome == "live" and predicted and taken[-1].mark == "seen")
    strays = tuple(_strays(prediction, steps, story, sent.at))
    beyond = not predicted and any(_after(stray, last) for stray in strays)
    agrees = way >= 0 and arrives == predicted and lost is None and not beyond
    stopped = story.stopped() if lost is None and predicted and not arrives else None
    if stopped is not None:
        last = _later(stopped, steps, sent.at)
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
    return replace(found, verdict=_verdict(found))


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
    names = {(step.node, step.namespace): step.place for way in prediction.ways for step in _steps(way)}
    found: dict[tuple[str, str, str, bool], Sighting] = {}
    for sighting in story.everything():
        place = (sighting.node, sighting.seen.namespace)
        if sighting.seen.how in ("in", "out") and not sighting.seen.elsewhere and place not in expected:
            found.setdefault((*place, sighting.seen.device, sighting.seen.back), sighting)
    for node, seen in list(found.values())[:_MOST_STRAYS]:
        called = names.get((node, seen.namespace), f"{node}: {seen.namespace}" if seen.namespace else node)
        yield Where(node=node, namespace=seen.namespace, place=called, device=seen.device, what=shown(seen), at_s=seen.at - start)


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


# --- the verdict --------------------------------------------------------------------------------------------------


def _verdict(found: Trace) -> str:
    asked = found.prediction.question
    port = f"{asked.node}:{asked.port}/{asked.protocol}"
    if found.way < 0:
        return f"{port}: no way is predicted; {found.sent.what}"
    way = found.prediction.ways[found.way]
    if found.agrees and found.arrives:
        who = way.task or way.node
        took = "" if found.sent.outcome == "live" else f" in {milliseconds(found.sent.took_s)}"
        return f"{port} reached {who} and the answer came back{took}, as predicted"
    if found.agrees:
        return f"{port} fails as predicted: it {way.end}{_because(found, way)}"
    return f"{port}: NOT AS PREDICTED: {_happened(found, way)}; predicted was that it {way.end}"


def _because(found: Trace, way: Way) -> str:
    """Why a way fails, where its end does not say so."""
    cause = next((cause for cause in found.prediction.causes if cause.way in (found.way, -1)), None)
    return "" if cause is None or cause.reason == way.reason else f" ({cause.place}: {cause.why})"


def _happened(found: Trace, way: Way) -> str:
    """What was seen instead, in one sentence."""
    parts = []
    if found.arrives and not way.arrives:
        parts.append(f"{found.sent.what}")
    if found.drops:
        parts.append(f"dropped by {found.drops[0]}")
    lost = next((hop.step for hop in found.hops if hop.mark == "missing"), -1)
    if found.last is None:
        parts.append("it was seen nowhere")
    elif found.lost is None and not found.arrives and way.arrives:
        where = f"; a later packet was last seen in {at(found.last)}" if found.last.later else ""
        parts.append(f"it was seen on all of its way, but {found.sent.what}{where}")
    elif found.lost is None and found.strays and not way.arrives:
        parts.append(f"it went on to {at(found.strays[0])}")
    elif found.lost is not None and any(hop.mark == "seen" and hop.step > lost for hop in found.hops):
        parts.append(f"{found.lost.what} did not happen in {found.lost.place}")
    elif found.lost is not None and lost == len(way.there):
        parts.append(f"it got to {found.last.place}, out of which no answer came")
    elif found.lost is not None:
        parts.append(f"last seen in {at(found.last)}, not seen in {at(found.lost)}")
    return ", ".join(parts)


def at(where: Where) -> str:
    """A place with its device and time."""
    when = "" if where.at_s is None else f" after {milliseconds(where.at_s)}"
    return f"{where.place}{f' {where.device}' if where.device else ''}{when}"


def milliseconds(seconds: float) -> str:
    """A time for people."""
    return f"{seconds * 1000:.3f} ms" if abs(seconds) < 0.1 else f"{seconds:.2f} s"
