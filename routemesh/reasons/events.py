"""What happens to a packet at a hop. PURE."""

from ipaddress import IPv4Address
from typing import Literal

import msgspec

from routemesh.model import Protocol
from routemesh.reasons.ends import End
from routemesh.snapshot import Endpoint, Place

# --- links and routes ---------------------------------------------------------------------------------------------


class Routed(msgspec.Struct, frozen=True):
    """A route was chosen; `via` None: the destination is on the link."""

    link: str
    via: IPv4Address | None = None


class Resolved(msgspec.Struct, frozen=True):
    """The next hop's MAC; `state` of the neighbour's entry, "" where it was asked for or is permanent.

    `learned`: ARP tells it, no entry does yet.
    """

    address: IPv4Address
    mac: str
    state: str = ""
    learned: bool = False


class Bridged(msgspec.Struct, frozen=True):
    """A bridge passes the frame to one of its ports."""

    bridge: str
    port: str


class IntoTunnel(msgspec.Struct, frozen=True):
    """The frame is wrapped and sent to a node."""

    vni: int
    to: IPv4Address


class OutOfTunnel(msgspec.Struct, frozen=True):
    """The frame is unwrapped and comes out of a VXLAN device."""

    vni: int
    place: Place
    link: str


class Accepted(msgspec.Struct, frozen=True):
    """The packet is at the sockets of the namespace, for that port."""

    protocol: Protocol
    port: int


OfStack = Routed | Resolved | Bridged | IntoTunnel | OutOfTunnel | Accepted

# --- connections and balancing ------------------------------------------------------------------------------------


class Translated(msgspec.Struct, frozen=True):
    """Connection tracking gives an end what was decided for the connection."""

    end: Literal["source", "destination"]
    to: Endpoint


class OtherPort(msgspec.Struct, frozen=True):
    """NAT takes another source port, such as this one, because answers would look like another connection's."""

    port: int


class Scheduled(msgspec.Struct, frozen=True):
    """IPVS chooses a server for a new connection; `direct`: it gets packets as they are."""

    mark: int
    scheduler: str
    server: IPv4Address
    direct: bool


class SentToServer(msgspec.Struct, frozen=True):
    """IPVS gives the packet its server's address."""

    server: Endpoint


class AnsweredAs(msgspec.Struct, frozen=True):
    """IPVS gives a server's answer the source that was asked."""

    asked: Endpoint


OfConnections = Translated | OtherPort | Scheduled | SentToServer | AnsweredAs

How = Literal["dnat", "redirect", "snat", "masquerade"]
"""How a rule translates."""

# --- rules; `kind`: the type of nftables' base chain (filter, nat, route), or iptables' table -----------------------


class Assigned(msgspec.Struct, frozen=True):
    """A rule sets a field."""

    kind: str
    chain: str
    field: str
    value: str


class Learned(msgspec.Struct, frozen=True):
    """A rule adds to a map."""

    kind: str
    chain: str
    map: str
    value: str


class Clamped(msgspec.Struct, frozen=True):
    """A rule lowers TCP's MSS."""

    kind: str
    chain: str
    mss_bytes: int


class Rewritten(msgspec.Struct, frozen=True):
    """A rule translates an end of a new connection. `port` None: it stays; `address` None: only the port changes (redirect)."""

    kind: str
    chain: str
    how: How
    address: IPv4Address | None
    port: int | None


class Untracked(msgspec.Struct, frozen=True):
    """A rule keeps connection tracking, and with it NAT, from the packet."""

    kind: str
    chain: str


class Led(msgspec.Struct, frozen=True):
    """A map's element leads to another chain."""

    kind: str
    chain: str
    verdict: Literal["jump", "goto"]
    target: str


OfRules = Assigned | Learned | Clamped | Rewritten | Untracked | Led

# --- the end, and what is not a packet's --------------------------------------------------------------------------------


class Stopped(msgspec.Struct, frozen=True):
    """The packet went no further; `refused`: its sender is told."""

    end: End
    refused: bool


class Decided(msgspec.Struct, frozen=True):
    """A part of a proxy (frontend, rule, backend, server) decided about a request."""

    at: str


Event = OfStack | OfConnections | OfRules | Stopped


def chain_of(event: Event) -> str:
    """The chain that decided, "" where none did."""
    decided = event.end if isinstance(event, Stopped) else event
    return getattr(decided, "chain", "")
