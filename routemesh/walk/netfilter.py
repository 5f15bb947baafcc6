"""What netfilter does to a packet at a hook: chains, connection tracking, NAT, IPVS, and new routes for what they changed. PURE.

Source: the kernel's nf_conntrack_core.c, nf_nat_core.c (nf_nat_inet_fn), nf_nat_proto.c (nf_nat_ipv4_local_fn),
nft_chain_route.c, iptable_mangle.c.
"""

from collections.abc import Mapping

from routemesh.reasons.ends import AnswersClash
from routemesh.reasons.events import OtherPort, Translated
from routemesh.walk import ipvs, rules
from routemesh.walk.chains import RuleChain
from routemesh.walk.conntrack import Connection, End, rewritten
from routemesh.walk.flight import Flight
from routemesh.walk.hooks import Answers, Requests, Tracking, Translation

_END: Mapping[str, End] = {"prerouting": "destination", "output": "destination", "input": "source", "postrouting": "source"}

_LAST = ("input", "postrouting")
"""Where a connection is confirmed, behind everything else (nf_confirm)."""


def pass_hook(flight: Flight, hook: str) -> None:
    """Everything at a hook, in order, until IPVS takes the packet over; raises Ended where it is the packet's end."""
    for turn in flight.stack.turns(hook):
        match turn:
            case Tracking():
                _track(flight)
            case Translation():
                _translate(flight, hook, turn.chains)
            case RuleChain():
                _pass_chain(flight, turn)
            case Answers():
                ipvs.translate_answer(flight, hook)
            case Requests():
                ipvs.schedule(flight, hook)
        if flight.taken:
            return
    if hook in _LAST and flight.connection is not None:
        _confirm(flight, flight.connection)


def _pass_chain(flight: Flight, chain: RuleChain) -> None:
    mark = flight.packet.mark
    rules.traverse(flight, chain)
    if chain.hook and chain.hook.type == "route" and flight.packet.mark != mark:
        flight.route()


def _track(flight: Flight) -> None:
    if flight.connection is not None or flight.untracked:
        return
    place, network = flight.stack.place, flight.trip.network
    conntrack = flight.trip.conntrack(place)
    known = conntrack.look_up(flight.packet, flight.zone)
    if known is None and flight.packet.error:
        return  # about nothing that is known here
    if known is None and (full := network.full(place)) is not None:
        flight.drop(full)
    flight.connection, flight.replies = known or (conntrack.new(flight.packet, flight.zone), False)


def _confirm(flight: Flight, connection: Connection) -> None:
    """Source: __nf_conntrack_confirm."""
    if not connection.confirmed and flight.trip.conntrack(flight.stack.place).clashes(connection):
        flight.drop(AnswersClash())
    connection.confirmed = True


def _translate(flight: Flight, hook: str, chains: tuple[RuleChain, ...]) -> None:
    """Ask the NAT chains about a connection's first packet; turn every packet into what was decided then."""
    connection, end = flight.connection, _END[hook]
    if connection is None:
        return
    destination = flight.packet.destination
    if not flight.replies and not flight.packet.error:
        first = end not in connection.decided
        for chain in chains:
            if end not in connection.decided:
                rules.traverse(flight, chain)
        connection.decided |= {end}
        if first and end == "source":
            _make_different(flight, connection)
    packet = rewritten(flight.packet, connection, replies=flight.replies, end=end)
    if packet != flight.packet:
        flight.note(Translated(end, getattr(packet, end)), None, after=packet)
    if hook == "output" and flight.packet.destination != destination:
        flight.route()


def _make_different(flight: Flight, connection: Connection) -> None:
    """NAT gives a connection another source port if its answers would look like another one's (get_unique_tuple)."""
    conntrack = flight.trip.conntrack(flight.stack.place)
    if flight.stack.translates and conntrack.clashes(connection):
        port = conntrack.give_another_port(connection)
        flight.note(OtherPort(port), None)
