"""What packets have added to maps of ours: asked of the kernel itself, which libnftables does many times more slowly.

Source: include/uapi/linux/netfilter/nf_tables.h; net/netfilter/nf_tables_api.c.
"""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address

from routemesh import names
from routemesh.kernel.netlink import Attributes, Requests, as_text, as_u32, parse, parse_list, reader, text
from routemesh.kernel.netlink.netfilter import IPV4
from routemesh.nodeplan import Element, Map, Scalar

_SUBSYSTEM = 10 << 8
_GET_SET, _GET_ELEMENTS = _SUBSYSTEM | 10, _SUBSYSTEM | 13
_SET_TABLE, _SET_NAME, _SET_FLAGS = 1, 2, 3
_ADDED_BY_PACKETS = 0x20
"""NFT_SET_EVAL, which nft calls `dynamic`."""

_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS = 1, 2, 3
_KEY, _DATA = 1, 2
_VALUE = 1
_GENERIC_HEADER_BYTES = 4
_PART_BYTES = 4

_READ: Mapping[str, Callable[[bytes], Scalar]] = {"ip": IPv4Address, "mark": as_u32}
"""The kinds of parts that maps which learn have: of four bytes each."""


def maps(requests: Requests) -> frozenset[str]:
    """The names of the maps, in our table of family ip, to which packets may add. Raises OSError."""
    found = requests.dump(_GET_SET, IPV4 + text(_SET_TABLE, names.TABLE))
    learning = (_learning(parse(reply.body, _GENERIC_HEADER_BYTES)) for reply in found)
    return frozenset(name for name in learning if name is not None)


@reader
def _learning(row: Attributes) -> str | None:
    """The map's name, if packets may add to it."""
    if not int.from_bytes(row.get(_SET_FLAGS, b""), "big") & _ADDED_BY_PACKETS:
        return None
    return as_text(row[_SET_NAME])


def elements(requests: Requests, of: Map) -> Iterator[Element]:
    """What such a map of family ip holds now; nothing of a map of a type that none of ours has. Raises OSError."""
    if of.value is None or not {*of.key, of.value} <= _READ.keys():
        return
    where = text(_ELEMENTS_TABLE, names.TABLE) + text(_ELEMENTS_SET, of.name)
    for reply in requests.dump(_GET_ELEMENTS, IPV4 + where):
        for entry in parse_list(parse(reply.body, _GENERIC_HEADER_BYTES).get(_ELEMENTS, b"")):
            yield _element(of, parse(entry))


@reader
def _element(of: Map, found: Attributes) -> Element:
    assert of.value is not None
    key, value = parse(found[_KEY])[_VALUE], parse(found[_DATA])[_VALUE]
    parts = (key[start : start + _PART_BYTES] for start in range(0, len(key), _PART_BYTES))
    return Element(of.family, of.name, tuple(map(_read, of.key, parts)), _read(of.value, value))


def _read(kind: str, raw: bytes) -> Scalar:
    return _READ[kind](raw)
