"""Addresses, routes, rules, neighbours and FDB entries as rtnetlink messages, both ways.

Each of them but the rule hangs on a link, which messages name by its index. Routes and rules are ours by their protocol number;
the others are ours when their link is. Of neighbours and FDB entries only those that somebody set exist here, not the learned.
Source: rtnetlink(7), include/uapi/linux/{if_addr,rtnetlink,neighbour,fib_rules}.h.
"""

import socket
import struct
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import NamedTuple

from routemesh.kernel import netlink
from routemesh.kernel.netlink import Attributes, Message, Reply, as_u32, attribute, parse, u8, u32
from routemesh.nodeplan import Address, FdbEntry, Neighbour, Route, RoutingRule

Entry = Address | Route | RoutingRule | Neighbour | FdbEntry

NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_RULE, DELETE_RULE, GET_RULE = 32, 33, 34

NO_LINK = 0
BRIDGE_FAMILY = 7

_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, destination and source length, tos, table, protocol, scope, type, flags
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_RULE = struct.Struct("=BBBBBxxBI")  # family, destination and source length, tos, table, action, flags

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DESTINATION, _RTA_OUT, _RTA_GATEWAY, _RTA_METRIC, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_NDA_DESTINATION, _NDA_MAC, _NDA_VLAN, _NDA_MASTER, _NDA_PROTOCOL = 1, 2, 5, 9, 12
_FRA_PRIORITY, _FRA_MARK, _FRA_TABLE, _FRA_MASK, _FRA_PROTOCOL = 6, 10, 15, 16, 21

_UNICAST = 1
_TO_TABLE = 1
_STATIC, _PERMANENT = 0x40, 0x80
_SELF, _MASTER = 0x02, 0x04
_SHORTEST_WITHOUT_BROADCAST = 31


class Seen(NamedTuple):
    """What a message says: on the link of this index the entry is there, or (not `present`) is not there."""

    link: int
    entry: Entry
    present: bool


# --- writing -----------------------------------------------------------------------------------------------------


def put(entry: Entry, index: int, flags: int, protocol: int) -> Message:
    """The request that makes an entry on link `index`; `flags` say what happens when it is there already."""
    match entry:
        case Address():
            return Message(NEW_ADDRESS, flags, _address(entry, index))
        case Route():
            return Message(NEW_ROUTE, flags, _route(entry, index, protocol))
        case RoutingRule():
            return Message(NEW_RULE, flags, _rule(entry, protocol))
        case Neighbour():
            return Message(NEW_NEIGHBOUR, flags, _neighbour(entry, index) + u8(_NDA_PROTOCOL, protocol))
        case FdbEntry():
            return Message(NEW_NEIGHBOUR, flags, _fdb_entry(entry, index))


def drop(entry: Entry, index: int, protocol: int) -> Message:
    """The request that removes an entry from link `index`."""
    match entry:
        case Address():
            return Message(DELETE_ADDRESS, 0, _address(entry, index))
        case Route():
            return Message(DELETE_ROUTE, 0, _route(entry, index, protocol))
        case RoutingRule():
            return Message(DELETE_RULE, 0, _rule(entry, protocol))
        case Neighbour():
            return Message(DELETE_NEIGHBOUR, 0, _neighbour(entry, index))
        case FdbEntry():
            return Message(DELETE_NEIGHBOUR, 0, _fdb_entry(entry, index))


def _address(entry: Address, index: int) -> bytes:
    address = entry.address
    prefix = address.network.prefixlen
    body = _ADDRESS.pack(socket.AF_INET, prefix, 0, 0, index)
    body += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    if prefix < _SHORTEST_WITHOUT_BROADCAST:
        body += attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    return body


def _route(entry: Route, index: int, protocol: int) -> bytes:
    header = _ROUTE.pack(socket.AF_INET, entry.destination.prefixlen, 0, 0, 0, protocol, 0, _UNICAST, 0)
    body = header + attribute(_RTA_DESTINATION, entry.destination.network_address.packed)
    if entry.source is not None:
        body += attribute(_RTA_PREFSRC, entry.source.packed)
    if entry.via is not None:
        body += attribute(_RTA_GATEWAY, entry.via.packed)
    if entry.metric:
        body += u32(_RTA_METRIC, entry.metric)
    return body + u32(_RTA_OUT, index) + u32(_RTA_TABLE, entry.table)


def _rule(entry: RoutingRule, protocol: int) -> bytes:
    header = _RULE.pack(socket.AF_INET, 0, 0, 0, 0, _TO_TABLE, 0)
    which = u32(_FRA_PRIORITY, entry.priority) + u32(_FRA_MARK, entry.fwmark) + u32(_FRA_MASK, entry.mask)
    return header + which + u32(_FRA_TABLE, entry.table) + u8(_FRA_PROTOCOL, protocol)


def _neighbour(entry: Neighbour, index: int) -> bytes:
    header = _NEIGHBOUR.pack(socket.AF_INET, index, _PERMANENT, 0, 0)
    return header + attribute(_NDA_DESTINATION, entry.ip.packed) + netlink.mac(_NDA_MAC, entry.mac)


def _fdb_entry(entry: FdbEntry, index: int) -> bytes:
    if entry.dst is None:
        return _NEIGHBOUR.pack(BRIDGE_FAMILY, index, _STATIC, _MASTER, 0) + netlink.mac(_NDA_MAC, entry.mac)
    header = _NEIGHBOUR.pack(BRIDGE_FAMILY, index, _PERMANENT, _SELF, 0)
    return header + netlink.mac(_NDA_MAC, entry.mac) + attribute(_NDA_DESTINATION, entry.dst.packed)


# --- asking ------------------------------------------------------------------------------------------------------


def dump_addresses() -> tuple[int, bytes]:
    """Message type and body that ask for all addresses."""
    return GET_ADDRESS, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)


def dump_routes(protocol: int) -> tuple[int, bytes]:
    """Message type and body that ask for the routes of `protocol`; the kernel itself leaves the others out (Linux >= 4.20)."""
    return GET_ROUTE, _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, protocol, 0, 0, 0)


def dump_rules() -> tuple[int, bytes]:
    """Message type and body that ask for all routing rules."""
    return GET_RULE, _RULE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0)


def dump_neighbours() -> tuple[int, bytes]:
    """Message type and body that ask for the ARP table."""
    return GET_NEIGHBOUR, _NEIGHBOUR.pack(socket.AF_INET, 0, 0, 0, 0)


def dump_fdb() -> tuple[int, bytes]:
    """Message type and body that ask for the FDB of all bridges and tunnels."""
    return GET_NEIGHBOUR, _NEIGHBOUR.pack(BRIDGE_FAMILY, 0, 0, 0, 0)


# --- reading -----------------------------------------------------------------------------------------------------


def read(reply: Reply, names: Mapping[int, str], protocol: int) -> Seen | None:
    """What a dump's or an event's message says; None for what is none of our kinds, or on a link that is not in `names`."""
    reader = _READERS.get(reply.kind)
    return reader(reply.body, reply.kind, names, protocol) if reader is not None else None


def link_of(reply: Reply) -> int:
    """The index of the link that an address, neighbour or FDB message is about; NO_LINK for other messages."""
    if reply.kind in (NEW_ADDRESS, DELETE_ADDRESS):
        return int(_ADDRESS.unpack_from(reply.body)[4])
    if reply.kind in (NEW_NEIGHBOUR, DELETE_NEIGHBOUR):
        return int(_NEIGHBOUR.unpack_from(reply.body)[1])
    return NO_LINK


def _read_address(body: bytes, kind: int, names: Mapping[int, str], protocol: int) -> Seen | None:
    family, prefix, _, _, index = _ADDRESS.unpack_from(body)
    name = names.get(index)
    if family != socket.AF_INET or name is None:
        return None
    found = parse(body, _ADDRESS.size)
    local = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return Seen(index, Address(name, IPv4Interface((local, prefix))), kind == NEW_ADDRESS)


def _read_route(body: bytes, kind: int, names: Mapping[int, str], protocol: int) -> Seen | None:
    family, length, _, _, table, by, _, type_, _ = _ROUTE.unpack_from(body)
    if family != socket.AF_INET or by != protocol or type_ != _UNICAST:
        return None
    found = parse(body, _ROUTE.size)
    if _RTA_OUT not in found or _RTA_GATEWAY not in found:
        return None
    index = as_u32(found[_RTA_OUT])
    name = names.get(index)
    if name is None:
        return None
    destination = IPv4Network((found.get(_RTA_DESTINATION, bytes(4)), length))
    table = as_u32(found[_RTA_TABLE]) if _RTA_TABLE in found else table
    source = IPv4Address(found[_RTA_PREFSRC]) if _RTA_PREFSRC in found else None
    via = IPv4Address(found[_RTA_GATEWAY])
    metric = as_u32(found[_RTA_METRIC]) if _RTA_METRIC in found else 0
    route = Route(destination=destination, via=via, link=name, table=table, source=source, metric=metric)
    return Seen(index, route, kind == NEW_ROUTE)


def _read_rule(body: bytes, kind: int, names: Mapping[int, str], protocol: int) -> Seen | None:
    found = parse(body, _RULE.size)
    if body[0] != socket.AF_INET or found.get(_FRA_PROTOCOL) != bytes((protocol,)):
        return None

    def number(attribute: int) -> int:
        return as_u32(found[attribute]) if attribute in found else 0

    rule = RoutingRule(priority=number(_FRA_PRIORITY), fwmark=number(_FRA_MARK), mask=number(_FRA_MASK), table=number(_FRA_TABLE))
    return Seen(NO_LINK, rule, kind == NEW_RULE)


def _read_neighbour(body: bytes, kind: int, names: Mapping[int, str], protocol: int) -> Seen | None:
    family, index, state, _, _ = _NEIGHBOUR.unpack_from(body)
    name = names.get(index)
    if name is None:
        return None
    found = parse(body, _NEIGHBOUR.size)
    if family == BRIDGE_FAMILY:
        return _read_fdb(found, kind, state, index, name)
    if family != socket.AF_INET or _NDA_DESTINATION not in found:
        return None
    neighbour = Neighbour(name, IPv4Address(found[_NDA_DESTINATION]), found.get(_NDA_MAC, b"").hex(":"))
    return Seen(index, neighbour, kind == NEW_NEIGHBOUR and bool(state & _PERMANENT))


def _read_fdb(found: Attributes, kind: int, state: int, index: int, name: str) -> Seen | None:
    """A tunnel's entry has a destination, a bridge's a master; a port's own MAC is permanent, what somebody set is static."""
    if _NDA_MAC not in found or _NDA_VLAN in found:
        return None
    mac = found[_NDA_MAC].hex(":")
    present = kind == NEW_NEIGHBOUR
    if _NDA_DESTINATION in found:
        entry = FdbEntry(name, mac, IPv4Address(found[_NDA_DESTINATION]))
        return Seen(index, entry, present and bool(state & _PERMANENT))
    if _NDA_MASTER in found:
        return Seen(index, FdbEntry(name, mac), present and bool(state & _STATIC))
    return None


_READERS: Mapping[int, Callable[[bytes, int, Mapping[int, str], int], Seen | None]] = {
    NEW_ADDRESS: _read_address,
    DELETE_ADDRESS: _read_address,
    NEW_ROUTE: _read_route,
    DELETE_ROUTE: _read_route,
    NEW_RULE: _read_rule,
    DELETE_RULE: _read_rule,
    NEW_NEIGHBOUR: _read_neighbour,
    DELETE_NEIGHBOUR: _read_neighbour,
}
