"""What real packets met between the nodes' sandboxes, beside their kernels' state; devices that garble them. PURE."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from routemesh.doctor import Finding, Severity, listed, mtu
from routemesh.doctor.facts import Facts
from routemesh.doctor.ways import Origin
from routemesh.errors import RoutemeshError
from routemesh.explain.way import Places
from routemesh.model import VXLAN_OVERHEAD_BYTES, VXLAN_PORT, Protocol
from routemesh.names import SANDBOX
from routemesh.reasons.ends import LinkDown
from routemesh.reasons.words import of_doubt, of_end
from routemesh.sightings import Echoes, Offload
from routemesh.snapshot import ClusterSnapshot, Endpoint, Place
from routemesh.walk import Delivered, Network, Packet, Unclear, every_way

_PORT = 33434
"""Any: whether the packet gets to the other sandbox is asked, not who takes it there."""

_GARBLING = {
    "vmxnet3": "some versions of ESXi write wrong checksums into what is inside of VXLAN (moby#41775)",
    "hv_netvsc": "some versions of Hyper-V write wrong checksums into what is inside of VXLAN",
}
"""Drivers that are known for it."""


class Lost(NamedTuple):
    """Packets that do not get from one node's sandbox to another's. `sizes`: one that is lost, and one that is not, or 0.

    `certain`: it is this direction; otherwise it may be the other one. `refused`: why the sender can't even send it.
    """

    sender: str
    to: str
    sizes: tuple[int, int]
    certain: bool = True
    refused: str = ""

    def __str__(self) -> str:
        return f"from {self.sender} to {self.to}" if self.certain else f"between {self.sender} and {self.to}"


def findings(cluster: ClusterSnapshot, facts: Facts, network: Network, told: Set[Origin] = frozenset()) -> Iterator[Finding]:
    """Between every two nodes that were asked, in each direction; then devices. A node that is silent is told already.

    `told`: where and by which kind of end ways fail; what is lost there for the same reason follows from that.
    """
    seen = {(name, probe.peer): probe for name, node in facts.nodes.items() for probe in node.probes}
    silent = {node.name for node in cluster.names.nodes if node.absent}
    lost = [found for pair in seen if pair[1] not in silent and (found := lost_between(seen, *pair)) is not None]
    yield from _all_lost(cluster, network, [each for each in lost if not each.sizes[1]], told)
    yield from _too_large([each for each in lost if each.sizes[1] and mtu.narrow(cluster).keys().isdisjoint(each[:2])])
    whole = sum(probe.answered == probe.sizes for probe in seen.values())
    if whole:
        largest = listed({f"{max(probe.sizes)} bytes" for probe in seen.values() if probe.answered == probe.sizes})
        yield Finding(
            what="overlay",
            where=listed(facts.nodes, 8),
            state=Severity.OK,
            found=f"packets of {largest} get there and back through VXLAN between {whole} of {len(seen)} pairs of nodes",
        )
    for name, node in facts.nodes.items():
        yield from (found for offload in node.offloads for found in _offload(name, offload))


def lost_between(seen: Mapping[tuple[str, str], Echoes], sender: str, to: str) -> Lost | None:
    """What does not get from one to the other. Where the other listened too it knows what arrived, else answers alone tell."""
    probe, other = seen[sender, to], seen.get((to, sender))
    small, large = min(probe.sizes), max(probe.sizes)
    through = small if small in probe.answered else 0
    if probe.refused:
        return Lost(sender, to, (large, through), refused=probe.refused)
    arrived = {*probe.answered, *(other.heard if other is not None else ())}
    if small not in arrived:
        return Lost(sender, to, (small, 0), certain=other is not None)
    if large not in arrived:
        return Lost(sender, to, (large, small), certain=other is not None)
    return None  # if no answer came, it is the other direction that fails


def _all_lost(cluster: ClusterSnapshot, network: Network, lost: Sequence[Lost], told: Set[Origin]) -> Iterator[Finding]:
    """By what the nodes' kernels say of it: where one loses it, that is it; where all let it pass, it is what is between them."""
    by_reason: dict[tuple[str, str], list[Lost]] = {}
    for each in lost:
        ends = _ends(cluster, network, each)
        node, _ = ends.origin
        if told.isdisjoint({ends.origin, (node, LinkDown)}):  # all may follow from a link that is off
            by_reason.setdefault((ends.place, ends.why), []).append(each)
    address = {node.name: str(node.address) for node in cluster.names.nodes}
    for (place, why), alike in by_reason.items():
        pairs = listed((f"from {address.get(each.sender, each.sender)} to {address.get(each.to, each.to)}" for each in alike), 6)
        refused = listed(each.refused for each in alike if each.refused)
        between = (
            f"let UDP {VXLAN_PORT} pass {pairs} in what is between them (a cloud's security group, a switch): "
            "the nodes' own rules, routes and devices let it pass"
        )
        yield Finding(
            what="overlay",
            where=listed(dict.fromkeys(name for each in alike for name in (each.sender, each.to)), 8),
            state=Severity.WRONG,
            found=f"no packet gets through VXLAN {listed(map(str, alike), 6)}{f' ({refused})' if refused else ''}"
            + (f": {place}: {why}" if why else ""),
            effect="connections that enter at one node and lead to a task on the other fail",
            fix=f"see what is said of {place}" if why else between,
        )


class _Ends(NamedTuple):
    """Where a packet is lost, or it can't be told, and why, in words; "" where it is not. `origin`: as ways have it."""

    place: str = ""
    why: str = ""
    origin: Origin = ("", None)


def _ends(cluster: ClusterSnapshot, network: Network, lost: Lost) -> _Ends:
    """What the nodes' kernels do with such a packet on its way."""
    at = {node.name: node.ingress_address for node in cluster.names.nodes}
    source, destination = at.get(lost.sender), at.get(lost.to)
    if source is None or destination is None:
        return _Ends()
    packet = Packet(protocol=Protocol.UDP, source=Endpoint(source, _PORT), destination=Endpoint(destination, _PORT))
    try:
        outcome = every_way(network, packet, Place(lost.sender, SANDBOX))[0].outcome
    except RoutemeshError as error:
        return _Ends(lost.sender, str(error))
    if outcome.place == Place(lost.to, SANDBOX) or isinstance(outcome, Delivered):
        return _Ends()
    place = Places(cluster).called(outcome.place)
    if isinstance(outcome, Unclear):
        return _Ends(place, f"can't be told: {of_doubt(outcome.reason)}")
    return _Ends(place, of_end(outcome.reason), (outcome.place.node, type(outcome.reason)))


def _too_large(lost: Sequence[Lost]) -> Iterator[Finding]:
    if not lost:
        return
    large, small = max(each.sizes[0] for each in lost), max(each.sizes[1] for each in lost)
    refused = listed(each.refused for each in lost if each.refused)
    devices = f"give every device on the way an MTU of {large + VXLAN_OVERHEAD_BYTES} (ip link set DEVICE mtu …)"
    yield Finding(
        what="MTU",
        where=listed(dict.fromkeys(name for each in lost for name in (each.sender, each.to)), 8),
        state=Severity.WRONG,
        found=f"packets of {large} bytes are lost through VXLAN {listed(map(str, lost), 6)}{f' ({refused})' if refused else ''}; "
        f"of {small} bytes they get through",
        effect="ping works, and connections hang as soon as they send much",
        fix=f"on these nodes: {devices}; overlay devices of ours (br0, vxlan0, eth0 of tasks and sandbox) have {large}",
    )


def _offload(node: str, found: Offload) -> Iterator[Finding]:
    if found.checksums and found.driver in _GARBLING:
        yield Finding(
            what="checksum offload",
            where=node,
            state=Severity.OPTIONAL,
            found=f"{found.link} has driver {found.driver} and writes checksums; {_GARBLING[found.driver]}",
            effect="where it does, ping works and connections through VXLAN hang",
            fix=f"on {node}: ethtool -K {found.link} tx-checksum-ip-generic off",
        )
