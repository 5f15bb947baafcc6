"""What only a node itself can tell of its health, besides what is in its kernel: plain values, which travel as JSON. PURE."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from routemesh.codec.plain import plain_op, restored_op
from routemesh.doctor.told import told
from routemesh.explain.mend import Repair, Repairs
from routemesh.language import command
from routemesh.language.commands import PathOf
from routemesh.nodeplan import Op
from routemesh.sightings import Disk, Echoes, Offload, PortAnswer


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as a node's plan wants it: in which namespace, what, and the command that mends it ("" for none).

    `op`: what mends it as codec.plain_op has it; None where it can't be walked with that.
    """

    netns: str
    what: str
    command: str = ""
    op: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node says of itself. `pid`: its daemon's. `clock`: seconds since the epoch. `failures`: what its kernel refuses.

    `asked`: it has asked its tasks (False of a daemon that does not know how, or was not told to), which gave these `answers`.
    """

    node: str
    pid: int = 0
    clock: float = 0.0
    differences: tuple[Difference, ...] = ()
    probes: tuple[Echoes, ...] = ()
    offloads: tuple[Offload, ...] = ()
    failures: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    asked: bool = False
    answers: tuple[PortAnswer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that is judged besides the snapshot. `nodes` by name; those that said nothing are left out.

    `skews`: by how many seconds a node's clock is ahead of that of the node which asked. `errors`: what the manager could not do.
    `repairing`: there are daemons that carry the plans out. `asking`: they were told to ask their tasks.
    """

    nodes: Mapping[str, NodeFacts] = field(default_factory=dict)
    skews: Mapping[str, float] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    repairing: bool = True
    asking: bool = False

    def differences(self, node: str) -> Sequence[Difference]:
        """What of a node is not as planned."""
        found = self.nodes.get(node)
        return () if found is None else found.differences

    def repairs(self) -> Repairs:
        """The commands that mend that, by node; nothing for nodes that said nothing."""
        return {
            name: [
                Repair(each.netns, each.command, None if each.op is None else restored_op(each.op))
                for each in node.differences
                if each.command
            ]
            for name, node in self.nodes.items()
        }


def differences(ops: Iterable[Op], path_of: PathOf) -> tuple[Difference, ...]:
    """What a node would change, told as what is wrong now."""
    return tuple(Difference(op.netns, told(op), command(op, path_of), plain_op(op)) for op in ops)


def skew_s(clock: float, asked: float, answered: float) -> float:
    """By how much a clock is certainly ahead (below 0: behind) that was read between two times of one's own; 0 within them."""
    return clock - min(max(clock, asked), answered)
