"""Namespaces, links, addresses, routes and neighbours: the part of the path that all engines share. PURE.

    node ""            docker_gwbridge 172.18.0.1 ── a veth to eth1 of the sandbox and of every task
    ingress_sbox       eth0 overlay address and VIPs, eth1 172.18.0.2, default via 172.18.0.1
    1-<network id>     br0 10.0.0.1 ── vxlan0 and a veth to eth0 of the sandbox and of every publishing task
    <container id>     eth0 overlay (publishing tasks), eth1 docker_gwbridge, default via 172.18.0.1

Bridges neither learn nor flood: every local MAC is a static entry of its port; what no port has goes to vxlan0 alone, whose
own table knows every remote MAC and which drops the rest. What a task sends must bear its own MAC and address.
Names, MACs and addresses are libnetwork's.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from routemesh import names
from routemesh.model import VXLAN_OVERHEAD_BYTES, ClientIp, Cluster, Network, Protocol, Task
from routemesh.nodeplan import (
    HOST,
    Address,
    Capabilities,
    FdbEntry,
    Item,
    Link,
    Neighbour,
    Netns,
    Peer,
    Route,
    Sysctl,
    Vxlan,
)
from routemesh.plan import bridges, doors
from routemesh.plan.view import NodeView

EVERYWHERE = IPv4Network("0.0.0.0/0")


def gwbridge_address(cluster: Cluster) -> IPv4Address:
    """docker_gwbridge's own address: the first of its pool."""
    return cluster.gwbridge_subnet[1]


def sandbox_gwbridge_address(cluster: Cluster) -> IPv4Address:
    """The sandbox's address on docker_gwbridge, the second of its pool, the same on every node as in Swarm."""
    return cluster.gwbridge_subnet[2]


def overlay_mtu(view: NodeView, network: Network) -> int:
    """An overlay's MTU in bytes: its own, or the underlay's less what VXLAN adds."""
    return network.mtu_bytes or view.node.mtu_bytes - VXLAN_OVERHEAD_BYTES


def placed(view: NodeView) -> Iterator[Task]:
    """The node's tasks that have their address on docker_gwbridge, which is all that a namespace needs."""
    return (task for task in view.tasks if task.gateway_address is not None)


def host(view: NodeView, caps: Capabilities) -> Iterator[Item]:
    """The node's own namespace: the bridge and one port for the sandbox and each task."""
    cluster = view.cluster
    for network in view.networks:
        yield Netns(names.sandbox(network))
        yield Netns(names.overlay_netns(network.id))
    yield Link(name=names.GWBRIDGE, kind="bridge", mtu=view.node.mtu_bytes, mac=names.mac(gwbridge_address(cluster)))
    yield Address(names.GWBRIDGE, _on(gwbridge_address(cluster), cluster.gwbridge_subnet))
    # net.ipv4.ip_forward stays as its owner has it: it would make the machine a router. It decides by the incoming device's.
    for link in (names.GWBRIDGE, *caps.links):
        yield _forwards(link)
    # Replies to a connection from 127.0.0.1 come back to 127.0.0.1 through the bridge.
    yield Sysctl(f"net/ipv4/conf/{names.GWBRIDGE}/route_localnet", "1")
    yield from _gwbridge_port(view, names.SANDBOX, sandbox_gwbridge_address(cluster))
    yield Neighbour(names.GWBRIDGE, sandbox_gwbridge_address(cluster), names.mac(sandbox_gwbridge_address(cluster)))
    here = _on_gwbridge(view)
    yield from bridges.behind_docker_gwbridge(view.node.mtu_bytes, here)
    for task, address in here:
        yield Netns(names.container_id(task.id))
        yield Neighbour(names.GWBRIDGE, address, names.mac(address))
    yield from _gwbridge_ports(view, 0, here, caps)


def further_gwbridges(view: NodeView, caps: Capabilities) -> Iterator[tuple[str, tuple[Item, ...]]]:
    """The namespaces of the bridges beside docker_gwbridge, each with what is in it."""
    here, mtu = _on_gwbridge(view), view.node.mtu_bytes
    for number in bridges.numbers(task for task, _ in here):
        ports = _gwbridge_ports(view, number, here, caps)
        yield names.more_gwbridge(number), (*bridges.further_gwbridge(mtu, number), *ports)


def _on_gwbridge(view: NodeView) -> bridges.Here:
    return [(task, address) for task in placed(view) if (address := task.gateway_address) is not None]


def _gwbridge_ports(view: NodeView, number: int, here: bridges.Here, caps: Capabilities) -> Iterator[Item]:
    """The tasks' ports on one of the node's bridges."""
    on_it = [(task, address) for task, address in here if task.bridge == number]
    for task, address in on_it:
        _, bridge = bridges.gwbridge_side(task)
        yield from _gwbridge_port(view, names.container_id(task.id), address, bridge)
    yield from doors.ports(caps, ((names.gwbridge_port(names.container_id(task.id)), address) for task, address in on_it))


def sandbox(view: NodeView, network: Network) -> Iterator[Item]:
    """The sandbox of a network, ingress_sbox: both interfaces, the services' VIPs, forwarding."""
    address = view.node.sandbox_on(network.id)
    assert address is not None
    yield from _overlay_end(view, network, names.sandbox(network), address)
    for service in view.services:
        if (vip := service.vip_on(network.id)) is not None:
            yield Address(names.OVERLAY_LINK, IPv4Interface(int(vip)))
    yield from _gwbridge_end(view, names.SANDBOX, sandbox_gwbridge_address(view.cluster))
    yield from _forwarding(names.OVERLAY_LINK, names.GWBRIDGE_LINK)
    yield from _no_reverse_path_filter(names.OVERLAY_LINK, names.GWBRIDGE_LINK)


def overlay(view: NodeView, network: Network, caps: Capabilities) -> Iterator[Item]:
    """A network's namespace: bridge, tunnel, local ports and one neighbour and FDB entry per remote endpoint."""
    node = view.node
    bridge_address = overlay_bridge_address(network)
    mtu = overlay_mtu(view, network)
    yield Link(name=names.OVERLAY_BRIDGE, kind="bridge", mtu=mtu, mac=names.mac(bridge_address))
    yield Address(names.OVERLAY_BRIDGE, _on(bridge_address, network.subnet))
    tunnel = Vxlan(network.vni, node.address, view.cluster.vxlan_port)
    yield Link(name=names.VXLAN, kind="vxlan", mtu=mtu, master=names.OVERLAY_BRIDGE, vxlan=tunnel)
    own = node.sandbox_on(network.id)
    assert own is not None
    yield from _overlay_port(view, network, names.sandbox(network), own)
    here = [(task, address) for task in placed(view) if (address := task.address_on(network.id)) is not None]
    # On the ingress network only the gateway calls tasks.
    apart = network.id == view.ingress.id
    yield from bridges.behind_overlay(names.overlay_netns(network.id), mtu, here, isolated=apart)
    for task, address in here:
        isolated = apart and task.spec.gateway is None
        side = bridges.overlay_side(task)
        yield from _overlay_port(view, network, names.container_id(task.id), address, side, isolated=isolated)
    yield from doors.ports(caps, ((names.overlay_port(names.container_id(task.id)), address) for task, address in here))
    nodes = {peer.id: peer.address for peer in view.peers}
    for peer in view.peers:
        if (address := peer.sandbox_on(network.id)) is not None:
            yield from _remote(address, peer.address)
    for task in view.remote:
        if (address := task.address_on(network.id)) is not None and task.node_id is not None:
            yield from _remote(address, nodes[task.node_id])


def task(view: NodeView, task: Task) -> Iterator[Item]:
    """A task's namespace: eth1 for its own traffic, eth0 for what is published; the way back is the engine's."""
    netns = names.container_id(task.id)
    assert task.gateway_address is not None
    yield from _gwbridge_end(view, netns, task.gateway_address, answers_from(view, task), bridges.gwbridge_side(task)[0])
    address = task.address_on(view.ingress.id)
    if address is None:
        return
    yield from _overlay_end(view, view.ingress, netns, address)
    yield from _no_reverse_path_filter(names.OVERLAY_LINK, names.GWBRIDGE_LINK)
    if task.spec.client_ip is ClientIp.KEEP:
        # A client's port that comes again through another node would meet its socket in TIME_WAIT, whose timestamps it
        # can't continue: the SYN is passed over and repeated after a second. Source: tcp_timewait_state_process.
        yield Sysctl("net/ipv4/tcp_max_tw_buckets", "0")


def answers_from(view: NodeView, task: Task) -> IPv4Address | None:
    """The source address that a task's unbound sockets must take, None where any will do.

    A UDP server that is bound to no address answers from the one that the route to the client prefers. The client asked the
    overlay address; an answer from another is not a reply for conntrack and is lost. (A TCP socket keeps what was asked.)
    """
    udp = any(port.protocol is Protocol.UDP for port in task.spec.publish)
    return task.address_on(view.ingress.id) if udp and task.spec.client_ip is ClientIp.KEEP else None


def overlay_bridge_address(network: Network) -> IPv4Address:
    """The overlay bridge's address: the first of the network's pool."""
    return network.subnet[1]


def _gwbridge_port(view: NodeView, netns: str, address: IPv4Address, bridge: str = names.GWBRIDGE) -> Iterator[Item]:
    port = names.gwbridge_port(netns)
    peer = Peer(netns, names.GWBRIDGE_LINK)
    # As on Swarm's docker_gwbridge (enable_icc=false) tasks do not reach one another. The sandbox's port is open: where
    # br_netfilter is loaded, a task's call to its own node is translated inside the bridge and goes from port to port.
    isolated = netns != names.SANDBOX
    mtu = view.node.mtu_bytes
    yield Link(name=port, kind="veth", mtu=mtu, master=bridge, peer=peer, flood=False, isolated=isolated)
    yield FdbEntry(port, names.mac(address))


def _gwbridge_end(
    view: NodeView, netns: str, address: IPv4Address, source: IPv4Address | None = None, behind: str = HOST
) -> Iterator[Item]:
    peer = Peer(behind, names.gwbridge_port(netns))
    yield Link(name=names.GWBRIDGE_LINK, kind="veth", mtu=view.node.mtu_bytes, mac=names.mac(address), peer=peer)
    yield Address(names.GWBRIDGE_LINK, _on(address, view.cluster.gwbridge_subnet))
    yield Neighbour(names.GWBRIDGE_LINK, gwbridge_address(view.cluster), names.mac(gwbridge_address(view.cluster)))
    yield Route(destination=EVERYWHERE, via=gwbridge_address(view.cluster), link=names.GWBRIDGE_LINK, source=source)


def _overlay_port(
    view: NodeView,
    network: Network,
    netns: str,
    address: IPv4Address,
    bridge: str = names.OVERLAY_BRIDGE,
    *,
    isolated: bool = False,
) -> Iterator[Item]:
    port, mtu = names.overlay_port(netns), overlay_mtu(view, network)
    peer = Peer(netns, names.OVERLAY_LINK)
    yield Link(name=port, kind="veth", mtu=mtu, master=bridge, peer=peer, flood=False, isolated=isolated)
    yield FdbEntry(port, names.mac(address))


def _overlay_end(view: NodeView, network: Network, netns: str, address: IPv4Address) -> Iterator[Item]:
    peer = Peer(names.overlay_netns(network.id), names.overlay_port(netns))
    yield Link(name=names.OVERLAY_LINK, kind="veth", mtu=overlay_mtu(view, network), mac=names.mac(address), peer=peer)
    yield Address(names.OVERLAY_LINK, _on(address, network.subnet))


def _remote(address: IPv4Address, tunnel_end: IPv4Address) -> Iterator[Item]:
    mac = names.mac(address)
    yield Neighbour(names.VXLAN, address, mac)
    yield FdbEntry(names.VXLAN, mac, tunnel_end)


def _forwarding(*links: str) -> Iterator[Item]:
    yield Sysctl("net/ipv4/ip_forward", "1")
    yield from map(_forwards, links)


def _forwards(link: str) -> Sysctl:
    return Sysctl(f"net/ipv4/conf/{link}/forwarding", "1")


def _no_reverse_path_filter(*links: str) -> Iterator[Item]:
    """A client's packet comes in through eth0 though the route to the client leads through eth1."""
    for link in ("all", *links):
        yield Sysctl(f"net/ipv4/conf/{link}/rp_filter", "0")


def _on(address: IPv4Address, subnet: IPv4Network) -> IPv4Interface:
    return IPv4Interface((int(address), subnet.prefixlen))
