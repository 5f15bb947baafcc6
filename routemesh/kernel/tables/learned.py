"""What packets have added to maps of ours: asked of the kernel itself, which libnftables does many times more slowly.

Source: include/uapi/linux/netfilter/nf_tables.h; net/netfilter/nf_tables_api.c.
"""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address

from routemesh import names
from routemesh.kernel.netlink import Attributes, Requests, as_text, as_u32, parse, parse_list, reader, text
from routemesh.kernel.netlink.netfilter import HEADER_BYTES, IPV4
from routemesh.kernel.netlink.numbers.nf_tables import NftaData, NftaElement, NftaElements, NftaSet, NftMessage
from routemesh.nodeplan import Element, Map, Scalar

_ADDED_BY_PACKETS = 0x20
"""NFT_SET_EVAL, which nft calls `dynamic`."""

_KEY = NftaElement.KEY
_DATA = NftaElement.DATA
_VALUE = NftaData.VALUE
_PART_BYTES = 4

_READ: Mapping[str, Callable[[bytes], Scalar]] = {"ip": IPv4Address, "mark": as_u32}
"""The kinds of parts that maps which learn have: of four bytes each."""


def maps(requests: Requests) -> frozenset[str]:
    """The names of the maps, in our table of family ip, to which packets may add. Raises OSError."""
    found = requests.dump(NftMessage.GET_SET, IPV4 + text(NftaSet.TABLE, names.TABLE))
    learning = (_learning(parse(reply.body, HEADER_BYTES)) for reply in found)
    return frozenset(name for name in learning if name is not None)


@reader
def _learning(row: Attributes) -> str | None:
    """The map's name, if packets may add to it."""
    if not int.from_bytes(row.get(NftaSet.FLAGS, b""), "big") & _ADDED_BY_PACKETS:
        return None
    return as_text(row[NftaSet.NAME])


def elements(requests: Requests, of: Map) -> Iterator[Element]:
    """What such a map of family ip holds now; nothing of a map of a type that none of ours has. Raises OSError."""
    if of.value is None or not {*of.key, of.value} <= _READ.keys():
        return
    where = text(NftaElements.TABLE, names.TABLE) + text(NftaElements.SET, of.name)
    for reply in requests.dump(NftMessage.GET_ELEMENTS, IPV4 + where):
        for entry in parse_list(parse(reply.body, HEADER_BYTES).get(NftaElements.LIST, b"")):
            yield _element(of, parse(entry))


@reader
def _element(of: Map, found: Attributes) -> Element:
    assert of.value is not None
    key, value = parse(found[_KEY])[_VALUE], parse(found[_DATA])[_VALUE]
    parts = (key[start : start + _PART_BYTES] for start in range(0, len(key), _PART_BYTES))
    return Element(of.family, of.name, tuple(map(_read, of.key, parts)), _read(of.value, value))


def _read(kind: str, raw: bytes) -> Scalar:
    return _READ[kind](raw)
