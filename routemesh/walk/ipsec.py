"""IPsec policies of one namespace: what they block, and what they would turn into something else. PURE.

The first that fits decides, by priority; none lets a packet pass. What goes to or comes from lo meets none (disable_policy and
disable_xfrm are on there).
Source: ip-xfrm(8); the kernel's xfrm_policy.c (xfrm_selector_match, xfrm_policy_lookup_bytype), ip_forward.c.
"""

from routemesh.model import Protocol
from routemesh.nodeplan import LOOPBACK
from routemesh.reasons.ends import IpsecBlocks
from routemesh.reasons.unclear import IpsecTransforms
from routemesh.snapshot import IpsecDirection, IpsecPolicy
from routemesh.walk.flight import Flight
from routemesh.walk.nouns import Packet, UnknownRule

_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17}
_ICMP, _ANY = 1, 0


def meet(flight: Flight, *directions: IpsecDirection) -> None:
    """Let a packet meet its policies; raises Ended where one blocks it, UnknownRule where one encrypts it, or wants it so."""
    stack, packet = flight.stack, flight.packet
    if LOOPBACK in (flight.incoming, flight.outgoing):
        return
    for direction in directions:
        fitting = (each for each in flight.trip.network.policies(stack.place) if _fits(each, packet, direction))
        policy = min(fitting, key=lambda each: each.priority, default=None)
        if policy is None:
            continue
        if policy.blocks:
            flight.drop(IpsecBlocks(direction, policy.source, policy.destination))
        if policy.transforms:
            raise UnknownRule(stack.place, IpsecTransforms(direction, policy.source, policy.destination))


def _fits(policy: IpsecPolicy, packet: Packet, direction: IpsecDirection) -> bool:
    number = _ICMP if packet.error else _NUMBERS[packet.protocol]
    ports = packet.error or (
        packet.source.port & policy.source_port_mask == policy.source_port
        and packet.destination.port & policy.port_mask == policy.port
    )
    return (
        policy.direction == direction
        and policy.protocol in (_ANY, number)
        and packet.mark & policy.mark_mask == policy.mark
        and packet.source.address in policy.source
        and packet.destination.address in policy.destination
        and ports
    )
