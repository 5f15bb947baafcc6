"""Values of nodeplan and snapshot as JSON has them, and back. PURE.

An object carries the name of its class as `item`, so that a union needs no more to be told apart; an address is its text, a
NamedTuple and a set a list. `restored(kind, plain(value))` is `value`, also with `compact`.
"""

import re
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from routemesh import nodeplan, snapshot
from routemesh.errors import RoutemeshError
from routemesh.nodeplan import Change, Create, Delete, Op, item_of
from routemesh.nodeplan.fields import of_others

T = TypeVar("T")
Read = Callable[[Any], Any]

_TEXTS = (IPv4Address, IPv4Interface, IPv4Network)
_DOTTED_QUAD = re.compile(r"\d+\.\d+\.\d+\.\d+")
_CLASSES: Mapping[str, type] = {
    name: found
    for module in (nodeplan, snapshot)
    for name, found in vars(module).items()
    if isinstance(found, type) and issubclass(found, msgspec.Struct)
}

_OBSERVED = frozenset(
    found for found in vars(snapshot).values() if isinstance(found, type) and found.__module__ == snapshot.__name__
)
"""Of these a field that is not known is passed over, as a newer daemon's; of a kernel's object it may decide about packets."""


def plain(value: object, *, compact: bool = False) -> Any:
    """The value as JSON has it. What no plan sets is left out where it is as in a plan; `compact`: all that has its default."""
    kind: Any = type(value)
    if kind in (str, int, bool, float, NoneType):
        return value
    if kind in _TEXTS:
        return str(value)
    if isinstance(value, msgspec.Struct):
        return {"item": kind.__name__} | {
            name: plain(content, compact=compact)
            for name, default, optional in _fields(kind)
            if (content := getattr(value, name)) != default or not (optional or compact)
        }
    if isinstance(value, Mapping):
        return {name: plain(content, compact=compact) for name, content in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple | list):
        return [plain(each, compact=compact) for each in value]
    return value.value if isinstance(value, Enum) else value


def restored(kind: type[T], raw: object) -> T:
    """The value of that class which `raw` spells. Raises RoutemeshError for what spells none."""
    try:
        found = _object(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RoutemeshError(f"the daemon's answer is not understood ({error}): are both of one version?") from error
    assert isinstance(found, kind)
    return found


def plain_op(op: Op) -> dict[str, Any]:
    """An operation: its kind, namespace and item; of a change `old`, which it finds."""
    old = plain(op.old) if isinstance(op, Change) else None
    return {"kind": type(op).__name__.lower(), "netns": op.netns, "item": plain(item_of(op)), "old": old}


def restored_op(raw: Mapping[str, Any]) -> Op:
    """The operation that `raw` spells. Raises RoutemeshError for what spells none."""
    item: Any = restored(object, raw["item"])
    match raw["kind"]:
        case "create":
            return Create(raw["netns"], item)
        case "delete":
            return Delete(raw["netns"], item)
        case "change":
            old: Any = restored(object, raw["old"])
            return Change(raw["netns"], old, item)
        case kind:
            raise RoutemeshError(f"the daemon's answer is not understood (operation {kind!r}): are both of one version?")


@cache
def _fields(kind: Any) -> tuple[tuple[str, object, bool], ...]:
    """Name, default (NODEFAULT: none) and whether only others set it, of each field of a noun."""
    theirs = of_others(kind)
    return tuple((field.name, _default(field), field.name in theirs) for field in msgspec.structs.fields(kind))


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


@cache
def _reader(hint: Any) -> Read:
    """What turns JSON into a value of a type hint."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint in _TEXTS or (isinstance(hint, type) and issubclass(hint, Enum)):
        return hint  # type: ignore[no-any-return]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _object
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        inner = tuple(_reader(part) for part in get_type_hints(hint).values())
        return lambda raw: hint(*(read(each) for read, each in zip(inner, raw, strict=True)))
    if origin is tuple:
        return _tuple(parts)
    if origin is frozenset:
        return frozenset
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        value = _reader(parts[1])
        return lambda raw: {name: value(content) for name, content in raw.items()}
    if origin in (Union, UnionType):
        return _union(parts)
    return _as_it_is


def _as_it_is(raw: Any) -> Any:
    return raw


def _object(raw: Any) -> Any:
    kind = _CLASSES[raw["item"]]
    readers = _field_readers(kind)
    skipped = {"item"} if kind not in _OBSERVED else {"item", *(raw.keys() - readers.keys())}
    return kind(**{name: readers[name](content) for name, content in raw.items() if name not in skipped})


@cache
def _field_readers(kind: type) -> Mapping[str, Read]:
    return {name: _reader(hint) for name, hint in get_type_hints(kind).items()}


def _tuple(parts: tuple[Any, ...]) -> Read:
    if parts[-1:] == (...,):
        each = _reader(parts[0])
        return lambda raw: tuple([each(one) for one in raw])
    inner = tuple(map(_reader, parts))
    return lambda raw: tuple([read(one) for read, one in zip(inner, raw, strict=True)])


def _union(parts: tuple[Any, ...]) -> Read:
    """Objects are told apart by their names, an address from other texts by its form, and there is but one kind of list."""
    text = next((part for part in parts if part in _TEXTS), None)
    mixed = any(part is str or get_origin(part) is Literal for part in parts)
    listed = next((part for part in parts if get_origin(part) is tuple), None)
    read_list = _as_it_is if listed is None else _reader(listed)

    def read(raw: Any) -> Any:
        if isinstance(raw, dict):
            return _object(raw)
        if isinstance(raw, list):
            return read_list(raw)
        if isinstance(raw, str) and text is not None and (not mixed or _DOTTED_QUAD.fullmatch(raw)):
            return text(raw)
        return raw

    return read
