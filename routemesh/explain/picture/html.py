"""A scene as one HTML page that needs nothing else: the picture, and every step of every way beside it. PURE."""

from collections.abc import Iterator
from html import escape

from routemesh.explain.nouns import Cause, Explanation, Ground, Step, Way
from routemesh.explain.picture.layout import layout
from routemesh.explain.picture.page import command, page
from routemesh.explain.picture.passed import scene
from routemesh.explain.picture.scene import Scene
from routemesh.explain.picture.svg import drawn
from routemesh.explain.picture.terrain import terrain
from routemesh.reasons.words import NOT_OURS


def html(explanation: Explanation) -> str:
    """The page of an explanation, with a line break at the end."""
    what = scene(explanation)
    return page(explanation.verdict, drawn(what), layout(what).width, _beside(explanation, what))


def of_ground(ground: Ground) -> str:
    """The page of a cluster without a question, with a line break at the end."""
    what = terrain(ground)
    return page(what.title, drawn(what), layout(what).width, ())


def _beside(explanation: Explanation, what: Scene) -> Iterator[str]:
    asked = explanation.question
    yield f"<h1>{escape(asked.client)} asks {escape(asked.node)}:{asked.port}/{escape(asked.protocol)}</h1>"
    request = f" for {asked.request}" if asked.request else ""
    yield f'<p class="soft"><code>{escape(f"{asked.source} → {asked.destination}{request}")}</code></p>'
    yield f'<p class="{explanation.outcome}"><strong>{escape(explanation.verdict)}</strong></p>'
    for cause in explanation.causes:
        yield from _cause(cause)
    for note in explanation.notes:
        yield f'<p class="soft">{escape(note)}</p>'
    for number, way in enumerate(explanation.ways):
        yield from _way(number, way, what, many=len(explanation.ways) > 1)


def _cause(cause: Cause) -> Iterator[str]:
    yield f'<p><span class="wrong">{escape(cause.place)}</span>: {escape(cause.why)}'
    where = f" on {cause.node}" if cause.node else ""
    if cause.look:
        yield f'<span class="shown">{escape(NOT_OURS)}</span>'
        yield from (command(each, f"look{where}: ") for each in cause.look)
    label = "let this pass" if cause.look else "mend"
    yield from (command(each, f"{label}{where}: ") for each in cause.mend)
    yield "</p>"


def _way(number: int, way: Way, what: Scene, *, many: bool) -> Iterator[str]:
    title = f"Way {number + 1}, {'about ' * way.estimated}{way.share[0]}/{way.share[1]}" if many else "The way"
    opened = " open" if number == 0 or not way.arrives else ""
    state = "" if way.arrives else ' class="wrong"'
    yield f"<details{opened}><summary><strong{state}>{escape(title)}</strong>: {escape(way.end)}</summary>"
    yield from _steps(number, way, what, 0, len(way.there))
    if way.back:
        yield "<h2>and back</h2>"
        yield from _steps(number, way, what, len(way.there), len(way.there) + len(way.back))
    yield "</details>"


def _steps(number: int, way: Way, what: Scene, begin: int, end: int) -> Iterator[str]:
    places = {stop: place for place, stop in enumerate(what.boxes)}
    place = None
    for index, step in list(enumerate((*way.there, *way.back)))[begin:end]:
        if step.place != place:
            if place is not None:
                yield "</ol>"
            place = step.place
            yield f"<h3>{escape(place)}</h3><ol>"
        stop, hop = what.where[number, index]
        box = f' data-box="{places[stop]}"' if stop in places else ""
        yield from _step(step, box, hop, back=begin > 0)
    if place is not None:
        yield "</ol>"


def _step(step: Step, box: str, hop: int, *, back: bool) -> Iterator[str]:
    style = " ".join(filter(None, ("back" * back, "failed" * step.failed, "" if hop else "plain")))
    words = f"show hop {hop} in the picture" if hop else "show where it is in the picture"
    what = f'<span class="wrong">✗ {escape(step.what)}</span>' if step.failed else escape(step.what)
    yield f'<li class="{style}"{box}{f" data-hop={chr(34)}{hop}{chr(34)}" if hop else ""}>'
    yield f'<button type="button" aria-label="{words}">{hop or "·"}</button>'
    yield f'<span class="soft">{escape(step.device)}</span> {what}'
    if {"source", "destination", "vni"} & set(step.changed):
        yield f'<span class="shown"><code>{escape(step.after.source)} → {escape(step.after.destination)}</code></span>'
    if step.rule:
        yield f'<span class="shown"><code>{escape(step.rule)}</code></span>'
    if step.show:
        yield command(step.show, "$ ")
    yield "</li>"
