"""What a rule can read of a packet, and how it compares. PURE.

One row per field of nodeplan. Source: nft(8), iptables-extensions(8); the kernel's nft_meta.c, nft_ct.c, nft_payload.c,
nft_fib.c, xt_conntrack.c, xt_addrtype.c.
"""

from collections.abc import Callable, Mapping, Set
from functools import cache
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

import msgspec

from routemesh.model import Protocol
from routemesh.nodeplan import Field
from routemesh.walk.flight import Flight
from routemesh.walk.nouns import Packet

_STATES = frozenset({"new", "established", "related", "invalid", "untracked"})
_STATUS = frozenset({"dnat", "snat", "seen-reply"})
_FLAGS = frozenset({"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"})
_PROTOCOLS = frozenset({*Protocol, "icmp", "igmp", "sctp", "dccp", "udplite", "esp", "ah", "gre"})
_ADDRESS_TYPES = frozenset({"local", "unicast", "multicast", "broadcast"})

KeyPart = Literal["proto", "port", "mark", "index", "mac", "ip", "link"]


class Reading(msgspec.Struct, frozen=True):
    """How a field is read, compared and typed. `read` gives None where the packet has no such thing: then no rule matches.

    `test` raises ValueError for a text that it does not understand. `part` is the field's type in a key, if it can be in one.
    `flags`: the value is a set of names, of which a match needs one.
    """

    read: Callable[[Flight], Any]
    test: Callable[[Any, str], bool]
    part: KeyPart | None = None
    flags: bool = False


def _same(value: str, text: str) -> bool:
    return value == text


def _named(value: str, text: str) -> bool:
    """A device's name; `veth*` is any that begins so."""
    return value.startswith(text[:-1]) if text.endswith("*") else value == text


def _equal(value: int, text: str) -> bool:
    return value == int(text, 0)


def _within(value: IPv4Address, text: str) -> bool:
    return value in _network(text)


@cache
def _network(text: str) -> IPv4Network:
    return IPv4Network(text)


def _one_of(known: Set[str]) -> Callable[[str, str], bool]:
    def test(value: str, text: str) -> bool:
        if text not in known:
            raise ValueError(f"not one of {', '.join(sorted(known))}")
        return value == text

    return test


def _is_protocol(value: str, text: str) -> bool:
    """Those without a name among ours go by number (language.values)."""
    return value == text if text.isdigit() else _one_of(_PROTOCOLS)(value, text)


def _any_of(known: Set[str]) -> Callable[[Set[str], str], bool]:
    def test(value: Set[str], text: str) -> bool:
        names = set(text.split(","))
        if not names <= known:
            raise ValueError(f"not among {', '.join(sorted(known))}")
        return not names.isdisjoint(value)

    return test


def _tcp_flags(value: Set[str], text: str) -> bool:
    """One of some flags, or `FLAGS / MASK`: of those in MASK exactly these."""
    flags, slash, mask = text.partition(" / ")
    some = _any_of(_FLAGS)
    return some(value, flags) if not slash else _flags(flags) == value & _flags(mask)


def _flags(text: str) -> Set[str]:
    names = set(text.split(","))
    if not names <= _FLAGS:
        raise ValueError(f"not among {', '.join(sorted(_FLAGS))}")
    return names


def _state(flight: Flight) -> Set[str]:
    if flight.connection is None:
        return {"untracked" if flight.untracked else "invalid"}
    if flight.packet.error:
        return {"related"}
    return {"new"} if flight.new else {"established"}


def _direction(flight: Flight) -> str | None:
    if flight.connection is None:
        return None
    return "reply" if flight.replies else "original"


def _address_type(flight: Flight, address: IPv4Address) -> str:
    if address.is_multicast:
        return "multicast"
    if flight.stack.is_broadcast(address):
        return "broadcast"
    return "local" if flight.stack.is_local(address) else "unicast"


def _l4(read: Callable[[Packet], Any]) -> Callable[[Flight], Any]:
    """A reader of the layer-4 header, which is another one in an ICMP error."""
    return lambda flight: None if flight.packet.error or flight.packet.arp else read(flight.packet)


def _ip(read: Callable[[Packet], Any]) -> Callable[[Flight], Any]:
    return lambda flight: None if flight.packet.arp else read(flight.packet)


def _arp(read: Callable[[Packet], Any]) -> Callable[[Flight], Any]:
    return lambda flight: read(flight.packet) if flight.packet.arp else None


FIELDS: Mapping[Field, Reading] = {
    "iifname": Reading(lambda f: f.incoming, _named, "link"),
    "oifname": Reading(lambda f: f.outgoing, _named, "link"),
    "meta l4proto": Reading(_ip(lambda p: "icmp" if p.error else p.protocol), _is_protocol, "proto"),
    "meta mark": Reading(lambda f: f.packet.mark, _equal, "mark"),
    "ip saddr": Reading(_ip(lambda packet: packet.source.address), _within, "ip"),
    "ip daddr": Reading(_ip(lambda packet: packet.destination.address), _within, "ip"),
    "arp saddr ether": Reading(_arp(lambda packet: packet.source_mac), _same, "mac"),
    "arp saddr ip": Reading(_arp(lambda packet: packet.source.address), _within, "ip"),
    "th sport": Reading(_l4(lambda packet: packet.source.port), _equal, "port"),
    "th dport": Reading(_l4(lambda packet: packet.destination.port), _equal, "port"),
    "ether saddr": Reading(lambda f: f.packet.source_mac or None, _same, "mac"),
    "ether daddr": Reading(lambda f: f.packet.destination_mac or None, _same, "mac"),
    "ct mark": Reading(lambda f: f.connection and f.connection.mark, _equal, "mark"),
    "ct state": Reading(_state, _any_of(_STATES), flags=True),
    "ct status": Reading(lambda f: f.connection and f.connection.status, _any_of(_STATUS), flags=True),
    "ct direction": Reading(_direction, _one_of(frozenset({"original", "reply"}))),
    "tcp flags": Reading(_l4(lambda packet: packet.flags if packet.protocol is Protocol.TCP else None), _tcp_flags, flags=True),
    "fib saddr type": Reading(lambda f: _address_type(f, f.packet.source.address), _one_of(_ADDRESS_TYPES)),
    "fib daddr type": Reading(lambda f: _address_type(f, f.packet.destination.address), _one_of(_ADDRESS_TYPES)),
}
