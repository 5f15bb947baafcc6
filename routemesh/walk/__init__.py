"""What happens to one packet and to its reply, in the kernels of all nodes, as planned or as observed. PURE.

Tests use this as oracle and people as `explain` (rule 11). It knows the kernel's rules and the vocabulary of nodeplan, not how
`plan` uses them. What it does not know it reports as UnknownRule.

    nouns      packets, places, hops, outcomes         journey     to a process and back; travel: step by step; sizes: large ones
    network    all nodes, planned or seen → stack      layer3      a namespace's IP layer: in, on, out, arrived
    stack      one namespace; routing: its routes      layer2      from a device to the next IP layer; arp: who answers
    flight     a packet under way                      netfilter   what is met at a hook; hooks: in which order
    lots       its choices                             conntrack   connections, NAT; ipvs, balancer: IPVS's
    chains     both tools' chains in one form          rules       what they do; reads, fields: what they can read
    xtwords    iptables' words of others               nftwords    nft's; nftreads, nftvalues: what those read, and compare

What can't be told is supposed to be so, and not to be so: what both ways have in common is told (supposing).
Where a rule draws lots (numgen) or IPVS chooses a server, the walk is repeated once for every lot.
"""

from collections.abc import Iterator

import msgspec

from routemesh.model import Protocol
from routemesh.snapshot import OUTSIDE, Endpoint, Place
from routemesh.values import replace
from routemesh.walk.flight import Trip
from routemesh.walk.journey import there_and_back
from routemesh.walk.lots import Lots
from routemesh.walk.network import Host, Network, observed
from routemesh.walk.nouns import (
    Branch,
    Delivered,
    Dropped,
    Encapsulated,
    Hop,
    Outcome,
    Packet,
    Refused,
    ReplyArrives,
    ReplyLost,
    Supposed,
    Unclear,
    UnknownRule,
    Walk,
)
from routemesh.walk.supposing import MOST_OPEN, in_common, open_question

__all__ = [
    "OUTSIDE",
    "Branch",
    "Delivered",
    "Dropped",
    "Encapsulated",
    "Endpoint",
    "Hop",
    "Host",
    "Network",
    "Outcome",
    "Packet",
    "Place",
    "Refused",
    "ReplyArrives",
    "ReplyLost",
    "Unclear",
    "UnknownRule",
    "Walk",
    "every_way",
    "observed",
    "walk",
]


def walk(network: Network, packet: Packet, start: Place = OUTSIDE, *, router: str = "") -> Walk:
    """Where the first packet of a new connection gets to, and the answer to it: one branch for every choice on the way.

    `start`: OUTSIDE for a client on the underlay that is not a node, or the namespace whose process sends it. `router`: the node
    through which a client outside has a route to the packet's destination; "" where that is on the underlay.
    Raises UnknownRule at anything that can't be evaluated, NotFound when `start` does not exist.
    """
    branches = every_way(network, packet, start, router=router)
    for branch in branches:
        outcome = branch.outcome.reply if isinstance(branch.outcome, Delivered) else branch.outcome
        if isinstance(outcome, Unclear):
            raise UnknownRule(outcome.place, outcome.reason)
    return branches


def every_way(network: Network, packet: Packet, start: Place = OUTSIDE, *, full_size: bool = False, router: str = "") -> Walk:
    """The same for people: a branch, or a reply, that leads to what can't be evaluated ends there, as Unclear.

    `full_size`: on each connection try packets as large as may be, too.
    """
    if packet.protocol is Protocol.TCP:
        packet = replace(packet, flags=frozenset({"syn"}))
    return tuple(_Asked(network, packet, start, full_size, router).branches({}))


class _Asked(msgspec.Struct, frozen=True):
    """The question of a walk: everything but what it draws and supposes."""

    network: Network
    packet: Packet
    start: Place
    full_size: bool
    router: str

    def branches(self, supposed: Supposed, first: tuple[int, ...] = ()) -> Iterator[Branch]:
        """One for each choice, of those that begin with the lots `first`."""
        waiting = [first]
        while waiting:
            lots = Lots(waiting.pop())
            trip = Trip(self.network, lots.draw, self.router, supposed)
            outcome, turn = there_and_back(trip, self.packet, self.start, full_size=self.full_size)
            branch = Branch(lots.share, tuple(trip.hops[:turn]), outcome, tuple(trip.hops[turn:]), lots.estimated)
            yield from self._whatever_is_so(branch, supposed, lots.drawn)
            waiting += lots.others()

    def _whatever_is_so(self, branch: Branch, supposed: Supposed, drawn: tuple[int, ...]) -> Walk:
        """What becomes of it in any case, where something can't be told; itself where that makes a difference."""
        question = open_question(branch.outcome)
        if question is None or len(supposed) >= MOST_OPEN:
            return (branch,)
        no, yes = (tuple(self.branches({**supposed, question: answer}, drawn)) for answer in (False, True))
        return in_common(no, yes) or (branch,)
