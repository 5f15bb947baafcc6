"""What netfilter does to a packet at a hook: chains, connection tracking, NAT, and new routes for what they changed. PURE.

Source: the kernel's nf_conntrack_core.c, nf_nat_core.c (nf_nat_inet_fn), nf_nat_proto.c (nf_nat_ipv4_local_fn),
nft_chain_route.c.
"""

from collections.abc import Mapping

from routemesh.nodeplan import Chain
from routemesh.walk import nft
from routemesh.walk.conntrack import End, rewritten
from routemesh.walk.flight import Flight
from routemesh.walk.hooks import Tracking, Translation

_END: Mapping[str, End] = {"prerouting": "destination", "output": "destination", "input": "source", "postrouting": "source"}


def pass_hook(flight: Flight, hook: str) -> None:
    """Everything at a hook, in order; raises Ended where it is the packet's end."""
    for turn in flight.stack.turns(hook):
        match turn:
            case Tracking():
                _track(flight)
            case Translation():
                _translate(flight, hook, turn.chains)
            case Chain():
                _pass_chain(flight, turn)


def _pass_chain(flight: Flight, chain: Chain) -> None:
    mark = flight.packet.mark
    nft.traverse(flight, chain)
    if chain.hook and chain.hook.type == "route" and flight.packet.mark != mark:
        flight.route()


def _track(flight: Flight) -> None:
    if flight.connection is None:
        flight.connection, flight.replies = flight.trip.conntrack(flight.stack.place).look_up(flight.packet)


def _translate(flight: Flight, hook: str, chains: tuple[Chain, ...]) -> None:
    """Ask the NAT chains about a connection's first packet; turn every packet into what was decided then."""
    connection, end = flight.connection, _END[hook]
    assert connection is not None
    destination = flight.packet.destination
    if not flight.replies:
        for chain in chains:
            if end not in connection.decided:
                nft.traverse(flight, chain)
        connection.decided |= {end}
    packet = rewritten(flight.packet, connection, replies=flight.replies, end=end)
    if packet is not flight.packet:
        flight.note(f"conntrack {end} {getattr(packet, end)}", None, packet)
    if hook == "output" and flight.packet.destination != destination:
        flight.route()
