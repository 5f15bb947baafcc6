"""Underlay devices that carry less than the overlay puts on them: one finding for each, at its origin. PURE.

What follows of it is told there alone: large packets that ways lose, probes that get no answer.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from routemesh import names
from routemesh.doctor import Finding, Severity
from routemesh.doctor.ways import Walked
from routemesh.model import VXLAN_OVERHEAD_BYTES
from routemesh.nodeplan import Link
from routemesh.reasons.ends import TooLarge
from routemesh.snapshot import ClusterSnapshot, NodeSnapshot


class Narrow(NamedTuple):
    """A node's device on the underlay whose MTU is below what its tunnels need."""

    link: str
    mtu_bytes: int
    needed_bytes: int


def narrow(cluster: ClusterSnapshot) -> Mapping[str, Narrow]:
    """By node."""
    return {name: found for name, node in cluster.nodes.items() if (found := _of_node(node)) is not None}


def _of_node(node: NodeSnapshot) -> Narrow | None:
    device = next((link for link in node.host.of(Link) if link.name == node.device), None)
    tunnels = [link.mtu for space in node.namespaces.values() for link in space.of(Link) if link.vxlan is not None and link.up]
    needed = max(tunnels, default=0) + VXLAN_OVERHEAD_BYTES
    return Narrow(device.name, device.mtu, needed) if device is not None and tunnels and device.mtu < needed else None


def findings(cluster: ClusterSnapshot, walked: Walked) -> Iterator[Finding]:
    """One for each such device."""
    for name, (link, mtu, needed) in narrow(cluster).items():
        lost = walked.by_end(name, TooLarge)
        room = mtu - VXLAN_OVERHEAD_BYTES
        effect = f"packets of more than {room} bytes can't leave through VXLAN; the sender of one is told, where that reaches it"
        yield Finding(
            what="MTU",
            where=name,
            state=Severity.WRONG,
            found=f"{link} has MTU {mtu}, and {names.VXLAN} has {needed - VXLAN_OVERHEAD_BYTES}, which needs {needed}",
            effect=lost.effect if lost else effect,
            effect_basis="predicted",
            fix=f"on {name}: ip link set {link} mtu {needed}, if its network carries that; else give the overlay {room}",
            commands=(f"ip link set {link} mtu {needed}",),
        )
