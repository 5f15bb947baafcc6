"""`ipvsadm -Ln`, `sysctl`, `ss` and `conntrack -L`: what balances, what is set, who listens, which connections are known. PURE.

Source: ipvsadm.c (print_service_entry), conntrack-tools' and libnetfilter_conntrack's snprintf_default.c, iproute2's misc/ss.c.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import Literal

from routemesh.nodeplan import IpvsDestination, IpvsService, IpvsTimeouts, Sysctl
from routemesh.recording.source import Source

_HEADINGS = ("IP Virtual Server version", "Prot LocalAddress:Port", "-> RemoteAddress:Port")
_SERVICE = re.compile(
    r"FWM\s+(?P<mark>\d+)\s+(?:IPv4\s+)?(?P<scheduler>\w+)(?: persistent (?P<persistent>\d+))?(?: \((?P<flags>[\w,-]+)\))?"
)
_DESTINATION = re.compile(
    r"-> (?P<address>[\d.]+):(?P<port>\d+)\s+(?P<forward>Masq|Route|Tunnel|Local)\s+(?P<weight>\d+)\s+\d+\s+\d+"
)
_METHODS: Mapping[str, Literal["masq", "route", "tunnel"]] = {
    "Masq": "masq",
    "Route": "route",
    "Local": "route",
    "Tunnel": "tunnel",
}


def read_ipvs(source: Source) -> Iterator[IpvsService | IpvsDestination]:
    """IPVS's services by firewall mark with their destinations. Services by address are reported: Swarm makes none."""
    mark: int | None = None
    for number, line in source.lines():
        text = line.strip()
        if text.startswith(_HEADINGS):
            continue
        if (service := _SERVICE.fullmatch(text)) is not None:
            mark = int(service["mark"])
            yield IpvsService(
                mark=mark,
                scheduler=service["scheduler"],
                persistent_s=int(service["persistent"] or 0),
                fallback="fallback" in (service["flags"] or ""),
            )
        elif mark is not None and (destination := _destination(mark, text)) is not None:
            yield destination
        else:
            mark = mark if text.startswith("->") else None
            source.odd(number, line)


def _destination(mark: int, text: str) -> IpvsDestination | None:
    found = _DESTINATION.fullmatch(text)
    if found is None:
        return None
    try:
        address = IPv4Address(found["address"])
    except ValueError:
        return None
    method = _METHODS[found["forward"]]
    return IpvsDestination(mark=mark, address=address, port=int(found["port"]), weight=int(found["weight"]), method=method)


_TIMEOUTS = re.compile(r"Timeout \(tcp tcpfin udp\): (\d+) (\d+) (\d+)")


def read_ipvs_timeouts(source: Source) -> IpvsTimeouts | None:
    """`ipvsadm -L --timeout`."""
    for number, line in source.lines():
        found = _TIMEOUTS.fullmatch(line.strip())
        if found is not None:
            return IpvsTimeouts(tcp_s=int(found[1]), tcp_fin_s=int(found[2]), udp_s=int(found[3]))
        source.odd(number, line)
    return None


_SETTING = re.compile(r"(?P<name>[\w./@-]+) = (?P<value>.*)")


def read_sysctls(source: Source) -> Iterator[Sysctl]:
    """Settings by their path below /proc/sys. `sysctl` writes a dot of a device's name as a slash."""
    for number, line in source.lines():
        found = _SETTING.fullmatch(line.strip())
        if found is None:
            source.odd(number, line)
        else:
            yield Sysctl(found["name"].translate({ord("."): "/", ord("/"): "."}), found["value"].strip())
