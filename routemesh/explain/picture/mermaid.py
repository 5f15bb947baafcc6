"""An explanation as a Mermaid flowchart. PURE. Source: mermaid.js.org/syntax/flowchart.html."""

from collections.abc import Iterator

from routemesh.explain.nouns import Explanation
from routemesh.explain.picture.scene import Box, Scene, Stop, scene

_CLIENT: Stop = ("", "")


def mermaid(explanation: Explanation) -> str:
    """The flowchart, with a line break at the end."""
    return "".join(f"{line}\n" for line in _lines(scene(explanation)))


def _lines(what: Scene) -> Iterator[str]:
    names = _names(what)
    yield f"%% {what.verdict}"
    yield "flowchart TD"
    yield f'    {names[_CLIENT]}(["{_quoted(what.client)}<br/>{_quoted(what.client_at)}"])'
    for number, column in enumerate(what.columns):
        yield f'    subgraph node{number}["{_quoted(column.node)}"]'
        yield from (f'        {names[box.stop]}["{_content(box)}"]' for box in column.boxes.values())
        yield "    end"
    yield from dict.fromkeys(
        f"    {names[start]} {'-.->' if trail.back else '-->'} {names[end]}"
        for trail in what.trails
        for start, end in zip(trail.stops, trail.stops[1:], strict=False)
    )
    yield "    classDef failed stroke:#cf222e,stroke-width:3px"
    failed = [names[box.stop] for column in what.columns for box in column.boxes.values() if box.failed]
    if failed:
        yield f"    class {','.join(failed)} failed"


def _names(what: Scene) -> dict[Stop, str]:
    stops = [_CLIENT, *(stop for column in what.columns for stop in column.boxes)]
    return {stop: f"n{number}" for number, stop in enumerate(stops)}


def _content(box: Box) -> str:
    rows = [f"{'✗ ' * (row.style == 'failed')}{'↩ ' * (row.style == 'back')}{row.label}" for row in box.rows()]
    return "<br/>".join(map(_quoted, (box.title, *rows)))


def _quoted(text: str) -> str:
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
