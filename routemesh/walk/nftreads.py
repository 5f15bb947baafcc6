"""What nft's expressions read of a packet, beyond the fields that our own rules have. PURE.

`EXPRESSIONS` is a part of the vocabulary that docs/vocabulary.md lists. Source: libnftables-json(5), nft(8); the kernel's
nft_meta.c, nft_ct.c, nft_fib_ipv4.c.
"""

from collections.abc import Callable, Mapping
from typing import Any

from routemesh.language.nftjson import field_of
from routemesh.model import Protocol
from routemesh.walk.fields import FIELDS
from routemesh.walk.flight import Flight

Json = Any


class Absent:
    """The packet has no such thing: no comparison with it holds."""


class Unseen:
    """It can't be told."""


class Masked(frozenset[str]):
    """Flags of which others were masked out: they are compared as a whole."""


Read = Callable[[Flight], Any]
_OTHER_HEADERS = frozenset(
    {
        "ip6", "icmp", "icmpv6", "igmp", "esp", "ah", "comp", "dccp", "udplite", "sctp", "vlan", "arp", "frag", "hbh", "rt", "mh",
        "dst",
    }
)  # fmt: skip
"""Which no packet of TCP or UDP over IPv4 has."""


def _of_process(flight: Flight) -> Any:
    """Only what a process of the namespace sends has an owner."""
    return Absent if flight.incoming else Unseen


_META: Mapping[str, Read] = {
    "iif": lambda flight: flight.incoming,
    "oif": lambda flight: flight.outgoing,
    "skuid": _of_process,
    "skgid": _of_process,
    "cgroup": _of_process,
    "nfproto": lambda _: "ipv4",
    "protocol": lambda flight: "arp" if flight.packet.arp else "ip",
}
_WAYS_BACK = ({"saddr", "iif"}, {"saddr", "mark", "iif"})
_ENDS: Mapping[str, tuple[str, str]] = {
    "saddr": ("source", "address"),
    "daddr": ("destination", "address"),
    "ip saddr": ("source", "address"),
    "ip daddr": ("destination", "address"),
    "proto-src": ("source", "port"),
    "proto-dst": ("destination", "port"),
}


def read(raw: Json) -> Read:
    """How an expression is read of a packet. Raises ValueError, KeyError or TypeError for what is none."""
    match raw:
        case {"meta": {"key": str(key)}} if key in _META:
            return _META[key]
        case {"payload": {"protocol": "ether", "field": "type"}}:
            return _META["protocol"]
        case {"payload": {"protocol": "ip", "field": "protocol"}}:
            return FIELDS["meta l4proto"].read
        case {"numgen": {"mode": "inc" | "random", "mod": int(modulus), **rest}}:
            offset = int(str(rest.get("offset", 0)))
            return lambda flight: flight.trip.choose((1,) * modulus) + offset
        case {"&": [{"payload": {"protocol": "tcp", "field": "flags"}} as of, mask]}:
            return _masked(read(of), frozenset(flags(mask)))
        case {"&": [inner, int(other)]} | {"|": [inner, int(other)]} | {"^": [inner, int(other)]}:
            return _binary(next(iter(raw)), read(inner), other)
        case {"ct": {"key": str(key), "dir": "original" | "reply" as direction}} if key in _ENDS:
            return _end(direction, *_ENDS[key])
        case {"fib": {"result": "oif", "flags": [*of_source]}} if set(of_source) in _WAYS_BACK:
            return _way_back(minds_mark="mark" in of_source)
        case {"concat": [*parts]}:
            reads = [read(part) for part in parts]
            return lambda flight: tuple(each(flight) for each in reads)
        case {"payload": {"protocol": header}} if header in _OTHER_HEADERS:
            return lambda flight: Unseen if flight.packet.error else Absent
    return _field(raw)


def _field(raw: Json) -> Read:
    field = field_of(raw)
    if field is None:
        return lambda _: Unseen
    of_protocol = _needs(raw)

    def value(flight: Flight) -> Any:
        if of_protocol is not None and flight.packet.protocol is not of_protocol:
            return Absent
        found = FIELDS[field].read(flight)
        return Absent if found is None else found

    return value


def _needs(raw: Json) -> Protocol | None:
    match raw:
        case {"payload": {"protocol": "tcp"}}:
            return Protocol.TCP
        case {"payload": {"protocol": "udp"}}:
            return Protocol.UDP
        case _:
            return None


def _binary(operator: str, inner: Read, other: int) -> Read:
    def value(flight: Flight) -> Any:
        found = inner(flight)
        if not isinstance(found, int):
            return found
        return {"&": found & other, "|": found | other, "^": found ^ other}[operator]

    return value


def flags(raw: Json) -> list[str]:
    """The names in `(fin|syn)`, however nft puts it. Raises ValueError."""
    match raw:
        case {"|": [*names]} | [*names]:
            return [flag for name in names for flag in flags(name)]
        case str():
            return [raw]
        case _:
            raise ValueError(raw)


def _masked(inner: Read, mask: frozenset[str]) -> Read:
    def value(flight: Flight) -> Any:
        found = inner(flight)
        return Masked(found & mask) if isinstance(found, frozenset) else found

    return value


def _end(direction: str, end: str, part: str) -> Read:
    """One end of the packet's connection, as it came in or as its answers do."""

    def value(flight: Flight) -> Any:
        known = flight.connection
        return Absent if known is None else getattr(getattr(getattr(known, direction), end), part)

    return value


def _way_back(*, minds_mark: bool) -> Read:
    """Whether the route to the source leads to the device by which the packet came in. Source: nft_fib4_eval."""

    def value(flight: Flight) -> Any:
        packet, stack = flight.packet, flight.stack
        if packet.arp or not flight.incoming or stack.is_local(packet.source.address):
            return Unseen
        back = stack.route(packet.source.address, packet.mark if minds_mark else 0, packet.destination.address)
        return back is not None and back.kind == "unicast" and back.link == flight.incoming

    return value


EXPRESSIONS = (
    "iif", "oif", "meta nfproto", "meta protocol", "meta skuid", "meta skgid", "meta cgroup", "ether type", "ip protocol",
    "ct original", "ct reply", "fib saddr oif", "numgen", "jhash", "&", "|", "^", ".",
)  # fmt: skip
"""Besides the fields that our own rules read."""
