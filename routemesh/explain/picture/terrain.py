"""The scene of a cluster without a question: nodes, sandboxes, bridges, tunnels, tasks and published ports. PURE."""

from collections.abc import Iterator, Sequence

from routemesh.explain.nouns import Ground
from routemesh.explain.picture.scene import MOST_TASKS, WIRE, Column, Leg, Piece, Row, Scene, Stop, box_of

_MOST_COLUMNS = 16
_MOST_PORTS = 8
LEGS: tuple[Leg, ...] = ("there", "back", "onward", "onback")
_LANES: tuple[Leg, ...] = ("back", "onward", "onback")
"""Beside the first, which leads to the bridge of all: one for each overlay of a node, the last for all others."""


def terrain(ground: Ground) -> Scene:
    """The scene of a ground."""
    columns = []
    more = []
    for machine in ground.machines[:_MOST_COLUMNS]:
        column = Column(machine.name, f"{machine.device} {machine.address}".strip(), "was not read" if machine.absent else "")
        for site in ground.sites:
            if site.node == machine.name:
                box = box_of(site, machine.device)
                box.passed = not site.note
                column.boxes[box.stop] = box
        for box in column.of("host"):
            box.notes += _published(ground)
        tasks = column.of("task")
        for box in tasks[MOST_TASKS:]:
            del column.boxes[box.stop]
        more += [f"{machine.name} has {len(tasks) - MOST_TASKS} more tasks"] if len(tasks) > MOST_TASKS else []
        columns.append(column)
    left = len(ground.machines) - len(columns)
    more += [f"not drawn: {left} more nodes"] if left > 0 else []
    tasks_there = sum(site.kind == "task" for site in ground.sites)
    return Scene(
        title="The cluster",
        client="",
        client_at="",
        verdict=f"nodes: {len(ground.machines)}, tasks: {tasks_there}, published ports: {len(ground.published)}",
        outcome="",
        columns=tuple(columns),
        pieces=(*_tunnels(columns), *(piece for column in columns for piece in _cables(column))),
        more=tuple(more),
        where={},
    )


def _published(ground: Ground) -> Iterator[Row]:
    if ground.published:
        yield Row("published ports", style="note")
    for port, service in ground.published[:_MOST_PORTS]:
        yield Row(f"{port} → {service}", style="port")
    if len(ground.published) > _MOST_PORTS:
        whole = "\n".join(f"{port} → {service}" for port, service in ground.published)
        yield Row(f"and {len(ground.published) - _MOST_PORTS} more ports", whole=whole, style="port")


def _tunnels(columns: Sequence[Column]) -> Iterator[Piece]:
    """From the first node that has an overlay to every other that has it."""
    first: dict[str, tuple[Stop, int]] = {}
    for column in columns:
        for box in column.of("overlay"):
            if not any(plug.tunnel for plug in box.plugs):
                continue
            start, number = first.setdefault(box.stop[1], (box.stop, len(first)))
            if start != box.stop:
                yield Piece(start, box.stop, LEGS[number % len(LEGS)], of="tunnel")


def _cables(column: Column) -> Iterator[Piece]:
    """What leads from a device of one namespace into another, and from a node's own to its port."""
    host: Stop = (column.node, "")
    overlays = [box.stop for box in column.of("overlay")]
    for box in column.boxes.values():
        if box.stop == host and column.port:
            yield Piece(host, (column.node, WIRE), "there", of="cable")
        for plug in box.plugs:
            into = (column.node, plug.into)
            if into == host and host in column.boxes:
                yield Piece(box.stop, host, "there", of="cable")
            elif into in overlays:
                yield Piece(box.stop, (into[0], into[1] or ""), _LANES[min(overlays.index(into), len(_LANES) - 1)], of="cable")
