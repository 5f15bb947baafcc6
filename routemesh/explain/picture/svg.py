"""A scene as an SVG picture that stands alone, for light and dark. PURE."""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from routemesh.explain.picture import layout as at
from routemesh.explain.picture.layout import Drawing, Frame, Placed, all_plugs, layout
from routemesh.explain.picture.lines import Line, cables, lines
from routemesh.explain.picture.measure import cut, width
from routemesh.explain.picture.scene import Row, Scene
from routemesh.explain.picture.style import STYLE

_TIPS = (*at.LEGS, "bad")
_SAMPLE, _APART = 30, 20
_BARE = ("note", "port")
_LEGEND = {
    "there": "request", "back": "answer", "onward": "the proxy's connection", "onback": "its answer", "bad": "does not arrive",
    "cable": "cable", "tunnel": "VXLAN tunnel", "number": "a hop's number", "idle": "gets no connections",
}  # fmt: skip


def drawn(what: Scene) -> str:
    """The picture of a scene, with a line break at the end."""
    legend = _legend_lines(what, layout(what).width)
    drawing = layout(what, len(legend))
    return "".join(f"{line}\n" for line in _document(what, drawing, legend))


def _document(what: Scene, drawing: Drawing, legend: Sequence[Sequence[str]]) -> Iterator[str]:
    wide, high = drawing.width, drawing.height
    yield (
        f'<svg class="rm" xmlns="http://www.w3.org/2000/svg" width="{wide:g}" height="{high:g}"'
        f' viewBox="0 0 {wide:g} {high:g}" role="img" aria-labelledby="rm-title rm-desc">'
    )
    yield f'<title id="rm-title">{escape(what.title)}</title><desc id="rm-desc">{escape(what.verdict)}</desc>'
    yield f"<style>{STYLE}</style>"
    yield "<defs>" + "".join(_tip(name, first=first) for name in _TIPS for first in (False, True)) + "</defs>"
    yield f'<rect class="paper" width="{wide:g}" height="{high:g}"/>'
    yield _text(at.MARGIN, 28, cut(what.title, wide - 2 * at.MARGIN, 17, bold=True), "title")
    for number, text in enumerate(drawing.verdict):
        yield _text(at.MARGIN, 50 + number * at.VERDICT_LINE, text, f"verdict {what.outcome}", what.verdict)
    yield from _wires(what, drawing)
    for frame in drawing.frames.values():
        yield from _node(frame)
    for placed in drawing.boxes.values():
        yield from _box(placed)
    for placed, plug, y in all_plugs(drawing):
        side = placed.x + (placed.width if plug.tunnel else 0)
        yield f'<rect class="jack" x="{side - 2.5:g}" y="{y - 6:g}" width="5" height="12" rx="1.5"/>'
    yield from (_line(line) for line in lines(what, drawing))
    if what.client:
        yield from _client(what, drawing)
    yield from _legend(drawing, legend)
    for number, more in enumerate(what.more):
        yield _text(at.MARGIN, drawing.height - 10 - 16 * (len(what.more) - 1 - number), more, "by")
    yield "</svg>"


def _tip(name: str, *, first: bool) -> str:
    """An arrow's head, at the end of a line or, `first`, at its beginning and looking back."""
    shape, at_x = ("M8,0L0,4L8,8z", 1) if first else ("M0,0L8,4L0,8z", 7)
    return (
        f'<marker id="rm-tip-{name}{"-first" * first}" viewBox="0 0 8 8" refX="{at_x}" refY="4" markerWidth="9" markerHeight="9"'
        f' markerUnits="userSpaceOnUse" orient="auto"><path class="tip {name}" d="{shape}"/></marker>'
    )


# --- nodes and boxes ----------------------------------------------------------------------------------------------


def _wires(what: Scene, drawing: Drawing) -> Iterator[str]:
    """What connects the nodes' ports, with its name above."""
    high = drawing.wire
    end = drawing.gutter if len(drawing.wires) > 1 else drawing.width - at.MARGIN - high
    for y in drawing.wires:
        yield f'<rect class="wire" x="{at.MARGIN:g}" y="{y:g}" width="{end + high - at.MARGIN:g}" height="{high:g}" rx="6"/>'
    if len(drawing.wires) > 1:
        low = drawing.wires[-1] + high - drawing.wires[0]
        yield f'<rect class="wire" x="{drawing.gutter:g}" y="{drawing.wires[0]:g}" width="{high:g}" height="{low:g}" rx="6"/>'
    if drawing.wires:
        x = float(at.MARGIN + (at.CLIENT_WIDTH + 60 if what.client else 0))
        yield _text(x, drawing.wires[0] - 6, "the network between the nodes", "by")
    for (x, top), (_, bottom) in cables(drawing):
        yield f'<line class="stub" x1="{x:g}" y1="{top:g}" x2="{x:g}" y2="{bottom:g}"/>'


def _node(frame: Frame) -> Iterator[str]:
    passed = "" if frame.column.passed else " idle"
    yield f'<g class="machine{passed}">'
    yield f'<rect class="node" x="{frame.x:g}" y="{frame.y:g}" width="{frame.width:g}" height="{frame.height:g}" rx="8"/>'
    yield _text(frame.named, frame.y + 30, frame.title, "head", frame.column.node)
    if frame.column.note:
        yield _text(frame.named, frame.y + 45, frame.column.note, "note")
    if frame.port:
        y = frame.y - at.PORT / 2
        yield f'<rect class="port" x="{frame.inner:g}" y="{y:g}" width="{at.INNER}" height="{at.PORT}" rx="4"/>'
        yield _text(frame.named, frame.y + 4, frame.port, "plug")
    yield "</g>"


def _box(placed: Placed) -> Iterator[str]:
    box = placed.box
    passed = "" if box.passed else " idle"
    bad = " bad" if box.failed else ""
    yield f'<g class="site{passed}" data-box="{placed.number}">'
    place = f'x="{placed.x:g}" y="{placed.y:g}" width="{placed.width:g}" height="{placed.height:g}"'
    yield f'<rect class="box {box.kind}{bad}" {place} rx="5"/>'
    yield _text(placed.x + 10, placed.y + 16, placed.title, "head", f"{box.stop[0]} {box.stop[1]}".strip())
    for plug, texts, y in placed.plugs:
        for number, text in enumerate(texts):
            yield _text(placed.x + 10 + 12 * bool(number), y + 11 + at.PLUG * number, text, "plug", "\n".join(plug.lines))
    for row, texts, by, y in placed.rows:
        yield from _row(row, texts, by, placed.x + 8, y)
    yield "</g>"


def _row(row: Row, texts: tuple[str, ...], by: tuple[str, ...], x: float, y: float) -> Iterator[str]:
    high = at.LINE * (len(texts) + len(by)) + 2
    yield f'<g class="hop"{f" data-hop={chr(34)}{row.number}{chr(34)}" if row.number else ""}>'
    yield f'<rect class="mark" x="{x - 4:g}" y="{y - 1:g}" width="{at.INNER - 8}" height="{high:g}" rx="3"/>'
    if row.number:
        round_ = 2 if row.style == "back" else 6
        yield f'<rect class="badge {row.style}" x="{x:g}" y="{y + 1:g}" width="17" height="12" rx="{round_}"/>'
        yield _text(x + 8.5, y + 10.3, str(row.number), f"number {row.style}")
    style = {"there": "mono", "back": "mono", "failed": "mono failed", "port": "mono", "note": "note"}[row.style]
    for number, text in enumerate(texts):
        yield _text(x + at.BADGE * (row.style not in _BARE), y + 10 + number * at.LINE, text, style, row.whole)
    for number, text in enumerate(by, start=len(texts)):
        yield _text(x + at.BADGE, y + 10 + number * at.LINE, text, "by", row.by)
    yield "</g>"


def _client(what: Scene, drawing: Drawing) -> Iterator[str]:
    y = drawing.client_y
    yield f'<rect class="client" x="{at.MARGIN}" y="{y:g}" width="{at.CLIENT_WIDTH}" height="{at.CLIENT_HEIGHT}" rx="8"/>'
    yield _text(at.MARGIN + 12, y + 17, cut(what.client, at.CLIENT_WIDTH - 20, at.HEAD, bold=True), "head", what.client)
    yield _text(at.MARGIN + 12, y + 33, what.client_at, "mono")


# --- lines and legend ---------------------------------------------------------------------------------------------


def _line(line: Line) -> str:
    """An answer is drawn from its end, so that the dashes of several lie on one another where they go the same way."""
    answer = line.piece.leg in ("back", "onback")
    path = "M" + "L".join(f"{x:g},{y:g}" for x, y in (line.points[::-1] if answer else line.points))
    if line.piece.of != "way":
        return f'<path class="line {line.piece.of}" d="{path}"/>'
    style = f"{line.piece.leg}{'' if line.piece.fine else ' bad'}"
    tip = f"{line.piece.leg if line.piece.fine else 'bad'}{'-first' if answer else ''}"
    return f'<path class="line {style}" d="{path}" marker-{"start" if answer else "end"}="url(#rm-tip-{tip})"/>'


def _legend_lines(what: Scene, room: float) -> list[list[str]]:
    """What is explained, in lines that fit."""
    boxes = what.boxes.values()
    used = {piece.of if piece.of != "way" else piece.leg if piece.fine else "bad" for piece in what.pieces}
    used |= {"number"} if any(row.number for box in boxes for row in box.rows()) else set()
    used |= {"idle"} if not all(box.passed for box in boxes) else set()
    found: list[list[str]] = [[]]
    x = 0.0
    for name in (name for name in _LEGEND if name in used):
        if found[-1] and x + _entry(name) > room - 2 * at.MARGIN:
            found.append([])
            x = 0
        found[-1].append(name)
        x += _entry(name)
    return found


def _entry(name: str) -> float:
    return _SAMPLE + 6 + width(_LEGEND[name], at.BY) + _APART


def _legend(drawing: Drawing, legend: Sequence[Sequence[str]]) -> Iterator[str]:
    yield '<g class="legend">'
    for number, names in enumerate(legend):
        x, y = float(at.MARGIN), drawing.legend_y + 10 + 22 * number
        for name in names:
            yield _sample(name, x, y)
            yield _text(x + _SAMPLE + 6, y + 3.5, _LEGEND[name], "by")
            x += _entry(name)
    yield "</g>"


def _sample(name: str, x: float, y: float) -> str:
    if name == "number":
        return f'<rect class="badge" x="{x + 6:g}" y="{y - 6:g}" width="17" height="12" rx="6"/>' + _text(
            x + 14.5, y + 3.3, "1", "number"
        )
    if name == "idle":
        return f'<g class="idle"><rect class="box" x="{x + 2:g}" y="{y - 7:g}" width="26" height="14" rx="3"/></g>'
    style = "there bad" if name == "bad" else name
    tip = "" if name in ("cable", "tunnel") else f' marker-end="url(#rm-tip-{name})"'
    return f'<path class="line {style}" d="M{x:g},{y:g}L{x + _SAMPLE:g},{y:g}"{tip}/>'


def _text(x: float, y: float, text: str, style: str, whole: str = "") -> str:
    title = f"<title>{escape(whole)}</title>" if whole and whole != text else ""
    return f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(text)}{title}</text>'
