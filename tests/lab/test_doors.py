"""What nobody is to reach, tried by who might: a neighbour on the node's network, a task, a stranger who needs a router."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from routemesh.model import INGRESS_VNI as VNI
from routemesh.model import VXLAN_PORT
from tests.lab import frames
from tests.lab.cluster import ADDRESSES, ANSWER_S, CLIENT, Cluster
from tests.support import wait_until

NODE = "node1"
ON_NODE = ("--constraint", f"node.hostname=={NODE}")


def link_address(mesh: Cluster, place: str, device: str) -> str:
    found = json.loads(mesh.inside(place, "ip", "-json", "link", "show", device))
    return str(found[0]["address"])


@contextmanager
def route(mesh: Cluster, place: str, *words: str) -> Iterator[None]:
    mesh.inside(place, "ip", "route", "add", *words)
    try:
        yield
    finally:
        mesh.inside(place, "ip", "route", "del", *words)


def is_silent(mesh: Cluster, address: str, port: int, place: str = "client") -> bool:
    """Whether a connection gets no answer at all."""
    try:
        with mesh.at(place, lambda: socket.create_connection((address, port), timeout=frames.HEARD_S)):
            return False
    except TimeoutError:
        return True


def test_a_neighbour_with_a_route_reaches_what_is_published_and_nothing_else(mesh: Cluster) -> None:
    with (
        mesh.service("shut", "--replicas", "1", "-p", "8111:80", *ON_NODE),
        route(mesh, "client", "172.18.0.0/16", "via", ADDRESSES[NODE]),
    ):
        (task,) = mesh.serving("shut")
        assert is_silent(mesh, task["gateway_address"], 80)
        assert is_silent(mesh, "172.18.0.2", 8111)
        assert mesh.ask(ADDRESSES[NODE], 8111)[0].peer == CLIENT
        with mesh.listening("client", 8999):
            mesh.connect(CLIENT, 8999, f"{NODE}/{task['container']}").close()


def test_tasks_do_not_reach_one_another_through_the_nodes_gateway(mesh: Cluster) -> None:
    with mesh.service("apart", "--replicas", "2", "-p", "8112:80", *ON_NODE):
        first, second = mesh.serving("apart")
        place = f"{NODE}/{first['container']}"
        with route(mesh, place, second["gateway_address"], "via", "172.18.0.1", "dev", "eth1"):
            assert is_silent(mesh, second["gateway_address"], 80, place)


def test_a_node_is_a_router_only_where_its_owner_makes_it_one(own_mesh: Cluster) -> None:
    def forwards(value: int) -> None:
        own_mesh.inside(NODE, "sysctl", "-qw", f"net.ipv4.ip_forward={value}")

    def routed() -> bool:
        return not is_silent(own_mesh, ADDRESSES["node2"], 8999)

    with (
        own_mesh.service("routed", "--replicas", "1", "-p", "8113:80"),
        own_mesh.listening("node2", 8999),
        route(own_mesh, "client", ADDRESSES["node2"], "via", ADDRESSES[NODE]),
    ):
        own_mesh.inside(NODE, "sysctl", "-qw", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0")
        forwards(1)
        wait_until(routed, 10, "forwarding as its owner wants it")
        forwards(0)
        wait_until(lambda: not is_silent(own_mesh, ADDRESSES[NODE], 8113), 10, "the published port's answer")
        wait_until(lambda: not routed(), 10, "the end of forwarding")
        assert own_mesh.ask(ADDRESSES[NODE], 8113)[0].peer == CLIENT
        assert own_mesh.inside(NODE, "sysctl", "-n", "net.ipv4.ip_forward").strip() == "0"


def test_the_nodes_loopback_is_nobody_elses(mesh: Cluster) -> None:
    """CVE-2020-8558, and the same from a task: docker_gwbridge routes loopback addresses, for the node's own connections."""
    with (
        mesh.service("inside", "--replicas", "1", "-p", "8114:80", *ON_NODE),
        frames.udp_server(mesh, NODE, "127.0.0.1", 8997) as loopback,
        frames.udp_server(mesh, NODE, "0.0.0.0", 8998) as open_to_all,
    ):
        (task,) = mesh.serving("inside")
        place, own = f"{NODE}/{task['container']}", task["gateway_address"]
        ways = {
            "task": (place, "eth1", own, "172.18.0.1", link_address(mesh, NODE, "docker_gwbridge")),
            "neighbour": ("client", "eth0", CLIENT, ADDRESSES[NODE], link_address(mesh, NODE, "eth0")),
        }
        for who, (at, device, source, gateway, node_mac) in ways.items():
            sender_mac, said = link_address(mesh, at, device), who.encode()

            def frame(
                sent_as: str, to: str, port: int, ends: tuple[str, str] = (sender_mac, node_mac), text: bytes = said
            ) -> bytes:
                return frames.ethernet(*ends, frames.IPV4, frames.udp(sent_as, to, port, text))

            frames.send(mesh, at, device, frame(source, gateway, 8998))
            assert frames.hears(open_to_all, said, ANSWER_S), f"{who}: what is allowed does not arrive either"
            frames.send(mesh, at, device, frame(source, "127.0.0.1", 8997), frame("127.0.0.5", gateway, 8998))
            assert not frames.hears(loopback, said, frames.HEARD_S), who
            assert not frames.hears(open_to_all, said, frames.HEARD_S), f"{who}: a sender in 127.0.0.0/8 is believed"
        assert len(mesh.ask("127.0.0.1", 8114, 2, NODE)) == 2


def test_a_task_that_takes_anothers_address_is_not_heard_outside(mesh: Cluster) -> None:
    with (
        mesh.service("forger", "--replicas", "1", "-p", "8115:80", *ON_NODE),
        frames.udp_server(mesh, "client", "0.0.0.0", 8996) as heard,
    ):
        (task,) = mesh.serving("forger")
        place = f"{NODE}/{task['container']}"
        ends = link_address(mesh, place, "eth1"), link_address(mesh, NODE, "docker_gwbridge")
        for source, passes in ((task["gateway_address"], True), ("198.51.100.7", False)):
            said = source.encode()
            frames.send(mesh, place, "eth1", frames.ethernet(*ends, frames.IPV4, frames.udp(source, CLIENT, 8996, said)))
            assert frames.hears(heard, said, ANSWER_S if passes else frames.HEARD_S) == passes


def test_the_overlay_takes_packets_from_nodes_alone(mesh: Cluster) -> None:
    with mesh.service("tunnelled", "--replicas", "1", "-p", "8116:80/udp", *ON_NODE):
        (task,) = mesh.serving("tunnelled")
        place = f"{NODE}/{task['container']}"
        own, sandbox = (link_address(mesh, at, "eth0") for at in (place, "node2/ingress_sbox"))

        def tunnel(sender: str, said: bytes) -> None:
            inside = frames.ethernet(sandbox, own, frames.IPV4, frames.udp(CLIENT, task["address"], 8116, said))
            with mesh.at(sender, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as outer:
                outer.sendto(frames.vxlan(VNI, inside), (ADDRESSES[NODE], VXLAN_PORT))

        with frames.sniffer(mesh, place, "eth0") as heard:
            tunnel("node2", b"from a node")
            assert frames.hears(heard, b"from a node", ANSWER_S)
            tunnel("client", b"from a stranger")
            assert not frames.hears(heard, b"from a stranger", frames.HEARD_S)


def lies(own: str, foreign: str, target_mac: str) -> Iterator[tuple[str, bytes]]:
    """Frames that say what is not so, each with what it is."""
    own_mac, foreign_mac = frames.mac_of(own), frames.mac_of(foreign)

    def packet(source_mac: str, source: str, port: int = 40000, to: str = target_mac) -> bytes:
        return frames.ethernet(source_mac, to, frames.IPV4, frames.udp(source, CLIENT, port, b"a lie", port + 1))

    def arp(frame_mac: str, said_mac: str, said: str) -> bytes:
        return frames.ethernet(frame_mac, target_mac, frames.ARP, frames.arp_reply(said_mac, said, target_mac, own))

    yield "another MAC", packet(foreign_mac, own)
    yield "another address", packet(own_mac, foreign)
    yield "another's MAC and address", packet(foreign_mac, foreign)
    yield "a DHCP client", packet(own_mac, "0.0.0.0", 67, frames.BROADCAST)
    yield "ARP for another address", arp(own_mac, own_mac, foreign)
    yield "ARP with another MAC", arp(own_mac, foreign_mac, own)
    yield "ARP in another's name", arp(foreign_mac, foreign_mac, foreign)
    everybody = "33:33:00:00:00:01"
    yield "a router advertisement", frames.ethernet(own_mac, everybody, frames.IPV6, frames.router_advertisement(own_mac))


def test_a_task_speaks_for_itself_alone(mesh: Cluster) -> None:
    """On docker_gwbridge, heard by the node, and on the overlay, heard by the sandbox."""
    with mesh.service("voice", "--replicas", "2", "-p", "8117:80", *ON_NODE):
        liar, other = mesh.serving("voice")
        place, sandbox = f"{NODE}/{liar['container']}", f"{NODE}/ingress_sbox"
        for device, listens, own, foreign in (
            ("eth1", (NODE, "docker_gwbridge"), liar["gateway_address"], "172.18.0.2"),
            ("eth0", (sandbox, "eth0"), liar["address"], other["address"]),
        ):
            target = link_address(mesh, *listens)
            honest = frames.ethernet(frames.mac_of(own), target, frames.IPV4, frames.udp(own, CLIENT, 40000, b"so it is"))
            with frames.sniffer(mesh, *listens) as heard:
                for what, lie in lies(own, foreign, target):
                    frames.send(mesh, place, device, lie)
                    frames.send(mesh, place, device, honest)
                    before = frames.heard_before(heard, b"so it is", ANSWER_S)
                    assert lie[6:] not in [frame[6:] for frame in before], f"{device}: {what}"
                said = frames.arp_reply(frames.mac_of(own), own, target, own)
                frames.send(mesh, place, device, frames.ethernet(frames.mac_of(own), target, frames.ARP, said))
                assert frames.hears(heard, said, ANSWER_S), f"{device}: honest ARP"
        assert {answer.peer for answer in mesh.ask(ADDRESSES[NODE], 8117, times=4)} == {CLIENT}


def test_a_task_does_not_take_the_sandboxs_place(mesh: Cluster) -> None:
    """ARP for 172.18.0.2 led all published ports of a node to a task."""
    with mesh.service("taken", "--replicas", "2", "-p", "8118:80", *ON_NODE):
        liar, _ = mesh.serving("taken")
        place = f"{NODE}/{liar['container']}"
        own_mac = link_address(mesh, place, "eth1")
        lie = frames.arp_reply(own_mac, "172.18.0.2", frames.BROADCAST, "172.18.0.2")
        frames.send(mesh, place, "eth1", *[frames.ethernet(own_mac, frames.BROADCAST, frames.ARP, lie)] * 5)
        assert len({answer.hostname for answer in mesh.ask(ADDRESSES[NODE], 8118, times=2)}) == 2
        known = json.loads(mesh.inside(NODE, "ip", "-json", "neighbour", "show", "172.18.0.2", "dev", "docker_gwbridge"))
        assert [(each["lladdr"], each["state"]) for each in known] == [(frames.mac_of("172.18.0.2"), ["PERMANENT"])]
