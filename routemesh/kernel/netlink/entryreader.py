"""What rtnetlink says of addresses, routes, rules, neighbours and FDB entries, whatever made them, as our nouns.

`names` are the links' names by index; what hangs on a link that is not among them is passed over, as is everything that is not of
IPv4. Source: rtnetlink(7), include/uapi/linux/{if_addr,rtnetlink,neighbour,fib_rules}.h; what dumps hold: fib_semantics.c
(fib_dump_info), fib_rules.c (fib_nl_fill_rule), br_fdb.c (fdb_fill_info), vxlan_core.c (vxlan_fdb_info).
"""

import socket
import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Literal, NamedTuple

from routemesh.kernel.netlink import Attributes, as_text, as_u32, parse, reader
from routemesh.kernel.netlink.numbers.rtnetlink import Fra, Ifa, Nda, Rta
from routemesh.nodeplan import Address, FdbEntry, Neighbour, NeighbourState, Route, RouteKind, RoutingRule, first_or_same

BRIDGE_FAMILY = 7

ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
ROUTE = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
RULE = struct.Struct("=BBBBBxxBI")  # family, destination and source length, tos, table, action, flags

_IFA_ADDRESS, _IFA_LOCAL = Ifa.ADDRESS, Ifa.LOCAL
_RTA_DESTINATION, _RTA_OUT, _RTA_GATEWAY, _RTA_METRIC, _RTA_PREFSRC, _RTA_TABLE = (
    Rta.DESTINATION,
    Rta.OUT,
    Rta.GATEWAY,
    Rta.METRIC,
    Rta.PREFSRC,
    Rta.TABLE,
)
_RTA_BEYOND_US = (9, 18, 22, 30)
"""Several next hops, one of another family, encapsulation, a next hop object."""
_NDA_DESTINATION, _NDA_MAC, _NDA_VLAN, _NDA_MASTER = Nda.DESTINATION, Nda.MAC, Nda.VLAN, Nda.MASTER
_FRA_DESTINATION, _FRA_SOURCE, _FRA_IIF, _FRA_PRIORITY, _FRA_MARK = Fra.DESTINATION, Fra.SOURCE, Fra.IIF, Fra.PRIORITY, Fra.MARK
_FRA_TABLE, _FRA_MASK, _FRA_OIF, _FRA_PROTOCOL = Fra.TABLE, Fra.MASK, Fra.OIF, Fra.PROTOCOL
_FRA_SUPPRESS_GROUP, _FRA_SUPPRESS_LENGTH, _FRA_PADDING = Fra.SUPPRESS_GROUP, Fra.SUPPRESS_LENGTH, Fra.PADDING
_FRA_KNOWN = {
    _FRA_DESTINATION, _FRA_SOURCE, _FRA_IIF, _FRA_PRIORITY, _FRA_MARK, _FRA_TABLE, _FRA_MASK, _FRA_OIF, _FRA_PROTOCOL,
    _FRA_PADDING,
}  # fmt: skip
_ALL_BITS = 0xFFFFFFFF
_INVERTED = 2

_ROUTE_KINDS: Mapping[int, RouteKind] = {
    1: "unicast", 2: "local", 3: "broadcast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw"
}  # fmt: skip
_RULE_ACTIONS: Mapping[int, Literal["lookup", "blackhole", "unreachable", "prohibit"]] = {
    1: "lookup",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
}
_NEIGHBOUR_STATES: Mapping[int, NeighbourState] = {
    0x01: "incomplete", 0x02: "reachable", 0x04: "stale", 0x08: "delay", 0x10: "probe", 0x20: "failed", 0x40: "noarp",
    0x80: "permanent",
}  # fmt: skip
_STATIC, _PERMANENT = 0x40, 0x80


class OnLink(NamedTuple):
    """Something that hangs on the link of this index."""

    link: int
    entry: Address | Route | Neighbour | FdbEntry


@reader
def address(body: bytes, names: Mapping[int, str]) -> OnLink | None:
    """An address."""
    family, prefix, _, _, index = ADDRESS.unpack_from(body)
    name = names.get(index)
    if family != socket.AF_INET or name is None:
        return None
    found = parse(body, ADDRESS.size)
    local = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return OnLink(index, Address(name, IPv4Interface((local, prefix))))


@reader
def route(body: bytes, names: Mapping[int, str]) -> OnLink | None:
    """A route of any kind; on link 0 where it is on none."""
    family, length, _, tos, table, protocol, _, number, _ = ROUTE.unpack_from(body)
    if family != socket.AF_INET:
        return None
    found = parse(body, ROUTE.size)
    index = as_u32(found[_RTA_OUT]) if _RTA_OUT in found else 0
    if index and index not in names:
        return None
    beyond_us = tos or any(attribute in found for attribute in _RTA_BEYOND_US)
    return OnLink(
        index,
        Route(
            destination=IPv4Network((found.get(_RTA_DESTINATION, bytes(4)), length)),
            via=IPv4Address(found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else None,
            link=names.get(index, ""),
            table=as_u32(found[_RTA_TABLE]) if _RTA_TABLE in found else table,
            source=IPv4Address(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None,
            metric=as_u32(found[_RTA_METRIC]) if _RTA_METRIC in found else 0,
            kind="unknown" if beyond_us else _ROUTE_KINDS.get(number, "unknown"),
            protocol=protocol,
        ),
    )


@reader
def rule(body: bytes) -> RoutingRule | None:
    """A routing rule."""
    family, destination, source, tos, table, action, flags = RULE.unpack_from(body)
    if family != socket.AF_INET:
        return None
    found = parse(body, RULE.size)

    def number(attribute: int) -> int:
        return as_u32(found[attribute]) if attribute in found else 0

    rule = RoutingRule(
        priority=number(_FRA_PRIORITY),
        fwmark=number(_FRA_MARK),
        mask=number(_FRA_MASK),
        table=number(_FRA_TABLE) or table,
        protocol=found.get(_FRA_PROTOCOL, b"\0")[0],
        source=_network(found.get(_FRA_SOURCE), source),
        destination=_network(found.get(_FRA_DESTINATION), destination),
        iif=as_text(found.get(_FRA_IIF, b"")),
        oif=as_text(found.get(_FRA_OIF, b"")),
        negate=bool(flags & _INVERTED),
        action=_RULE_ACTIONS.get(action, "unknown"),
        unknown=tuple(sorted(_beyond_us(found) | ({-1} if tos else set()))),
    )
    return first_or_same(rule)


@reader
def neighbour(body: bytes, names: Mapping[int, str], *, vlans: bool = True) -> OnLink | None:
    """A neighbour in any state, or an FDB entry; with `vlans` also one that is for a VLAN, which then looks like any other."""
    family, index, state, _, _ = NEIGHBOUR.unpack_from(body)
    name = names.get(index)
    if name is None:
        return None
    found = parse(body, NEIGHBOUR.size)
    if family == BRIDGE_FAMILY:
        entry = None if _NDA_VLAN in found and not vlans else _fdb_entry(found, state, name)
        return None if entry is None else OnLink(index, entry)
    if family != socket.AF_INET or _NDA_DESTINATION not in found:
        return None
    known = _NEIGHBOUR_STATES.get(state & -state, "incomplete")
    return OnLink(index, Neighbour(name, IPv4Address(found[_NDA_DESTINATION]), found.get(_NDA_MAC, b"").hex(":"), known))


def _fdb_entry(found: Attributes, state: int, name: str) -> FdbEntry | None:
    """A tunnel's entry has a destination, a bridge's a master; a port's own MAC is permanent, what somebody set is static."""
    if _NDA_MAC not in found:
        return None
    mac = found[_NDA_MAC].hex(":")
    if _NDA_DESTINATION in found:
        if len(found[_NDA_DESTINATION]) != 4:
            return None  # the tunnel's other end is an IPv6 address
        return FdbEntry(name, mac, IPv4Address(found[_NDA_DESTINATION]), "static" if state & _PERMANENT else "learned")
    if _NDA_MASTER not in found:
        return None  # a device's own multicast filter
    return FdbEntry(name, mac, None, "local" if state & _PERMANENT else "static" if state & _STATIC else "learned")


def _network(address: bytes | None, length: int) -> IPv4Network | None:
    """The kernel keeps bits beyond the length as they were given, and does not look at them."""
    return None if address is None else IPv4Network((address, length), strict=False)


def _beyond_us(found: Attributes) -> set[int]:
    """The conditions of a rule that have no place in ours; suppressors that suppress nothing are none."""
    unset = {kind for kind in (_FRA_SUPPRESS_GROUP, _FRA_SUPPRESS_LENGTH) if kind in found and as_u32(found[kind]) == _ALL_BITS}
    return found.keys() - _FRA_KNOWN - unset
