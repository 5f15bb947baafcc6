"""The walker says what Linux does: real connections beside walked ones.

In namespaces of its own: two nodes and a client on one wire, with all that the nodes should have, or all but one thing. With the
engine ipvs each node refuses to forward what nobody has accepted, as a machine with Docker or a firewall does.
"""

import errno
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from ipaddress import IPv4Address
from itertools import chain, product
from pathlib import Path
from select import select

import pytest

from routemesh import names
from routemesh.diff import diff
from routemesh.kernel import netns
from routemesh.kernel.linux import LinuxKernel
from routemesh.model import Node, Protocol
from routemesh.nodeplan import HOST, Delete, ItemKey, Match, Netns, Verdict, XtChain, key
from routemesh.walk import OUTSIDE, Delivered, Network, Outcome, Place, Refused, ReplyArrives
from tests.addresses import ingress_address, on_ingress
from tests.kernel.private import Private, private_netns
from tests.property.clusters import CLIENT, CLUSTER, Attempt, from_inside, from_outside, network, tried
from tests.property.removal import KEEPING, OTHERS, TARGET, Removal, removals, two_nodes

PORTS = (((Protocol.TCP, 53), (Protocol.UDP, 8080)), ((Protocol.TCP, 80), (Protocol.UDP, 53)))
"""Two ports of each of the two services."""

TASKS_PER_SERVICE = 2
PASSES = 3
PATIENCE_S = (0.25, 3.0)
"""How long an answer is waited for; the second time only where another outcome was expected, for the machine may be busy."""

NO_ANSWER = (None, errno.EHOSTUNREACH)
"""Of TimeoutError; and of an ICMP error that says, seconds later, that ARP found nobody."""

# br_netfilter is on in every new namespace, where the kernel has it (and then it has this directory).
FILTERS_BRIDGES = Path("/proc/sys/net/bridge").exists()
WALL = XtChain("filter", "FORWARD", policy="DROP")


class Setup:
    """A cluster of one engine: what its kernels should have of ours, and all that a packet meets there."""

    def __init__(self, engine: str, *, bridges: bool = False) -> None:
        self.engine = engine
        self.state = two_nodes(engine, bridges=bridges)
        self.nodes = {node.name: node for node in self.state.nodes.values()}
        self.walls = (WALL,) if engine == "ipvs" else ()
        self.plans = {name: host.plan for name, host in network(self.state).hosts.items()}
        self.network = network(self.state, wildcard_udp=True, filters_bridges=FILTERS_BRIDGES, foreign=self.walls)


SETUPS = {
    **{engine: Setup(engine) for engine in ("nftables", "ipvs")},
    "several bridges": Setup("nftables", bridges=True),
}
IPVS = pytest.param("ipvs", marks=pytest.mark.ip_vs)


class Mesh:
    """The two nodes, and a client, on one wire.

    A task answers with its place and the address of its peer, and a datagram with one of the same size.
    """

    def __init__(self, setup: Setup, directory: Path, opened: ExitStack) -> None:
        self.setup = setup
        wire = opened.enter_context(private_netns(with_tables=setup.engine == "nftables"))
        wire.run("ip", "link", "add", "wire", "up", "type", "bridge")
        self.client = _plugged("client", CLIENT, wire, opened)
        self.spaces = {name: _plugged(name, node.address, wire, opened) for name, node in setup.nodes.items()}
        self.kernels: dict[str, LinuxKernel] = {}
        for name, space in self.spaces.items():
            for wall in setup.walls:
                space.run("iptables", "-t", wall.table, "-P", wall.name, "DROP")
            with space.enter():
                at = setup.nodes[name].address
                kernel = self.kernels[name] = opened.enter_context(closing(LinuxKernel(directory / name, at)))
            opened.callback(kernel.apply, [Delete(HOST, Netns(inner)) for inner in setup.plans[name].namespaces if inner])
            self.restore(name)
        self._serve(opened)

    def path(self, place: Place) -> Path:
        """The file of a namespace."""
        if place == OUTSIDE:
            return self.client.path
        return self.kernels[place.node].netns_path(place.netns) if place.netns else self.spaces[place.node].path

    def restore(self, node: str) -> None:
        """Give a node all that it should have; what vanished along with something is missed when that is back."""
        kernel, plan = self.kernels[node], self.setup.plans[node]
        for _ in range(PASSES):
            if not (ops := diff(kernel.read(plan), plan)):
                return
            assert kernel.apply(ops) == ()
        assert diff(kernel.read(plan), plan) == ()

    def prepare(self) -> None:
        """Nobody remembers who had which address; every refusal is sent, not one a second."""
        for name, plan in self.setup.plans.items():
            for inner in plan.namespaces:
                with netns.entered(self.path(Place(name, inner))):
                    subprocess.run(("ip", "neigh", "flush", "all"), check=True, capture_output=True)
                    Path("/proc/sys/net/ipv4/icmp_ratelimit").write_text("0")

    def set_mtu(self, place: Place, device: str, mtu: int) -> None:
        """Let a device take another size of packets."""
        with netns.entered(self.path(place)):
            subprocess.run(("ip", "link", "set", device, "mtu", str(mtu)), check=True)

    def forget_paths(self) -> None:
        """Nobody remembers how large packets may be."""
        for path in (
            self.client.path,
            *(self.path(Place(name, inner)) for name, plan in self.setup.plans.items() for inner in plan.namespaces),
        ):
            with netns.entered(path):
                subprocess.run(("ip", "route", "flush", "cache"), check=True)

    def _serve(self, opened: ExitStack) -> None:
        sockets: dict[socket.socket, str] = {}
        for place in self.setup.network.listening:
            with netns.entered(self.path(Place(*place))):
                tcp = opened.enter_context(socket.create_server(("", TARGET), backlog=64))
                udp = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                udp.bind(("", TARGET))
            sockets |= {tcp: str(Place(*place)), udp: str(Place(*place))}
        wake, awake = socket.socketpair()
        thread = threading.Thread(target=_answer_all, args=(sockets, awake))
        thread.start()
        opened.callback(awake.close)
        opened.callback(thread.join)
        opened.callback(wake.close)


def _plugged(name: str, address: IPv4Address, wire: Private, opened: ExitStack) -> Private:
    space = opened.enter_context(private_netns(with_tables=False))
    wire.run("ip", "link", "add", name, "master", "wire", "up", "type", "veth", "peer", "name", "eth0", "netns", space.name)
    space.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    space.run("ip", "link", "set", "eth0", "up")
    space.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")
    return space


_LARGEST = 2048


def _answer_all(sockets: dict[socket.socket, str], awake: socket.socket) -> None:
    """Until the other end of `awake` is closed."""
    while awake not in (ready := select([*sockets, awake], [], [])[0]):
        for each in ready:
            with suppress(OSError):
                if each.type == socket.SOCK_STREAM:
                    connection, peer = each.accept()
                    with connection:
                        connection.sendall(f"{sockets[each]} {peer[0]}".encode())
                else:
                    asked, peer = each.recvfrom(_LARGEST)
                    each.sendto(f"{sockets[each]} {peer[0]}".encode().ljust(len(asked)), peer)


# --- what came of it ----------------------------------------------------------------------------------------------


def asked(path: Path, attempt: Attempt, protocol: Protocol, port: int, patience_s: float) -> str:
    """What comes of a real connection: `PLACE ADDRESS`, refused, silence."""
    with netns.entered(path):
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM)
    with client:
        client.settimeout(patience_s)
        try:
            client.bind((str(attempt.source), 0))
            client.connect((str(attempt.destination), port))
            client.send(b"?")
            return client.recv(64).decode().strip()
        except ConnectionRefusedError:
            return "refused"
        except OSError as error:
            if error.errno not in NO_ANSWER:
                raise
            return "silence"


def told(outcome: Outcome) -> str:
    """The same of a walked one."""
    if isinstance(outcome, Delivered) and outcome.reply == ReplyArrives():
        return f"{outcome.place} {outcome.peer.address}"
    return "refused" if isinstance(outcome, Refused) else "silence"


def compare(mesh: Mesh, net: Network, entries: list[Node]) -> None:
    """Try ports of both services, each service by itself, for its turn must not be disturbed."""
    attempts = [attempt for entry in entries for attempt in (from_outside(entry), *from_inside(mesh.setup.state, entry))]
    with ThreadPoolExecutor(len(PORTS)) as pool:
        found = pool.map(lambda ports: [difference(mesh, net, *each) for each in product(attempts, ports)], PORTS)
        assert [each for each in chain(*found) if each] == []


def difference(mesh: Mesh, net: Network, attempt: Attempt, wanted: tuple[Protocol, int]) -> str:
    """What the walker said and what Linux did, where that is not the same. There is one connection for each task's turn."""
    walked = {told(branch.outcome) for branch in tried(net, attempt, *wanted)}
    path, real = mesh.path(attempt.start), set()
    with ThreadPoolExecutor(TASKS_PER_SERVICE) as pool:
        for patience_s in PATIENCE_S:
            turns = [pool.submit(asked, path, attempt, *wanted, patience_s) for _ in range(TASKS_PER_SERVICE)]
            real = {turn.result() for turn in turns}
            if real == walked:
                return ""
    return f"{attempt} {wanted}: walked {walked}, real {real}"


# --- tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mesh", ["nftables", "several bridges", IPVS], indirect=True)
def test_a_whole_mesh_does_what_the_walker_says(mesh: Mesh) -> None:
    mesh.prepare()
    compare(mesh, mesh.setup.network, list(mesh.setup.nodes.values()))


def missing(engine: str, where: set[str], item: ItemKey, rule: int | None = None) -> Removal:
    """What node0 is to lack, by the namespaces in one of which it is; `item` may be the beginning of a key."""
    return next(
        gone
        for gone in removals(SETUPS[engine].network)
        if gone.node == "node0" and gone.netns in where and key(gone.item)[: len(item)] == item and number(gone) == rule
    )


def number(gone: Removal) -> int | None:
    rules = getattr(gone.item, "rules", ())
    return None if gone.rule is None else rules.index(gone.rule)


SANDBOX, OVERLAY = {names.SANDBOX}, {names.overlay_netns(CLUSTER.ingress_id)}
REMOTE = {
    ingress_address(task): names.mac(ingress_address(task))
    for task in SETUPS["nftables"].state.tasks.values()
    if on_ingress(task) and task.node_id == "node1"
}
REMOTE_KEPT, REMOTE_MAC = next(iter(REMOTE.items()))
OF_NFTABLES: tuple[tuple[set[str], ItemKey, int | None], ...] = (
    ({HOST}, ("Element", "ip", "published", ("tcp", 53)), None),
    ({HOST}, ("Chain", "ip", "filter-forward"), 1),
    ({HOST}, ("Element", "bridge", "senders"), None),
    ({HOST}, ("Element", "ip", "peers"), None),
    (OVERLAY, ("Element", "bridge", "senders"), None),
    ({HOST}, ("Chain", "ip", "nat-postrouting"), None),
    ({HOST}, ("Chain", "ip", "nat-postrouting"), 0),
    ({HOST}, ("Chain", "ip", "nat-postrouting"), 1),
    (SANDBOX, ("Element", "ip", "backends", (256, 0)), None),
    (SANDBOX, ("Element", "ip", "marks", ("udp", 8080)), None),
    (SANDBOX, ("Chain", "ip", "nat-postrouting"), None),
    (OVERLAY, ("FdbEntry", "vxlan0", REMOTE_MAC), None),
    (OVERLAY, ("Neighbour", "vxlan0", REMOTE_KEPT), None),
    (KEEPING, ("RoutingRule", 82, 0x0A000000), None),
    (KEEPING, ("Chain", "netdev", "egress"), None),
    (KEEPING, ("Chain", "ip", "route-output"), None),
    (KEEPING, ("Table", "ip"), None),
    (OTHERS, ("Element", "ip", "ports", ("udp", 53)), None),
    (OTHERS, ("Element", "ip", "published", ("tcp", 80)), None),
)
OF_IPVS: tuple[tuple[set[str], ItemKey, int | None], ...] = (
    ({HOST}, ("XtChain", "nat", names.INGRESS_CHAIN), 0),
    ({HOST}, ("XtRule", "nat", "PREROUTING"), None),
    ({HOST}, ("XtRule", "nat", "POSTROUTING"), None),
    ({HOST}, ("XtRule", "filter", "FORWARD", (Match("oifname", names.GWBRIDGE), Verdict("jump", names.INGRESS_CHAIN))), None),
    ({HOST}, ("XtChain", "mangle", names.FORWARD_CHAIN), 1),
    (SANDBOX, ("IpvsService", 256), None),
    (SANDBOX, ("IpvsDestination", 256, REMOTE_KEPT), None),
    (SANDBOX, ("XtChain", "mangle", "PREROUTING"), 0),
    (SANDBOX, ("XtChain", "nat", "POSTROUTING"), 0),
    (KEEPING, ("RoutingRule",), None),
    (KEEPING, ("XtChain", "mangle", "OUTPUT"), None),
    (OTHERS, ("XtChain", "nat", "PREROUTING"), None),
)
LACKING = [
    *(pytest.param("nftables", gone, id=str(gone)) for each in OF_NFTABLES for gone in [missing("nftables", *each)]),
    *(
        pytest.param("ipvs", gone, id=f"ipvs {gone}", marks=pytest.mark.ip_vs)
        for each in OF_IPVS
        for gone in [missing("ipvs", *each)]
    ),
]


@pytest.mark.parametrize(("mesh", "gone"), LACKING, indirect=["mesh"], scope="session")
def test_so_does_one_that_lacks_something(mesh: Mesh, gone: Removal) -> None:
    try:
        assert mesh.kernels[gone.node].apply([gone.op]) == ()
        mesh.prepare()
        compare(mesh, gone.of(mesh.setup.network), [mesh.setup.nodes["node0"]])
    finally:
        mesh.restore(gone.node)
