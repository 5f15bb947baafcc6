"""The scene of an explanation: the ground with the ways through it. PURE."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from routemesh.explain.ground import kind_of
from routemesh.explain.nouns import Explanation, Step, Way
from routemesh.explain.picture.scene import (
    CLIENT,
    MOST_COLUMNS,
    MOST_TASKS,
    Box,
    Column,
    Leg,
    Piece,
    Row,
    Scene,
    Stop,
    Style,
    box_of,
)
from routemesh.names import natural
from routemesh.reasons.events import Accepted, Bridged, Decided
from routemesh.values import replace

_MOST_ROWS = 8
_MOST_NAMED = 8


def scene(explanation: Explanation) -> Scene:
    """The scene of an explanation."""
    asked = explanation.question
    columns = _ground(explanation)
    for number, way in enumerate(explanation.ways):
        why = next((cause.why for cause in explanation.causes if cause.way == number and cause.step >= 0), "")
        _place(columns, explanation.ways, number, way, why)
    shown, more = _shown(columns, asked.node)
    if asked.client_node and (box := _find(shown, (asked.client_node, asked.client_namespace))):
        box.notes.insert(0, Row(f"asks as {asked.source}", style="note"))
    visible = {stop for column in shown for stop in column.boxes}
    where = _numbered(explanation, shown)
    return Scene(
        title=f"{asked.node}:{asked.port}/{asked.protocol}" + (f" · {asked.service}" if asked.service else ""),
        client="" if asked.client_node else asked.client,
        client_at=asked.source,
        verdict=explanation.verdict,
        outcome=explanation.outcome,
        columns=tuple(shown),
        pieces=tuple(_pieces(explanation, visible)),
        more=tuple(more),
        where=where,
    )


def _ground(explanation: Explanation) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for machine in explanation.ground.machines:
        columns[machine.name] = Column(
            machine.name, f"{machine.device} {machine.address}".strip(), "was not read" if machine.absent else ""
        )
    ports = {machine.name: machine.device for machine in explanation.ground.machines}
    for site in explanation.ground.sites:
        column = columns.setdefault(site.node, Column(site.node))
        column.boxes[(site.node, site.namespace)] = box_of(site, ports.get(site.node, ""), explanation.question.service)
    return columns


def _find(columns: Sequence[Column], stop: Stop) -> Box | None:
    return next((column.boxes[stop] for column in columns if stop in column.boxes), None)


# --- hops ---------------------------------------------------------------------------------------------------------


def _place(columns: dict[str, Column], ways: Sequence[Way], number: int, way: Way, why: str) -> None:
    common = _common(ways) if len(ways) > 1 else -1
    chosen = False
    for index, step in enumerate((*way.there, *way.back)):
        box = _box(columns, step)
        told = replace(step, why=why) if step.failed and why else step
        back = index >= len(way.there)
        share = ""
        if 0 <= common <= index and not chosen and not back and "destination" in step.changed:
            share, chosen = f"{way.share[0]}/{way.share[1]} ", True
        row = _row(told, share, way.task if share and step.kind != "proxy" else "", back=back)
        box.failed |= step.failed
        box.passed = True
        if row is not None:
            _add(box.back if back else box.there, row, (number, index))


def _add(rows: list[Row], row: Row, step: tuple[int, int]) -> None:
    same = next((other for other in rows if (other.label, other.by) == (row.label, row.by)), None)
    if same is None:
        rows.append(row)
    (same or row).steps.append(step)


def _box(columns: dict[str, Column], step: Step) -> Box:
    column = columns.setdefault(step.node, Column(step.node))
    stop = (step.node, step.namespace)
    if stop not in column.boxes:
        title = step.place.removeprefix(f"{step.node}: ") if step.namespace else "the node itself"
        column.boxes[stop] = Box(stop, kind_of(step.namespace, task=bool(step.task)), title)
    return column.boxes[stop]


def _row(step: Step, share: str, task: str, *, back: bool) -> Row | None:
    """What is shown of a step; None for what leaves the packet as it is and takes it nowhere else."""
    label = step.why or step.what if step.failed else _label(step, back=back)
    if not label:
        return None
    shown = f"{share}{label}" + (f" {task}" if task else "")
    whole = "\n".join(filter(None, (f"{step.device}: {step.what}", step.rule, f"$ {step.show}" if step.show else "")))
    style: Style = "failed" if step.failed else "back" if back else "there"
    return Row(shown, "" if step.failed else _by(step), whole, style)


def _label(step: Step, *, back: bool) -> str:
    before, after = step.before, step.after
    if step.kind == "proxy":
        return step.what
    if after.vni != before.vni:
        return f"VNI {after.vni} → {after.destination.partition(':')[0]}" if after.vni else f"out of VNI {before.vni}"
    if before.vni:
        return ""
    if after.destination != before.destination:
        same_host = after.destination.partition(":")[0] == before.destination.partition(":")[0]
        return f"→ :{after.destination.partition(':')[2]}" if same_host else f"→ {after.destination}"
    if after.source != before.source:
        return f"from {after.source}"
    if after.mark != before.mark:
        return f"mark {after.mark:#x}"
    taken = "who asked has it" if back else "a process takes it"
    return taken if step.kind == "socket" else ""


def _by(step: Step) -> str:
    """Which chain, table or balancer it was."""
    known = step.event.fields
    if step.kind == "proxy":
        return step.rule
    if step.event.is_a(Accepted):
        return f"{known['protocol']}/{known['port']}"
    if step.after.vni != step.before.vni:
        return f"{step.device}, UDP 4789" if step.after.vni else step.device
    if step.event.is_a(Decided):
        return str(known["at"])
    return f"{known['kind']} {known['chain']}" if "chain" in known else step.kind


def _cut(rows: list[Row]) -> list[Row]:
    if len(rows) <= _MOST_ROWS:
        return rows
    failing = [row for row in rows if row.style == "failed"]
    kept = [row for row in rows if row.style != "failed"][: max(_MOST_ROWS - 1 - len(failing), 1)]
    left = len(rows) - len(kept) - len(failing)
    whole = "\n".join(row.label for row in rows)
    return [*kept, *failing, Row(f"and {left} more", whole=whole, style=kept[0].style)]


def _numbered(explanation: Explanation, shown: Sequence[Column]) -> dict[tuple[int, int], tuple[Stop, int]]:
    """Gives hops their numbers, the first way's first; where each step is."""
    rows = {step: row for column in shown for box in column.boxes.values() for row in box.rows() for step in row.steps}
    where: dict[tuple[int, int], tuple[Stop, int]] = {}
    last = 0
    for number, way in enumerate(explanation.ways):
        for index, step in enumerate((*way.there, *way.back)):
            row = rows.get((number, index))
            if row is not None and not row.number:
                last += 1
                row.number = last
            where[number, index] = (step.node, step.namespace), 0 if row is None else row.number
    return where


def _common(ways: Sequence[Way]) -> int:
    """How many steps all ways begin with."""
    length = 0
    while ways and all(len(way.there) > length and way.there[length] == ways[0].there[length] for way in ways):
        length += 1
    return length


# --- what there is room for -----------------------------------------------------------------------------------------


def _shown(columns: dict[str, Column], entry: str) -> tuple[list[Column], list[str]]:
    """The node that is asked first, then those where something fails, those that are passed, the others; each with as many tasks
    as fit. What all tasks of a node do alike is shown at the first."""
    order = sorted(columns.values(), key=lambda column: (column.node != entry, not _fails(column), not column.passed))
    shown, left = order[:MOST_COLUMNS], order[MOST_COLUMNS:]
    more = []
    if left:
        unnamed = len(left) - _MOST_NAMED
        named = ", ".join(sorted((column.node for column in left), key=natural)[:_MOST_NAMED])
        more.append(f"not drawn: {named}" + (f" and {unnamed} more nodes" if unnamed > 0 else ""))
    for column in shown:
        more += _fewer(column)
    return [*shown[:1], *sorted(shown[1:], key=lambda column: natural(column.node))], more


def _fewer(column: Column) -> Iterator[str]:
    tasks = sorted(column.of("task"), key=lambda box: (not box.failed, not box.passed))
    for box in tasks[MOST_TASKS:]:
        del column.boxes[box.stop]
    for box in column.boxes.values():
        box.there, box.back = _cut(box.there), _cut(box.back)
    alike: list[list[str]] = []
    for box in tasks[:MOST_TASKS]:
        labels = [row.by for row in box.rows()]
        if labels in alike and not box.failed:
            box.there, box.back = [], []
        alike.append(labels)
    if len(tasks) > MOST_TASKS:
        yield f"{column.node} has {len(tasks) - MOST_TASKS} more tasks"


def _fails(column: Column) -> bool:
    return any(box.failed for box in column.boxes.values())


# --- lines --------------------------------------------------------------------------------------------------------


def _pieces(explanation: Explanation, visible: set[Stop]) -> Iterator[Piece]:
    """Each once; it is fine if any way that arrives goes along it, or it is on the way to a process that takes it."""
    fine: dict[tuple[Stop, Stop, Leg], bool] = {}
    outside = not explanation.question.client_node
    for way in explanation.ways:
        proxies = {(step.node, step.namespace) for step in way.there if step.kind == "proxy"}
        taken = bool(way.back) and not any(step.failed for step in way.there)
        for start, end, leg in _of_way(way, visible, proxies, outside=outside):
            good = way.arrives or (leg in ("there", "onward") and taken)
            fine[start, end, leg] = fine.get((start, end, leg), False) or good
    for (start, end, leg), good in sorted(fine.items(), key=lambda item: item[1]):
        yield Piece(start, end, leg, good)


def _of_way(way: Way, visible: set[Stop], proxies: set[Stop], *, outside: bool) -> Iterator[tuple[Stop, Stop, Leg]]:
    there = list(_stops(way.there, visible))
    back = list(_stops(way.back, visible))
    there = [CLIENT, *there] if outside else there
    back = [*back, CLIENT] if outside and way.arrives else back
    onward = False
    for start, end in pairwise(there):
        onward |= start in proxies
        yield start, end, "onward" if onward else "there"
    for start, end in pairwise(back):
        onward &= start not in proxies
        yield start, end, "onback" if onward else "back"


def _stops(steps: Sequence[Step], visible: set[Stop]) -> Iterator[Stop]:
    """The namespaces one after the other; a node that only carries a tunnel's packets is passed by the tunnel."""
    last: Stop | None = None
    for step in steps:
        stop = (step.node, step.namespace)
        carries = bool(step.before.vni) and not step.failed and not step.namespace and not step.event.is_a(Bridged)
        if stop != last and stop in visible and not carries:
            yield stop
            last = stop
