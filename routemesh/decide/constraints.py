"""Placement constraints in docker's syntax, and what keeps a node from getting a task. PURE.

Keys and values are compared without regard to case, but for the KEY of node.labels.KEY; a missing label is like an empty one.
Source: moby/swarmkit manager/constraint/constraint.go.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from routemesh.errors import UserError
from routemesh.model import Availability, Node, NodeState

_EXPRESSION = re.compile(r"\s*(?P<key>[^=!]*?)\s*(?P<operator>==|!=)\s*(?P<value>.*?)\s*")
_VALUE = re.compile(r"[A-Za-z0-9:\-_\s.*()?+\[\]\\^$|/]+")
_LABEL_PREFIX = "node.labels."
_LABEL_KEY = re.compile(r"[A-Za-z0-9_.\-/]+")
_ATTRIBUTES: dict[str, Callable[[Node], str]] = {
    "node.id": lambda node: node.id,
    "node.hostname": lambda node: node.name,
    "node.role": lambda node: node.role.value,
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """KEY==VALUE, or KEY!=VALUE when `negate`."""

    key: str
    value: str
    negate: bool

    def __str__(self) -> str:
        return f"{self.key}{'!=' if self.negate else '=='}{self.value}"

    def matches(self, node: Node) -> bool:
        """Whether the node is as the constraint wants it."""
        if attribute := _ATTRIBUTES.get(self.key):
            actual = attribute(node)
        else:
            actual = node.labels.get(self.key.removeprefix(_LABEL_PREFIX), "")
        return (actual.casefold() == self.value.casefold()) is not self.negate


@lru_cache(maxsize=1024)
def parse(text: str) -> Constraint:
    """Raises UserError with the allowed forms for anything else."""
    found = _EXPRESSION.fullmatch(text)
    if found is None:
        raise UserError(f"constraint {text!r} has no operator; write KEY==VALUE or KEY!=VALUE")
    key, value = _key(found["key"]), found["value"]
    if key is None:
        known = ", ".join([*_ATTRIBUTES, f"{_LABEL_PREFIX}KEY"])
        raise UserError(f"constraint {text!r} is about {found['key']!r}, which nodes don't have; use one of: {known}")
    if not _VALUE.fullmatch(value):
        raise UserError(f"constraint {text!r} compares with {value!r}, which is not a value; use letters, digits and . - _ : /")
    return Constraint(key, value, found["operator"] == "!=")


def _key(text: str) -> str | None:
    lowered = text.casefold()
    if lowered in _ATTRIBUTES:
        return lowered
    label = text[len(_LABEL_PREFIX) :]
    if lowered.startswith(_LABEL_PREFIX) and _LABEL_KEY.fullmatch(label):
        return _LABEL_PREFIX + label
    return None


def obstacle(node: Node, constraints: Sequence[Constraint]) -> str | Constraint:
    """What keeps a node from getting new tasks: a word, or the first constraint that it does not meet; "" when nothing does."""
    if node.state is NodeState.DOWN:
        return "down"
    if node.availability is not Availability.ACTIVE:
        return "drained" if node.availability is Availability.DRAIN else "paused"
    if node.error or not node.attachments:
        return "faulty"
    return next((constraint for constraint in constraints if not constraint.matches(node)), "")


def no_suitable_node(nodes: Iterable[Node], constraints: Sequence[Constraint]) -> str:
    """Why none of `nodes` gets a task, in docker's words."""
    counts = Counter(obstacle(node, constraints) for node in nodes)
    away = {what: number for what, number in counts.items() if isinstance(what, str)}
    reasons = []
    if away:
        kinds = ", ".join(f"{number} {what}" for what, number in sorted(away.items()))
        reasons.append(f"{_nodes(sum(away.values()))} not available: {kinds}")
    for constraint in constraints:
        if number := counts.pop(constraint, 0):
            reasons.append(f"constraint {constraint} not met on {_nodes(number)}")
    return f"no suitable node ({'; '.join(reasons) or 'the cluster has no nodes'})"


def _nodes(number: int) -> str:
    return "1 node" if number == 1 else f"{number} nodes"
