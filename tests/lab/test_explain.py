"""Explanations agree with what real packets do: as it should be, with faults of every kind, and with anything at all missing."""

import os
import random
import shutil
from collections.abc import Iterator
from fractions import Fraction

import pytest

from routemesh.doctor import Severity
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from routemesh.explain.nouns import Explanation
from routemesh.model import Protocol
from routemesh.nodeplan import (
    Address,
    Chain,
    Create,
    Delete,
    Element,
    FdbEntry,
    Item,
    Link,
    Neighbour,
    Op,
    Route,
    RoutingRule,
    Table,
)
from routemesh.snapshot import ClusterSnapshot
from routemesh.values import replace
from tests.lab.cluster import ADDRESSES, CLIENT
from tests.lab.faults import (
    DNS,
    OLD,
    OVERLAY,
    SANDBOX,
    TASK,
    TASKS,
    WEB,
    compare,
    demand,
    forget_neighbours,
    inflict,
    three_services,
)
from tests.lab.printed import Printed, fixes, typed
from tests.lab.still import FAILED, Still, happens

SEEDS = tuple(map(int, os.environ.get("ROUTEMESH_SEEDS", "20261126 20261130 7 11").split()))
"""What is taken away, and who asks whom then, follows from each; set the variable to try others."""


@pytest.fixture(scope="module")
def still() -> Iterator[Still]:
    """Two nodes, three services with a task on each node, and no daemon any more."""
    with three_services("still") as lab:
        yield lab


@pytest.fixture
def mended(still: Still) -> Iterator[Still]:
    """The lab, which is whole again afterwards."""
    yield still
    still.mend()
    forget_neighbours(still)


# --- whole --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [WEB, DNS, OLD])
@pytest.mark.parametrize("node", ["node1", "node2"])
@pytest.mark.parametrize("place", ["client", "node1", "node2"])
def test_a_whole_mesh_is_explained_as_it_works(still: Still, node: str, port: int, place: str) -> None:
    protocol = Protocol.UDP if port == DNS else Protocol.TCP
    verdict = compare(still, node, port, protocol, place, "" if place == "client" else place)
    assert " reaches " in verdict
    assert " but " not in verdict


def test_a_task_that_calls_its_own_service(still: Still) -> None:
    caller = next(task for task in still.known.names.tasks if task.name == "old.1")
    place = f"{caller.node}/{caller.netns}"
    assert " reaches web.1 and web.2" in compare(still, "node1", WEB, place=place, client="old.1")


def test_who_is_to_see_the_client_sees_it(still: Still) -> None:
    for port, peer in ((WEB, CLIENT), (DNS, CLIENT), (OLD, "10.0.0.")):
        protocol = "udp" if port == DNS else "tcp"
        found = still.explain(f"node1:{port}/{protocol}")
        assert all(way.peer.startswith(peer) for way in found.ways)
        assert found.notes == ()


@pytest.mark.parametrize(("place", "client"), [("client", ""), ("node1", "node1"), ("node1", "127.0.0.1"), ("old.1", "old.1")])
def test_every_command_shows_what_it_is_to_show(still: Still, place: str, client: str) -> None:
    """Connections are made first: what a packet brings with it (conntrack, neighbours) is there from then on."""
    caller = next((task for task in still.known.names.tasks if task.name == place), None)
    for port, protocol in ((WEB, Protocol.TCP), (DNS, Protocol.UDP), (OLD, Protocol.TCP)):
        address = client if client == "127.0.0.1" else ADDRESSES["node1"]
        happens(still, f"{caller.node}/{caller.netns}" if caller else place, address, port, protocol, TASKS)
        found = still.explain(f"node1:{port}/{protocol}", client)
        steps = [step for way in found.ways for step in (*way.there, *way.back) if step.show]
        shown = {Printed(step.node, step.show) for step in steps if shutil.which(program(step.show))}
        assert len(shown) > 12
        for each in sorted(shown):
            assert typed(still, each).strip(), each


def program(command: str) -> str:
    """Which one it is that a namespace is entered for; that of conntrack(8) is seldom installed."""
    words = command.split()
    return words[2] if words[0] == "nsenter" else words[0]


# --- faults that break no way, and what packets can't show -----------------------------------------------------------


def test_without_a_fault_the_doctor_finds_nothing(mended: Still) -> None:
    found = mended.findings()
    assert [(finding.state, finding.what) for finding in found] == [(Severity.OK, "ways"), (Severity.OK, "overlay")], found
    assert found[0].found.startswith("all 6 ways of published ports reach every task")


@pytest.mark.parametrize(
    ("place", "command", "where"),
    [
        ("TASK", "ip link set eth0 mtu 1200", TASK),
        ("SANDBOX", "ip link set eth0 mtu 1200", SANDBOX),
        ("OVERLAY", "ip link set br0 mtu 1200", OVERLAY),
        ("node1", "ip link set docker_gwbridge mtu 1200", "node1"),
        ("node1", "sysctl -w net.ipv4.conf.docker_gwbridge.route_localnet=0", "node1"),
        ("OVERLAY", "bridge fdb add 02:42:0a:00:00:63 dev vxlan0 dst 192.168.200.11 self permanent", OVERLAY),
        ("SANDBOX", "nft add element ip routemesh marks { tcp . 9999 : 256 }", SANDBOX),
    ],
)
def test_what_breaks_no_way_of_a_small_packet_the_doctor_finds_all_the_same(
    mended: Still, place: str, command: str, where: str
) -> None:
    inflict(mended, place, command)
    demand(mended, where)


def test_a_node_whose_device_is_down_is_told_once(mended: Still) -> None:
    inflict(mended, "node2", "ip link set eth0 down")
    compare(mended, "node1", WEB)
    found = mended.explain(f"node1:{WEB}")
    assert [(cause.place, cause.why, cause.mend) for cause in found.causes] == [
        ("node2", "eth0 is down", ("ip link set eth0 up",))
    ]
    (wrong,) = [finding for finding in mended.findings() if finding.state is not Severity.OK]
    assert (wrong.where, wrong.found, wrong.fix) == ("node2", "eth0 is down", "on node2: ip link set eth0 up")


FIREWALL = "table inet fw {{ {} chain c {{ type filter hook forward priority -5; {}\n}}\n}}\n"
CLIENTS = "set s {{ type ipv4_addr; flags interval; elements = {{ {} }}\n}}\n"
NO = "reject with tcp reset"


@pytest.mark.parametrize(
    ("sets", "rule", "answers"),
    [
        (CLIENTS.format("192.168.200.0/24, 10.9.0.1-10.9.0.7"), f"ip saddr @s {NO}", False),
        (CLIENTS.format("10.9.0.1-10.9.0.7"), f"ip saddr @s {NO}", True),
        (CLIENTS.format("10.0.0.0/8, 172.16.0.0/12"), f"ip saddr != @s {NO}", False),
        ("set s { type ifname; flags interval; elements = { eth* }\n}\n", f"iifname @s tcp dport 8080 {NO}", False),
        ("", f"iif eth0 tcp dport 8080 {NO}", False),
        ("", f"iif docker_gwbridge tcp dport 8080 {NO}", True),
        (
            "set s { type ipv4_addr . inet_service; flags interval; elements = { 172.18.0.0/16 . 8000-9000 }\n}\n",
            f"ip daddr . tcp dport @s {NO}",
            False,
        ),
        (
            f"chain no {{ {NO}\n}}\n"
            "map s { type inet_service : verdict; flags interval; elements = { 8000-9000 : jump no }\n}\n",
            "tcp dport vmap @s",
            False,
        ),
        (
            "set s { type ipv4_addr; flags dynamic, timeout; timeout 1h; size 9;\n}\n",
            f"tcp dport 8080 add @s {{ ip saddr }}\nip saddr @s {NO}",
            False,
        ),
        ("", f"ct state vmap {{ established : accept, new : continue }}\nct original ip daddr 192.168.200.11 {NO}", True),
        ("", f"fib saddr . iif oif missing {NO}", True),
        ("", f"tcp flags & (fin|syn|rst|ack) != syn ct state new {NO}", True),
    ],
)
def test_what_firewalls_decide_by_sets_and_devices_is_told(still: Still, sets: str, rule: str, answers: bool) -> None:
    inflict(still, "node1", FIREWALL.format(sets, rule))
    try:
        assert ("reaches" in compare(still, "node1", WEB)) is answers
    finally:
        still.cluster.inside("node1", "nft", "delete", "table", "inet", "fw")


@pytest.mark.parametrize(
    ("place", "command", "undo"),
    [
        ("OVERLAY2", "bridge link set dev PORT state 0", "bridge link set dev PORT state 3"),
        ("SANDBOX", "ip link set eth0 arp off", "ip link set eth0 arp on"),
    ],
)
def test_what_a_links_settings_do_is_not_guessed(still: Still, place: str, command: str, undo: str) -> None:
    inflict(still, place, command)
    try:
        found = still.explain(f"node1:{WEB}")
        assert found.outcome in ("partly", "untold")
        assert any("which has" in cause.why for cause in found.causes), found.causes
    finally:
        inflict(still, place, undo)


@pytest.mark.parametrize(
    ("place", "command", "undo"),
    [
        ("node1", FIREWALL.format("", "udp dport 5353 numgen inc mod 2 0 drop"), "nft delete table inet fw"),
        ("SANDBOX", FIREWALL.format("", "udp dport 5353 numgen inc mod 100 < 50 drop"), "nft delete table inet fw"),
        (
            "node1",
            "iptables -I FORWARD -p udp --dport 5353 -m statistic --mode nth --every 2 --packet 0 -j DROP",
            "iptables -F FORWARD",
        ),
    ],
)
def test_a_rule_that_drops_some_by_lot(still: Still, place: str, command: str, undo: str) -> None:
    inflict(still, place, command)
    try:
        found = still.explain(f"node1:{DNS}/udp")
        assert found.outcome == "partly"
        assert "drops some of the packets, by lot" in found.causes[0].why, found.causes
        if "100" not in command:  # that one drops fifty, and then lets fifty pass
            assert sum(Fraction(*way.share) for way in found.ways if way.arrives) == Fraction(1, 2)
            assert happens(still, "client", ADDRESSES["node1"], DNS, Protocol.UDP, 8)[FAILED] == 4
        demand(still, SANDBOX if place == "SANDBOX" else place)
    finally:
        inflict(still, place, undo)


def test_a_tunnel_of_another_vni(mended: Still) -> None:
    netns = mended.cluster.overlay("node1").partition("/")[2]
    items = mended.plans["node1"].namespaces[netns].values()
    tunnel = next(item for item in items if isinstance(item, Link) and item.vxlan is not None)
    assert tunnel.vxlan is not None
    wrong = replace(tunnel, vxlan=replace(tunnel.vxlan, vni=tunnel.vxlan.vni + 1))
    known = [item for item in items if isinstance(item, Neighbour | FdbEntry) and item.link == tunnel.name]
    ops: list[Op] = [Delete(netns, tunnel), Create(netns, wrong), *(Create(netns, item) for item in known)]
    for op in ops:
        assert mended.change("node1", op)
    forget_neighbours(mended)
    compare(mended, "node1", WEB)
    found = mended.explain(f"node1:{WEB}")
    assert any(cause.place == "node2" and "no tunnel here has VNI 4097" in cause.why for cause in found.causes), found.causes
    demand(mended, OVERLAY)


# What can't be done to the kernels of a lab without touching the machine's own is done to what was read of them.


def test_a_full_table_of_connections(still: Still) -> None:
    now = in_space(still.read(), "node1", SANDBOX, conntrack_count=262144, conntrack_max=262144)
    found = explained(now, f"node1:{WEB}")
    assert found.status == 3
    assert "262144 of 262144" in found.causes[0].why and SANDBOX in found.causes[0].place, found.causes
    assert found.causes[0].mend == ("sysctl -w net.netfilter.nf_conntrack_max=524288",)
    demand(still, "node1", now)


def test_a_task_that_is_unhealthy(still: Still) -> None:
    ill = {"serving": False, "healthy": False, "note": "it is unhealthy"}
    now = still.read()
    tasks = tuple(replace(task, **ill) if task.service == "web" else task for task in now.names.tasks)  # type: ignore[arg-type]
    now = replace(now, names=replace(now.names, tasks=tasks))
    found = explained(now, f"node1:{WEB}")
    assert any("it is unhealthy" in cause.why for cause in found.causes), found.causes
    demand(still, "task web.2", now)


def test_a_connection_to_a_task_that_is_gone(mended: Still) -> None:
    happens(mended, "client", ADDRESSES["node1"], DNS, Protocol.UDP, 2 * TASKS)
    now = mended.read()
    tasks = tuple(task for task in now.names.tasks if task.name != "dns.2")
    now = replace(now, names=replace(now.names, tasks=tasks))
    gone = next(task for task in mended.known.names.tasks if task.name == "dns.2").addresses.values()
    (address,) = gone
    assert any(f"lead to {address}" in note for note in explained(now, f"node1:{DNS}/udp").notes)
    stale = [each for each in mended.findings(now) if f"lead to {address}" in each.found]
    assert stale and all(each.ours for each in stale)
    if shutil.which("conntrack"):
        for each in fixes(stale):
            assert str(address) in typed(mended, each)
        after = replace(mended.read(), names=now.names)
        assert not any(f"lead to {address}" in each.found for each in mended.findings(after))


def test_an_address_that_two_tasks_have(mended: Still) -> None:
    first, other = (next(task for task in mended.known.names.tasks if task.name == name) for name in ("web.1", "old.1"))
    if first.node != other.node:
        other = next(task for task in mended.known.names.tasks if task.name == "old.2")
    (address,) = first.addresses.values()
    mended.cluster.inside(f"{other.node}/{other.netns}", "ip", "address", "add", f"{address}/24", "dev", "eth0")
    assert " but " not in compare(mended, first.node, WEB)  # its port lets its own ARP in alone
    mended.cluster.inside(mended.cluster.overlay(other.node), "nft", "delete", "table", "bridge", "routemesh")
    forget_neighbours(mended)
    found = mended.explain(f"{first.node}:{WEB}")
    assert any(other.name in cause.place and f"{address} is web.1's address" in cause.why for cause in found.causes), found.causes
    demand(mended, f"task {other.name}")


def in_space(now: ClusterSnapshot, node: str, netns: str, **changes: object) -> ClusterSnapshot:
    """What was read, with something else in one namespace."""
    spaces = dict(now.nodes[node].namespaces)
    spaces[netns] = replace(spaces[netns], **changes)  # type: ignore[arg-type]
    return replace(now, nodes={**now.nodes, node: replace(now.nodes[node], namespaces=spaces)})


def explained(now: ClusterSnapshot, what: str) -> Explanation:
    return explain(now, ask(now, target(what), "", None))


# --- anything missing ---------------------------------------------------------------------------------------------


def drawn(still: Still, kind: type[Item], chance: random.Random) -> list[tuple[str, Op]]:
    """Deletions of all that plans have of a kind, in an order that `chance` gives."""
    every = [
        (node, Delete(netns, item))
        for node, plan in sorted(still.plans.items())
        for netns, items in sorted(plan.namespaces.items())
        for item in items.values()
        if isinstance(item, kind)
    ]
    return chance.sample(every, len(every))


KINDS = (Link, Address, Route, RoutingRule, Neighbour, FdbEntry, Table, Chain, Element)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_missing_explanations_agree_with_packets(mended: Still, kind: type[Item], seed: int) -> None:
    chance = random.Random(seed)
    # The kernel keeps what others refer to: it is the first that it lets go.
    gone = next(op for node, op in drawn(mended, kind, chance) if mended.change(node, op))
    forget_neighbours(mended)
    for _ in range(2):
        port = chance.choice([WEB, DNS, OLD])
        place = chance.choice(["client", "node1", "node2"])
        entry = chance.choice(["node1", "node2"])
        protocol = Protocol.UDP if port == DNS else Protocol.TCP
        try:
            compare(mended, entry, port, protocol, place, "" if place == "client" else place)
        except AssertionError as exc:
            exc.add_note(f"{gone} was taken away; {place} asks {entry}:{port}")
            raise
