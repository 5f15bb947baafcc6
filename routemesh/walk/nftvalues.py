"""How nft compares what it has read of a packet: with constants, with sets in the rule and with named ones. PURE.

Each answers yes, no, or None: that can't be told. Source: libnftables-json(5), nft(8); the kernel's nft_lookup.c.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from routemesh.language.values import PROTOCOLS
from routemesh.nodeplan import Map
from routemesh.walk.flight import Flight
from routemesh.walk.nftreads import Absent, Json, Masked, Unseen, flags

OF_ELEMENTS = frozenset({"comment", "counter", "expires", "last", "timeout"})
"""What an element can have and still hold for every packet."""


def compare(flight: Flight, value: Any, operator: str, right: Json) -> bool | None:
    """`VALUE OPERATOR RIGHT`."""
    try:
        if operator in ("==", "in", "!="):
            held = among(flight, value, right)
            return False if value is Absent else None if held is None else held is not (operator == "!=")
        if value in (Unseen, Absent):
            return None if value is Unseen else False
        other = _typed(value, right)
        return bool({"<": value < other, ">": value > other, "<=": value <= other, ">=": value >= other}[operator])
    except (ValueError, TypeError, KeyError):
        return None


def among(flight: Flight, value: Any, right: Json) -> bool | None:
    """Whether a value is, or is among, what it is compared with. Raises ValueError or TypeError for what is of another type."""
    if value is Unseen:
        return None
    if value is Absent:
        return False
    match right:
        case {"set": [*members]}:
            return _any(among(flight, value, each) for each in members)
        case {"elem": {"val": inner, **rest}}:
            found = among(flight, value, inner)
            return found if rest.keys() <= OF_ELEMENTS or not found else None
        case {"concat": [*parts]} if isinstance(value, tuple):
            every = [among(flight, one, part) for one, part in zip(value, parts, strict=True)]
            return False if False in every else None if None in every else True
        case {"range": [low, high]}:
            ends = (_typed(value, low), _typed(value, high))
            return bool(ends[0] <= value <= ends[1])
        case {"prefix": {"addr": address, "len": length}} if isinstance(value, IPv4Address):
            return value in IPv4Network(f"{address}/{length}", strict=False)
        case str() if right.startswith("@"):
            return holds(flight, right[1:], value if isinstance(value, tuple) else (value,))
        case list() | {"|": list()} if isinstance(value, frozenset | set):
            return set(value) == set(flags(right)) if isinstance(value, Masked) else not value.isdisjoint(flags(right))
        case str() | int():
            return _same(value, right)
        case _:
            return None


def _any(found: Iterable[bool | None]) -> bool | None:
    every = set(found)
    return True if True in every else None if None in every else False


def _same(value: Any, right: str | int) -> bool | None:
    if isinstance(value, Masked):
        return set(value) == ({right} if isinstance(right, str) else set())
    if isinstance(value, frozenset | set):
        return right in value
    if isinstance(value, str) and isinstance(right, str) and right.endswith("*"):
        return value.startswith(right[:-1])
    return bool(value == _typed(value, right))


def _typed(value: Any, right: Json) -> Any:
    """The constant as the value's type has it."""
    if isinstance(value, IPv4Address):
        return IPv4Address(right)
    if isinstance(value, int):
        return int(right, 0) if isinstance(right, str) else int(right)
    return PROTOCOLS.get(right, str(right)) if isinstance(right, int) else right


# --- named sets and maps -----------------------------------------------------------------------------------------


def holds(flight: Flight, name: str, values: tuple[Any, ...]) -> bool | None:
    """Whether a named set or map of the rule's table has an entry for these values of a packet."""
    place, space = flight.stack.place, flight.space
    values = tuple(frozenset(value) if isinstance(value, set) else value for value in values)
    found = flight.stack.maps.get((space, name))
    if found is None or Unseen in values:
        return None
    if Absent in values:
        return False
    if (place, space, name, values) in flight.trip.learned:
        return True
    held: bool | None = (space, name, values) in flight.stack.elements
    if found.listed:
        held = _any(is_member(flight, values, found, each) for each in members(found.listed))
    return None if held is False and (place, space, name) in flight.trip.learned else held


@lru_cache(maxsize=1 << 8)
def members(listed: str) -> tuple[Json, ...]:
    """What a map or set holds (nodeplan.Map.listed)."""
    return tuple(json.loads(listed))


def is_member(flight: Flight, values: tuple[Any, ...], of: Map, member: Json) -> bool | None:
    """Whether it is the one for these values of a packet."""
    key = member if of.value is None or not isinstance(member, list) else member[0]
    try:
        return among(flight, values if len(values) > 1 else values[0], key)
    except (ValueError, TypeError):
        return None
