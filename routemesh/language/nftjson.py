"""libnftables' JSON as our typed items. PURE.

Everything in a table is read and nothing is passed over: what has no place in our vocabulary becomes `Unknown`, so that
it differs from anything planned. Rules come out in the canonical form (`routemesh.language.canonical`).

What versions differ in (1.0.6 and 1.1.3 were tried): a map declared by typeof has the names of its types or {"typeof":
expressions}; a masked mark is a prefix or an `&`; flags are a list or {"|": …}; lists of one may be bare; an element with a
comment or a counter is wrapped. 1.0.6 names no device of a netdev chain, so devices are given separately; it drops a map's flag
`dynamic`, and puts a statement that adds to a map into its JSON as nft's text.

Source: libnftables-json(5); nftables src/json.c.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from ipaddress import IPv4Address
from typing import Any, cast, get_args

from routemesh import names
from routemesh.language.canonical import canonical, l4proto
from routemesh.language.nftdevices import named
from routemesh.language.values import MAX_U32, match_value, protocol
from routemesh.nodeplan import (
    OUR_FAMILIES,
    Assign,
    Chain,
    ClampMss,
    Counter,
    CtTimeouts,
    Dnat,
    Element,
    Family,
    Field,
    Hook,
    Index,
    InSet,
    Item,
    Jhash,
    Key,
    KeyType,
    Learn,
    Lookup,
    Map,
    MarkMatch,
    Masquerade,
    Match,
    Numgen,
    Redirect,
    Reject,
    RejectWith,
    Rule,
    Scalar,
    SetTimeouts,
    Snat,
    Statement,
    Table,
    Unknown,
    Verdict,
    VerdictLookup,
)

Json = Any
"""What json.loads gives."""

Devices = Mapping[tuple[str, str], str]
"""(table, chain) of a netdev chain → the device that it is hooked to."""

_FIELDS = get_args(Field)
_VERDICTS = ("accept", "drop", "return", "jump", "goto")
_NAT = ("dnat", "snat", "redirect", "masquerade")
_L4_WITH_PORTS = ("tcp", "udp", "sctp")
_FLAG_FIELDS = ("ct state", "ct status", "tcp flags")

_TYPES: Mapping[str, str] = {
    "inet_proto": "proto",
    "inet_service": "port",
    "mark": "mark",
    "integer": "index",
    "ether_addr": "mac",
    "ipv4_addr": "ip",
    "ifname": "link",
    "verdict": "verdict",
    "meta l4proto": "proto",
    "th sport": "port",
    "th dport": "port",
    "meta mark": "mark",
    "ct mark": "mark",
    "ether saddr": "mac",
    "ether daddr": "mac",
    "ip saddr": "ip",
    "ip daddr": "ip",
    "iifname": "link",
}
"""Parts of keys and values by nft's type, and by the expression that a typeof was declared with."""
_HARMLESS = frozenset({"counter", "last"})
_UNTOLD = {"untold": None}
"""An element of which nobody can say whether it holds."""
_KINDS = ("table", "ct timeout", "map", "set", "chain", "rule")
_OTHER_FLAGS = frozenset({"owner", "persist"})
"""Besides dormant, for which nft 1.0.6 prints rubbish."""
_OF_DEVICES = ("netdev", "inet")
"""Families whose chains can belong to a device; of inet the ingress hook's."""
_OUR_TYPES = frozenset((*_TYPES.values(), "zone", None))

_LEARNING = ({"timeout"}, {"timeout", "dynamic"})
_LEARN = re.compile(r"update @(\S+) \{ (.+) timeout (?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)? : (.+) \}")

_SCALARS: Mapping[str, Callable[[Json], Scalar]] = {
    "proto": protocol,
    "port": int,
    "mark": int,
    "index": int,
    "zone": int,
    "mac": str,
    "ip": IPv4Address,
    "link": str,
}


class _NotOurs(Exception):
    """A part of the JSON that has no place in our vocabulary."""


def parse(document: Json, devices: Devices) -> tuple[Item, ...]:
    """The items in answers to `list table …`; tables of other names or families are left out.

    A table that has flags (dormant: no packet meets it) is left out too, but not its contents: creating it anew wakes it. So is
    what packets have added to maps.
    """
    ours = [(kind, content) for kind, content in _entries(document) if _is_ours(kind, content)]
    items = list(_items(ours, devices))
    learning = {(item.family, item.name) for item in items if isinstance(item, Map) and item.learns}
    return tuple(item for item in items if not _is_left_out(item, learning))


def parse_everything(
    document: Json,
    devices: Devices,
    left_out: Set[tuple[str, str]] = frozenset(),
    links: Mapping[str, str] | None = None,
) -> tuple[Item, ...]:
    """The items in an answer to `list ruleset`, whatever made them; but for tables, by family and name, that are told elsewhere.

    Maps and sets whose type is not ours have what they hold in themselves; a chain of several devices names them all.
    `links`: by number, where nft was asked from another namespace than theirs, and has numbers for `iif` and `oif`.
    """
    kept = ((kind, content) for kind, content in _entries(document) if (content["family"], _table(kind, content)) not in left_out)
    return tuple(_items(((kind, named(entry, links) if links else entry) for kind, entry in kept), devices))


def _is_left_out(item: Item, learning: Set[tuple[Family, str]]) -> bool:
    if isinstance(item, Table):
        return item.dormant
    return isinstance(item, Element) and (item.family, item.map) in learning


def _entries(document: Json) -> Iterator[tuple[str, Json]]:
    return ((kind, content) for entry in document["nftables"] for kind, content in entry.items() if kind in _KINDS)


def _table(kind: str, content: Json) -> str | None:
    return cast(str | None, content.get("name" if kind == "table" else "table"))


def _is_ours(kind: str, content: Json) -> bool:
    return _table(kind, content) == names.TABLE and content.get("family") in OUR_FAMILIES


def _items(entries: Iterable[tuple[str, Json]], devices: Devices) -> Iterator[Item]:
    rules: dict[tuple[str, str, str], list[tuple[Rule, int]]] = {}
    chains: list[Json] = []
    for kind, entry in entries:
        match kind:
            case "table":
                yield Table(entry["family"], entry["name"], not _OTHER_FLAGS.issuperset(_texts(entry.get("flags", ()))))
            case "ct timeout":
                yield _timeouts(entry)
            case "map" | "set":
                yield from _map_with_elements(entry)
            case "chain":
                chains.append(entry)
            case "rule":
                place = entry["family"], entry["table"], entry["chain"]
                rules.setdefault(place, []).append((rule(entry.get("expr", ())), entry.get("handle", 0)))
            case _:
                raise AssertionError(f"{kind} is not one of {_KINDS}")
    for chain in chains:
        yield _chain(chain, rules.get((chain["family"], chain["table"], chain["name"]), []), devices)


def _timeouts(entry: Json) -> CtTimeouts:
    seconds = tuple(sorted((state, int(time)) for state, time in entry.get("policy", {}).items()))
    return CtTimeouts(entry["family"], entry["name"], entry["protocol"], seconds, entry["table"])


def _texts(raw: Json) -> list[str]:
    return [raw] if isinstance(raw, str) else list(raw)


# --- chains ------------------------------------------------------------------------------------------------------


def _chain(entry: Json, rules: list[tuple[Rule, int]], devices: Devices) -> Chain:
    family, name, table = entry["family"], entry["name"], entry["table"]
    hook = None
    if "hook" in entry:
        device = devices.get((table, name)) if family in _OF_DEVICES else None
        hook = Hook(entry["type"], entry["hook"], entry["prio"], device)
    handles = () if table == names.TABLE else tuple(handle for _, handle in rules)
    return Chain(family, name, hook, tuple(each for each, _ in rules), entry.get("policy", "accept"), table, handles)


# --- maps --------------------------------------------------------------------------------------------------------


def _map_with_elements(entry: Json) -> Iterator[Item]:
    """The map and its elements; those of a map whose type is not ours are a part of it."""
    family, name, table = entry["family"], entry["name"], entry["table"]
    key = _types(entry["type"])
    value = _value_type(entry["map"]) if "map" in entry else None
    flags = _texts(entry.get("flags", ()))
    learns = entry.get("size", 0) if set(flags) in _LEARNING else 0
    if flags and not learns:
        key = (*key, json.dumps(flags))
    if {*key, value} <= _OUR_TYPES and not _counts(entry):
        yield Map(family, name, cast(KeyType, key), cast(Any, value), table, learns)
        yield from (_element(family, name, key, value, element, table) for element in entry.get("elem", ()))
    else:
        members = [_UNTOLD] if _counts(entry) else entry.get("elem", [])
        yield Map(family, name, cast(KeyType, key), cast(Any, value), table, learns, json.dumps(members))


def _counts(entry: Json) -> bool:
    """Whether its elements hold for some packets only: each has a rate or a number."""
    return any(kind not in _HARMLESS for statement in entry.get("stmt", ()) for kind in statement)


def _value_type(declared: Json) -> str:
    """A number without a type is an index in a key, but a zone in a value: nothing else of ours has one there."""
    found = ".".join(_types(declared))
    return "zone" if found == "index" else found


def _types(declared: Json) -> tuple[str, ...]:
    """Each part by our name for it, or by nft's where we have none."""
    match declared:
        case {"typeof": expression}:
            return tuple(_typeof(part) for part in _parts(expression))
        case str():
            return (_TYPES.get(declared, declared),)
        case _:
            return tuple(_TYPES.get(part, part) for part in declared)


def _typeof(expression: Json) -> str:
    if expression == {"ct": {"key": "zone"}}:
        return "zone"
    try:
        part = _expression(expression)
    except _NotOurs:
        return json.dumps(expression)
    return "index" if isinstance(part, Index) else _TYPES.get(part, part)


def _element(family: Family, name: str, key: tuple[str, ...], value: str | None, entry: Json, table: str) -> Element:
    raw_key, raw_value = (entry, None) if value is None else entry
    if isinstance(raw_key, dict) and "elem" in raw_key:
        raw_key = raw_key["elem"]["val"]
    parts = tuple(_SCALARS[kind](part) for kind, part in zip(key, _parts(raw_key), strict=True))
    return Element(family, name, parts, None if value is None else value_of(value, raw_value), table)


def value_of(kind: str, raw: Json) -> Scalar | Verdict:
    """A map's value of one of our types. Raises KeyError for another, ValueError for what is none."""
    try:
        return _verdict(raw) if kind == "verdict" else _SCALARS[kind](raw)
    except _NotOurs:
        raise ValueError(raw) from None


def _verdict(raw: Json) -> Verdict:
    """Also a verdict that rules of ours can't have (continue), as it is."""
    ((kind, content),) = raw.items()
    match content:
        case None:
            return Verdict(kind)
        case {"target": str(chain)}:
            return Verdict(kind, chain)
        case _:
            raise _NotOurs


# --- rules -------------------------------------------------------------------------------------------------------


def rule(expressions: Iterable[Json]) -> Rule:
    """One rule in the canonical form.

    nft lists `meta l4proto tcp th dport 80` as `tcp dport 80`, and `meta l4proto tcp reject with tcp reset` without the match.
    """
    raw = list(expressions)
    found: list[Statement] = []
    for place, entry in enumerate(raw):
        if _is_tcp_or_udp(entry) and place + 1 < len(raw) and _is_redirect(raw[place + 1]):
            continue  # render puts it there, because nft wants it
        implied = _implied_l4proto(entry)
        if implied is not None and not any(l4proto(other) for other in found):
            found.append(Match("meta l4proto", implied))
        found.append(_statement(entry))
    return canonical(tuple(found))


def _is_redirect(entry: Json) -> bool:
    return isinstance(entry, dict) and "redirect" in entry


def _is_tcp_or_udp(entry: Json) -> bool:
    match entry:
        case {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": {"set": [one, other]}}}:
            return {str(one), str(other)} in ({"6", "17"}, {"tcp", "udp"})
        case _:
            return False


def _implied_l4proto(raw: Json) -> str | None:
    """The protocol that nft lists in the name of a header field, or not at all before a reset, instead of the match."""
    match raw:
        case {"reject": {"type": "tcp reset"}}:
            return "tcp"
        case {"payload": {"protocol": name, "field": "sport" | "dport"}} if name in _L4_WITH_PORTS:
            return cast(str, name)
        case dict():
            return next(filter(None, map(_implied_l4proto, raw.values())), None)
        case list():
            return next(filter(None, map(_implied_l4proto, raw)), None)
        case _:
            return None


def _statement(raw: Json) -> Statement:
    try:
        return _known_statement(raw)
    except (_NotOurs, ValueError):
        return _unknown(raw)


def _unknown(raw: Json) -> Unknown:
    return Unknown(json.dumps(raw, sort_keys=True))


def _known_statement(raw: Json) -> Statement:
    if isinstance(raw, str):
        return _learn_text(raw)
    if len(raw) != 1:
        raise _NotOurs
    ((kind, content),) = raw.items()
    if kind in _VERDICTS:
        return _verdict(raw)
    if kind in _NAT:
        return _translation(kind, content)
    match kind, content:
        case "match", {"op": op, "left": left, "right": right}:
            return _match(op, left, right)
        case "mangle", {"key": target, "value": value}:
            return _mangle(target, value)
        case "vmap", {"key": key, "data": str(data)}:
            return VerdictLookup(_key(key), _set_name(data))
        case "map", {
            "op": "update",
            "elem": {"elem": {"val": key, "timeout": int(timeout_s), **rest}},
            "data": value,
            "map": str(name),
        }:
            if rest:
                raise _NotOurs
            return Learn(map=_set_name(name), key=_key(key), value=_field(value), timeout_s=timeout_s)
        case _:
            return _counter_or_reject(kind, content)


def _learn_text(text: str) -> Learn:
    found = _LEARN.fullmatch(text)
    if found is None:
        raise _NotOurs
    name, key, *times, value = found.groups()
    parts = (*key.split(" . "), value)
    if not set(parts) <= set(_FIELDS):
        raise _NotOurs
    days, hours, minutes, seconds = (int(time or 0) for time in times)
    timeout_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return Learn(map=name, key=cast(Key, parts[:-1]), value=cast(Field, value), timeout_s=timeout_s)


def _counter_or_reject(kind: str, content: Json) -> Statement:
    match kind, content:
        case "counter", None | {"packets": _, "bytes": _}:
            return Counter()
        case "ct timeout", str(name):
            return SetTimeouts(name)
        case "reject", {"type": "tcp reset"}:
            return Reject("tcp reset")
        case "reject", None:
            return Reject("icmp port-unreachable")
        case "reject", {"type": "icmp" | "icmpx", "expr": str(why)}:
            return Reject(_rejection(why))
        case _:
            raise _NotOurs


def _rejection(why: str) -> RejectWith:
    """By its name in ICMP; one that nft chooses for either family has no-route for net-unreachable."""
    named = f"icmp {'net-unreachable' if why == 'no-route' else why}"
    if named not in get_args(RejectWith):
        raise _NotOurs
    return cast(RejectWith, named)


def _translation(kind: str, content: Json) -> Statement:
    if not isinstance(content, dict | None):
        raise _NotOurs
    options = {name: value for name, value in (content or {}).items() if (name, value) != ("family", "ip")}
    match kind, options:
        case "masquerade", {**rest} if not rest:
            return Masquerade()
        case "dnat", {"addr": {"map": lookup}, **rest} if not rest:
            return Dnat(_lookup(lookup))
        case "dnat", {"addr": str(address), **rest} if not rest:
            return Dnat(IPv4Address(address))
        case "snat", {"addr": str(address), **rest} if not rest:
            return Snat(IPv4Address(address))
        case "redirect", {"port": {"map": lookup}, **rest} if not rest:
            return Redirect(_lookup(lookup))
        case _:
            raise _NotOurs


def _mangle(target: Json, value: Json) -> Statement:
    if target == {"tcp option": {"name": "maxseg", "field": "size"}} and isinstance(value, int):
        return ClampMss(value)
    field = _field(target)
    if field not in ("meta mark", "ct mark", "ct original zone", "ether daddr"):
        raise _NotOurs
    match value:
        case int():
            return Assign(field, value)
        case {"map": lookup}:
            return Assign(field, _lookup(lookup))
        case dict():
            return Assign(field, _field(value))
        case _:
            raise _NotOurs


# --- comparisons -------------------------------------------------------------------------------------------------


def _match(op: str, left: Json, right: Json) -> Statement:
    match left, right:
        case _, str(name) if name.startswith("@") and op == "==":
            return InSet(_key(left), _set_name(name))
        case {"&": [masked, mask]}, _:
            return _masked(op, _field(masked), mask, right)
        case _:
            pass
    field = _field(left)
    match right:
        case {"prefix": {"addr": int(value), "len": int(length)}} if field in ("meta mark", "ct mark") and op == "==":
            return MarkMatch(field, value, MAX_U32 & ~(MAX_U32 >> length))
        case int(value) if field in ("meta mark", "ct mark") and op == "==":
            return MarkMatch(field, value, MAX_U32)
    positive = "in" if field in _FLAG_FIELDS else "=="
    if op not in (positive, "!="):
        raise _NotOurs
    return Match(field, match_value(field, _value(right)), op == "!=")


def _masked(op: str, field: Field, mask: Json, right: Json) -> Statement:
    match field, mask, right:
        case "meta mark" | "ct mark", int(), int() if op == "==":
            return MarkMatch(field, right, mask)
        case "tcp flags", _, _ if op == "==":
            return Match(field, match_value(field, f"{_value(right)} / {_value(mask)}"))
        case _:
            raise _NotOurs


def _value(raw: Json) -> str:
    """A constant as nft's text output has it."""
    match raw:
        case str() | int():
            return str(raw)
        case {"prefix": {"addr": str(address), "len": int(length)}}:
            return f"{address}/{length}"
        case list() | {"|": list()}:
            return ",".join(_value(part) for part in (raw if isinstance(raw, list) else raw["|"]))
        case _:
            raise _NotOurs


# --- expressions -------------------------------------------------------------------------------------------------


def _lookup(raw: Json) -> Lookup:
    match raw:
        case {"key": key, "data": str(data)}:
            return Lookup(_key(key), _set_name(data))
        case _:
            raise _NotOurs


def _set_name(reference: str) -> str:
    if not reference.startswith("@"):
        raise _NotOurs
    return reference[1:]


def _key(raw: Json) -> Key:
    return tuple(_expression(part) for part in _parts(raw))


def _parts(raw: Json) -> list[Json]:
    match raw:
        case {"concat": [*parts]}:
            return parts
        case _:
            return [raw]


def _expression(raw: Json) -> Field | Index:
    match raw:
        case {"numgen": {"mode": "inc" | "random" as mode, "mod": int(modulus), **rest}} if not rest.get("offset"):
            return Numgen(modulus, cast(Any, mode))
        case {"jhash": {"expr": expression, "mod": int(modulus), "seed": int(seed), **rest}} if not rest.get("offset"):
            return Jhash(field=_field(expression), modulus=modulus, seed=seed)
        case _:
            return _field(raw)


def field_of(raw: Json) -> Field | None:
    """Which of our fields an expression reads; None for another."""
    try:
        return _field(raw)
    except _NotOurs:
        return None


def _field(raw: Json) -> Field:
    match raw:
        case {"meta": {"key": key}}:
            name = key if key in ("iifname", "oifname") else f"meta {key}"
        case {"ct": {"key": key, **rest}} if not rest:
            name = f"ct {key}"
        case {"ct": {"key": key, "dir": direction}}:
            name = f"ct {direction} {key}"
        case {"fib": {"result": "type", "flags": [flag] | str(flag)}}:
            name = f"fib {flag} type"
        case {"payload": {"protocol": header, "field": field}}:
            ports = header in _L4_WITH_PORTS and field in ("sport", "dport")
            name = f"th {field}" if ports else f"{header} {field}"
        case _:
            raise _NotOurs
    if name not in _FIELDS:
        raise _NotOurs
    return cast(Field, name)
