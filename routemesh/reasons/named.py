"""A reason as JSON has it: the name of its kind, and its fields. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from routemesh.reasons.causes import Reason
from routemesh.reasons.ends import End
from routemesh.reasons.events import Decided, Event
from routemesh.reasons.unclear import Doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """`name`: of a class of reasons. `fields`: numbers, texts, lists; of a reason within a reason again name and fields."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.name)

    def is_a(self, *kinds: type) -> bool:
        """Whether it names one of these classes."""
        return any(self.name == kind.__name__ for kind in kinds)


def named(reason: Reason | End | Event | Doubt | Decided) -> Named:
    """What JSON has of it."""
    return Named(name=type(reason).__name__, fields=_fields(reason))


def _fields(reason: Any) -> Mapping[str, Any]:
    return {each.name: _plain(getattr(reason, each.name)) for each in fields(reason)}


_OF_ONE = frozenset({"mac", "process", "rule", "service", "task", "tasks"})
"""Texts that tell one thing from others of its kind, as numbers and addresses do."""


def kind_of(reason: object) -> object:
    """Equal for reasons that differ in numbers, addresses and names of tasks alone: not in links, chains, tables."""
    if is_dataclass(reason):
        kept = (getattr(reason, each.name) for each in fields(reason) if each.name not in _OF_ONE)
        return (type(reason).__name__, *map(kind_of, kept))
    return reason if isinstance(reason, str) else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {"name": type(value).__name__, "fields": _fields(value)}
    if type(value) is tuple:
        return [_plain(each) for each in value]
    return str(value)
