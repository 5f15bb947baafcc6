"""Where everything of a scene goes, in pixels. PURE.

client                         above all
═══════ the underlay ═══════   a wire to which all nodes are connected, by a port on the upper edge of each
┌─[port]──────┐ ┌─[port]───    a column for each node, up to four side by side: its own namespace, the sandbox, overlays, tasks;
└─────────────┘ └──────────    what is on the left of the boxes leads through bridges, on the right through tunnels
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from routemesh.explain.nouns import SiteKind
from routemesh.explain.picture.measure import cut, wrapped
from routemesh.explain.picture.scene import Box, Column, Plug, Row, Scene, Stop

INNER, GAP, MARGIN = 220, 12, 16
"""The width of a box; between columns; around all."""
LANE, TRACK = 10, 7
"""How far the first line is from the boxes, and the next ones from the first."""
MOST_BESIDE = 4
"""Columns side by side."""
CLIENT_HEIGHT, CLIENT_WIDTH = 42, 268
PORT = 22
PORT_LEFT, PORT_RIGHT, PORT_TRACK = 12, 10, 9
"""Where lines pass a port: those of clients on its left, those of tunnels on its right; between them is its name."""
BOX_HEAD, PLUG, LINE, PAD, BETWEEN = 24, 15, 13, 7, 16
NODE_HEAD = 44
BADGE = 20
"""Room for a hop's number."""
TEXT, MONO, BY, HEAD, VERDICT = 12.0, 10.5, 10.0, 12.0, 13.0
VERDICT_LINE, MOST_VERDICT_LINES, MOST_HOP_LINES = 18, 6, 3
_MOST_FAILED_LINES, _MOST_BY_LINES = 12, 2
LEGS = ("there", "back", "onward", "onback")
SHIFTS = {"there": -4, "back": 3, "onward": -1, "onback": 6}
"""How far a leg's line is above or below the middle of the device that it leads to."""
_BANDS: tuple[tuple[SiteKind, ...], ...] = (("host",), ("sandbox", "other"), ("overlay",), ("task",))


@dataclass(frozen=True, slots=True)
class Placed:
    """A box in its place; plugs and rows with their lines and where these begin."""

    box: Box
    number: int
    x: float
    y: float
    height: float
    title: str
    plugs: tuple[tuple[Plug, tuple[str, ...], float], ...]
    rows: tuple[tuple[Row, tuple[str, ...], tuple[str, ...], float], ...]

    @property
    def width(self) -> float:
        """Of the box."""
        return INNER

    def at(self, plug: Plug | None) -> float:
        """The height at which lines meet a device, or the box itself."""
        return next((y + PLUG / 2 for each, _, y in self.plugs if each is plug), self.y + BOX_HEAD / 2)


@dataclass(frozen=True, slots=True)
class Frame:
    """A node in its place; `port`: what is on its upper edge, "" for nothing; `line`: in which line of nodes it is."""

    column: Column
    x: float
    y: float
    width: float
    height: float
    title: str
    port: str
    line: int

    @property
    def inner(self) -> float:
        """Where its boxes begin."""
        return self.x + (self.width - INNER) / 2

    @property
    def named(self) -> float:
        """Where its name and its port's begin."""
        return self.inner + PORT_LEFT + 2 * PORT_TRACK + 8


@dataclass(slots=True)
class Drawing:
    """All of it. `lanes`: how many lines have room beside the boxes. `wires`: upper edges, one for each line of nodes."""

    width: float
    height: float = 0
    lanes: int = 2
    verdict: tuple[str, ...] = ()
    client_y: float = 0
    wires: list[float] = field(default_factory=list)
    frames: dict[str, Frame] = field(default_factory=dict)
    boxes: dict[Stop, Placed] = field(default_factory=dict)
    legend_y: float = 0

    @property
    def wire(self) -> float:
        """How high the wire is."""
        return TRACK * self.lanes + 10

    @property
    def gutter(self) -> float:
        """Where the wire leads from one line of nodes down to the next."""
        return self.width - MARGIN - self.wire


def layout(scene: Scene, legend_lines: int = 1) -> Drawing:
    """The drawing of a scene, with room for a legend at its end."""
    lanes = 4 if any(piece.leg in ("onward", "onback") for piece in scene.pieces) else 2
    column_width = INNER + 2 * (LANE + TRACK * lanes)
    lines = [scene.columns[start : start + MOST_BESIDE] for start in range(0, len(scene.columns), MOST_BESIDE)]
    widest = max((len(line) for line in lines), default=0)
    drawing = Drawing(width=max(widest * (column_width + GAP) - GAP, 470) + 2 * MARGIN, lanes=lanes)
    if len(lines) > 1:
        drawing.width += drawing.wire + GAP
    drawing.verdict = wrapped(scene.verdict, drawing.width - 2 * MARGIN, VERDICT, MOST_VERDICT_LINES, bold=True)
    y = 44 + VERDICT_LINE * len(drawing.verdict) + 4.0
    drawing.client_y = y
    y += CLIENT_HEIGHT + 22 if scene.client else 22
    for number, line in enumerate(lines):
        drawing.wires.append(y)
        y = _place_line(drawing, line, number, column_width, y + drawing.wire + 30) + 18
    drawing.legend_y = y
    drawing.height = y + 22 * legend_lines + 16 * len(scene.more) + 8
    return drawing


def _place_line(drawing: Drawing, line: Sequence[Column], number: int, column_width: float, top: float) -> float:
    """Places nodes side by side, what is of one kind at one height; how far down they reach."""
    heads = [NODE_HEAD + (16 if column.note else 0) for column in line]
    at = top + max(heads)
    tops = []
    for kinds in _BANDS[:-1]:
        tops.append(at)
        at += max(sum(_box_height(box) + BETWEEN for box in column.of(*kinds)) for column in line)
    tops.append(at)
    bottom = at + max(sum(_box_height(box) + BETWEEN for box in column.of("task")) for column in line)
    for place, column in enumerate(line):
        x = MARGIN + place * (column_width + GAP)
        name = cut(column.node, 170, HEAD, bold=True)
        port = cut(column.port, INNER - 56 - PORT_TRACK * drawing.lanes, MONO, mono=True)
        drawing.frames[column.node] = Frame(column, x, top, column_width, bottom - top, name, port, number)
        for kinds, begin in zip(_BANDS, tops, strict=True):
            y = begin
            for box in column.of(*kinds):
                drawing.boxes[box.stop] = _placed(box, len(drawing.boxes), drawing.frames[column.node].inner, y)
                y += _box_height(box) + BETWEEN
    return bottom


def _box_height(box: Box) -> float:
    plugs = PLUG * sum(len(_plug_lines(plug)) for plug in box.plugs)
    rows = box.rows()
    return BOX_HEAD + plugs + (6 if rows else 0) + sum(_row_height(row) for row in rows) + PAD


def _row_height(row: Row) -> float:
    return LINE * (len(_row_lines(row)) + len(_by_lines(row))) + 4


def _plug_lines(plug: Plug) -> tuple[str, ...]:
    """Beside a device's name, or below it."""
    room = INNER - 18
    first = plug.lines[0] if plug.lines else ""
    lines = [f"{plug.name} {first}".strip(), *plug.lines[1:]]
    return tuple(cut(line, room - (12 if number else 0), MONO, mono=True) for number, line in enumerate(lines))


def _row_lines(row: Row) -> tuple[str, ...]:
    """A hop's label in lines that fit."""
    most = _MOST_FAILED_LINES if row.style == "failed" else MOST_HOP_LINES
    label = f"✗ {row.label}" if row.style == "failed" else row.label
    return wrapped(label, INNER - BADGE - 16, MONO, most, mono=True)


def _by_lines(row: Row) -> tuple[str, ...]:
    """What decided, in lines that fit."""
    return wrapped(row.by, INNER - BADGE - 16, BY, _MOST_BY_LINES) if row.by else ()


def _placed(box: Box, number: int, x: float, y: float) -> Placed:
    at = y + BOX_HEAD
    plugs = []
    for plug in box.plugs:
        plugs.append((plug, _plug_lines(plug), at))
        at += PLUG * len(_plug_lines(plug))
    at += 6 if box.rows() else 0
    rows = []
    for row in box.rows():
        rows.append((row, _row_lines(row), _by_lines(row), at))
        at += _row_height(row)
    title = cut(box.title, INNER - 18, HEAD, bold=True)
    return Placed(box, number, x, y, _box_height(box), title, tuple(plugs), tuple(rows))


def all_plugs(drawing: Drawing) -> Iterator[tuple[Placed, Plug, float]]:
    """Every device with where lines meet it."""
    for placed in drawing.boxes.values():
        for plug, _, _ in placed.plugs:
            yield placed, plug, placed.at(plug)
