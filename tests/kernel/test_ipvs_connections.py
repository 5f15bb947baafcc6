"""What becomes of connections through IPVS when their task drains or is gone, with real packets (rule 10)."""

import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from routemesh.diff import diff
from routemesh.kernel import netns
from routemesh.kernel.linux import LinuxKernel
from routemesh.model import Protocol
from routemesh.names import SANDBOX
from routemesh.nodeplan import (
    HOST,
    Address,
    Change,
    Create,
    Delete,
    IpvsDestination,
    IpvsService,
    Item,
    Link,
    Netns,
    NodePlan,
    Op,
    Peer,
    Route,
    Sysctl,
    namespace,
)
from routemesh.values import replace
from tests.kernel.private import private_netns

pytestmark = pytest.mark.ip_vs

FRONT, SANDBOX_ADDRESS = IPv4Address("172.18.0.2"), IPv4Address("10.0.0.2")
POOL = IPv4Network("10.0.0.0/24")
NODE, OUTSIDE = "172.18.0.1", "192.168.200.100"
"""Clients: of the first tasks see the sandbox, of the second its own address."""
TASKS = {"one": POOL[8], "two": POOL[9]}
PORT, MARK = 8080, 256
ANY = IPv4Network("0.0.0.0/0")
SERVICE = IpvsService(mark=MARK, scheduler="rr")
ONE, TWO = (IpvsDestination(mark=MARK, address=address) for address in TASKS.values())
IPTABLES = (
    f"-t mangle -A PREROUTING -p tcp --dport {PORT} -j MARK --set-mark {MARK}",
    f"-t mangle -A PREROUTING -p udp --dport {PORT} -j MARK --set-mark {MARK}",
    f"-t nat -A POSTROUTING -s 172.18.0.0/16 -d {POOL} -m ipvs --ipvs -j SNAT --to-source {SANDBOX_ADDRESS}",
)
"""As plan.engines.ipvs has them."""
MAY_BE_LOST = 2
"""Datagrams of a client whose task is gone."""


def veth(name: str, peer: str, peer_link: str, master: str | None = None) -> Link:
    return Link(name=name, kind="veth", master=master, peer=Peer(peer, peer_link))


def plan() -> NodePlan:
    """A node with two tasks; the client is the node itself."""
    ends = {SANDBOX: SANDBOX_ADDRESS, **TASKS}
    spaces: dict[str, list[Item]] = {
        HOST: [Netns(SANDBOX), Netns("overlay"), *map(Netns, TASKS)],
        "overlay": [Link(name="br0", kind="bridge"), *(veth(name, name, "eth0", "br0") for name in ends)],
    }
    for name, address in ends.items():
        spaces[name] = [veth("eth0", "overlay", name), Address("eth0", IPv4Interface((address, 24)))]
    for name in TASKS:
        spaces[name].append(Route(destination=ANY, via=SANDBOX_ADDRESS, link="eth0"))
    spaces[HOST] += [veth("gateway", SANDBOX, "eth1"), Address("gateway", IPv4Interface(f"{NODE}/16"))]
    spaces[HOST] += [Address("gateway", IPv4Interface(f"{OUTSIDE}/32"))]
    settings = {"ip_forward": "1", "vs/conntrack": "1", "vs/expire_nodest_conn": "1", "vs/expire_quiescent_template": "1"}
    spaces[SANDBOX] += [
        veth("eth1", HOST, "gateway"),
        Address("eth1", IPv4Interface((FRONT, 16))),
        Route(destination=ANY, via=IPv4Address(NODE), link="eth1"),
        *(Sysctl(f"net/ipv4/{name}", value) for name, value in settings.items()),
        SERVICE,
        ONE,
        TWO,
    ]
    return NodePlan({name: namespace(items) for name, items in spaces.items()})


class Node:
    """The node, with a UDP and a TCP server in each task, which answer with its name."""

    def __init__(self, kernel: LinuxKernel, stack: ExitStack) -> None:
        self._kernel = kernel
        self._stack = stack
        self.do(*diff(NodePlan(), plan()))
        for rule in IPTABLES:
            self._run_in_sandbox("iptables", *rule.split())
        for task in TASKS:
            with netns.entered(kernel.netns_path(task)):
                self._serve(socket.SOCK_DGRAM, task)
                self._serve(socket.SOCK_STREAM, task)

    def do(self, *ops: Op) -> None:
        failures = self._kernel.apply(ops)
        assert failures == (), [str(failure) for failure in failures]

    def client(self, kind: socket.SocketKind, source: str = OUTSIDE) -> socket.socket:
        made = self._stack.enter_context(socket.socket(socket.AF_INET, kind))
        made.settimeout(2)
        made.bind((source, 0))
        made.connect((str(FRONT), PORT))
        return made

    def flush(self, protocol: Protocol, *keep: IPv4Address) -> int:
        return self._kernel.flush_flows(SANDBOX, protocol, POOL, keep)

    def flush_untranslated(self) -> int:
        return self._kernel.flush_untranslated(SANDBOX, Protocol.UDP, {PORT})

    def _serve(self, kind: socket.SocketKind, task: str) -> None:
        server = self._stack.enter_context(socket.socket(socket.AF_INET, kind))
        server.bind(("", PORT))
        work = _answer_datagrams
        if kind is socket.SOCK_STREAM:
            server.listen()
            work = _accept
        self._stack.callback(_shut, server)
        threading.Thread(target=work, args=(server, task.encode()), daemon=True).start()

    def _run_in_sandbox(self, *command: str) -> None:
        subprocess.run(("nsenter", f"--net={self._kernel.netns_path(SANDBOX)}", *command), check=True)


def _answer_datagrams(server: socket.socket, answer: bytes) -> None:
    with suppress(OSError):
        while (client := server.recvfrom(100)[1]) is not None:
            server.sendto(answer, client)


def _accept(server: socket.socket, answer: bytes) -> None:
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_echo, args=(connection, answer), daemon=True).start()


def _echo(connection: socket.socket, answer: bytes) -> None:
    with connection, suppress(OSError):
        while connection.recv(100):
            connection.sendall(answer)


def _shut(server: socket.socket) -> None:
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with private_netns(with_tables=False) as space, space.enter(), closing(LinuxKernel(tmp_path)) as kernel, ExitStack() as stack:
        stack.callback(lambda: kernel.apply([Delete(HOST, Netns(name)) for name in plan().namespaces if name != HOST]))
        yield Node(kernel, stack)


def asks(client: socket.socket) -> str:
    client.send(b"?")
    return client.recv(100).decode()


def lost_before_an_answer(client: socket.socket) -> tuple[int, str]:
    """How many datagrams, sent one after the other, nobody answers, and who answers the next."""
    client.settimeout(0.3)
    for lost in range(20):
        with suppress(TimeoutError, ConnectionRefusedError):
            return lost, asks(client)
    raise AssertionError("nobody answers")


def other(task: str) -> str:
    (found,) = TASKS.keys() - {task}
    return found


def gone(task: str) -> tuple[Op, ...]:
    """Its namespace goes with it, before it can say goodbye to anybody."""
    destination = ONE if task == "one" else TWO
    return Delete(HOST, Netns(task)), Delete(SANDBOX, destination)


@pytest.mark.parametrize("source", [NODE, OUTSIDE])
@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "by itself"])
def test_a_udp_client_whose_task_is_gone_moves_at_once(node: Node, source: str, flushed: bool) -> None:
    client = node.client(socket.SOCK_DGRAM, source)
    task = asks(client)
    assert {asks(client) for _ in range(5)} == {task}
    node.do(*gone(task))
    if flushed:
        node.flush(Protocol.UDP, TASKS[other(task)])
    lost, answer = lost_before_an_answer(client)
    assert answer == other(task)
    assert lost <= MAY_BE_LOST
    assert {asks(client) for _ in range(5)} == {other(task)}


@pytest.mark.parametrize("source", [NODE, OUTSIDE])
@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "by itself"])
def test_a_tcp_client_whose_task_is_gone_hears_a_reset(node: Node, source: str, flushed: bool) -> None:
    client = node.client(socket.SOCK_STREAM, source)
    task = asks(client)
    node.do(*gone(task))
    if flushed:
        node.flush(Protocol.TCP, TASKS[other(task)])
    with pytest.raises(ConnectionResetError):
        asks(client)
    assert asks(node.client(socket.SOCK_STREAM)) == other(task)


def test_a_draining_task_keeps_what_it_has_and_gets_nothing_new(node: Node) -> None:
    stream, datagrams = node.client(socket.SOCK_STREAM), node.client(socket.SOCK_DGRAM)
    tasks = asks(stream), asks(datagrams)
    for task in set(tasks):
        old = ONE if task == "one" else TWO
        node.do(Change(SANDBOX, old, replace(old, weight=0)))
        node.flush(Protocol.UDP, TASKS[other(task)])
        assert Counter(asks(node.client(socket.SOCK_STREAM)) for _ in range(4)) == {other(task): 4}
        assert Counter(asks(node.client(socket.SOCK_DGRAM)) for _ in range(4)) == {other(task): 4}
        for client, its in ((stream, tasks[0]), (datagrams, tasks[1])):
            assert [asks(client) for _ in range(3)] == [its] * 3
        node.do(Change(SANDBOX, replace(old, weight=0), old))


def test_a_sticky_client_moves_when_its_task_drains(node: Node) -> None:
    node.do(Change(SANDBOX, SERVICE, replace(SERVICE, persistent_s=300)))
    task = asks(node.client(socket.SOCK_STREAM))
    assert {asks(node.client(socket.SOCK_STREAM)) for _ in range(4)} == {task}
    old = ONE if task == "one" else TWO
    node.do(Change(SANDBOX, old, replace(old, weight=0)))
    assert {asks(node.client(socket.SOCK_STREAM)) for _ in range(4)} == {other(task)}


def test_a_udp_client_that_asked_too_early_is_heard_when_there_is_a_task(node: Node) -> None:
    node.do(Delete(SANDBOX, SERVICE))
    client = node.client(socket.SOCK_DGRAM)
    with pytest.raises(ConnectionRefusedError):
        asks(client)
    node.do(*(Create(SANDBOX, item) for item in (SERVICE, ONE)))
    assert node.flush_untranslated() == 1
    lost, answer = lost_before_an_answer(client)
    assert (lost <= MAY_BE_LOST, answer) == (True, "one")
    assert node.flush_untranslated() == 0, "what IPVS translates is translated"
