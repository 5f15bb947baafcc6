"""What nft's expressions and statements of others mean for a packet, beyond what our own rules have. PURE.

`EXPRESSIONS` and `STATEMENTS` are the vocabulary that docs/vocabulary.md lists. Source: libnftables-json(5), nft(8).
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from routemesh.language.nftjson import field_of
from routemesh.language.values import MAX_U32, PROTOCOLS
from routemesh.model import Protocol
from routemesh.nodeplan import Dnat, Masquerade, Redirect, Snat, Verdict
from routemesh.walk.fields import FIELDS
from routemesh.walk.flight import Flight
from routemesh.walk.words import Condition, Does, Nothing, SetMark, Untrack, Word

Json = Any


class _Absent:
    """The packet has no such thing: no comparison with it holds."""


class _Unseen:
    """It can't be told."""


Read = Callable[[Flight], Any]
_VERDICTS = ("accept", "drop", "return", "jump", "goto")
_OTHER_HEADERS = frozenset(
    {
        "ip6", "icmp", "icmpv6", "igmp", "esp", "ah", "comp", "dccp", "udplite", "sctp", "vlan", "arp", "frag", "hbh", "rt", "mh",
        "dst",
    }
)  # fmt: skip
"""Which no packet of TCP or UDP over IPv4 has."""


@lru_cache(maxsize=1 << 12)
def word(text: str) -> Word | None:
    """What a statement in nft's JSON means; None for what is not understood at all."""
    raw = json.loads(text)
    if not isinstance(raw, dict) or len(raw) != 1:
        return None
    ((kind, content),) = raw.items()
    try:
        return STATEMENTS[kind](content)
    except (KeyError, ValueError, TypeError, AttributeError):
        return Condition(lambda _: None) if is_match(text) else None


def is_match(text: str) -> bool:
    """Whether it can do no more than end its rule: nftables' conditions have no effects."""
    return text.startswith(('{"match":', '{"limit":', '{"quota":', '{"ct count":', '{"connlimit":'))


# --- expressions --------------------------------------------------------------------------------------------------


def _read(raw: Json) -> Read:
    """How an expression is read of a packet."""
    match raw:
        case {"meta": {"key": "iif"}}:
            return lambda flight: flight.incoming
        case {"meta": {"key": "oif"}}:
            return lambda flight: flight.outgoing
        case {"meta": {"key": "nfproto"}}:
            return lambda _: "ipv4"
        case {"meta": {"key": "protocol"}} | {"payload": {"protocol": "ether", "field": "type"}}:
            return lambda flight: "arp" if flight.packet.arp else "ip"
        case {"payload": {"protocol": "ip", "field": "protocol"}}:
            return FIELDS["meta l4proto"].read
        case {"numgen": {"mode": "inc" | "random", "mod": int(modulus), **rest}}:
            offset = int(str(rest.get("offset", 0)))
            return lambda flight: flight.trip.choose((1,) * modulus) + offset
        case {"&": [inner, int(other)]} | {"|": [inner, int(other)]} | {"^": [inner, int(other)]}:
            return _binary(next(iter(raw)), _read(inner), other)
        case {"concat": [*parts]}:
            reads = [_read(part) for part in parts]
            return lambda flight: tuple(read(flight) for read in reads)
        case {"payload": {"protocol": header}} if header in _OTHER_HEADERS:
            return lambda flight: _Unseen if flight.packet.error else _Absent
    field = field_of(raw)
    if field is None:
        return lambda _: _Unseen
    of_protocol = _needs(raw)

    def read(flight: Flight) -> Any:
        if of_protocol is not None and flight.packet.protocol is not of_protocol:
            return _Absent
        found = FIELDS[field].read(flight)
        return _Absent if found is None else found

    return read


def _needs(raw: Json) -> Protocol | None:
    match raw:
        case {"payload": {"protocol": "tcp"}}:
            return Protocol.TCP
        case {"payload": {"protocol": "udp"}}:
            return Protocol.UDP
        case _:
            return None


def _binary(operator: str, read: Read, other: int) -> Read:
    def value(flight: Flight) -> Any:
        found = read(flight)
        if not isinstance(found, int):
            return found
        return {"&": found & other, "|": found | other, "^": found ^ other}[operator]

    return value


def _is(value: Any, right: Json) -> bool | None:
    """Whether a value is, or is among, what it is compared with."""
    if value is _Unseen:
        return None
    if value is _Absent:
        return False
    match right:
        case {"set": [*members]}:
            found = [_is(value, each) for each in members]
            return True if True in found else None if None in found else False
        case {"elem": {"val": inner}}:
            return _is(value, inner)
        case {"concat": [*parts]} if isinstance(value, tuple):
            found = [_is(one, part) for one, part in zip(value, parts, strict=True)]
            return False if False in found else None if None in found else True
        case {"range": [low, high]}:
            ends = (_typed(value, low), _typed(value, high))
            return bool(ends[0] <= value <= ends[1])
        case {"prefix": {"addr": address, "len": length}} if isinstance(value, IPv4Address):
            return value in IPv4Network(f"{address}/{length}", strict=False)
        case str() if right.startswith("@"):
            return None
        case list() | {"|": list()}:
            flags = right if isinstance(right, list) else right["|"]
            return not value.isdisjoint(flags) if isinstance(value, frozenset | set) else None
        case str() | int():
            return _same(value, right)
        case _:
            return None


def _same(value: Any, right: str | int) -> bool | None:
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


EXPRESSIONS = ("iif", "oif", "meta nfproto", "meta protocol", "ether type", "ip protocol", "numgen", "jhash", "&", "|", "^", ".")
"""Besides the fields that our own rules read."""

# --- statements ---------------------------------------------------------------------------------------------------


def _match(content: Json) -> Word:
    operator, left, right = content["op"], _read(content["left"]), content["right"]

    def test(flight: Flight) -> bool | None:
        value = left(flight)
        if operator in ("==", "in", "!="):
            held = _is(value, right)
            return False if value is _Absent else None if held is None else held is not (operator == "!=")
        if value in (_Unseen, _Absent):
            return None if value is _Unseen else False
        other = _typed(value, right)
        return bool({"<": value < other, ">": value > other, "<=": value <= other, ">=": value >= other}[operator])

    return Condition(test)


def _open(_: Json) -> Word:
    return Condition(lambda _: None)


def _nothing(_: Json) -> Word:
    return Nothing()


def _mangle(content: Json) -> Word:
    """`meta mark set mark | 0x4000`."""
    ((operator, (of, number)),) = content["value"].items()
    if not content["key"] == of == {"meta": {"key": "mark"}} or not isinstance(number, int):
        raise ValueError(content)
    value, mask = {"|": (number, number), "&": (0, MAX_U32 & ~number), "^": (number, 0)}[operator]
    return SetMark("meta mark", value, mask)


def _constant(content: Json) -> dict[str, Any]:
    """An address and a port; how a source port is chosen does not matter."""
    given = {name: value for name, value in (content or {}).items() if (name, value) != ("family", "ip") and name != "flags"}
    if not given.keys() <= {"addr", "port"}:
        raise ValueError(content)
    return given


def _dnat(content: Json) -> Word:
    given = _constant(content)
    port = given.get("port")
    return Does(Dnat(IPv4Address(given["addr"]), None if port is None else int(port)))


def _snat(content: Json) -> Word:
    return Does(Snat(IPv4Address(_constant(content)["addr"])))


def _masquerade(content: Json) -> Word:
    _constant(content)
    return Does(Masquerade())


def _redirect(content: Json) -> Word:
    return Does(Redirect(int(_constant(content)["port"])))


def _vmap(content: Json) -> Word:
    """A map of verdicts in the rule itself."""
    members = content["data"]["set"]
    read = _read(content["key"])

    def choose(flight: Flight) -> Verdict | bool | None:
        value = read(flight)
        if value is _Unseen:
            return None
        for key, raw in members:
            if (held := _is(value, key)) is None:
                return None
            if held:
                return _verdict(raw)
        return False

    return Does(choose)


def _verdict(raw: Json) -> Verdict:
    ((kind, content),) = raw.items()
    if kind not in _VERDICTS:
        raise ValueError(raw)
    return Verdict(kind, content["target"] if content else "")


STATEMENTS: Mapping[str, Callable[[Json], Word]] = {
    "match": _match,
    "vmap": _vmap,
    "mangle": _mangle,
    "dnat": _dnat,
    "snat": _snat,
    "masquerade": _masquerade,
    "redirect": _redirect,
    "notrack": lambda _: Untrack(),
    "limit": _open,
    "quota": _open,
    "ct count": _open,
    **dict.fromkeys(("counter", "log", "set", "map", "ct helper", "meter", "last", "comment"), _nothing),
}
"""By their name in JSON; besides those of our own rules (language.nftjson)."""

OF_OUR_RULES = frozenset({"accept", "drop", "return", "jump", "goto", "reject", "ct timeout", "update"})
"""Statements that are read as our own (language.nftjson) wherever they occur."""
