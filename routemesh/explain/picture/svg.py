"""A scene as an SVG picture that stands alone, for light and dark. PURE."""

import textwrap
from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from routemesh.explain.nouns import Explanation
from routemesh.explain.picture import layout as at
from routemesh.explain.picture.layout import Drawing, Line, Placed, layout
from routemesh.explain.picture.scene import Row, Scene, scene

STYLE = """
.rm { --paper:#fff; --ink:#1b1f24; --soft:#656d76; --edge:#c4cad1; --node:#f6f8fa; --host:#fff; --sandbox:#eef6ff;
      --overlay:#fff8e8; --task:#effaf1; --way:#1f6feb; --back:#8b98a8; --bad:#cf222e; --badfill:#ffebe9; --good:#1a7f37;
      --warn:#9a6700; --chip:#ffffff; }
@media (prefers-color-scheme: dark) { .rm { --paper:#0d1117; --ink:#e6edf3; --soft:#9aa5b1; --edge:#3d444d; --node:#151b23;
      --host:#1c232c; --sandbox:#13233a; --overlay:#2b2413; --task:#12261a; --way:#4c9aff; --back:#7d8896; --bad:#ff6a62;
      --badfill:#3a1618; --good:#3fb950; --warn:#d29922;
      --chip:#0d1117; } }
.rm { font-family: ui-sans-serif, system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
.rm text { fill: var(--ink); font-size: 12px; }
.rm .mono { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 11px; }
.rm .by { fill: var(--soft); font-size: 10.5px; }
.rm .head { font-weight: 600; }
.rm .title { font-size: 17px; font-weight: 650; }
.rm .verdict { font-size: 13px; font-weight: 600; }
.rm .reaches { fill: var(--good); } .rm .partly, .rm .untold { fill: var(--warn); } .rm .broken { fill: var(--bad); }
.rm .paper { fill: var(--paper); }
.rm .node { fill: var(--node); stroke: var(--edge); }
.rm .box { stroke: var(--edge); }
.rm .box.host, .rm .box.other { fill: var(--host); } .rm .box.sandbox { fill: var(--sandbox); }
.rm .box.overlay { fill: var(--overlay); } .rm .box.task { fill: var(--task); }
.rm .box.bad { stroke: var(--bad); stroke-width: 2; fill: var(--badfill); }
.rm .failed { fill: var(--bad); font-weight: 600; } .rm .return { fill: var(--soft); }
.rm .line { fill: none; stroke: var(--way); stroke-width: 2.5; stroke-linejoin: round; }
.rm .line.back { stroke: var(--back); stroke-width: 1.5; stroke-dasharray: 4 3; }
.rm .line.bad { stroke: var(--bad); }
.rm .tip { fill: var(--way); } .rm .tip.back { fill: var(--back); } .rm .tip.bad { fill: var(--bad); }
.rm .chip { fill: var(--chip); stroke: var(--edge); } .rm .chip.through { stroke: var(--way); }
.rm .device { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 10px; }
.rm .client { fill: var(--host); stroke: var(--way); stroke-width: 1.5; }
"""

_TIPS = ("", "back", "bad")
_VERDICT_CHARACTERS = 7.1
"""Pixels of one character of the verdict, at most."""
_VERDICT_LINE, _VERDICT_LINES = 17, 3


def svg(explanation: Explanation) -> str:
    """The picture of an explanation, with a line break at the end."""
    return drawn(scene(explanation))


def drawn(what: Scene) -> str:
    """The picture of a scene."""
    drawing = layout(what)
    return "".join(f"{line}\n" for line in _document(what, drawing))


def _document(what: Scene, drawing: Drawing) -> Iterator[str]:
    width = drawing.width
    verdict = _wrapped(what.verdict, int((width - 2 * at.MARGIN) / _VERDICT_CHARACTERS))
    lower = _VERDICT_LINE * (len(verdict) - 1)
    height = drawing.height + lower
    yield (
        f'<svg class="rm" xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
        f' viewBox="0 0 {width:g} {height:g}" role="img" aria-label={quoteattr(what.verdict)}>'
    )
    yield f"<style>{STYLE}</style>"
    yield "<defs>" + "".join(map(_tip, _TIPS)) + "</defs>"
    yield f'<rect class="paper" width="{width:g}" height="{height:g}"/>'
    yield _text(at.MARGIN, 30, what.title, "title")
    for number, text in enumerate(verdict):
        yield _text(at.MARGIN, 52 + number * _VERDICT_LINE, text, f"verdict {what.outcome}", what.verdict)
    yield f'<g transform="translate(0 {lower})">'
    for node in drawing.nodes:
        yield from _node(*node)
    yield from _tunnel(what, drawing)
    for line in drawing.lines:
        yield _line(line)
    yield from _client(what)
    for placed in drawing.boxes.values():
        yield from _box(placed)
    for number, more in enumerate(what.more):
        yield _text(at.MARGIN, drawing.height - 10 - 16 * (len(what.more) - 1 - number), more, "by")
    yield "</g></svg>"


def _wrapped(text: str, most: int) -> list[str]:
    """In lines of at most so many characters, at most _VERDICT_LINES."""
    lines = textwrap.wrap(text, most, max_lines=_VERDICT_LINES, placeholder=" …")
    return lines or [""]


def _tip(name: str) -> str:
    return (
        f'<marker id="tip{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        f' markerUnits="userSpaceOnUse" orient="auto"><path class="tip {name}" d="M0,0L8,4L0,8z"/></marker>'
    )


def _node(name: str, x: float, y: float, width: float, height: float) -> Iterator[str]:
    yield f'<rect class="node" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'
    yield _text(x + at.LANE, y + 20, name, "head")


def _client(what: Scene) -> Iterator[str]:
    yield (
        f'<rect class="client" x="{at.MARGIN}" y="{at.CLIENT_Y}" width="{at.CLIENT_WIDTH}" height="{at.CLIENT_HEIGHT}" rx="8"/>'
    )
    yield _text(at.MARGIN + 12, at.CLIENT_Y + 17, what.client, "head")
    yield _text(at.MARGIN + 12, at.CLIENT_Y + 32, what.client_at, "mono")


def _tunnel(what: Scene, drawing: Drawing) -> Iterator[str]:
    """The name of what lies below the nodes, where a way goes there."""
    if any(line.points[1][1] > drawing.bus - 10 and len(line.points) == 4 for line in drawing.lines if not line.back):
        yield _text(drawing.width - at.MARGIN - 170, drawing.bus + 18, "VXLAN between the nodes", "by")


def _box(placed: Placed) -> Iterator[str]:
    box = placed.box
    bad = " bad" * box.failed
    place = f'x="{placed.x:g}" y="{placed.y:g}" width="{placed.width:g}" height="{placed.height:g}"'
    yield f'<rect class="box {box.kind}{bad}" {place} rx="5"/>'
    yield _text(placed.x + 10, placed.y + 15, box.title, "head", f"{box.stop[0]} {box.stop[1]}")
    for chip in placed.chips:
        through = " through" * chip.tunnel
        y = placed.y + at.BOX_HEAD
        yield f'<rect class="chip{through}" x="{chip.x:g}" y="{y:g}" width="{chip.width:g}" height="14" rx="7"/>'
        yield _text(chip.x + 7, y + 10.5, chip.device, "device")
    for row, lines, y in placed.rows:
        yield from _row(row, lines, placed.x + 10, y)


def _row(row: Row, lines: tuple[str, ...], x: float, y: float) -> Iterator[str]:
    style = {"there": "", "back": " return", "failed": " failed"}[row.style]
    before = "↩ " if row.style == "back" else ""
    for number, line in enumerate(lines):
        yield _text(x, y + 10 + number * at.LINE, f"{before}{line}", f"mono{style}", row.whole)
    if row.by:
        yield _text(x, y + 10 + len(lines) * at.LINE, row.by, "by")


def _line(line: Line) -> str:
    name = "back" if line.back and line.fine else "" if line.fine else "bad"
    path = "M" + "L".join(f"{x:g},{y:g}" for x, y in line.points)
    style = " ".join(filter(None, ("line", "back" if line.back else "", "" if line.fine else "bad")))
    return f'<path class="{style}" d="{path}" marker-end="url(#tip{name})"/>'


def _text(x: float, y: float, text: str, style: str, whole: str = "") -> str:
    title = f"<title>{escape(whole)}</title>" if whole else ""
    return f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(text)}{title}</text>'
