"""The machine has what the tests beside this one take for granted: IPVS, iptables of the older kind, VXLAN, namespaces."""

import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from routemesh.kernel.linux import LinuxKernel
from tests.kernel.private import Private, private_netns
from tests.uml import modules

CLIENT = "10.9.0.100"
FRONT, VIP = "10.9.0.1", "10.9.1.1"
BACKENDS = ("10.9.0.2", "10.9.0.3")
PORT = 8080
MARK = 0x100
SCHEDULERS = ("dh", "fo", "lblc", "lblcr", "lc", "mh", "nq", "ovf", "rr", "sed", "sh", "wlc", "wrr")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def space(stack: ExitStack) -> Private:
    return stack.enter_context(private_netns(with_tables=False))


def plug(one: Private, address: str, wire: Private, port: str) -> None:
    """Give a namespace `eth0`, whose other end is a port of the bridge `wire` in the namespace `wire`."""
    wire.run("ip", "link", "add", port, "type", "veth", "peer", "eth0", "netns", one.name)
    wire.run("ip", "link", "set", port, "up", "master", "wire")
    one.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
    one.run("ip", "link", "set", "eth0", "up")


def serve(server: socket.socket) -> None:
    """Answer each connection with one's own address, until the socket is closed."""
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.getsockname()[0].encode())


def start_server(at: Private, stack: ExitStack) -> None:
    with at.enter():
        server = stack.enter_context(socket.create_server(("", PORT)))
    stack.callback(server.shutdown, socket.SHUT_RDWR)
    threading.Thread(target=serve, args=(server,)).start()


def ask(address: str, port: int = PORT) -> str:
    with socket.create_connection((address, port), timeout=5) as connection:
        return connection.recv(100).decode()


def test_iptables_is_the_older_kind_everywhere() -> None:
    for name in ("iptables", "iptables-restore", "ip6tables"):
        version = subprocess.run((name, "--version"), capture_output=True, text=True, check=True).stdout
        assert "(legacy)" in version


def test_a_new_namespace_has_nat_and_mangle_of_its_own(stack: ExitStack) -> None:
    one, other = space(stack), space(stack)
    one.run("ip", "address", "add", f"{FRONT}/32", "dev", "lo")
    start_server(one, stack)
    one.run("iptables", "-t", "nat", "-A", "OUTPUT", "-d", FRONT, "-p", "tcp", "--dport", "80",
            "-m", "addrtype", "--dst-type", "LOCAL", "-j", "REDIRECT", "--to-ports", str(PORT))  # fmt: skip
    one.run("iptables", "-t", "mangle", "-A", "OUTPUT", "-p", "tcp", "--dport", "80", "-j", "MARK", "--set-mark", str(MARK))
    with one.enter():
        assert ask(FRONT, 80) == "127.0.0.1"
    (counted,) = [line for line in one.run("iptables", "-t", "mangle", "-nvL", "OUTPUT").splitlines() if "MARK" in line]
    assert "MARK set 0x100" in counted and counted.split()[0] != "0"
    assert other.run("iptables", "-t", "nat", "-S", "OUTPUT") == "-P OUTPUT ACCEPT\n"


def test_ipvs_shares_out_the_connections_of_a_mark(stack: ExitStack) -> None:
    """As in Swarm's sandbox: a mark by port, a service by mark, and the reply by way of the balancer."""
    wire, client, front, *backends = (space(stack) for _ in range(3 + len(BACKENDS)))
    wire.run("ip", "link", "add", "wire", "up", "type", "bridge")
    plug(client, CLIENT, wire, "client")
    plug(front, FRONT, wire, "front")
    for number, (backend, address) in enumerate(zip(backends, BACKENDS, strict=True)):
        plug(backend, address, wire, f"back{number}")
        start_server(backend, stack)
    client.run("ip", "route", "add", VIP, "via", FRONT)
    front.run("ip", "address", "add", f"{VIP}/32", "dev", "lo")
    for setting in ("net.ipv4.ip_forward=1", "net.ipv4.vs.conntrack=1"):
        front.run("sysctl", "-q", setting)
    tcp = ("-p", "tcp", "--dport", str(PORT))
    front.run("iptables", "-t", "mangle", "-A", "PREROUTING", *tcp, "-j", "MARK", "--set-mark", str(MARK))
    front.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-m", "ipvs", "--ipvs", "-j", "SNAT", "--to-source", FRONT)
    front.run("ipvsadm", "-A", "-f", str(MARK), "-s", "rr")
    for address in BACKENDS:
        front.run("ipvsadm", "-a", "-f", str(MARK), "-r", f"{address}:0", "-m")
    with client.enter():
        assert Counter(ask(VIP) for _ in range(6)) == {address: 3 for address in BACKENDS}


def test_every_scheduler_of_ipvs_is_there(stack: ExitStack) -> None:
    one = space(stack)
    for number, scheduler in enumerate(SCHEDULERS, 1):
        one.run("ipvsadm", "-A", "-f", str(number), "-s", scheduler)


def test_a_vxlan_tunnel_carries_a_connection(stack: ExitStack) -> None:
    wire, one, other = (space(stack) for _ in range(3))
    wire.run("ip", "link", "add", "wire", "up", "type", "bridge")
    for end, address, inner, remote in ((one, FRONT, "10.8.0.1", BACKENDS[0]), (other, BACKENDS[0], "10.8.0.2", FRONT)):
        plug(end, address, wire, end.name[-14:])
        end.run("ip", "link", "add", "vxlan0", "type", "vxlan", "id", "4096", "dstport", "4789", "remote", remote)
        end.run("ip", "address", "add", f"{inner}/24", "dev", "vxlan0")
        end.run("ip", "link", "set", "vxlan0", "up")
    start_server(other, stack)
    with one.enter():
        assert ask("10.8.0.2") == "10.8.0.2"


def test_routemesh_sees_what_this_kernel_has(tmp_path: Path) -> None:
    with closing(LinuxKernel(tmp_path)) as kernel:
        found = kernel.capabilities()
    assert (found.ip_vs, found.nf_tables) == (True, False)


def test_what_is_loaded_of_nf_tables_does_not_deceive(tmp_path: Path) -> None:
    """Its module exists; the families that the mesh needs do not."""
    modules.load(("nf_tables",))
    assert Path("/sys/module/nf_tables").exists()
    with closing(LinuxKernel(tmp_path)) as kernel:
        assert not kernel.capabilities().nf_tables
