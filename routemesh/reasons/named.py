"""A reason as JSON has it: the name of its kind, and its fields. PURE."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:  # a command that prints what a daemon named needs none of them
    from routemesh.reasons.causes import Reason
    from routemesh.reasons.ends import End
    from routemesh.reasons.events import Decided, Event
    from routemesh.reasons.unclear import Doubt


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: of a class of reasons. `fields`: numbers, texts, lists; of a reason within a reason again name and fields."""

    name: str
    fields: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.name)

    def is_a(self, *kinds: type) -> bool:
        """Whether it names one of these classes."""
        return any(self.name == kind.__name__ for kind in kinds)


def named(reason: "Reason | End | Event | Doubt | Decided") -> Named:
    """What JSON has of it."""
    return Named(name=type(reason).__name__, fields=_fields(reason))


def _fields(reason: Any) -> Mapping[str, Any]:
    return {each: _plain(getattr(reason, each)) for each in reason.__struct_fields__}


_OF_ONE = frozenset({"mac", "process", "rule", "service", "task", "tasks"})
"""Texts that tell one thing from others of its kind, as numbers and addresses do."""


def kind_of(reason: object) -> object:
    """Equal for reasons that differ in numbers, addresses and names of tasks alone: not in links, chains, tables."""
    if isinstance(reason, msgspec.Struct):
        kept = (getattr(reason, each) for each in reason.__struct_fields__ if each not in _OF_ONE)
        return (type(reason).__name__, *map(kind_of, kept))
    return reason if isinstance(reason, str) else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, msgspec.Struct):
        return {"name": type(value).__name__, "fields": _fields(value)}
    if type(value) is tuple:
        return [_plain(each) for each in value]
    return str(value)
