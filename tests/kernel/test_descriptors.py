"""What a node's kernel costs in descriptors, and that none of it minds how many are open."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from routemesh.agent.ports import NotHeld, PortHolder
from routemesh.diff import diff
from routemesh.errors import KernelError
from routemesh.kernel.linux import LinuxKernel
from routemesh.kernel.listeners import listeners
from routemesh.kernel.tables import libnftables
from routemesh.model import Protocol
from routemesh.nodeplan import HOST, Address, Delete, Link, Netns, NodePlan, Peer, Table, namespace
from routemesh.sight.watch import Watch
from routemesh.sightings import Wanted
from tests.kernel.private import Private, private_netns

POOLED = 64
"""Sockets in namespaces that stay open."""


@pytest.fixture
def node() -> Iterator[Private]:
    with private_netns() as node, node.enter():
        yield node


@pytest.fixture
def kernel(node: Private, tmp_path: Path) -> Iterator[LinuxKernel]:
    with closing(LinuxKernel(tmp_path)) as kernel:
        yield kernel
        made = kernel.read(NodePlan()).namespaces.get(HOST, {}).values()
        kernel.apply([Delete(HOST, item) for item in made if isinstance(item, Netns)])


@contextmanager
def soft_limit(files: int) -> Iterator[None]:
    """So many, or as many as the hard limit lets."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def in_use(up_to: int) -> Iterator[None]:
    """Every descriptor below `up_to` is open."""
    taken: list[int] = []
    try:
        while not taken or taken[-1] < up_to:
            taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for file in taken:
            os.close(file)


def open_files(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def tasks(count: int) -> NodePlan:
    """As a plan of so many tasks: each a namespace with a link, an address and a table of its own."""
    plan = {}
    for number in range(count):
        name = f"task{number}"
        host = Link(name=f"veth{number}", kind="veth", peer=Peer(name, "eth0"))
        plan[name] = namespace(
            [
                Link(name="eth0", kind="veth", peer=Peer(HOST, host.name)),
                Address("eth0", IPv4Interface(f"10.{number // 250}.{number % 250}.1/24")),
                Table("ip"),
            ]
        )
    hosts = [Link(name=f"veth{number}", kind="veth", peer=Peer(f"task{number}", "eth0")) for number in range(count)]
    return NodePlan({HOST: namespace([*(Netns(name) for name in plan), *hosts]), **plan})


def test_nothing_minds_that_all_descriptors_up_to_5000_are_in_use(node: Private, tmp_path: Path) -> None:
    plan = tasks(3)
    libnftables.PROCESS.close()  # it is started under these conditions, too
    with soft_limit(65_536), in_use(5_000), closing(LinuxKernel(tmp_path)) as kernel, closing(PortHolder()) as ports:
        kernel.watch(lambda: None)
        assert kernel.apply(diff(kernel.read(plan), plan)) == ()
        assert diff(kernel.read(plan), plan) == ()
        assert ports.hold({(Protocol.TCP, 8080), (Protocol.UDP, 53)}) == ()
        watch = Watch(
            "node1",
            {name: kernel.netns_path(name) for name in plan.namespaces},
            Wanted(protocol="tcp", port=0, sources=(), ports=(8080,), published=8080),
        )
        with closing(watch):
            assert watch.collect().unwatched == ()
        assert kernel.apply([Delete(HOST, Netns(name)) for name in plan.namespaces if name != HOST]) == ()


def test_a_namespace_costs_no_descriptor(kernel: LinuxKernel) -> None:
    few, many = tasks(10), tasks(120)
    assert kernel.apply(diff(kernel.read(few), few)) == ()
    before = open_files()
    assert kernel.apply(diff(kernel.read(many), many)) == ()
    assert diff(kernel.read(many), many) == ()
    assert open_files() - before <= POOLED
    (pid,) = [int(each) for each in os.listdir("/proc") if each.isdigit() and libnftables.PROCESS.is_one_of_its(int(each))]
    assert open_files(pid) < 10


def test_where_no_descriptor_is_left_everything_is_refused_and_goes_on_later(kernel: LinuxKernel) -> None:
    plan = tasks(5)
    want = tasks(6)
    assert kernel.apply(diff(kernel.read(plan), plan)) == ()
    changes = diff(kernel.read(want), want)
    with ExitStack() as taken, soft_limit(open_files()):
        taken.enter_context(exhausted())
        refused = kernel.apply(changes)
        assert {failure.reason for failure in refused} >= {"Too many open files"}
        with pytest.raises((OSError, KernelError), match="Too many open files"):
            libnftables.run("list tables")
    assert kernel.apply(diff(kernel.read(want), want)) == ()
    assert diff(kernel.read(want), want) == ()


@contextmanager
def exhausted() -> Iterator[None]:
    """No descriptor can be had."""
    taken: list[int] = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        for file in taken:
            os.close(file)


@contextmanager
def taken(port: int) -> Iterator[None]:
    """As another process does it. Raises OSError where the port is in use."""
    with socket.socket() as server:
        server.bind(("", port))
        server.listen()
        yield


def test_ten_thousand_ports_are_held_without_a_descriptor_of_ours(node: Private) -> None:
    before = open_files()
    wanted = {(protocol, port) for port in range(20_000, 25_000) for protocol in Protocol}
    with soft_limit(65_536), closing(PortHolder()) as ports, taken(20_001):
        assert ports.hold(wanted) == (NotHeld((Protocol.TCP, 20_001), 98),)
        assert open_files() - before <= 3 + 1
        for port in (20_000, 24_999):
            with pytest.raises(OSError, match="in use"), taken(port):
                pass
        assert {(each.protocol, each.port) for each in listeners()} == set()  # a test's own does not count
        assert ports.hold({(Protocol.TCP, 20_000)}) == ()
        with taken(24_999), pytest.raises(OSError, match="in use"), taken(20_000):
            pass
        os.kill(ports._process._pids[-1], 9)
        os.waitid(os.P_PID, ports._process._pids[-1], os.WEXITED | os.WNOWAIT)
        assert ports.hold({(Protocol.TCP, 20_000)}) == ()
        with pytest.raises(OSError, match="in use"), taken(20_000):
            pass
    with taken(20_000):
        pass
