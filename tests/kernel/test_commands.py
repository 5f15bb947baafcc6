"""The command lines that people are shown do what they say."""

import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from routemesh.language import command
from routemesh.nodeplan import (
    HOST,
    Address,
    Chain,
    Change,
    Counter,
    Create,
    Delete,
    Element,
    FdbEntry,
    Hook,
    Item,
    Link,
    Map,
    Match,
    Neighbour,
    Netns,
    Op,
    Peer,
    Route,
    RoutingRule,
    Sysctl,
    Table,
    Verdict,
    Vxlan,
    XtChain,
    XtRule,
    key,
)
from routemesh.values import replace
from tests.kernel.private import Private, private_netns

INNER = "inner"
UNDERLAY = IPv4Address("192.168.200.10")
UNICAST = "02:42:0a:00:00:09"

STEPS: tuple[tuple[str, Item], ...] = (
    (HOST, Netns(INNER)),
    (HOST, Link(name="docker_gwbridge", kind="bridge", mac="02:42:ac:12:00:01")),
    (INNER, Link(name="br0", kind="bridge", mtu=1450)),
    (INNER, Link(name="eth1", kind="veth", peer=Peer(HOST, "veth0"), mac="02:42:ac:12:00:02", mtu=1400)),
    (INNER, Link(name="vxlan0", kind="vxlan", mtu=1450, master="br0", vxlan=Vxlan(4096, UNDERLAY, 4789))),
    (INNER, Sysctl("net/ipv4/ip_forward", "1")),
    (INNER, Address("eth1", IPv4Interface("10.0.0.2/24"))),
    (INNER, Route(destination=IPv4Network("0.0.0.0/0"), via=IPv4Address("10.0.0.1"), link="eth1", table=82)),
    (INNER, RoutingRule(priority=82, fwmark=0x0A000000, mask=0xFF000000, table=82)),
    (INNER, Neighbour("eth1", IPv4Address("10.0.0.1"), UNICAST)),
    (INNER, FdbEntry("vxlan0", UNICAST, IPv4Address("192.168.200.11"))),
    (INNER, FdbEntry("vxlan0", "02:42:0a:00:00:08")),
    (INNER, Table("ip")),
    (INNER, Map("ip", "marks", ("proto", "port"), "mark")),
    (INNER, Chain("ip", "c", Hook("nat", "output", -100), ((Counter(),),))),
    (INNER, Element("ip", "marks", ("tcp", 8080), 256)),
    (INNER, XtChain("nat", "DOCKER-INGRESS", ((Verdict("return"),),))),
    (INNER, XtChain("filter", "FORWARD", ((Match("ct state", "established,related"), Verdict("accept")),), "DROP")),
    (INNER, XtRule("nat", "PREROUTING", (Match("fib daddr type", "local"), Verdict("jump", "DOCKER-INGRESS")))),
)
CHANGES: tuple[tuple[str, Item], ...] = (
    (INNER, Link(name="eth1", kind="veth", peer=Peer(HOST, "veth0"), mac="02:42:ac:12:00:03", mtu=1410)),
    (INNER, Sysctl("net/ipv4/ip_forward", "0")),
    (INNER, Route(destination=IPv4Network("0.0.0.0/0"), via=IPv4Address("10.0.0.3"), link="eth1", table=82)),
    (INNER, RoutingRule(priority=82, fwmark=0x0A000000, mask=0xFFFF0000, table=83)),
    (INNER, Neighbour("eth1", IPv4Address("10.0.0.1"), "02:42:0a:00:00:0a")),
    (INNER, FdbEntry("vxlan0", UNICAST, IPv4Address("192.168.200.12"))),
    (INNER, Chain("ip", "c", Hook("nat", "output", -100), ((Counter(), Counter()),))),
    (INNER, Element("ip", "marks", ("tcp", 8080), 257)),
    (INNER, XtChain("filter", "FORWARD", ((Match("ct state", "new"), Verdict("accept")),), "DROP")),
)
SHOWN = (
    "ip -details link show",
    "ip address show",
    "ip route show table 82",
    "ip rule show",
    "ip neighbour show nud permanent",
    "bridge fdb show",
    "nft list ruleset",
    "iptables-save",
)


@pytest.fixture
def space() -> Iterator[Private]:
    with private_netns() as made:
        made.run("ip", "address", "add", f"{UNDERLAY}/24", "dev", "lo")
        yield made


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    subprocess.run(("umount", "--lazy", tmp_path / INNER), stderr=subprocess.DEVNULL)


def type_in(space: Private, directory: Path, op: Op) -> None:
    space.run("sh", "-c", command(op, lambda name: directory / name))


def shown(space: Private, directory: Path) -> str:
    inner = f"nsenter --net={directory / INNER} "
    return "\n".join(space.run("sh", "-c", inner + what) for what in SHOWN)


def test_everything_can_be_made_changed_and_removed_by_hand(space: Private, directory: Path) -> None:
    before = space.run("ip", "-o", "link", "show")
    for netns, item in STEPS:
        type_in(space, directory, Create(netns, item))
    made = shown(space, directory)
    for part in ("mtu 1400", "alias routemesh", "vxlan id 4096 local 192.168.200.10", "10.0.0.2/24", "via 10.0.0.1", "PERMANENT"):
        assert part in made
    for part in ("fwmark 0xa000000/0xff000000", "dst 192.168.200.11", f"{UNICAST} dev vxlan0", "tcp . 8080 : 0x00000100"):
        assert part in made
    for part in (":FORWARD DROP", "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"):
        assert part in made
    assert "-A PREROUTING -m addrtype --dst-type LOCAL -m comment --comment routemesh -j DOCKER-INGRESS" in made
    assert "0 dev veth0" not in made
    for netns, new in CHANGES:
        old = next(item for where, item in STEPS if where == netns and key(item) == key(new))
        type_in(space, directory, Change(netns, old, new))
    changed = shown(space, directory)
    assert "-A FORWARD -m conntrack --ctstate NEW -j ACCEPT" in changed
    for part in ("mtu 1410", "via 10.0.0.3", "fwmark 0xa000000/0xffff0000", "02:42:0a:00:00:0a", "192.168.200.12", "0x00000101"):
        assert part in changed
    latest = {key(item): item for _, item in (*STEPS, *CHANGES)}
    for netns, item in reversed(STEPS):
        type_in(space, directory, Delete(netns, latest[key(item)]))
    assert space.run("ip", "-o", "link", "show") == before
    assert not (directory / INNER).exists()


def test_a_link_is_where_it_should_be_with_its_peer(space: Private, directory: Path) -> None:
    netns, link = STEPS[3]
    type_in(space, directory, Create(*STEPS[0]))
    type_in(space, directory, Create(netns, link))
    assert "eth1" in space.run("nsenter", f"--net={directory / netns}", "ip", "link", "show")
    assert "veth0" in space.run("ip", "link", "show")
    assert isinstance(link, Link)
    type_in(space, directory, Change(HOST, link, replace(link, name="veth0", mac=None)))
    assert "routemesh" in space.run("ip", "link", "show", "veth0")
