"""Explanations agree with what real packets do: as it should be, with faults of every kind, and with anything at all missing."""

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest

from routemesh.doctor import State
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
from tests.lab.cluster import ADDRESSES, CLIENT, running
from tests.lab.faults import OVERLAY, SANDBOX, TASK, WEB, Fault, demand, inflict
from tests.lab.still import Still, happens, kill_daemons, predicted
from tests.support import require

TASKS = 2
DNS, OLD = 5353, 8081
SERVICES = (
    ("web", ("-p", f"{WEB}:80")),
    ("dns", ("-p", f"{DNS}:80/udp")),
    ("old", ("-p", f"{OLD}:80", "--label", "routemesh.client-ip=snat")),
)
MOST_ROUNDS = 3
SEEDS = tuple(map(int, os.environ.get("ROUTEMESH_SEEDS", "20261126 20261130 7 11").split()))
"""What is taken away, and who asks whom then, follows from each; set the variable to try others."""


@pytest.fixture(scope="module")
def still() -> Iterator[Still]:
    """Two nodes, three services with a task on each node, and no daemon any more."""
    require("root", "netns", "nf_tables")
    with running("still", "--nodes", "2") as cluster:
        for name, options in SERVICES:
            cluster.cli("service", "create", "--name", name, "--replicas", str(TASKS), *options, "host", "routemesh", "whoami")
        yield kill_daemons(cluster)


@pytest.fixture
def mended(still: Still) -> Iterator[Still]:
    """The lab, which is whole again afterwards."""
    yield still
    still.mend()
    forget_connections(still)


def forget_connections(still: Still) -> None:
    """Neighbours that were learned of what was broken would outlive it."""
    for place in places(still):
        still.cluster.inside(place, "ip", "neighbour", "flush", "nud", "stale")
        still.cluster.inside(place, "ip", "neighbour", "flush", "nud", "failed")


def places(still: Still) -> list[str]:
    return [f"{node}/{netns}" if netns else node for node, plan in still.plans.items() for netns in plan.namespaces]


def compare(
    still: Still, node: str, port: int, protocol: Protocol = Protocol.TCP, place: str = "client", client: str = ""
) -> str:
    """Hold the explanation against real connections; the verdict.

    Nothing may be untold: all that is in this lab is ours, and all of it was read.
    """
    found = still.explain(f"{node}:{port}/{protocol}", client)
    assert found.outcome != "untold", found.causes
    times = max(len(found.ways), 1) * TASKS
    real = happens(still, place, ADDRESSES[node], port, protocol, times)
    assert real == predicted(found, still, times), f"{found.verdict}: {found.causes}"
    return found.verdict


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


def test_every_command_shows_what_it_is_to_show(still: Still) -> None:
    happens(still, "client", ADDRESSES["node1"], WEB, Protocol.TCP, TASKS)
    found = still.explain(f"node1:{WEB}")
    shown = {(step.node, step.show) for way in found.ways for step in (*way.there, *way.back) if step.show}
    assert len(shown) > 20
    for node, command in sorted(shown):
        program = command.removeprefix(f"nsenter --net={command.partition('--net=')[2].split(' ')[0]} ").split()[0]
        if shutil.which(program) is None:
            continue  # conntrack is seldom installed
        assert still.cluster.inside(node, "sh", "-c", command).strip(), command


# --- faults -------------------------------------------------------------------------------------------------------


DROP = "table inet enemy {{ chain c {{ type filter hook {} priority -5; {} drop;\n}}\n}}\n"
REJECT = DROP.replace(" drop;", " reject;")
POLICY = "table inet enemy { chain c { type filter hook forward priority -5; policy drop;\n}\n}\n"
ENEMY, PEACE = "filter c drops it (inet enemy: ", "nft delete table inet enemy"
OFF, ON = "sysctl -w net.ipv4.conf.{}.forwarding=0", "sysctl -w net.ipv4.conf.{}.forwarding=1"
FAULTS = {
    "a port that is not published": Fault(
        "node1", "nft flush set ip routemesh published", "node1", "not forwarded to the sandbox"
    ),
    "a port without a mark": Fault("SANDBOX", "nft flush map ip routemesh marks", SANDBOX, "gets no firewall mark"),
    "a mark without a chain": Fault("SANDBOX", "nft flush map ip routemesh services", SANDBOX, "nothing balances what has mark"),
    "a backend missing": Fault(
        "SANDBOX", "nft delete element ip routemesh backends { 256 . 1 }", SANDBOX, "nothing balances what has mark"
    ),
    "a drop in the node's forward": Fault("node1", DROP.format("forward", "tcp dport 8080"), "node1", ENEMY, PEACE),
    "VXLAN dropped": Fault("node2", DROP.format("input", "udp dport 4789"), "node2", ENEMY, PEACE),
    "a drop in the sandbox": Fault("SANDBOX", DROP.format("forward", "tcp dport 8080"), SANDBOX, ENEMY, PEACE),
    "a drop in the task": Fault("TASK", DROP.format("input", "tcp dport 80"), TASK, ENEMY, PEACE),
    "a rejection in the task": Fault("TASK", REJECT.format("input", "tcp dport 80"), TASK, "rejects with icmp", PEACE),
    "a policy that drops": Fault("node1", POLICY, "node1", "the policy of filter c drops it", PEACE),
    "a node that does not forward": Fault("node1", OFF.format("eth0"), "node1", "forwards nothing", ON.format("eth0")),
    "a sandbox that does not forward": Fault("SANDBOX", OFF.format("eth1"), SANDBOX, "forwards nothing"),
    "a strict reverse path filter": Fault("TASK", "sysctl -w net.ipv4.conf.eth0.rp_filter=1", TASK, "rp_filter is 1"),
    "an FDB entry missing": Fault("OVERLAY", "bridge fdb del FAR dev vxlan0 self", OVERLAY, "does not know which node has"),
    "an FDB entry of another node": Fault(
        "OVERLAY",
        "bridge fdb replace FAR dev vxlan0 dst 192.168.200.77 self permanent",
        "outside",
        "belongs to no node",
        reported=OVERLAY,
    ),
    "a bridge that is down": Fault("node1", "ip link set docker_gwbridge down", "node1", "docker_gwbridge is down"),
    "the sandbox's gateway link down": Fault("SANDBOX", "ip link set eth1 down", SANDBOX, "eth1 is down"),
    "the sandbox's overlay link down": Fault("SANDBOX", "ip link set eth0 down", SANDBOX, "eth0 is down"),
    "the overlay's bridge down": Fault("OVERLAY", "ip link set br0 down", OVERLAY, "br0 is down"),
    "the tunnel down": Fault("OVERLAY", "ip link set vxlan0 down", OVERLAY, "vxlan0 is down"),
    "the task's link down": Fault("TASK", "ip link set eth0 down", TASK, "eth0 is down"),
    "a port that is in no bridge": Fault("OVERLAY2", "ip link set PORT nomaster", OVERLAY, ""),
    "the sandbox without a default route": Fault("SANDBOX", "ip route del default", SANDBOX, "no route to"),
    "the node without the route to its bridge": Fault(
        "node1", "ip route del 172.18.0.0/16 dev docker_gwbridge", "node1", "no route to"
    ),
    "no redirection": Fault("TASK", "nft flush map ip routemesh ports", TASK, "is not redirected to 80"),
    "no rule for the way back": Fault("TASK", "ip rule del pref 82", "", "the answer is lost"),
    "no route for the way back": Fault("TASK", "ip route flush table 82", "", "the answer is lost"),
    "no sandbox known in the task": Fault("TASK", "nft flush map ip routemesh nodes", "", "the answer is lost"),
    "no MAC for the way back": Fault("TASK", "nft flush map netdev routemesh macs", "", "the answer is lost"),
    "a wrong MAC": Fault("TASK", "ip link set eth0 address 02:42:00:00:00:01", TASK, "", reported=TASK),
    "a neighbour with a wrong MAC": Fault(
        "SANDBOX", "ip neighbour replace FARIP lladdr 02:42:00:00:00:01 dev eth0 nud permanent", OVERLAY, "", reported=SANDBOX
    ),
    "an overlay port with a small MTU": Fault("OVERLAY2", "ip link set PORT mtu 1200", OVERLAY, "large packets are lost"),
    "a tunnel with a small MTU": Fault("OVERLAY", "ip link set vxlan0 mtu 1200", OVERLAY, "large packets are lost"),
    "an underlay with a small MTU": Fault(
        "node2", "ip link set eth0 mtu 1300", "node2", "large packets are lost", "ip link set eth0 mtu 1500"
    ),
    "a bridge without its port": Fault("OVERLAY", "ip link set vxlan0 nomaster", OVERLAY, ""),
    "a rule that sends all away": Fault("node1", "ip rule add pref 5 blackhole", "node1", "", "ip rule del pref 5"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_where_the_explanation_says(mended: Still, fault: str) -> None:
    wrong = FAULTS[fault]
    inflict(mended, wrong.where, wrong.command)
    try:
        compare(mended, wrong.node, wrong.port)
        found = mended.explain(f"{wrong.node}:{wrong.port}")
        assert found.status == 3
        assert any(wrong.at in cause.place and wrong.why in cause.why for cause in found.causes), found.causes
        demand(mended, wrong.reported or wrong.at)
        if not wrong.undo:
            follow_the_advice(mended, wrong, found)
    finally:
        if wrong.undo:
            inflict(mended, wrong.where, wrong.undo)


def test_without_a_fault_the_doctor_finds_nothing(mended: Still) -> None:
    found = mended.findings()
    assert [(finding.state, finding.what) for finding in found] == [(State.OK, "ways"), (State.OK, "overlay")], found
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
    demand(still, SANDBOX, now)


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
    assert any(f"lead to {address}" in each.found and each.ours for each in mended.findings(now))


def test_an_address_that_two_tasks_have(mended: Still) -> None:
    first, other = (next(task for task in mended.known.names.tasks if task.name == name) for name in ("web.1", "old.1"))
    if first.node != other.node:
        other = next(task for task in mended.known.names.tasks if task.name == "old.2")
    (address,) = first.addresses.values()
    mended.cluster.inside(f"{other.node}/{other.netns}", "ip", "address", "add", f"{address}/24", "dev", "eth0")
    assert " but " not in compare(mended, first.node, WEB)  # its port lets its own ARP in alone
    mended.cluster.inside(mended.cluster.overlay(other.node), "nft", "delete", "table", "bridge", "routemesh")
    for node in ("node1", "node2"):
        mended.cluster.inside(f"{node}/{SANDBOX}", "ip", "neighbour", "flush", "dev", "eth0")
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


def follow_the_advice(still: Still, wrong: Fault, found: Explanation) -> None:
    """Type the commands that are to mend it; what hung on a link is told once that is up again."""
    for _ in range(MOST_ROUNDS):
        for cause in found.causes:
            for command in cause.mend:
                still.cluster.inside(cause.node, "sh", "-c", command)
        forget_connections(still)
        found = still.explain(f"{wrong.node}:{wrong.port}")
        if found.outcome == "reaches":
            break
    assert found.outcome == "reaches", found.causes
    compare(still, wrong.node, wrong.port)


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
