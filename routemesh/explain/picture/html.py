"""An explanation as one HTML page that needs nothing else: the picture, and every step beside it. PURE."""

from collections.abc import Iterator, Sequence
from html import escape

from routemesh.explain.nouns import Cause, Explanation, Step, Way
from routemesh.explain.picture.svg import STYLE, svg

_PAGE = """
:root { color-scheme: light dark; }
body { margin: 0; background: var(--paper); color: var(--ink); font-size: 14px; line-height: 1.4; }
main { display: grid; grid-template-columns: minmax(0, 1fr) minmax(340px, 440px); gap: 20px; padding: 16px; align-items: start; }
.picture { position: sticky; top: 16px; overflow: auto; max-height: calc(100vh - 32px); border: 1px solid var(--edge);
           border-radius: 8px; }
.picture svg { display: block; max-width: 100%; height: auto; }
@media (max-width: 900px) { main { grid-template-columns: 1fr; } .picture { position: static; max-height: none; } }
h1 { font-size: 18px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 18px 0 6px; }
h3 { font-size: 13px; margin: 10px 0 4px; color: var(--way); }
p { margin: 0 0 8px; } code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 12px; }
.soft { color: var(--soft); } .bad { color: var(--bad); font-weight: 600; }
.reaches { color: var(--good); } .partly, .untold { color: var(--warn); } .broken { color: var(--bad); }
ol { margin: 0; padding-left: 26px; } li { margin: 0 0 6px; overflow-wrap: anywhere; }
li::marker { color: var(--soft); font-size: 11px; }
details > summary { cursor: pointer; } details { margin: 0 0 8px; }
.shown { display: block; color: var(--soft); }
"""


def html(explanation: Explanation) -> str:
    """The page, with a line break at the end."""
    return "".join(f"{line}\n" for line in _page(explanation))


def _page(explanation: Explanation) -> Iterator[str]:
    asked = explanation.question
    yield "<!DOCTYPE html>"
    yield '<html lang="en" class="rm"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(explanation.verdict)}</title><style>{STYLE}{_PAGE}</style></head><body><main>"
    yield f'<div class="picture">{svg(explanation)}</div><div>'
    yield f"<h1>{escape(asked.client)} asks {escape(asked.node)}:{asked.port}/{escape(asked.protocol)}</h1>"
    yield f'<p class="soft"><code>{escape(asked.source)} → {escape(asked.destination)}</code></p>'
    yield f'<p class="{explanation.outcome}"><strong>{escape(explanation.verdict)}</strong></p>'
    for cause in explanation.causes:
        yield from _cause(cause)
    for note in explanation.notes:
        yield f'<p class="soft">{escape(note)}</p>'
    for number, way in enumerate(explanation.ways, start=1):
        yield from _way(number, way, many=len(explanation.ways) > 1)
    yield "</div></main></body></html>"


def _cause(cause: Cause) -> Iterator[str]:
    yield f'<p><span class="bad">{escape(cause.place)}</span>: {escape(cause.why)}'
    where = f"on {cause.node}: " if cause.node else ""
    yield from (f'<span class="shown">mend {escape(where)}<code>{escape(command)}</code></span>' for command in cause.mend)
    yield "</p>"


def _way(number: int, way: Way, *, many: bool) -> Iterator[str]:
    title = f"Way {number}, {'about ' * way.estimated}{way.share[0]}/{way.share[1]}" if many else "The way"
    opened = " open" if number == 1 or not way.arrives else ""
    state = "" if way.arrives else ' class="bad"'
    yield f"<details{opened}><summary><strong{state}>{escape(title)}</strong>: {escape(way.end)}</summary>"
    yield from _steps(way.there)
    if way.back:
        yield "<h2>and back</h2>"
        yield from _steps(way.back)
    yield "</details>"


def _steps(steps: Sequence[Step]) -> Iterator[str]:
    place = None
    for number, step in enumerate(steps, start=1):
        if step.place != place:
            if place is not None:
                yield "</ol>"
            place = step.place
            yield f'<h3>{escape(place)}</h3><ol start="{number}">'
        yield from _step(step)
    if place is not None:
        yield "</ol>"


def _step(step: Step) -> Iterator[str]:
    what = f'<span class="bad">✗ {escape(step.what)}</span>' if step.failed else escape(step.what)
    yield f'<li><span class="soft">{escape(step.device)}</span> {what}'
    if {"source", "destination", "vni"} & set(step.changed):
        yield f'<span class="shown"><code>{escape(step.after.source)} → {escape(step.after.destination)}</code></span>'
    if step.rule:
        yield f'<span class="shown"><code>{escape(step.rule)}</code></span>'
    if step.show:
        yield f'<span class="shown"><code>$ {escape(step.show)}</code></span>'
    yield "</li>"
