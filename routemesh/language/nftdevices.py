"""Devices that nft tells by their numbers: it was asked from another namespace than theirs. PURE.

Source: nftables src/meta.c (ifindex_type_print), which asks if_indextoname(3) of its own process's namespace.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Json = Any


def named(raw: Json, links: Mapping[str, str]) -> Json:
    """The same JSON with the names of devices where nft has their numbers: what `iif` and `oif` are compared with."""
    match raw:
        case {"left": left, "right": right}:
            return {**raw, "right": _named(right, _numbered(_parts(left)), links)}
        case {"key": key, "data": {"set": [*entries]}}:
            return {**raw, "data": {"set": [[_named(of, _numbered(_parts(key)), links), value] for of, value in entries]}}
        case {"type": kind, "elem": [*members]}:
            return {
                **raw,
                "elem": [_named(member, _numbered([kind] if isinstance(kind, str) else kind), links) for member in members],
            }
        case dict():
            return {name: named(value, links) for name, value in raw.items()}
        case list():
            return [named(value, links) for value in raw]
        case _:
            return raw


def _numbered(parts: Iterable[Json]) -> tuple[bool, ...]:
    """Which parts of a key or value are a device that goes by its number."""
    return tuple(part in ("iface_index", {"meta": {"key": "iif"}}, {"meta": {"key": "oif"}}) for part in parts)


def _named(raw: Json, numbered: tuple[bool, ...], links: Mapping[str, str]) -> Json:
    """A constant, a set of such, or a map's entry, whose key comes first."""
    match raw:
        case {"set": [*members]}:
            return {"set": [_named(member, numbered, links) for member in members]}
        case {"elem": {"val": value, **rest}}:
            return {"elem": {**rest, "val": _named(value, numbered, links)}}
        case {"concat": [*parts]} if len(parts) == len(numbered):
            return {"concat": [_named(part, (each,), links) for part, each in zip(parts, numbered, strict=True)]}
        case [key, value]:
            return [_named(key, numbered, links), value]
        case int() | str():
            return links.get(str(raw), raw) if numbered == (True,) else raw
        case _:
            return raw


def _parts(raw: Json) -> list[Json]:
    match raw:
        case {"concat": [*parts]}:
            return parts
        case _:
            return [raw]
