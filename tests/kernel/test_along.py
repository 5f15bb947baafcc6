"""What the kernel makes along with an address or a namespace: read as it is planned, missed when it is gone, put back."""

import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from routemesh.diff import diff
from routemesh.kernel.linux import LinuxKernel
from routemesh.language import command
from routemesh.nodeplan import (
    HOST,
    Address,
    Change,
    Create,
    Delete,
    Item,
    Link,
    Netns,
    NodePlan,
    Peer,
    Sysctl,
    comes_along,
    item_of,
    namespace,
)
from routemesh.plan.along import along
from tests.kernel.private import private_netns

HERE: tuple[Item, ...] = (
    Netns("task"),
    Link(name="bridge", kind="bridge", mac="02:42:ac:12:00:01"),
    Address("bridge", IPv4Interface("172.18.0.1/16")),
)
THERE: tuple[Item, ...] = (
    Link(name="eth0", kind="veth", peer=Peer(HOST, "port"), mac="02:42:0a:00:00:02"),
    Address("eth0", IPv4Interface("10.0.0.2/24")),
    Address("eth0", IPv4Interface("10.0.0.7/32")),
)
PLAN = NodePlan(
    {
        HOST: namespace((*HERE, Link(name="port", kind="veth", peer=Peer("task", "eth0")), *along(HOST, HERE))),
        "task": namespace((*THERE, *along("task", THERE))),
    }
)
BY_HAND = (
    (HOST, "ip route del 172.18.0.0/16 dev bridge"),
    (HOST, "ip route del local 172.18.0.1 dev bridge table local"),
    ("task", "ip route del 10.0.0.0/24 dev eth0"),
    ("task", "ip route del local 10.0.0.7 dev eth0 table local"),
    ("task", "ip link set lo down"),
    ("task", "ip address del 127.0.0.1/8 dev lo"),
    ("task", "ip route del local 127.0.0.0/8 dev lo table local"),
    ("task", "ip rule del pref 0"),
    ("task", "ip rule del pref 32766"),
    ("task", "ip rule del pref 32767"),
)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[LinuxKernel]:
    with private_netns() as node, node.enter(), closing(LinuxKernel(tmp_path)) as kernel:
        assert kernel.apply(diff(NodePlan(), PLAN)) == ()
        try:
            yield kernel
        finally:
            kernel.apply([Delete(HOST, Netns("task"))])


def shell(kernel: LinuxKernel, netns: str, text: str) -> str:
    inside = ("nsenter", f"--net={kernel.netns_path(netns)}", *shlex.split(text))
    return subprocess.run(inside, capture_output=True, text=True, timeout=30, check=True).stdout


def seen(kernel: LinuxKernel, netns: str) -> list[str]:
    """What a person sees, but for broadcast routes, which nobody needs."""
    asked = ("ip -4 rule", "ip -4 route show table all", "ip -br -4 address show", "ip -br link show lo")
    lines = [line for text in asked for line in shell(kernel, netns, text).splitlines()]
    return sorted(line for line in lines if "broadcast" not in line)


def test_what_comes_along_is_there_from_the_start(kernel: LinuxKernel) -> None:
    assert diff(kernel.read(PLAN), PLAN) == ()
    bare = {
        netns: namespace(item for item in items.values() if not comes_along(item)) for netns, items in PLAN.namespaces.items()
    }
    assert diff(kernel.read(NodePlan(bare)), NodePlan(bare)) == (), "where nobody wants it, it is nobody's business"


@pytest.mark.parametrize(("netns", "by_hand"), BY_HAND, ids=[text for _, text in BY_HAND])
def test_what_is_taken_away_is_put_back(kernel: LinuxKernel, netns: str, by_hand: str) -> None:
    before = seen(kernel, netns)
    shell(kernel, netns, by_hand)
    ops = diff(kernel.read(PLAN), PLAN)
    assert ops and all(comes_along(item_of(op)) and op.netns == netns for op in ops)
    assert kernel.apply(ops) == ()
    assert diff(kernel.read(PLAN), PLAN) == ()
    assert seen(kernel, netns) == before


@pytest.mark.parametrize(("netns", "by_hand"), BY_HAND, ids=[text for _, text in BY_HAND])
def test_the_command_that_is_told_puts_it_back(kernel: LinuxKernel, netns: str, by_hand: str) -> None:
    before = seen(kernel, netns)
    shell(kernel, netns, by_hand)
    for op in diff(kernel.read(PLAN), PLAN):
        done = subprocess.run(command(op, kernel.netns_path), shell=True, capture_output=True, text=True, timeout=30)  # noqa: S602
        # Of several, what the kernel makes along with one may be there before its own command comes.
        assert done.returncode == 0 or "File exists" in done.stderr, done.stderr
    assert diff(kernel.read(PLAN), PLAN) == ()
    assert seen(kernel, netns) == before


def test_somebody_elses_route_to_the_same_subnet_stays(kernel: LinuxKernel) -> None:
    shell(kernel, HOST, "ip route del 172.18.0.0/16 dev bridge")
    shell(kernel, HOST, "ip route add 172.18.0.0/16 via 172.18.0.9 dev bridge onlink")
    assert kernel.apply([op for op in diff(kernel.read(PLAN), PLAN) if isinstance(op, Create)]) == ()
    routes = shell(kernel, HOST, "ip route show 172.18.0.0/16").splitlines()
    assert len(routes) == 2 and "via 172.18.0.9" in routes[0]


def test_a_setting_that_changes_without_an_event_is_seen_within_two_seconds(kernel: LinuxKernel) -> None:
    wanted = Sysctl("net/ipv4/conf/bridge/route_localnet", "1")
    plan = NodePlan({**PLAN.namespaces, HOST: {**PLAN.namespaces[HOST], **namespace([wanted])}})
    changed = threading.Event()
    kernel.watch(changed.set)
    assert kernel.apply(diff(kernel.read(plan), plan)) == ()
    assert diff(kernel.read(plan), plan) == ()
    assert not changed.wait(2.5), "our own writing is no news"
    shell(kernel, HOST, "sysctl -qw net.ipv4.conf.bridge.route_localnet=0")
    assert changed.wait(2.0)
    assert diff(kernel.read(plan), plan) == (Change(HOST, Sysctl(wanted.path, "0"), wanted),)
