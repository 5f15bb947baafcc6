"""What a walk is asked and what it answers. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import msgspec

from routemesh.errors import RoutemeshError
from routemesh.model import Protocol
from routemesh.nodeplan import Item, Rule
from routemesh.reasons.ends import End
from routemesh.reasons.events import Event
from routemesh.reasons.unclear import Doubt
from routemesh.reasons.words import of_doubt
from routemesh.snapshot import Endpoint, Place

TCP_AND_IP_HEADER_BYTES = 40


class Encapsulated(NamedTuple):
    """The frame that a VXLAN packet carries."""

    vni: int
    packet: "Packet"


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """A packet with the headers that decide its way. `flags` are TCP's; `mark` is the kernel's, not on the wire.

    `size_bytes`: with its IP header, 0: small enough for everything; it may not be cut into fragments. `mss_bytes`: how much of
    TCP's data its sender wants in a packet, which only the two that open a connection say.
    `arp`: it is one of ARP's, in which `source` and `source_mac` say who speaks.
    `error`: it is an ICMP error about a packet; protocol and ends are those that an answer to that packet would have.
    """

    protocol: Protocol
    source: Endpoint
    destination: Endpoint
    source_mac: str = ""
    destination_mac: str = ""
    mark: int = 0
    flags: frozenset[str] = frozenset()
    size_bytes: int = 0
    mss_bytes: int = 0
    inner: Encapsulated | None = None
    error: bool = False
    arp: bool = False

    def __str__(self) -> str:
        return f"{'icmp about ' if self.error else ''}{self.protocol} {self.source} → {self.destination}"


class Hop(NamedTuple):
    """One thing that happened to the packet. `item` decided it: a chain, a map's element, a route, an FDB entry …

    `rule`: which of a chain's rules it was.
    """

    place: Place
    device: str
    event: Event
    item: Item | None
    before: Packet
    after: Packet
    rule: Rule | None = None


class ReplyArrives(msgspec.Struct, frozen=True):
    """The answer reaches the client, and comes from the address and port that the client asked."""


class ReplyLost(msgspec.Struct, frozen=True):
    """The answer does not reach the client, or not as an answer to what it asked."""

    place: Place
    reason: End


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """A process gets the packet and answers. `peer` is the source that it sees; `process` its own name, "" where not known.

    `full_size`: what becomes of packets as large as client and process then send them; None where that was not asked.
    """

    place: Place
    protocol: Protocol
    port: int
    peer: Endpoint
    reply: "ReplyArrives | ReplyLost | Unclear"
    process: str = ""
    full_size: "ReplyArrives | ReplyLost | Unclear | None" = None


class Refused(msgspec.Struct, frozen=True):
    """The client is told no, by a TCP reset or an ICMP error that reaches it, or by its own kernel."""

    place: Place
    reason: End


class Dropped(msgspec.Struct, frozen=True):
    """The client is told nothing."""

    place: Place
    reason: End


class Question(NamedTuple):
    """Something of which a walk can suppose either: what is in doubt, where, for which packet."""

    place: Place
    doubt: Doubt
    packet: Packet


Supposed = Mapping[Question, bool]
"""The answers that a walk takes for given."""


@dataclass(frozen=True, slots=True)
class Unclear:
    """What happens next can't be told. `open`: it is one of two things, each of which can be walked (Supposed)."""

    place: Place
    reason: Doubt
    open: "Question | None" = field(default=None, compare=False)


Outcome = Delivered | Refused | Dropped | Unclear


class Branch(msgspec.Struct, frozen=True):
    """One of the ways that a packet may take; `share` of all new connections take it.

    `estimated`: a choice depends on what can't be known here, a hash or how many connections are open; the share is as the
    weights would have it.
    """

    share: Fraction
    hops: tuple[Hop, ...]
    outcome: Outcome
    reply_hops: tuple[Hop, ...] = ()
    estimated: bool = False


Walk = tuple[Branch, ...]
"""The shares add up to 1."""


class UnknownRule(RoutemeshError):
    """Something in the kernel that the walker can't evaluate; it never guesses (rule 11)."""

    def __init__(self, place: Place, reason: Doubt, question: Question | None = None) -> None:
        super().__init__(f"{place}: can't tell what happens at {of_doubt(reason)}")
        self.unclear = Unclear(place, reason, question)
