"""Overlay addresses that several namespaces have. PURE."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from routemesh import names
from routemesh.nodeplan import HOST, Address
from routemesh.snapshot import ClusterSnapshot
from routemesh.walk import Place


def doubles(cluster: ClusterSnapshot) -> Mapping[IPv4Address, Sequence[Place]]:
    """Overlay addresses that several tasks and sandboxes have but for VIPs. Who should have it comes first."""
    known = cluster.names
    subnets = [network.subnet for network in known.networks if network.vni and network.subnet is not None]
    overlays = {HOST, *(network.netns for network in known.networks)}
    vips = {vip for service in known.services for vip in service.vips.values()}
    owners = {address: Place(task.node, task.netns) for task in known.tasks for address in task.addresses.values()}
    owners |= {node.ingress_address: Place(node.name, names.SANDBOX) for node in known.nodes if node.ingress_address}
    found: dict[IPv4Address, list[Place]] = {}
    for name, node in cluster.nodes.items():
        for netns, space in node.namespaces.items():
            for address in {item.address.ip for item in space.of(Address)} if netns not in overlays else ():
                if address not in vips and any(address in subnet for subnet in subnets):
                    found.setdefault(address, []).append(Place(name, netns))
    return {
        address: [place for place in having if place == owners.get(address)]
        + [place for place in having if place != owners.get(address)]
        for address, having in found.items()
        if len(having) > 1
    }
