"""What is to be drawn of an explanation: nodes, their namespaces with what was decided there, and the ways through them. PURE.

Only what the ways pass is drawn, and of what they pass what changes the packet, carries it to another node, or ends it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from routemesh import names
from routemesh.explain.nouns import Explanation, Step, Way
from routemesh.reasons.events import Accepted, Bridged, Decided, IntoTunnel, OutOfTunnel

Kind = Literal["host", "sandbox", "overlay", "task", "other"]
Stop = tuple[str, str]
"""A namespace on a way: node and namespace."""

MOST_COLUMNS = 5
MOST_TASKS = 6
_MOST_ROWS = 8
_LOAD_BALANCER = "lb_"
_OVERLAYS = ("1-",)


@dataclass(frozen=True, slots=True)
class Row:
    """A decision: what became of the packet, and what decided. `whole` is all that is known, for a tooltip."""

    label: str
    by: str
    whole: str
    style: Literal["there", "back", "failed"] = "there"


@dataclass(slots=True)
class Box:
    """A namespace with its decisions, there and back, and its devices, which are bridges or tunnels (True) or mere links."""

    stop: Stop
    kind: Kind
    title: str
    there: list[Row] = field(default_factory=list)
    back: list[Row] = field(default_factory=list)
    failed: bool = False
    devices: dict[str, bool] = field(default_factory=dict)

    def rows(self) -> list[Row]:
        """What is shown of it."""
        rows = [*_cut(self.there), *_cut(self.back)]
        following = [*rows, None][1:]
        return [
            replace(row, by="") if after is not None and (row.by, row.style) == (after.by, after.style) else row
            for row, after in zip(rows, following, strict=True)
        ]


@dataclass(slots=True)
class Column:
    """A node: its own namespace, the sandbox, its tasks, its overlays."""

    node: str
    boxes: dict[Stop, Box] = field(default_factory=dict)

    def of(self, *kinds: Kind) -> list[Box]:
        """The boxes of some kinds, in the order in which they were passed."""
        return [box for box in self.boxes.values() if box.kind in kinds]


@dataclass(frozen=True, slots=True)
class Trail:
    """The namespaces that a way passes, there or back; the first is who asks or answers."""

    stops: tuple[Stop, ...]
    arrives: bool
    back: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything. `more`: what there was no room for, one sentence each."""

    title: str
    client: str
    client_at: str
    verdict: str
    outcome: str
    columns: tuple[Column, ...]
    trails: tuple[Trail, ...]
    more: tuple[str, ...]


def scene(explanation: Explanation) -> Scene:
    """The scene of an explanation."""
    asked = explanation.question
    columns: dict[str, Column] = {}
    common = _common(explanation.ways)
    for number, way in enumerate(explanation.ways):
        why = next((cause.why for cause in explanation.causes if cause.way == number and cause.step >= 0), "")
        _place(columns, way, common if len(explanation.ways) > 1 else -1, why)
    shown, more = _shown(columns, asked.node)
    visible = {stop for column in shown for stop in column.boxes}
    trails = dict.fromkeys(trail for way in explanation.ways for trail in _trails(way, visible))
    return Scene(
        title=f"{asked.node}:{asked.port}/{asked.protocol}" + (f" · {asked.service}" if asked.service else ""),
        client=asked.client,
        client_at=asked.source,
        verdict=explanation.verdict,
        outcome=explanation.outcome,
        columns=tuple(shown),
        trails=tuple(trails),
        more=tuple(more),
    )


def _place(columns: dict[str, Column], way: Way, common: int, why: str) -> None:
    chosen = False
    for number, step in enumerate(way.there):
        box = _box(columns, step)
        share = ""
        if 0 <= common <= number and not chosen and "destination" in step.changed:
            share, chosen = f"{way.share[0]}/{way.share[1]} ", True
        _add(box.there, box, _with(step, why), share, way.task if share else "")
    for step in way.back:
        box = _box(columns, step)
        _add(box.back, box, _with(step, why), "", "")


def _with(step: Step, why: str) -> Step:
    return replace(step, why=why) if step.failed and why else step


def _add(rows: list[Row], box: Box, step: Step, share: str, task: str) -> None:
    box.failed |= step.failed
    for device, tunnel in _devices(step):
        box.devices[device] = box.devices.get(device, False) or tunnel
    row = _row(step, share, task, back=rows is box.back)
    if row is not None and (row.label, row.by) not in [(other.label, other.by) for other in rows]:
        rows.append(row)


def _devices(step: Step) -> Iterator[tuple[str, bool]]:
    if step.event.is_a(Bridged):
        yield step.event.fields["bridge"], True
    if step.device:
        yield step.device, step.event.is_a(IntoTunnel, OutOfTunnel) and bool(step.namespace)


def _box(columns: dict[str, Column], step: Step) -> Box:
    column = columns.setdefault(step.node, Column(step.node))
    stop = (step.node, step.namespace)
    if stop not in column.boxes:
        title = step.place.removeprefix(f"{step.node}: ") if step.namespace else "the node itself"
        column.boxes[stop] = Box(stop, _kind(step), title)
    return column.boxes[stop]


def _kind(step: Step) -> Kind:
    if not step.namespace:
        return "host"
    if step.task:
        return "task"
    if step.namespace == names.SANDBOX or step.namespace.startswith(_LOAD_BALANCER):
        return "sandbox"
    return "overlay" if step.namespace.startswith(_OVERLAYS) else "other"


# --- rows ---------------------------------------------------------------------------------------------------------


def _row(step: Step, share: str, task: str, *, back: bool) -> Row | None:
    """What is shown of a step; None for what leaves the packet as it is and takes it nowhere else."""
    label = step.why or step.what if step.failed else _label(step)
    if not label:
        return None
    shown = f"{share}{label}" + (f"  {task}" if task else "")
    whole = "\n".join(filter(None, (f"{step.device}: {step.what}", step.rule, f"$ {step.show}" if step.show else "")))
    style: Literal["there", "back", "failed"] = "failed" if step.failed else "back" if back else "there"
    return Row(shown, "" if step.failed else _by(step), whole, style)


def _label(step: Step) -> str:
    before, after = step.before, step.after
    if after.vni != before.vni:
        return f"VXLAN {after.vni} → {after.destination.partition(':')[0]}" if after.vni else f"out of VXLAN {before.vni}"
    if before.vni:
        return ""
    if after.destination != before.destination:
        same_host = after.destination.partition(":")[0] == before.destination.partition(":")[0]
        return f"→ :{after.destination.partition(':')[2]}" if same_host else f"→ {after.destination}"
    if after.source != before.source:
        return f"from {after.source}"
    if after.mark != before.mark:
        return f"mark {after.mark:#x}"
    return "a process takes it" if step.kind == "socket" else ""


def _by(step: Step) -> str:
    """Which chain, table or balancer it was."""
    known = step.event.fields
    if step.event.is_a(Accepted):
        return f"{known['protocol']}/{known['port']}"
    if step.after.vni != step.before.vni:
        return step.device
    if step.event.is_a(Decided):
        return str(known["at"])
    return f"{known['kind']} {known['chain']}" if "chain" in known else step.kind


def _cut(rows: Sequence[Row]) -> list[Row]:
    if len(rows) <= _MOST_ROWS:
        return list(rows)
    failing = [row for row in rows if row.style == "failed"]
    kept = [row for row in rows if row.style != "failed"][: _MOST_ROWS - 1 - len(failing)]
    left = len(rows) - len(kept) - len(failing)
    whole = "\n".join(row.label for row in rows)
    return [*kept, *failing, Row(f"and {left} more", "", whole, kept[0].style if kept else "there")]


# --- what there is room for -----------------------------------------------------------------------------------------


def _shown(columns: dict[str, Column], entry: str) -> tuple[list[Column], list[str]]:
    """The node that is asked first, then those where something fails, then the others; each with as many tasks as fit.

    What all tasks do alike is shown at the first.
    """
    order = sorted(columns.values(), key=lambda column: (column.node != entry, not _fails(column)))
    shown, left = order[:MOST_COLUMNS], order[MOST_COLUMNS:]
    more = [f"not drawn: {', '.join(column.node for column in left)}"] if left else []
    for column in shown:
        tasks = sorted(column.of("task"), key=lambda box: not box.failed)
        for box in tasks[MOST_TASKS:]:
            del column.boxes[box.stop]
        for box in tasks[1:]:
            if not box.failed:
                box.there, box.back, box.devices = [], [], {}
        if len(tasks) > MOST_TASKS:
            more.append(f"{column.node} has {len(tasks) - MOST_TASKS} more tasks")
    return [shown[0], *sorted(shown[1:], key=lambda column: column.node)] if shown else [], more


def _fails(column: Column) -> bool:
    return any(box.failed for box in column.boxes.values())


def _common(ways: Sequence[Way]) -> int:
    """How many steps all ways begin with."""
    length = 0
    while ways and all(len(way.there) > length and way.there[length] == ways[0].there[length] for way in ways):
        length += 1
    return length


# --- trails -------------------------------------------------------------------------------------------------------


def _trails(way: Way, visible: set[Stop]) -> Iterator[Trail]:
    there = tuple(_stops(way.there, visible))
    back = tuple(_stops(way.back, visible))
    yield Trail((("", ""), *there), way.arrives or bool(way.back), back=False)
    if back:
        yield Trail((*back, ("", "")) if way.arrives else back, way.arrives, back=True)


def _stops(steps: Sequence[Step], visible: set[Stop]) -> Iterator[Stop]:
    """The namespaces one after the other; a node that only carries a tunnel's packets is passed by the tunnel."""
    last: Stop | None = None
    for step in steps:
        stop = (step.node, step.namespace)
        carries = bool(step.before.vni) and not step.failed and not step.namespace
        if stop != last and stop in visible and not carries:
            yield stop
            last = stop
