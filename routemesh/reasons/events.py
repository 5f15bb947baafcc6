"""What happens to a packet at a hop. PURE."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from routemesh.model import Protocol
from routemesh.reasons.ends import End
from routemesh.snapshot import Endpoint, Place

# --- links and routes ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Routed:
    """A route was chosen; `via` None: the destination is on the link."""

    link: str
    via: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The next hop's MAC; `state` of the neighbour's entry, "" where it was asked for or is permanent.

    `learned`: ARP tells it, no entry does yet.
    """

    address: IPv4Address
    mac: str
    state: str = ""
    learned: bool = False


@dataclass(frozen=True, slots=True)
class Bridged:
    """A bridge passes the frame to one of its ports."""

    bridge: str
    port: str


@dataclass(frozen=True, slots=True)
class IntoTunnel:
    """The frame is wrapped and sent to a node."""

    vni: int
    to: IPv4Address


@dataclass(frozen=True, slots=True)
class OutOfTunnel:
    """The frame is unwrapped and comes out of a VXLAN device."""

    vni: int
    place: Place
    link: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The packet is at the sockets of the namespace, for that port."""

    protocol: Protocol
    port: int


OfStack = Routed | Resolved | Bridged | IntoTunnel | OutOfTunnel | Accepted

# --- connections and balancing ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Translated:
    """Connection tracking gives an end what was decided for the connection."""

    end: Literal["source", "destination"]
    to: Endpoint


@dataclass(frozen=True, slots=True)
class OtherPort:
    """NAT takes another source port, such as this one, because answers would look like another connection's."""

    port: int


@dataclass(frozen=True, slots=True)
class Scheduled:
    """IPVS chooses a server for a new connection; `direct`: it gets packets as they are."""

    mark: int
    scheduler: str
    server: IPv4Address
    direct: bool


@dataclass(frozen=True, slots=True)
class SentToServer:
    """IPVS gives the packet its server's address."""

    server: Endpoint


@dataclass(frozen=True, slots=True)
class AnsweredAs:
    """IPVS gives a server's answer the source that was asked."""

    asked: Endpoint


OfConnections = Translated | OtherPort | Scheduled | SentToServer | AnsweredAs

How = Literal["dnat", "redirect", "snat", "masquerade"]
"""How a rule translates."""

# --- rules; `kind`: the type of nftables' base chain (filter, nat, route), or iptables' table -----------------------


@dataclass(frozen=True, slots=True)
class Assigned:
    """A rule sets a field."""

    kind: str
    chain: str
    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Learned:
    """A rule adds to a map."""

    kind: str
    chain: str
    map: str
    value: str


@dataclass(frozen=True, slots=True)
class Clamped:
    """A rule lowers TCP's MSS."""

    kind: str
    chain: str
    mss_bytes: int


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A rule translates an end of a new connection. `port` None: it stays; `address` None: only the port changes (redirect)."""

    kind: str
    chain: str
    how: How
    address: IPv4Address | None
    port: int | None


@dataclass(frozen=True, slots=True)
class Led:
    """A map's element leads to another chain."""

    kind: str
    chain: str
    verdict: Literal["jump", "goto"]
    target: str


OfRules = Assigned | Learned | Clamped | Rewritten | Led

# --- the end, and what is not a packet's --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stopped:
    """The packet went no further; `refused`: its sender is told."""

    end: End
    refused: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """A part of a proxy (frontend, rule, backend, server) decided about a request."""

    at: str


Event = OfStack | OfConnections | OfRules | Stopped


def chain_of(event: Event) -> str:
    """The chain that decided, "" where none did."""
    decided = event.end if isinstance(event, Stopped) else event
    return getattr(decided, "chain", "")
