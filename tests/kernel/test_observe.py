"""What a snapshot tells of real namespaces is what `ip`, `bridge` and `nft` were told by somebody else."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Literal

import pytest

from routemesh.kernel import sysctl
from routemesh.model import Protocol
from routemesh.nodeplan import (
    FIRST_RULES,
    HOST,
    Address,
    Chain,
    FdbEntry,
    Hook,
    Link,
    Match,
    Neighbour,
    Peer,
    Route,
    RoutingRule,
    Sysctl,
    Table,
    Unknown,
    Verdict,
    Vxlan,
    XtChain,
)
from routemesh.sight import observe as observe_module
from routemesh.sight.observe import observe
from routemesh.snapshot import Connections, IpsecPolicy, NamespaceSnapshot
from routemesh.values import replace
from tests.kernel.private import Private, private_netns
from tests.support import require, wait_until

ONE, OTHER = IPv4Address("10.9.0.1"), IPv4Address("10.9.0.2")


@pytest.fixture
def outer() -> Iterator[Private]:
    with private_netns() as space:
        yield space


@pytest.fixture
def inner(outer: Private) -> Iterator[Private]:
    """A second one, with a veth eth0 that leads to a bridge in the first."""
    with private_netns() as space:
        outer.run("ip", "link", "add", "br0", "type", "bridge")
        outer.run("ip", "link", "add", "port", "type", "veth", "peer", "name", "eth0", "netns", space.name)
        outer.run("ip", "link", "set", "port", "master", "br0", "up")
        outer.run("ip", "address", "add", "10.9.0.1/24", "dev", "br0")
        outer.run("ip", "link", "set", "br0", "up")
        space.run("ip", "link", "set", "eth0", "address", "02:42:0a:09:00:02", "up")
        space.run("ip", "address", "add", "10.9.0.2/24", "dev", "eth0")
        yield space


ASK = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'?', ('{}', 53))"


def test_ipsec_policies_of_ipv4(outer: Private) -> None:
    block = ("src", "10.1.0.0/16", "dst", "10.2.0.0/16", "proto", "udp", "dport", "4789", "mark", "0x10", "mask", "0xff")
    outer.run("ip", "xfrm", "policy", "add", *block, "dir", "out", "action", "block", "priority", "5")
    ends = ("src", "192.0.2.1", "dst", "192.0.2.2")
    outer.run("ip", "xfrm", "policy", "add", "dst", "1.2.3.4/32", "dir", "in", "tmpl", *ends, "proto", "esp", "mode", "transport")
    outer.run("ip", "-6", "xfrm", "policy", "add", "dst", "::1/128", "dir", "fwd", "action", "block")
    encrypted, blocked = sorted(seen(outer)[HOST].ipsec, key=lambda each: each.priority)
    assert blocked == IpsecPolicy(
        direction="out", source=IPv4Network("10.1.0.0/16"), destination=IPv4Network("10.2.0.0/16"), protocol=17,
        port=4789, port_mask=0xFFFF, mark=0x10, mark_mask=0xFF, priority=5, blocks=True,
    )  # fmt: skip
    assert encrypted == IpsecPolicy(
        direction="in", source=IPv4Network("0.0.0.0/0"), destination=IPv4Network("1.2.3.4/32"), transforms=True
    )


def seen(outer: Private, *others: Private) -> dict[str, NamespaceSnapshot]:
    return observe({HOST: outer.path, **{space.name: space.path for space in others}})


def test_links_of_anybody_with_their_peers(outer: Private, inner: Private) -> None:
    outer.run("ip", "link", "add", "vx", "type", "vxlan", "id", "7", "local", "10.9.0.1", "dstport", "4789")
    found = seen(outer, inner)
    links = {link.name: link for link in found[HOST].of(Link)}
    assert links.keys() == {"lo", "br0", "port", "vx"}
    assert links["lo"].kind == "loopback"
    assert (links["port"].peer, links["port"].master, links["port"].learning) == (Peer(inner.name, "eth0"), "br0", True)
    assert links["vx"].vxlan == Vxlan(7, ONE, 4789, learning=True, proxy=False)
    assert not links["vx"].up
    (eth0,) = (link for link in found[inner.name].of(Link) if link.name == "eth0")
    assert eth0.peer == Peer(HOST, "port")
    alone = {link.name: link for link in seen(outer)[HOST].of(Link)}
    assert alone["port"].peer is None


def test_a_link_whose_other_end_is_off_has_no_carrier(outer: Private, inner: Private) -> None:
    outer.run("ip", "link", "set", "port", "down")
    found = seen(outer, inner)
    (eth0,) = (link for link in found[inner.name].of(Link) if link.name == "eth0")
    assert (eth0.up, eth0.carrier) == (True, False)


def test_addresses_routes_and_rules_of_anybody(outer: Private, inner: Private) -> None:
    inner.run("ip", "route", "add", "default", "via", "10.9.0.1", "metric", "5")
    inner.run("ip", "route", "add", "blackhole", "192.0.2.0/24", "table", "9")
    inner.run("ip", "rule", "add", "not", "from", "10.9.0.0/24", "iif", "eth0", "lookup", "9", "pref", "7")
    inner.run("ip", "rule", "add", "ipproto", "tcp", "blackhole", "pref", "8")
    found = seen(outer, inner)[inner.name]
    assert Address("eth0", IPv4Interface("10.9.0.2/24")) in found.items
    routes = set(found.of(Route))
    everywhere, subnet = IPv4Network("0.0.0.0/0"), IPv4Network("10.9.0.0/24")
    assert Route(destination=everywhere, via=ONE, link="eth0", metric=5, protocol=3) in routes
    assert Route(destination=subnet, via=None, link="eth0", source=OTHER, protocol=2) in routes
    assert (
        Route(destination=IPv4Network("10.9.0.2"), via=None, link="eth0", table=255, source=OTHER, kind="local", protocol=2)
        in routes
    )
    assert Route(destination=IPv4Network("192.0.2.0/24"), via=None, link="", table=9, kind="blackhole", protocol=3) in routes
    rules = {rule.priority: rule for rule in found.of(RoutingRule)}
    assert rules[7] == RoutingRule(priority=7, fwmark=0, mask=0, table=9, protocol=0, source=subnet, iif="eth0", negate=True)
    assert (rules[8].action, rules[8].unknown) == ("blackhole", (22,))
    assert set(FIRST_RULES) <= set(rules.values())


def test_neighbours_and_fdb_entries_that_nobody_set(outer: Private, inner: Private) -> None:
    inner.run("ip", "neighbour", "add", "10.9.0.77", "lladdr", "02:00:00:00:00:77", "dev", "eth0", "nud", "stale")
    inner.run("python3", "-c", ASK.format("10.9.0.1"))
    wait_until(lambda: any(item.ip == ONE and item.mac for item in seen(outer, inner)[inner.name].of(Neighbour)))
    found = seen(outer, inner)
    states = {item.ip: item.state for item in found[inner.name].of(Neighbour)}
    assert states[IPv4Address("10.9.0.77")] == "stale"
    assert states[ONE] in ("reachable", "delay", "stale", "probe")
    entries = {(entry.link, entry.mac): entry.kind for entry in found[HOST].of(FdbEntry)}
    assert entries["port", "02:42:0a:09:00:02"] == "learned"


def test_tables_of_anybody(outer: Private) -> None:
    outer.nft(
        """
        table inet fw {
            chain in { type filter hook input priority 0; policy drop; iifname lo accept; tcp dport { 22, 80 } accept;
            }
        }
        table ip6 other {}
        """
    )
    found = seen(outer)[HOST]
    assert set(found.of(Table)) == {Table("inet", "fw"), Table("ip6", "other")}
    (chain,) = found.of(Chain)
    assert (chain.hook, chain.policy, chain.table) == (Hook("filter", "input", 0), "drop", "fw")
    assert chain.rules[0] == (Match("iifname", "lo"), Verdict("accept"))
    assert isinstance(chain.rules[1][-2], Unknown)


@pytest.mark.parametrize("variant", ["nft", "legacy"])
def test_iptables_of_anybody(outer: Private, variant: Literal["nft", "legacy"]) -> None:
    require("iptables-nft" if variant == "nft" else "iptables-legacy")
    outer.run(f"iptables-{variant}", "-P", "FORWARD", "DROP")
    outer.run(f"iptables-{variant}", "-A", "FORWARD", "-i", "eth0", "-m", "limit", "--limit", "3/sec", "-j", "ACCEPT")
    found = seen(outer)[HOST]
    limited = (Match("iifname", "eth0"), Unknown("-m limit --limit 3/sec"), Verdict("accept"))
    assert {chain.name: chain for chain in found.of(XtChain)}["FORWARD"] == XtChain("filter", "FORWARD", (limited,), "DROP")
    assert not [*found.of(Table), *found.of(Chain), *found.unread]


def test_iptables_of_both_variants(outer: Private) -> None:
    require("iptables-nft", "iptables-legacy")
    outer.run("iptables-nft", "-A", "FORWARD", "-j", "ACCEPT")
    outer.run("iptables-legacy", "-A", "INPUT", "-j", "DROP")
    chains = {chain.name: chain for chain in seen(outer)[HOST].of(XtChain)}
    assert chains["FORWARD"].rules == ((Verdict("accept"),),)
    assert chains["INPUT"].rules == ((Verdict("drop"),),)
    outer.run("iptables-legacy", "-P", "FORWARD", "DROP")
    (chain,) = (chain for chain in seen(outer)[HOST].of(XtChain) if chain.name == "FORWARD")
    assert chain.rules == ((Unknown("iptables-legacy has the chain FORWARD too"),), (Verdict("accept"),))


def test_a_table_that_iptables_can_not_show_is_told_by_nft(outer: Private) -> None:
    require("iptables-nft")
    outer.run("iptables-nft", "-t", "nat", "-A", "OUTPUT", "-j", "RETURN")
    outer.nft("table ip filter { chain INPUT { type filter hook input priority 5; ip daddr 10.0.0.1 drop; }; }")
    found = seen(outer)[HOST]
    assert {chain.table for chain in found.of(XtChain)} == {"nat"}
    (chain,) = found.of(Chain)
    assert (chain.table, chain.rules) == ("filter", ((Match("ip daddr", "10.0.0.1"), Verdict("drop")),))


def test_peers_behind_a_bridge_are_found_with_few_questions_whatever_its_namespace_is_called(
    outer: Private, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    number = observe_module._Peers._number

    def counted(peers: observe_module._Peers, of: observe_module._Space, other: observe_module._Space) -> int:
        asked.append(of.name)
        return number(peers, of, other)

    monkeypatch.setattr(observe_module._Peers, "_number", counted)
    with ExitStack() as stack:
        bridge = stack.enter_context(private_netns())
        tasks = [stack.enter_context(private_netns()) for _ in range(12)]
        for place, task in enumerate(tasks):
            bridge.run("ip", "link", "add", f"port{place}", "type", "veth", "peer", "name", "eth0", "netns", task.name)
        paths = {HOST: outer.path, **{f"task{place:02}": task.path for place, task in enumerate(tasks)}, "zebra": bridge.path}
        found = observe(paths)
    for place in range(12):
        (link,) = (link for link in found[f"task{place:02}"].of(Link) if link.name == "eth0")
        assert link.peer == Peer("zebra", f"port{place}")
        assert asked.count(f"task{place:02}") == 1, "that of the most links is asked about first"
    assert asked.count("zebra") <= 14, "each namespace once"


def test_settings_that_there_are_not_are_left_out_and_nothing_stays_open(outer: Private) -> None:
    paths = [
        "net/ipv4/conf/lo/no_such",
        "net/no/such/way",
        "net/ipv4/ip_forward",
        "net/ipv4/conf/none/rp_filter",
        "net/core/wmem_max",
    ]
    with outer.enter():
        before = len(os.listdir("/proc/self/fd"))
        found = sysctl.read_all(paths)
        assert len(os.listdir("/proc/self/fd")) == before
        assert found == {path: value for path in paths if (value := sysctl.read(path)) is not None}
    assert "net/ipv4/ip_forward" in found and "net/no/such/way" not in found
    with pytest.raises(OSError, match="only settings below net/"):
        sysctl.read_all(["net/../kernel/core_pattern"])


def test_settings_of_all_links_and_of_each(outer: Private, inner: Private) -> None:
    inner.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.eth0.rp_filter=2", "net.ipv4.conf.all.route_localnet=1")
    settings = {item.path: item.value for item in seen(outer, inner)[inner.name].of(Sysctl)}
    assert settings["net/ipv4/ip_forward"] == settings["net/ipv4/conf/eth0/forwarding"] == "1"
    assert settings["net/ipv4/conf/eth0/rp_filter"] == "2"
    assert settings["net/ipv4/conf/all/route_localnet"] == "1"
    assert settings["net/ipv4/conf/eth0/route_localnet"] == settings["net/ipv4/conf/lo/accept_local"] == "0"


def test_connections_and_listeners(outer: Private, inner: Private) -> None:
    inner.nft("table ip t { chain c { type nat hook prerouting priority -100; udp dport 53 redirect to :5353;\n}\n}\n")
    serve = "import socket; s = socket.socket(); s.bind(('10.9.0.2', 8080)); s.listen(); print('ready', flush=True); input()"
    with ExitStack() as stack:
        command = ("nsenter", f"--net={inner.path}", "python3", "-c", serve)
        server = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        stack.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        outer.run("python3", "-c", ASK.format("10.9.0.2"))
        wait_until(lambda: seen(outer, inner)[inner.name].conntrack, what="a connection")
        found = seen(outer, inner)[inner.name]
        (socket,) = found.sockets or ()
        assert (socket.protocol, socket.address, socket.port) == (Protocol.TCP, OTHER, 8080)
        assert (socket.pid, socket.process) == (server.pid, "python3")
    (entry,) = found.conntrack or ()
    assert (entry.original.source.address, str(entry.original.destination)) == (ONE, "10.9.0.2:53")
    assert str(entry.reply.source) == "10.9.0.2:5353"
    assert not entry.replied
    assert {"dnat", "confirmed"} <= entry.status
    assert (found.conntrack_count, bool(found.conntrack_max)) == (1, True)
    assert observe({HOST: inner.path}, which=Connections(ports={(Protocol.UDP, 53)}))[HOST].conntrack == (entry,)
    assert observe({HOST: inner.path}, which=Connections(ports={(Protocol.TCP, 53), (Protocol.UDP, 54)}))[HOST].conntrack == ()


def test_what_cannot_be_entered_is_said(outer: Private) -> None:
    found = observe({HOST: outer.path, "gone": Path("/run/netns/no-such-namespace")})
    (unread,) = found["gone"].unread
    assert str(unread).startswith("/run/netns/no-such-namespace can't be read (No such file or directory)")
    assert found["gone"].items == ()
    assert found[HOST].unread == ()


def test_a_namespace_that_ends_meanwhile_is_read_to_the_end(
    outer: Private, inner: Private, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, gone = observe_module._open, Path("/run/netns/gone-by-then")

    def open_and_forget(stack: ExitStack, name: str, path: Path) -> object:
        return replace(opened(stack, name, path), path=gone)

    monkeypatch.setattr(observe_module, "_open", open_and_forget)
    found = observe({HOST: outer.path, "task": inner.path})
    assert Address("eth0", IPv4Interface("10.9.0.2/24")) in found["task"].items
    assert found["task"].unread == ()


def test_the_thread_is_where_it_was(outer: Private, inner: Private) -> None:
    before = Path("/proc/thread-self/ns/net").readlink()
    seen(outer, inner)
    assert Path("/proc/thread-self/ns/net").readlink() == before
    assert threading.active_count() >= 1
