"""The lines of a drawing: from device to device, beside the boxes, through the nodes' ports and the underlay. PURE."""

from collections.abc import Iterator
from dataclasses import dataclass

from routemesh.explain.picture.layout import (
    CLIENT_HEIGHT,
    LANE,
    LEGS,
    MARGIN,
    PORT,
    PORT_LEFT,
    PORT_RIGHT,
    PORT_TRACK,
    SHIFTS,
    TRACK,
    Drawing,
    Frame,
    Placed,
)
from routemesh.explain.picture.scene import CLIENT, WIRE, Leg, Piece, Plug, Scene

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline; `points` from where the packet comes to where it goes."""

    piece: Piece
    points: tuple[Point, ...]


def lines(scene: Scene, drawing: Drawing) -> list[Line]:
    """All that there are, those that fail below the others."""
    return [Line(piece, points) for piece in scene.pieces if len(points := tuple(_points(drawing, piece))) > 1]


def cables(drawing: Drawing) -> Iterator[tuple[Point, Point]]:
    """From every node's port to the wire."""
    for frame in drawing.frames.values():
        if frame.port:
            x = frame.x + frame.width / 2
            yield (x, drawing.wires[frame.line] + drawing.wire), (x, frame.y - PORT / 2)


def _points(drawing: Drawing, piece: Piece) -> Iterator[Point]:
    start, end, leg = piece.start, piece.end, piece.leg
    if CLIENT in (start, end):
        points = _to_client(drawing, drawing.boxes[end if start == CLIENT else start], leg)
        yield from points if end == CLIENT else points[::-1]
        return
    if end[1] == WIRE:
        yield from _to_port(drawing, drawing.boxes[start])
        return
    one, other = drawing.boxes[start], drawing.boxes[end]
    if start[0] == end[0]:
        yield from _within(one, other, leg)
        return
    tunnelled = one.box.kind == "overlay"
    out = _out(drawing, one, leg, tunnelled=tunnelled)
    into = _out(drawing, other, leg, tunnelled=tunnelled)
    yield from out
    yield from _along(drawing, out[-1], drawing.frames[start[0]], into[-1], drawing.frames[end[0]], leg)
    yield from into[::-1]


def _to_port(drawing: Drawing, placed: Placed) -> Iterator[Point]:
    frame = drawing.frames[placed.box.stop[0]]
    x = frame.x + frame.width / 2
    yield x, placed.y
    yield x, frame.y + PORT / 2


def _number(leg: Leg) -> int:
    return LEGS.index(leg)


def _within(one: Placed, other: Placed, leg: Leg) -> Iterator[Point]:
    """In one node: tunnels on the right, all else on the left."""
    right = {one.box.kind, other.box.kind} == {"overlay", "host"}
    away = LANE + TRACK * _number(leg)
    side = one.x + one.width if right else one.x
    lane = side + away if right else side - away
    ends = [placed.at(_plug(placed, beyond)) + SHIFTS[leg] for placed, beyond in ((one, other), (other, one))]
    yield side, ends[0]
    yield lane, ends[0]
    yield lane, ends[1]
    yield side, ends[1]


def _plug(placed: Placed, other: Placed | None) -> Plug | None:
    """The device that leads to another namespace of the same node, or out of it (None)."""
    plugs = [plug for plug, _, _ in placed.plugs]
    if placed.box.kind == "overlay":
        outwards = other is None or other.box.kind == "host"
        return next((plug for plug in plugs if plug.tunnel is outwards), None)
    if placed.box.kind == "host":
        return None if other is None or other.box.kind == "overlay" else next((plug for plug in plugs if plug.through), None)
    return next((plug for plug in plugs if other is not None and plug.into == other.box.stop[1]), None)


def _out(drawing: Drawing, placed: Placed, leg: Leg, *, tunnelled: bool) -> list[Point]:
    """From a box to above its node's port."""
    frame, number = drawing.frames[placed.box.stop[0]], _number(leg)
    top = frame.y - PORT / 2
    side = frame.inner + placed.width
    if placed.box.kind == "overlay":
        y, lane = placed.at(_plug(placed, None)) + SHIFTS[leg], side + LANE + TRACK * number
        enter = frame.y + SHIFTS[leg]
        x = side - PORT_RIGHT - PORT_TRACK * number
        return [(side, y), (lane, y), (lane, enter), (x, enter), (x, top)]
    left = frame.inner + PORT_LEFT + PORT_TRACK * number
    x = side - PORT_RIGHT - PORT_TRACK * number if tunnelled else left
    if placed.box.kind == "host":
        return [(x, placed.y), (x, top)]
    y, lane = placed.at(None) + SHIFTS[leg], frame.inner - LANE - TRACK * number
    return [(frame.inner, y), (lane, y), (lane, frame.y + SHIFTS[leg]), (x, frame.y + SHIFTS[leg]), (x, top)]


def _along(drawing: Drawing, start: Point, one: Frame, end: Point, other: Frame, leg: Leg) -> Iterator[Point]:
    """From above one port to above another by the wire."""
    number = _number(leg)
    ys = [drawing.wires[frame.line] + 7 + TRACK * number for frame in (one, other)]
    yield start[0], ys[0]
    if one.line != other.line:
        x = drawing.gutter + 7 + TRACK * number
        yield x, ys[0]
        yield x, ys[1]
    yield end[0], ys[1]


def _to_client(drawing: Drawing, placed: Placed, leg: Leg) -> list[Point]:
    frame = drawing.frames[placed.box.stop[0]]
    out = _out(drawing, placed, leg, tunnelled=False)
    first = next(iter(drawing.frames.values()))
    x, low = first.inner + PORT_LEFT + PORT_TRACK * _number(leg), drawing.client_y + CLIENT_HEIGHT
    if abs(out[-1][0] - x) < 1 and frame.line == 0:
        return [*out, (x, low)]
    return [*out, *_along_to(drawing, out[-1], frame, x, leg), (x, low)]


def _along_to(drawing: Drawing, start: Point, frame: Frame, x: float, leg: Leg) -> Iterator[Point]:
    y = drawing.wires[frame.line] + 7 + TRACK * _number(leg)
    yield start[0], y
    if frame.line:
        gutter, high = drawing.gutter + 7 + TRACK * _number(leg), drawing.wires[0] + 7 + TRACK * _number(leg)
        yield gutter, y
        yield gutter, high
        y = high
    yield max(x, MARGIN), y
