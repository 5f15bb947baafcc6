"""What is to be drawn: nodes, their namespaces with devices and addresses, what was decided there, the ways through them. PURE.

Of what a way passes only what changes the packet, carries it to another node or ends it is a hop of the picture; hops have
numbers in the order in which the ways pass them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from routemesh.explain.nouns import Outcome, Site, SiteKind
from routemesh.nodeplan import HOST

Stop = tuple[str, str]
"""A namespace on a way: node and namespace."""

_DOCKER0 = "docker0"
"""Docker's bridge for containers of no service."""

CLIENT: Stop = ("", "")
"""Who asks from outside."""

WIRE = "wire"

MOST_COLUMNS = 8
MOST_TASKS = 6

Leg = Literal["there", "back", "onward", "onback"]
"""Of a way: to the process that answers and back; `onward`: the connection that a proxy opens, and its way back."""

Style = Literal["there", "back", "failed", "note", "port"]
"""`port`: a published one; `note`: what is no hop."""


@dataclass(slots=True)
class Row:
    """A hop: what became of the packet, and what decided. `whole` is all that is known, for a tooltip; `number` 0: none.

    `steps`: which steps of which ways it is, counted through there and back.
    """

    label: str
    by: str = ""
    whole: str = ""
    style: Style = "there"
    number: int = 0
    steps: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plug:
    """A device of a namespace: its name, and a line for each address or other property. `through`: a bridge or a tunnel.

    `into`: as nouns.Device has it.
    """

    name: str
    lines: tuple[str, ...]
    through: bool = False
    tunnel: bool = False
    into: str | None = None


@dataclass(slots=True)
class Box:
    """A namespace. `passed`: a way leads through it, or there are no ways at all."""

    stop: Stop
    kind: SiteKind
    title: str
    plugs: list[Plug] = field(default_factory=list)
    there: list[Row] = field(default_factory=list)
    back: list[Row] = field(default_factory=list)
    notes: list[Row] = field(default_factory=list)
    passed: bool = False
    failed: bool = False

    def rows(self) -> list[Row]:
        """What is shown of it, from the top."""
        return [*self.notes, *self.there, *self.back]


@dataclass(slots=True)
class Column:
    """A node: its own namespace, the sandbox, overlays, tasks. `port`: its device and address on the underlay."""

    node: str
    port: str = ""
    note: str = ""
    boxes: dict[Stop, Box] = field(default_factory=dict)

    def of(self, *kinds: SiteKind) -> list[Box]:
        """The boxes of some kinds, in their order."""
        return [box for box in self.boxes.values() if box.kind in kinds]

    @property
    def passed(self) -> bool:
        """Whether a way leads through it."""
        return any(box.passed for box in self.boxes.values())


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a way from one namespace to the next; `fine`: a way that arrives goes along it. Where it is no way, `of` says
    what it is, and `leg` only beside which others it is drawn.

    `end` (node, WIRE): the node's port.
    """

    start: Stop
    end: Stop
    leg: Leg
    fine: bool = True
    of: Literal["way", "cable", "tunnel"] = "way"


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything. `client` "": nobody asks from outside. `more`: what there was no room for, one sentence each.

    `where`: the namespace and the hop (0: it is none) of each step of each way, as Row.steps counts them.
    """

    title: str
    client: str
    client_at: str
    verdict: str
    outcome: Outcome | Literal[""]
    columns: tuple[Column, ...]
    pieces: tuple[Piece, ...]
    more: tuple[str, ...]
    where: Mapping[tuple[int, int], tuple[Stop, int]]

    @property
    def boxes(self) -> Mapping[Stop, Box]:
        """All that are drawn."""
        return {stop: box for column in self.columns for stop, box in column.boxes.items()}


def box_of(site: Site, port: str, service: str = "") -> Box:
    """A namespace as it lies there, with no way through it; of its virtual addresses those are told for which there is room.

    `port`: the node's device on the underlay, which has a place of its own.
    """
    box = Box((site.node, site.namespace), site.kind, site.title)
    for device in site.devices:
        lines = [*device.addresses[:2]]
        lines += [f"VNI {device.vni}"] if device.vni else []
        lines += [f"VIP {device.vips[0]}" + (f" of {service}" if service else "")] if device.vips else []
        lines += [f"and {left} more VIP{'s' * (left > 1)}"] if (left := len(device.vips) - 1) > 0 else []
        through = device.kind in ("bridge", "vxlan")
        if site.kind != "host" or device.name not in (port, _DOCKER0):
            box.plugs.append(Plug(device.name, tuple(lines), through, device.kind == "vxlan", device.into))
    if site.kind == "sandbox":
        box.plugs.sort(key=lambda plug: plug.into != HOST)
    if site.note:
        box.notes.append(Row(site.note, style="note"))
    return box
