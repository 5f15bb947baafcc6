"""Addresses, routes, rules, neighbours and FDB entries as rtnetlink messages, both ways.

Each of them but the rule hangs on a link, which messages name by its index. Routes and rules are ours by their protocol number;
the others are ours when their link is. Of neighbours and FDB entries only those that somebody set exist here, not the learned.
Source: rtnetlink(7), include/uapi/linux/{if_addr,rtnetlink,neighbour,fib_rules}.h.
"""

import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple, assert_never

from routemesh.kernel import netlink
from routemesh.kernel.netlink import Message, Reply, attribute, entryreader, reader, u8, u32
from routemesh.kernel.netlink.entryreader import BRIDGE_FAMILY
from routemesh.kernel.netlink.numbers.rtnetlink import Fra, Ifa, Nda, Rta
from routemesh.nodeplan import FIRST_RULES, KERNEL_PROTOCOL, ROUTE_PROTOCOL, Address, FdbEntry, Neighbour, Route, RoutingRule
from routemesh.values import replace

Entry = Address | Route | RoutingRule | Neighbour | FdbEntry

NEW_ADDRESS, DELETE_ADDRESS, GET_ADDRESS = 20, 21, 22
NEW_ROUTE, DELETE_ROUTE, GET_ROUTE = 24, 25, 26
NEW_NEIGHBOUR, DELETE_NEIGHBOUR, GET_NEIGHBOUR = 28, 29, 30
NEW_RULE, DELETE_RULE, GET_RULE = 32, 33, 34

NO_LINK = 0
ANY_PROTOCOL = 0
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = Ifa.ADDRESS, Ifa.LOCAL, Ifa.BROADCAST
_RTA_DESTINATION, _RTA_OUT, _RTA_GATEWAY, _RTA_METRIC, _RTA_PREFSRC, _RTA_TABLE = (
    Rta.DESTINATION,
    Rta.OUT,
    Rta.GATEWAY,
    Rta.METRIC,
    Rta.PREFSRC,
    Rta.TABLE,
)
_NDA_DESTINATION, _NDA_MAC, _NDA_PROTOCOL = Nda.DESTINATION, Nda.MAC, Nda.PROTOCOL
_FRA_PRIORITY, _FRA_MARK, _FRA_TABLE, _FRA_MASK, _FRA_PROTOCOL = Fra.PRIORITY, Fra.MARK, Fra.TABLE, Fra.MASK, Fra.PROTOCOL

_SCOPE_LINK, _SCOPE_HOST = 253, 254
_KINDS = {"unicast": 1, "local": 2}
_TO_TABLE = 1
_STATIC, _PERMANENT = 0x40, 0x80
_SELF, _MASTER = 0x02, 0x04
_SHORTEST_WITHOUT_BROADCAST = 31


class EntryMessage(NamedTuple):
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
        case _:
            assert_never(entry)


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
        case _:
            assert_never(entry)


def _address(entry: Address, index: int) -> bytes:
    address = entry.address
    prefix = address.network.prefixlen
    body = entryreader.ADDRESS.pack(socket.AF_INET, prefix, 0, 0, index)
    body += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    if prefix < _SHORTEST_WITHOUT_BROADCAST:
        body += attribute(_IFA_BROADCAST, address.network.broadcast_address.packed)
    return body


def _route(entry: Route, index: int, protocol: int) -> bytes:
    """Raises KeyError for a kind that no plan has."""
    scope = _SCOPE_HOST if entry.kind == "local" else _SCOPE_LINK if entry.via is None else 0
    made_by = _maker(entry, protocol)
    header = entryreader.ROUTE.pack(
        socket.AF_INET, entry.destination.prefixlen, 0, 0, 0, made_by, scope, _KINDS[entry.kind], 0
    )  # fmt: skip
    body = header + attribute(_RTA_DESTINATION, entry.destination.network_address.packed)
    if entry.source is not None:
        body += attribute(_RTA_PREFSRC, entry.source.packed)
    if entry.via is not None:
        body += attribute(_RTA_GATEWAY, entry.via.packed)
    if entry.metric:
        body += u32(_RTA_METRIC, entry.metric)
    return body + u32(_RTA_OUT, index) + u32(_RTA_TABLE, entry.table)


def _rule(entry: RoutingRule, protocol: int) -> bytes:
    header = entryreader.RULE.pack(socket.AF_INET, 0, 0, 0, 0, _TO_TABLE, 0)
    which = u32(_FRA_PRIORITY, entry.priority)
    if entry.mask:
        which += u32(_FRA_MARK, entry.fwmark) + u32(_FRA_MASK, entry.mask)
    return header + which + u32(_FRA_TABLE, entry.table) + u8(_FRA_PROTOCOL, _maker(entry, protocol))


def _maker(entry: Route | RoutingRule, protocol: int) -> int:
    """Ours have our number in this kernel; what comes along has the kernel's, also when we put it back."""
    return KERNEL_PROTOCOL if entry.protocol == KERNEL_PROTOCOL else protocol


def _neighbour(entry: Neighbour, index: int) -> bytes:
    header = entryreader.NEIGHBOUR.pack(socket.AF_INET, index, _PERMANENT, 0, 0)
    return header + attribute(_NDA_DESTINATION, entry.ip.packed) + netlink.mac(_NDA_MAC, entry.mac)


def _fdb_entry(entry: FdbEntry, index: int) -> bytes:
    if entry.dst is None:
        return entryreader.NEIGHBOUR.pack(BRIDGE_FAMILY, index, _STATIC, _MASTER, 0) + netlink.mac(_NDA_MAC, entry.mac)
    header = entryreader.NEIGHBOUR.pack(BRIDGE_FAMILY, index, _PERMANENT, _SELF, 0)
    return header + netlink.mac(_NDA_MAC, entry.mac) + attribute(_NDA_DESTINATION, entry.dst.packed)


# --- asking ------------------------------------------------------------------------------------------------------


def dump_addresses() -> tuple[int, bytes]:
    """Message type and body that ask for all addresses."""
    return GET_ADDRESS, entryreader.ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)


def dump_routes(protocol: int) -> tuple[int, bytes]:
    """Message type and body that ask for the routes of `protocol`; the kernel itself leaves the others out (Linux >= 4.20)."""
    return GET_ROUTE, entryreader.ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, protocol, 0, 0, 0)


def dump_rules() -> tuple[int, bytes]:
    """Message type and body that ask for all routing rules."""
    return GET_RULE, entryreader.RULE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0)


def dump_neighbours() -> tuple[int, bytes]:
    """Message type and body that ask for the ARP table."""
    return GET_NEIGHBOUR, entryreader.NEIGHBOUR.pack(socket.AF_INET, 0, 0, 0, 0)


def dump_fdb() -> tuple[int, bytes]:
    """Message type and body that ask for the FDB of all bridges and tunnels."""
    return GET_NEIGHBOUR, entryreader.NEIGHBOUR.pack(BRIDGE_FAMILY, 0, 0, 0, 0)


def command(kind: int, body: bytes) -> str:
    """What a person types to ask the same as one of these dumps."""
    of_bridges = body[0] == BRIDGE_FAMILY
    return {
        GET_ADDRESS: "ip address show",
        GET_ROUTE: "ip route show table all",
        GET_RULE: "ip rule show",
        GET_NEIGHBOUR: "bridge fdb show" if of_bridges else "ip neighbour show",
    }[kind]


# --- reading -----------------------------------------------------------------------------------------------------


@reader
def read(reply: Reply, names: Mapping[int, str], protocol: int) -> EntryMessage | None:
    """What a dump's or an event's message says; None for what is not of our kinds, or on a link that is not in `names`."""
    read_body = _READERS.get(reply.kind)
    return read_body(reply.body, reply.kind, names, protocol) if read_body is not None else None


@reader
def link_of(reply: Reply) -> int:
    """The index of the link that an address, neighbour or FDB message is about; NO_LINK for other messages."""
    if reply.kind in (NEW_ADDRESS, DELETE_ADDRESS):
        return int(entryreader.ADDRESS.unpack_from(reply.body)[4])
    if reply.kind in (NEW_NEIGHBOUR, DELETE_NEIGHBOUR):
        return int(entryreader.NEIGHBOUR.unpack_from(reply.body)[1])
    return NO_LINK


def _read_address(body: bytes, kind: int, names: Mapping[int, str], protocol: int) -> EntryMessage | None:
    found = entryreader.address(body, names)
    return None if found is None else EntryMessage(*found, kind == NEW_ADDRESS)


def _read_route(body: bytes, kind: int, names: Mapping[int, str], protocol: int) -> EntryMessage | None:
    """Ours, which in a plan are of ROUTE_PROTOCOL whatever number they have in this kernel, and what came with an address."""
    found = entryreader.route(body, names)
    if found is None or not isinstance(found.entry, Route):
        return None
    route = found.entry
    if route.protocol == KERNEL_PROTOCOL and route.via is None and route.kind in _KINDS and route.link:
        return EntryMessage(found.link, route, kind == NEW_ROUTE)
    if route.protocol != protocol or route.kind != "unicast" or route.via is None or not route.link:
        return None
    return EntryMessage(found.link, replace(route, protocol=ROUTE_PROTOCOL), kind == NEW_ROUTE)


def _read_rule(body: bytes, kind: int, names: Mapping[int, str], protocol: int) -> EntryMessage | None:
    """Ours, and those that a namespace begins with, whoever has put them back."""
    rule = entryreader.rule(body)
    if rule is None or rule in FIRST_RULES:
        return None if rule is None else EntryMessage(NO_LINK, rule, kind == NEW_RULE)
    return None if rule.protocol != protocol else EntryMessage(NO_LINK, replace(rule, protocol=ROUTE_PROTOCOL), kind == NEW_RULE)


def _read_neighbour(body: bytes, kind: int, names: Mapping[int, str], protocol: int) -> EntryMessage | None:
    """Of those that are not permanent, and not static on a bridge, a plan knows nothing: there they are not present."""
    found = entryreader.neighbour(body, names, vlans=False)
    if found is None:
        return None
    index, entry = found
    if isinstance(entry, Neighbour):
        return EntryMessage(index, replace(entry, state="permanent"), kind == NEW_NEIGHBOUR and entry.state == "permanent")
    assert isinstance(entry, FdbEntry)
    return EntryMessage(index, replace(entry, kind="static"), kind == NEW_NEIGHBOUR and entry.kind == "static")


_READERS: Mapping[int, Callable[[bytes, int, Mapping[int, str], int], EntryMessage | None]] = {
    NEW_ADDRESS: _read_address,
    DELETE_ADDRESS: _read_address,
    NEW_ROUTE: _read_route,
    DELETE_ROUTE: _read_route,
    NEW_RULE: _read_rule,
    DELETE_RULE: _read_rule,
    NEW_NEIGHBOUR: _read_neighbour,
    DELETE_NEIGHBOUR: _read_neighbour,
}
