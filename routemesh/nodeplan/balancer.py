"""IPVS."""

from ipaddress import IPv4Address
from typing import Literal

import msgspec


class IpvsTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Idle connections are forgotten after so many seconds: `ipvsadm --set TCP TCPFIN UDP`; one of each namespace."""

    tcp_s: int
    tcp_fin_s: int
    udp_s: int


class IpvsService(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual service by firewall mark: `ipvsadm -A -f MARK -s SCHEDULER`.

    `persistent_s`: for how many seconds without a packet a client keeps its destination; 0: every connection is scheduled.
    `fallback`: where the hash of `sh` or `mh` leads to a destination of weight 0, another is taken.
    """

    mark: int
    scheduler: str
    persistent_s: int = 0
    fallback: bool = False


class IpvsDestination(msgspec.Struct, frozen=True, kw_only=True):
    """A real server of a service: `ipvsadm -a -f MARK -r ADDRESS:PORT -m -w WEIGHT`. Port 0: as the client had it.

    With weight 0 it keeps its connections and gets no new ones. `method` other is only read: none of the three, or a limit of
    connections besides.
    """

    mark: int
    address: IPv4Address
    port: int = 0
    weight: int = 1
    method: Literal["masq", "route", "tunnel", "other"] = "masq"
