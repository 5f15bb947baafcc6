"""What nft's statements of others mean for a packet, beyond what our own rules have. PURE.

`STATEMENTS`, and `EXPRESSIONS` of nftreads, are the vocabulary that docs/vocabulary.md lists.
Source: libnftables-json(5), nft(8).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any

from routemesh.language.values import MAX_U32
from routemesh.nodeplan import Dnat, Masquerade, Redirect, Snat, Verdict
from routemesh.walk.flight import Flight
from routemesh.walk.nftreads import Absent, Json, Unseen, read
from routemesh.walk.nftvalues import OF_ELEMENTS, compare, members
from routemesh.walk.words import Adds, Condition, Does, Nothing, SetMark, Untrack, Word

_VERDICTS = ("accept", "drop", "return", "jump", "goto")


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


# --- statements ---------------------------------------------------------------------------------------------------


def _match(content: Json) -> Word:
    operator, right = content["op"], content["right"]
    if "numgen" in content["left"]:
        lot = content["left"]["numgen"]
        return _lot(int(lot["mod"]), int(lot.get("offset", 0)), operator, right)
    left = read(content["left"])
    return Condition(lambda flight: compare(flight, left(flight), operator, right))


def _lot(modulus: int, offset: int, operator: str, right: Json) -> Word:
    """A lot of two, whatever the number is out of: each costs a walk."""

    def test(flight: Flight) -> bool | None:
        every = [compare(flight, number, operator, right) for number in range(offset, offset + modulus)]
        if None in every:
            return None
        held = every.count(True)
        return bool(held) if held in (0, modulus) else flight.trip.choose((held, modulus - held)) == 0

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
    """A map of verdicts, in the rule itself or by its name."""
    data, key = content["data"], read(content["key"])

    def choose(flight: Flight) -> Verdict | bool | None:
        value = key(flight)
        for of, raw in data["set"] if isinstance(data, dict) else _entries(flight, data[1:]):
            if (held := compare(flight, value, "==", of)) is None:
                return None
            if held:
                return False if "continue" in raw else _verdict(raw)
        return False

    return Does(choose)


def _entries(flight: Flight, name: str) -> Sequence[Json]:
    """The keys and verdicts of a named map; of one that has the types of our own, the key here can't be among them."""
    listed = flight.stack.maps[flight.space, name].listed
    return members(listed) if listed else [[{"untold": None}, {"continue": None}]]


def _set(content: Json) -> Word:
    """`add @seen { ip saddr }`; with a rate or a number it is a condition too."""
    if content["op"] == "delete":
        return Nothing()
    if any(kind not in OF_ELEMENTS for statement in content.get("stmt", ()) for kind in statement):
        return Condition(lambda _: None)
    element = content["elem"]
    value = read(element["elem"]["val"] if "elem" in element else element)

    def key(flight: Flight) -> tuple[Any, ...] | None:
        found = value(flight)
        values = found if isinstance(found, tuple) else (found,)
        return None if Unseen in values or Absent in values else values

    return Adds(content["set"].removeprefix("@"), key)


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
    "set": _set,
    "meter": _open,
    **dict.fromkeys(("counter", "log", "map", "ct helper", "last", "comment"), _nothing),
}
"""By their name in JSON; besides those of our own rules (language.nftjson)."""

OF_OUR_RULES = frozenset({"accept", "drop", "return", "jump", "goto", "reject", "ct timeout", "update"})
"""Statements that are read as our own (language.nftjson) wherever they occur."""
