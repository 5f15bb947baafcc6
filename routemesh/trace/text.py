"""A trace as text: what was predicted, step by step, and beside it what was seen, and when. PURE."""

from collections.abc import Iterator, Sequence

from routemesh.explain.nouns import Step
from routemesh.explain.text import Screen, became, heading
from routemesh.legible import unbroken
from routemesh.trace.nouns import Hop, Trace
from routemesh.trace.verdict import at

_SIGNS = {"seen": ("✓", "green"), "passed": ("·", "dim"), "missing": ("✗", "red"), "unwatched": ("?", "yellow")}
_UNSEEN = {"passed": "not seen itself", "missing": "NOT SEEN", "unwatched": "not watched"}
_MOST_COLUMNS = 76
_MARGIN = 30
_LEAST_SEEN = 24
"""Columns that what was seen needs beside what was predicted."""


def text(trace: Trace, screen: Screen | None = None) -> str:
    """The trace, with a line break at the end."""
    return "".join(f"{unbroken(line)}\n" for line in _lines(trace, screen or Screen()))


def _lines(trace: Trace, screen: Screen) -> Iterator[str]:
    yield from _connection(trace, screen)
    if trace.onward is not None:
        yield ""
        yield "and because of it another connection:"
        yield from _lines(trace.onward, screen)


def _connection(trace: Trace, screen: Screen) -> Iterator[str]:
    asked = trace.prediction.question
    of = f", published by {asked.service}" if asked.service else ""
    yield from heading(asked, of, screen)
    yield from screen.wrap(f"{'' if trace.sent.outcome == 'live' else 'sent: '}{trace.sent.what}")
    if trace.way >= 0:
        yield from _way(trace, screen)
    yield ""
    style = "red" if not trace.arrives or trace.agrees is False else "yellow" if trace.agrees is None else "green"
    yield from screen.wrapped(trace.verdict, style)
    if not trace.agrees or not trace.arrives:
        yield from _where(trace, screen)
    for note in (*trace.notes, *(f"{node} was not watched" for node in trace.unwatched_nodes)):
        yield from screen.wrapped(f"note: {note}", "yellow")


def _where(trace: Trace, screen: Screen) -> Iterator[str]:
    if trace.last is not None:
        yield f"  last seen:  {at(trace.last)}: {screen.fit(trace.last.what, 14)}"
    if trace.lost is not None:
        yield f"  not seen:   {at(trace.lost)}: {screen.fit(trace.lost.what, 14)}"
    yield from (f"  dropped by: {rule}" for rule in trace.drops)
    told = [f"also seen:  {at(stray)}: {stray.what}" for stray in trace.strays if stray != trace.last]
    told += [f"predicted:  {cause.place}: {cause.why}" for cause in trace.prediction.causes]
    for line in told:
        first, *rest = screen.wrap(line, 14)
        yield f"  {first}"
        yield from (" " * 14 + each for each in rest)


def _way(trace: Trace, screen: Screen) -> Iterator[str]:
    way = trace.prediction.ways[trace.way]
    steps = (*way.there, *way.back)
    if len(trace.prediction.ways) > 1:
        yield f"way {trace.way + 1} of {len(trace.prediction.ways)}: {way.task or way.end}"
    columns = min(max(len(_predicted(step)) for step in steps) if steps else 0, _MOST_COLUMNS)
    place, told = "", set[tuple[str, str]]()
    end = _told_until(trace.hops)
    for hop in trace.hops[:end]:
        step = steps[hop.step]
        if hop.step == len(way.there):
            yield ""
            yield "and back:"
            place = ""
        if step.place != place:
            yield from _tracked(trace, screen, steps[hop.step - 1], told) if place else ()
            place = step.place
            yield screen.style(place, "blue") + screen.style(f"  ({step.service})" if step.service else "", "dim")
        yield from _row(step, hop, screen, columns)
    if end:
        yield from _tracked(trace, screen, steps[end - 1], told)
    if end < len(trace.hops):
        yield f"  … and none of the {len(trace.hops) - end} steps that follow"


def _told_until(hops: Sequence[Hop]) -> int:
    """Behind the first step that was not seen, if nothing was seen after it."""
    reached = max((number for number, hop in enumerate(hops) if hop.mark == "seen"), default=-1)
    lost = next((number for number, hop in enumerate(hops) if hop.mark == "missing" and number > reached), None)
    return len(hops) if lost is None else lost + 1


def _row(step: Step, hop: Hop, screen: Screen, columns: int) -> Iterator[str]:
    """What was seen stands beside what was predicted, on a narrow screen below it."""
    sign, style = _SIGNS[hop.mark]
    when = "" if hop.at_s is None else f"{hop.at_s * 1000:.3f}"
    predicted = f"{'✗ ' * step.failed}{_predicted(step)}"
    seen = hop.evidence or _UNSEEN[hop.mark]
    seen_style = "red" if hop.mark == "missing" else "dim"
    before = f"  {screen.style(sign, style)} {when:>9}  {screen.style(f'{step.device:<15}', 'cyan')} "
    beside = not screen.width or _MARGIN + columns + 3 + _LEAST_SEEN <= screen.width
    first, *rest = screen.wrap(predicted, 0 if beside else _MARGIN)
    shown = screen.style(first, "red") if step.failed else first
    if beside:
        gap = " " * max(columns - len(predicted), 0)
        yield f"{before}{shown}{gap} │ {screen.style(screen.fit(seen, _MARGIN + columns + 3), seen_style)}"
        return
    yield f"{before}{shown}"
    yield from (" " * _MARGIN + line for line in rest)
    yield f"{' ' * _MARGIN}│ {screen.style(screen.fit(seen, _MARGIN + 2), seen_style)}"


def _predicted(step: Step) -> str:
    return step.what + became(step, Screen())


def _tracked(trace: Trace, screen: Screen, step: Step, told: set[tuple[str, str]]) -> Iterator[str]:
    """What connection tracking has of it in the namespace that is left, if that has not been told."""
    if (step.node, step.namespace) in told:
        return
    told.add((step.node, step.namespace))
    for observation in trace.observations:
        for each in observation.connections if observation.node == step.node else ():
            if each.namespace == step.namespace and each.answer_source != each.destination:
                state = f", {each.state}" if each.state else ""
                what = f"conntrack: {each.source} → {each.destination} is answered by {each.answer_source}{state}"
                yield f"  {' ' * 12} {screen.style(what, 'dim')}"
