"""`ip neigh` and `bridge fdb`: who is behind which MAC, and where. PURE.

Source: iproute2's ip/ipneigh.c (print_neigh) and bridge/fdb.c (print_fdb); kernel's include/uapi/linux/neighbour.h.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import get_args

from routemesh.nodeplan import FdbEntry, Neighbour, NeighbourState
from routemesh.recording.source import Source, is_ipv6

_STATES = frozenset(get_args(NeighbourState))
_NEIGHBOUR = re.compile(
    r"(?P<ip>\S+) dev (?P<link>\S+)(?: lladdr (?P<mac>[0-9a-f:]+))?(?P<flags>(?: router| proxy| extern_learn| managed)*)"
    r"(?: (?:used|ref|probes) \S+)* (?P<state>[A-Z]+)(?: proto \S+)?"
)


def read_neighbours(source: Source) -> Iterator[Neighbour]:
    """The ARP table; IPv6's neighbours and those of multicast groups, which need no question, are passed over."""
    for number, line in source.lines():
        if is_ipv6(line.split()[0]):
            continue
        found = _NEIGHBOUR.fullmatch(line.strip())
        try:
            if found is None or found["state"].lower() not in _STATES or "proxy" in found["flags"]:
                raise ValueError(line)
            address = IPv4Address(found["ip"])
        except ValueError:
            source.odd(number, line)
            continue
        if not address.is_multicast and not address.is_unspecified:
            yield Neighbour(found["link"], address, found["mac"] or "", found["state"].lower())  # type: ignore[arg-type]


_ENTRY = re.compile(r"(?P<mac>(?:[0-9a-f]{2}:){5}[0-9a-f]{2}) dev (?P<link>\S+)(?P<rest>.*)")
_FDB_FLAGS = frozenset({"self", "permanent", "static", "extern_learn", "offload", "sticky", "router", "stale", "added_by_user"})
_FDB_WITH_VALUE = frozenset({"dst", "master", "vlan", "link-netnsid", "src_vni", "vni", "port", "via", "nhid", "used"})


def read_fdb(source: Source) -> Iterator[FdbEntry]:
    """Forwarding entries of bridge ports and VXLAN devices; multicast groups and those of one VLAN are passed over.

    An entry that leads to several tunnel ends, or to one with a VNI or port of its own, is reported: it can't be followed.
    """
    for number, line in source.lines():
        found = _ENTRY.fullmatch(line.strip())
        told = None if found is None else _told(found["rest"].split())
        if found is None or told is None or {"vni", "src_vni", "port", "via", "nhid"} & told.keys():
            source.odd(number, line)
            continue
        if _is_group(found["mac"]) or "vlan" in told:
            continue
        permanent = "permanent" in told
        if "dst" in told:
            try:
                end = IPv4Address(told["dst"])
            except ValueError:
                source.odd(number, line)
                continue
            yield FdbEntry(found["link"], found["mac"], end, "static" if permanent or "static" in told else "learned")
        elif "master" in told:
            kind = "local" if permanent else "static" if "static" in told else "learned"
            yield FdbEntry(found["link"], found["mac"], None, kind)  # type: ignore[arg-type]


def _told(words: list[str]) -> dict[str, str] | None:
    told: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word in _FDB_FLAGS:
            told[word] = ""
        elif word in _FDB_WITH_VALUE:
            value = next(rest, None)
            if value is None:
                return None
            told[word] = value
        else:
            return None
    return told


def _is_group(mac: str) -> bool:
    """Whether the MAC's first octet has the bit of a group address."""
    return bool(int(mac[:2], 16) & 1)
