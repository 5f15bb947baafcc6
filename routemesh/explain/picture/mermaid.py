"""A scene as a Mermaid flowchart. PURE. Source: mermaid.js.org/syntax/flowchart.html."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping

from routemesh.explain.nouns import Explanation
from routemesh.explain.picture.passed import scene
from routemesh.explain.picture.scene import CLIENT, WIRE, Box, Column, Piece, Scene, Stop

_VERDICT_WIDTH = 26
"""Mermaid wraps a box's text at 200 pixels."""
_MARK = {"reaches": "✓ ", "partly": "⚠ ", "broken": "✗ ", "untold": "? ", "": ""}
_LAST = 1
_CLASSES = (
    "classDef failed stroke:#cf222e,stroke-width:3px",
    "classDef idle stroke-dasharray:3 3,color:#6e7781,stroke:#8c959f",
    "classDef verdict stroke-width:2px",
)


def mermaid(explanation: Explanation) -> str:
    """The flowchart of an explanation, with a line break at the end."""
    return charted(scene(explanation))


def charted(what: Scene) -> str:
    """The flowchart of a scene, with a line break at the end."""
    return "".join(f"{line}\n" for line in _lines(what))


def _lines(what: Scene) -> Iterator[str]:
    edges = _edges(what)
    names = _names(what, edges)
    yield f"%% {' '.join(what.verdict.split())}"
    yield "flowchart TD"
    yield f'    {names[CLIENT]}("{_broken((*_wrapped(what), *filter(None, (what.client, what.client_at))))}")'
    for number, column in enumerate(what.columns):
        boxes = [box for box in column.boxes.values() if box.stop in names]
        if boxes:
            yield f'    subgraph node{number}["{_quoted(", ".join(filter(None, (column.node, column.port, column.note))))}"]'
            yield from (f'        {names[box.stop]}["{_content(box)}"]' for box in boxes)
            yield "    end"
    yield from (f"    {names[start]} {arrow} {names[end]}" for (start, end), arrow in edges.items())
    yield from (f"    {line}" for line in _CLASSES)
    yield f"    class {names[CLIENT]} verdict"
    failed = [names[stop] for stop, box in what.boxes.items() if box.failed and stop in names]
    idle = [names[stop] for stop, box in what.boxes.items() if not box.passed and stop in names]
    yield from (f"    class {','.join(each)} {style}" for each, style in ((failed, "failed"), (idle, "idle")) if each)


def _wrapped(what: Scene) -> list[str]:
    return textwrap.wrap(f"{_MARK[what.outcome]}{what.verdict}", _VERDICT_WIDTH)


def _edges(what: Scene) -> Mapping[tuple[Stop, Stop], str]:
    """Each pair of boxes with its arrow, one for there and back. What no way leads to hangs on what would lead there."""
    found: dict[tuple[Stop, Stop], str] = {}
    for piece in sorted(what.pieces, key=lambda each: each.leg in ("back", "onback")):
        if piece.end[1] == WIRE:
            continue
        for pair in _hops(what, piece):
            if piece.of != "way":
                found[pair] = "---" if piece.of == "cable" else "-. VXLAN .-"
            elif piece.leg in ("back", "onback"):
                _add_answer(found, pair)
            elif found.get(pair) != "-->":
                found[pair] = "-->" if piece.fine else "--x"
    for column in what.columns:
        connected = {stop for pair in found for stop in pair}
        found |= dict.fromkeys(_hanging(column, connected), "-.-")
    if not what.client:
        found |= {(CLIENT, start): "---" for start in _first(what)}
    return found


def _hops(what: Scene, piece: Piece) -> Iterable[tuple[Stop, Stop]]:
    """A piece as it is drawn: between two nodes a tunnel leads through the one that is farther from the client."""
    start, end = piece.start, piece.end
    if piece.of == "tunnel":
        return ((start, end),)
    if piece.of == "cable":
        return _downwards(what, piece)
    far = (start if piece.leg in ("back", "onback") else end)[0], ""
    if start[0] == end[0] or CLIENT in (start, end) or far in (start, end) or far not in what.boxes:
        return ((start, end),)
    return ((start, far), (far, end))


def _downwards(what: Scene, cable: Piece) -> Iterable[tuple[Stop, Stop]]:
    """A cable from above: the node, its sandbox, its overlay, its tasks; of those a task has, the one to its overlay."""
    box = what.boxes[cable.start]
    host = (cable.start[0], "")
    if box.kind != "task":
        return ((cable.end, cable.start),) if cable.end == host else ((cable.start, cable.end),)
    inwards = any(plug.into for plug in box.plugs)
    return () if cable.end == host and inwards else ((cable.end, cable.start),)


def _add_answer(found: dict[tuple[Stop, Stop], str], pair: tuple[Stop, Stop]) -> None:
    if found.get(pair[::-1]) == "-->":
        found[pair[::-1]] = "<-->"
    elif pair[::-1] not in found or found[pair[::-1]] != "<-->":
        found.setdefault(pair, "-.->")


def _hanging(column: Column, connected: set[Stop]) -> Iterator[tuple[Stop, Stop]]:
    """From a namespace of the node that a way passes to those that none does."""
    reached = [stop for stop in column.boxes if stop in connected]
    for box in column.boxes.values():
        if box.stop not in connected and reached:
            above = [stop for stop in reached if column.boxes[stop].kind == "overlay"]
            yield (above or reached)[0] if box.kind == "task" else reached[0], box.stop


def _first(what: Scene) -> list[Stop]:
    """Where a way begins that comes from no client outside; of a cluster the nodes themselves."""
    ways: list[Piece] = [piece for piece in what.pieces if piece.of == "way"]
    if ways:
        return [min(ways, key=lambda piece: piece.leg != "there").start][:_LAST]
    return [box.stop for column in what.columns for box in column.of("host")]


def _names(what: Scene, edges: Mapping[tuple[Stop, Stop], str]) -> Mapping[Stop, str]:
    """Of all that is connected."""
    used = {stop for pair in edges for stop in pair}
    stops = [CLIENT, *(stop for stop in what.boxes if stop in used)]
    return {stop: f"n{number}" for number, stop in enumerate(stops)}


def _content(box: Box) -> str:
    plugs = (f"{plug.name} {', '.join(plug.lines)}".strip() for plug in box.plugs)
    rows = (f"{'✗ ' * (row.style == 'failed')}{'↩ ' * (row.style == 'back')}{row.label}" for row in box.rows())
    return _broken((box.title, *plugs, *rows))


def _broken(lines: Iterable[str]) -> str:
    return "<br/>".join(map(_quoted, lines))


def _quoted(text: str) -> str:
    return text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
