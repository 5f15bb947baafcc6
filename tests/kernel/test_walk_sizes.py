"""Where a device takes less, large packets do what the walker says: real datagrams beside walked ones.

Datagrams, for what TCP sends in one go may travel as one packet (GSO) past a device that drops any of its segments alone.
"""

import socket

import pytest

from routemesh import names
from routemesh.model import Protocol
from routemesh.nodeplan import HOST, Link, NodePlan
from routemesh.values import replace
from routemesh.walk import (
    Delivered,
    Endpoint,
    Host,
    Network,
    Packet,
    Place,
    ReplyArrives,
    every_way,
)
from tests.kernel.private import Private
from tests.kernel.test_walk import Mesh
from tests.property.clusters import CLIENT, CLUSTER, SOURCE_PORT

OVERLAY = names.overlay_netns(CLUSTER.ingress_id)
PORT = 8080
PAYLOAD_BYTES = 1472
"""With 28 bytes of headers as much as the client's device takes."""

TRIES = 4
"""The first ones may teach the sender how large a packet may be."""

PATIENCE_S = 0.5


def narrowed(net: Network, node: str, inner: str, device: str, mtu: int) -> Network:
    """The network with another MTU of one device; of a node's own card, which no plan contains, it says it at all."""
    host = net.hosts[node]
    items = dict(host.plan.namespaces[inner])
    known = items.get(("Link", device))
    link = replace(known, mtu=mtu) if isinstance(known, Link) else Link(name=device, kind="veth", mtu=mtu)
    plan = NodePlan({**host.plan.namespaces, inner: {**items, ("Link", device): link}})
    return Network({**net.hosts, node: Host(plan, host.addresses)}, net.listening, net.sysctls, net.wildcard_udp)


def walked(net: Network, node: str) -> dict[str, bool]:
    """By task: whether large packets get to it and back. Small ones do everywhere."""
    packet = Packet(
        protocol=Protocol.UDP,
        source=Endpoint(CLIENT, SOURCE_PORT),
        destination=Endpoint(net.hosts[node].addresses[0], PORT),
    )
    found = {}
    for branch in every_way(net, packet, full_size=True):
        assert isinstance(branch.outcome, Delivered)
        assert branch.outcome.reply == ReplyArrives()
        found[str(branch.outcome.place)] = branch.outcome.full_size == ReplyArrives()
    return found


def real(client: Private, net: Network, node: str) -> dict[str, bool]:
    """The same of real ones; a socket stays with the task that answered its first, small one."""
    found: dict[str, bool] = {}
    for _ in range(TRIES):
        with client.enter():
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(PATIENCE_S)
            asking.connect((str(net.hosts[node].addresses[0]), PORT))
            asking.send(b"?")
            task = asking.recv(64).decode().split()[0]
            if task not in found:
                found[task] = any(comes_back(asking) for _ in range(TRIES))
    return found


def comes_back(asking: socket.socket) -> bool:
    """Whether a large datagram is answered by a large one."""
    try:
        asking.send(b"?".ljust(PAYLOAD_BYTES))
        return len(asking.recv(PAYLOAD_BYTES)) == PAYLOAD_BYTES
    except OSError:
        return False


PLACES = (
    (HOST, "eth0", 1500),
    (HOST, "eth0", 1400),
    (names.SANDBOX, names.OVERLAY_LINK, 1300),
    (HOST, names.GWBRIDGE, 1400),
    (HOST, names.gwbridge_port(names.SANDBOX), 1400),
    (names.SANDBOX, names.OVERLAY_LINK, 1500),
    (OVERLAY, names.VXLAN, 1300),
    (OVERLAY, names.overlay_port(names.SANDBOX), 1300),
)
CASES = [
    *(pytest.param("nftables", *place) for place in PLACES),
    # The engines differ in who notices in the sandbox; the virtual machine is slow.
    *(pytest.param("ipvs", *place, marks=pytest.mark.ip_vs) for place in PLACES[:3]),
]


@pytest.mark.parametrize(("mesh", "inner", "device", "mtu"), CASES, indirect=["mesh"], scope="session")
def test_large_packets_do_what_the_walker_says(mesh: Mesh, inner: str, device: str, mtu: int) -> None:
    node = "node0"
    place = Place(node, inner)
    before = mesh.setup.network.hosts[node].plan.namespaces[inner].get(("Link", device))
    usual = before.mtu if isinstance(before, Link) else 1500
    net = narrowed(mesh.setup.network, node, inner, device, mtu)
    mesh.prepare()
    try:
        mesh.set_mtu(place, device, mtu)
        assert real(mesh.client, net, node) == walked(net, node)
    finally:
        mesh.set_mtu(place, device, usual)
        mesh.forget_paths()
