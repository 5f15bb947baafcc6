"""Where everything of a scene goes, in pixels. PURE.

client                      above all
┌ node ───────┐ ┌ node …    a column for each node: from the top its own namespace, the sandbox, its tasks, its overlays
└─────────────┘ └           requests go down the lane on the left, to tasks up the lane on the right
───────── VXLAN ─────────   below all: from overlay to overlay
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from routemesh.explain.picture.scene import Box, Column, Row, Scene, Stop, Trail

COLUMN, GAP, MARGIN = 272, 18, 20
LANE = 24
"""Room for lines on both sides of a column's boxes."""
CLIENT_Y, CLIENT_HEIGHT, CLIENT_WIDTH = 70, 40, 240
TOP = CLIENT_Y + CLIENT_HEIGHT + 34
NODE_HEAD, BOX_HEAD, LINE, PAD, BETWEEN = 30, 22, 13, 8, 14
CHIPS, CHIP_CHARACTER = 22, 6.1
BUS = 34
CHARACTERS, BOLD_CHARACTERS = 33, 29
"""So many of a row's characters fit."""
BACK = 7
"""How far the way back is drawn beside the way there."""


@dataclass(frozen=True, slots=True)
class Chip:
    """A device; `tunnel`: a bridge or a tunnel, through which the way leads."""

    device: str
    x: float
    width: float
    tunnel: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """A box in its place; `rows` each with their lines and where these begin."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    rows: tuple[tuple[Row, tuple[str, ...], float], ...]
    chips: tuple[Chip, ...]

    @property
    def middle(self) -> float:
        """Where lines meet its side."""
        return self.y + BOX_HEAD / 2


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline; `points` from where the packet comes to where it goes."""

    points: tuple[tuple[float, float], ...]
    back: bool
    fine: bool


@dataclass(slots=True)
class Drawing:
    """All of it. `nodes`: name, x, y, width, height."""

    width: float
    height: float
    nodes: list[tuple[str, float, float, float, float]] = field(default_factory=list)
    boxes: dict[Stop, Placed] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    bus: float = 0


def layout(scene: Scene) -> Drawing:
    """The drawing of a scene."""
    heights = [_column_height(column) for column in scene.columns] or [0.0]
    tall = max(heights)
    width = max(len(scene.columns), 2) * (COLUMN + GAP) - GAP + 2 * MARGIN
    drawing = Drawing(width=width, height=TOP + tall + BUS + 26 + 16 * len(scene.more))
    drawing.bus = TOP + tall + BUS / 2
    for number, column in enumerate(scene.columns):
        x = MARGIN + number * (COLUMN + GAP)
        drawing.nodes.append((column.node, x, TOP, COLUMN, tall))
        _place(drawing, column, x, TOP + tall)
    drawing.lines = _lines(drawing, scene)
    return drawing


def _column_height(column: Column) -> float:
    return NODE_HEAD + sum(_box_height(box) + BETWEEN for box in column.boxes.values())


def _box_height(box: Box) -> float:
    return BOX_HEAD + CHIPS * bool(box.devices) + sum(_row_height(row) for row in box.rows()) + PAD * bool(box.rows())


def _row_height(row: Row) -> float:
    return LINE * len(wrapped(row)) + (LINE if row.by else 0) + 3


def wrapped(row: Row) -> tuple[str, ...]:
    """A row's label in lines that fit; only what failed has more than one."""
    if row.style != "failed":
        return (row.label if len(row.label) <= CHARACTERS else row.label[: CHARACTERS - 1] + "…",)
    return tuple(textwrap.wrap(f"✗ {row.label}", BOLD_CHARACTERS))


def _place(drawing: Drawing, column: Column, x: float, bottom: float) -> None:
    y: float = TOP + NODE_HEAD
    for box in (*column.of("host"), *column.of("sandbox", "other")):
        drawing.boxes[box.stop] = _placed(box, x + LANE, y)
        y += _box_height(box) + BETWEEN
    for box in (*column.of("overlay"), *column.of("task")[::-1]):
        bottom -= _box_height(box) + BETWEEN
        drawing.boxes[box.stop] = _placed(box, x + LANE, bottom)


def _placed(box: Box, x: float, y: float) -> Placed:
    at = y + BOX_HEAD + CHIPS * bool(box.devices)
    rows = []
    for row in box.rows():
        rows.append((row, wrapped(row), at))
        at += _row_height(row)
    return Placed(box, x, y, COLUMN - 2 * LANE, _box_height(box), tuple(rows), tuple(_chips(box, x)))


def _chips(box: Box, x: float) -> Iterator[Chip]:
    """As many devices as the width has room for."""
    at, end = x + 10, x + COLUMN - 2 * LANE - 8
    for device, tunnel in sorted(box.devices.items(), key=lambda item: not item[1]):
        width = len(device) * CHIP_CHARACTER + 14
        if at + width > end:
            return
        yield Chip(device, at, width, tunnel)
        at += width + 5


# --- lines --------------------------------------------------------------------------------------------------------


def _lines(drawing: Drawing, scene: Scene) -> list[Line]:
    """Each piece of a way once; it is fine if any way that arrives goes along it."""
    fine: dict[tuple[Stop, Stop, bool], bool] = {}
    for trail in scene.trails:
        for piece in _pieces(trail):
            fine[(*piece, trail.back)] = fine.get((*piece, trail.back), False) or trail.arrives
    found = []
    for (start, end, back), good in sorted(fine.items(), key=lambda item: item[1]):
        points = _points(drawing, start, end, back=back)
        if points:
            found.append(Line(points, back, good))
    return found


def _pieces(trail: Trail) -> Iterator[tuple[Stop, Stop]]:
    yield from zip(trail.stops, trail.stops[1:], strict=False)


def _points(drawing: Drawing, start: Stop, end: Stop, *, back: bool) -> tuple[tuple[float, float], ...]:
    shift = BACK if back else 0
    if ("", "") in (start, end):
        points = _from_client(drawing, end if start == ("", "") else start, shift)
        return points if start == ("", "") else points[::-1]
    one, other = drawing.boxes[start], drawing.boxes[end]
    if start[0] != end[0]:
        return _between_nodes(drawing, one, other, shift)
    right = "task" in (one.box.kind, other.box.kind) and "overlay" in (one.box.kind, other.box.kind)
    side = one.x + one.width if right else one.x
    lane = side + (LANE / 2 - 2 - shift / 2) * (1 if right else -1)
    return (side, one.middle + shift), (lane, one.middle + shift), (lane, other.middle + shift), (side, other.middle + shift)


def _from_client(drawing: Drawing, to: Stop, shift: float) -> tuple[tuple[float, float], ...]:
    box = drawing.boxes[to]
    x = box.x + 120 + shift
    high, low = CLIENT_Y + CLIENT_HEIGHT, box.y
    start = min(max(x, MARGIN + 20 + shift), MARGIN + CLIENT_WIDTH - 20)
    if start == x:
        return (x, high), (x, low)
    turn = high + 12 + shift
    return (start, high), (start, turn), (x, turn), (x, low)


def _between_nodes(drawing: Drawing, one: Placed, other: Placed, shift: float) -> tuple[tuple[float, float], ...]:
    """Overlays reach one another below, all else above."""
    ends = one.x + one.width / 2 + shift, other.x + other.width / 2 + shift
    if one.box.kind == other.box.kind == "overlay":
        bus = drawing.bus + shift - 4
        below = one.y + one.height, other.y + other.height
        return (ends[0], below[0]), (ends[0], bus), (ends[1], bus), (ends[1], below[1])
    if one.box.kind == "overlay":  # to where the tunnel's packet is lost
        bus, lane = drawing.bus + shift - 4, other.x - LANE / 2 + 2
        begin = (ends[0], one.y + one.height), (ends[0], bus)
        return *begin, (lane, bus), (lane, other.middle + shift), (other.x, other.middle + shift)
    above = TOP - 8 - shift
    return (ends[0], one.y), (ends[0], above), (ends[1], above), (ends[1], other.y)
