"""What doctor makes of a mesh: one finding for one fault, whatever it breaks; who says what, and what to do."""

from collections.abc import Sequence
from functools import cache
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from routemesh.doctor import Finding, Severity, listed, report
from routemesh.doctor.facts import Difference, Facts, NodeFacts, skew_s
from routemesh.doctor.mesh import findings, recorded
from routemesh.doctor.overlay import lost_between
from routemesh.doctor.told import told
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from routemesh.explain.firewalls import by_whom, letting_pass
from routemesh.model import Protocol
from routemesh.nodeplan import (
    HOST,
    Chain,
    Change,
    Create,
    Delete,
    Element,
    FdbEntry,
    IpvsDestination,
    Link,
    Sysctl,
    Verdict,
    XtChain,
)
from routemesh.recording.expected import lacking
from routemesh.recording.read import read
from routemesh.sightings import Echoes, Offload
from routemesh.snapshot import ClusterSnapshot, ConntrackEntry, Endpoint, Flow, NamedTask, Socket, Unread
from routemesh.values import replace
from routemesh.walk import Packet
from routemesh.walk.nouns import Encapsulated

DATA = Path(__file__).parent.parent / "data" / "swarm"
HOST_LIMIT = 65536
NODES = ("swarm1", "swarm2")
SIZES = (100, 1450)
DROP = (Verdict("drop"),)


@cache
def healthy() -> ClusterSnapshot:
    return read([DATA / "faults" / "00-healthy"])


def wrong(cluster: ClusterSnapshot, facts: Facts | None = None) -> list[Finding]:
    """What is not fine, but for what is unknown of a recording."""
    found = findings(cluster, facts or Facts())
    assert [each.state for each in found] == sorted((each.state for each in found), key=_rank)
    return [each for each in found if each.state in (Severity.WRONG, Severity.OPTIONAL, Severity.UNTOLD)]


def _rank(state: Severity) -> int:
    return (Severity.WRONG, Severity.UNTOLD, Severity.OPTIONAL, Severity.UNKNOWN, Severity.OK).index(state)


def changed(name: str, netns: str, **changes: object) -> ClusterSnapshot:
    cluster = healthy()
    node = cluster.nodes[name]
    spaces = {**node.namespaces, netns: replace(node.namespaces[netns], **changes)}  # type: ignore[arg-type]
    return replace(cluster, nodes={**cluster.nodes, name: replace(node, namespaces=spaces)})


def named(**changes: object) -> ClusterSnapshot:
    return replace(healthy(), names=replace(healthy().names, **changes))  # type: ignore[arg-type]


def of(node: str, **facts: object) -> Facts:
    return Facts(nodes={node: NodeFacts(node=node, **facts)})  # type: ignore[arg-type]


def test_a_healthy_mesh_has_no_findings() -> None:
    assert wrong(healthy()) == []
    assert report(findings(healthy(), Facts())).status == 0


# --- ways --------------------------------------------------------------------------------------------------------


def test_one_rule_that_breaks_every_port_is_one_finding() -> None:
    chains = [item for item in healthy().nodes["swarm2"].host.items if isinstance(item, XtChain)]
    forward = next(item for item in chains if (item.table, item.name) == ("filter", "FORWARD"))
    items = tuple(
        replace(item, rules=(DROP, *item.rules)) if item is forward else item for item in healthy().nodes["swarm2"].host.items
    )
    (found,) = wrong(changed("swarm2", HOST, items=items))
    assert (found.what, found.where, found.state) == ("firewall", "swarm2", Severity.WRONG)
    assert found.effect == "every connection fails: dns 5353/udp and web 8080/tcp through swarm2"
    look, passing = found.fix.split("; if its owner agrees, let this pass ")
    assert look.endswith("look on swarm2: iptables -t filter -nvL FORWARD --line-numbers")
    assert passing.startswith("on swarm2: iptables -t filter -I FORWARD 1 -d 172.18.0.2 -p udp --dport 5353 -j ACCEPT && ")


def test_ways_that_fail_where_something_is_not_as_planned_are_its_effect() -> None:
    broken = read([DATA / "faults" / "08-ipvs-dest-deleted"])
    lack = Difference("ingress_sbox", "IPVS destination 10.0.0.5 of FWM 256 is missing", "ipvsadm -a …")
    (found,) = wrong(broken, of("swarm1", differences=(lack,)))
    assert (found.what, found.where, found.ours) == ("plan", "swarm1: ingress_sbox", True)
    assert found.found == lack.what
    assert found.effect == "connections fail or tasks get none: web 8080/tcp through swarm1"
    assert found.fix == "routemesh doctor --fix, or on swarm1: ipvsadm -a …"
    (same,) = wrong(broken, recorded({"swarm1": [lack]}))
    assert same.fix == "on swarm1: ipvsadm -a …"  # nobody is there who would repair it


def test_what_only_clients_within_meet_is_an_effect_too() -> None:
    host = healthy().nodes["swarm1"].host.items
    output = next(item for item in host if isinstance(item, XtChain) and (item.table, item.name) == ("nat", "OUTPUT"))
    broken = changed("swarm1", HOST, items=tuple(item for item in host if item is not output))
    found = wrong(broken, recorded(lacking(broken)))
    assert [(each.what, each.where) for each in found] == [("plan", "swarm1")]
    assert found[0].effect.endswith(
        "dns 5353/udp and web 8080/tcp through swarm1, where swarm1 itself, by 127.0.0.1, and swarm1 itself asks"
    )


def test_many_differences_are_told_in_few_words() -> None:
    many = tuple(Difference("ingress_sbox", f"element {number} is missing", f"add {number}") for number in range(100))
    (found,) = wrong(healthy(), of("swarm1", differences=many))
    assert found.found.endswith("element 3 is missing and 96 more")
    assert found.effect == "no published port fails because of it"
    assert found.fix == "routemesh doctor --fix (100 commands, which routemesh diff swarm1 prints)"
    assert len(found.commands) == 100


def test_what_was_not_read_is_told_and_is_neither_fine_nor_broken() -> None:
    unread = (Unread("node1/host/ip-route.txt", "missing", "which way packets are routed", "routes"),)
    found = findings(changed("swarm1", HOST, unread=unread), recorded({}))
    assert report(found).status == 4
    assert [each.what for each in found if each.state is Severity.UNTOLD] == ["way"]


def test_a_node_whose_daemon_is_silent_is_wrong_only_in_a_running_cluster() -> None:
    nodes = tuple(replace(node, absent="its daemon is gone") if node.name == "swarm2" else node for node in healthy().names.nodes)
    alone = replace(named(nodes=nodes), nodes={"swarm1": healthy().nodes["swarm1"]})
    silent = [each for each in wrong(alone) if each.what == "node"]
    assert [(each.where, each.found) for each in silent] == [("swarm2", "not read: its daemon is gone")]
    assert all(each.what != "node" for each in wrong(alone, recorded({})))


# --- between the nodes -------------------------------------------------------------------------------------------


def probes(answered: Sequence[int], heard: Sequence[int], refused: str = "") -> dict[str, NodeFacts]:
    """What swarm1 saw, and of swarm2's packets heard; swarm2 got no answer and heard as much as was answered."""
    one = Echoes(peer="swarm2", sizes=SIZES, answered=tuple(answered), heard=tuple(heard), refused=refused)
    other = Echoes(peer="swarm1", sizes=SIZES, answered=tuple(answered), heard=tuple(answered))
    return {"swarm1": NodeFacts(node="swarm1", probes=(one,)), "swarm2": NodeFacts(node="swarm2", probes=(other,))}


@pytest.mark.parametrize(
    ("answered", "heard", "what", "direction"),
    [
        ((), (), "overlay", "from swarm1 to swarm2 and from swarm2 to swarm1"),
        ((), SIZES, "overlay", "from swarm1 to swarm2"),
        ((100,), (100,), "MTU", "from swarm1 to swarm2 and from swarm2 to swarm1"),
        ((100,), SIZES, "MTU", "from swarm1 to swarm2"),
    ],
)
def test_who_hears_whom_tells_the_direction(answered: Sequence[int], heard: Sequence[int], what: str, direction: str) -> None:
    (found,) = wrong(healthy(), Facts(nodes=probes(answered, heard)))
    assert (found.what, found.where) == (what, "swarm1 and swarm2")
    assert f"through VXLAN {direction}" in found.found
    assert ("UDP 4789" in found.fix) == (what == "overlay")
    assert ("an MTU of 1500" in found.fix) == (what == "MTU")


def test_without_the_other_end_the_direction_is_not_known() -> None:
    seen = {("a", "b"): Echoes(peer="b", sizes=SIZES, answered=(), heard=())}
    lost = lost_between(seen, "a", "b")
    assert str(lost) == "between a and b"
    assert lost_between({("a", "b"): replace(seen["a", "b"], answered=SIZES)}, "a", "b") is None


def test_what_can_not_even_be_sent_is_told_with_the_reason() -> None:
    (found,) = wrong(healthy(), Facts(nodes=probes((100,), SIZES, "1450 bytes: Message too long")))
    assert (found.what, "(1450 bytes: Message too long)" in found.found) == ("MTU", True)


def test_devices_that_are_known_to_write_wrong_checksums_are_warned_of() -> None:
    bad = Offload(link="ens192", driver="vmxnet3", checksums=True)
    (found,) = wrong(healthy(), of("swarm1", offloads=(bad,)))
    assert (found.state, found.fix) == (Severity.OPTIONAL, "on swarm1: ethtool -K ens192 tx-checksum-ip-generic off")
    for fine in (replace(bad, checksums=False), replace(bad, driver="e1000e")):
        assert wrong(healthy(), of("swarm1", offloads=(fine,))) == []


# --- full, late, ill, in the way ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "state"), [(79, None), (80, Severity.OPTIONAL), (100, Severity.WRONG)])
def test_a_table_of_connections_that_fills_up(count: int, state: Severity | None) -> None:
    found = [each for each in wrong(changed("swarm1", "ingress_sbox", conntrack_count=count, conntrack_max=100))]
    told_of = [(each.state, each.where, each.found, each.fix) for each in found]
    tracked, fix = (
        f"swarm1: ingress_sbox tracks {count} of 100 connections",
        "on swarm1: sysctl -w net.netfilter.nf_conntrack_max=",
    )
    assert told_of == ([(state, "swarm1", tracked, f"{fix}{2 * HOST_LIMIT}")] if state else [])


def test_a_limit_far_below_the_use_is_raised_above_it_for_all_namespaces_in_one_finding() -> None:
    small = {"conntrack_count": 500_000, "conntrack_max": 1000}
    cluster = healthy()
    node = cluster.nodes["swarm2"]
    spaces = {name: replace(space, **small) for name, space in node.namespaces.items()}  # type: ignore[arg-type]  # its fields
    (found,) = wrong(replace(cluster, nodes={**cluster.nodes, "swarm2": replace(node, namespaces=spaces)}))
    assert (found.what, found.where, found.fix) == (
        "conntrack", "swarm2", "on swarm2: sysctl -w net.netfilter.nf_conntrack_max=1000000",
    )  # fmt: skip
    assert "web 8080/tcp" in found.effect


@pytest.mark.parametrize(("prefix", "state"), [(24, None), (28, Severity.OPTIONAL), (29, Severity.WRONG)])
def test_a_pool_that_runs_out_of_addresses(prefix: int, state: Severity | None) -> None:
    subnet = IPv4Network(f"10.0.0.0/{prefix}")
    (ingress,) = (each for each in healthy().names.networks if each.name == "ingress")
    tasks = tuple(
        NamedTask(name=f"t.{number}", node="swarm1", netns="", addresses={ingress.id: IPv4Address(f"10.0.0.{100 + number}")})
        for number in range(11)
    )
    services = tuple(replace(each, vips={}, ports=()) for each in healthy().names.services)
    nodes = tuple(replace(each, ingress_address=None) for each in healthy().names.nodes)
    known = named(networks=(replace(ingress, subnet=subnet),), tasks=tasks, services=services, nodes=nodes)
    found = [(each.state, each.found.split(" of ")[0]) for each in wrong(known) if each.where == "network ingress"]
    assert found == ([(state, "11")] if state else [])


@pytest.mark.parametrize(("ahead", "words"), [(0.9, ""), (-0.9, ""), (2.5, "2.5 s ahead"), (-61.0, "61.0 s behind")])
def test_clocks_that_differ(ahead: float, words: str) -> None:
    found = wrong(healthy(), Facts(skews={"swarm2": ahead}))
    assert [each.found for each in found] == ([f"its clock is {words}"] if words else [])


def test_a_clock_is_wrong_by_what_lies_outside_of_the_time_of_asking() -> None:
    assert [skew_s(clock, 10.0, 12.0) for clock in (9.0, 10.0, 11.0, 12.0, 15.0)] == [-1.0, 0.0, 0.0, 0.0, 3.0]


def test_an_unhealthy_task() -> None:
    ill = tuple(replace(task, healthy=False) if task.name == "web.1" else task for task in healthy().names.tasks)
    (found,) = wrong(named(tasks=ill))
    assert (found.what, found.where, found.state) == ("task", "swarm2: task web.1", Severity.WRONG)
    assert "routemesh service logs web" in found.fix


def test_a_port_that_another_process_has() -> None:
    host = healthy().nodes["swarm1"].host
    taken = Socket(protocol=Protocol.TCP, address=IPv4Address("0.0.0.0"), port=8080, process="nginx", pid=77)
    (found,) = wrong(changed("swarm1", HOST, sockets=(*(host.sockets or ()), taken)))
    assert (found.what, found.where) == ("port", "swarm1")
    assert found.found == "nginx (77) has 8080/tcp, which web publishes"


@pytest.mark.parametrize(
    ("protocol", "port", "server", "state", "is_stale"),
    [
        (Protocol.TCP, 8080, "10.0.0.99", "ESTABLISHED", True),
        (Protocol.TCP, 8080, "10.0.0.99", "TIME_WAIT", False),
        (Protocol.TCP, 9999, "10.0.0.99", "ESTABLISHED", False),
        (Protocol.UDP, 5353, "10.0.0.99", "", True),
        (Protocol.TCP, 8080, "", "ESTABLISHED", False),
    ],
)
def test_connections_to_who_is_gone(protocol: Protocol, port: int, server: str, state: str, is_stale: bool) -> None:
    alive = next(address for task in healthy().names.tasks if task.service == "web" for address in task.addresses.values())
    client, gone = Endpoint(IPv4Address("192.0.2.7"), 4711), Endpoint(IPv4Address(server or alive), port)
    asked = Flow(protocol, client, Endpoint(IPv4Address("172.18.0.2"), port))
    entry = ConntrackEntry(original=asked, reply=Flow(protocol, gone, client), status=frozenset({"dnat"}), state=state)
    found = [each for each in wrong(changed("swarm1", "ingress_sbox", conntrack=(entry,))) if each.what == "connections"]
    assert len(found) == is_stale
    assert all(each.ours and "conntrack -D" in each.fix for each in found)


@pytest.mark.parametrize(
    ("led_to", "status", "is_stale"),
    [
        ("192.168.77.1", "", True),
        ("172.18.0.99", "dnat", True),
        ("172.18.0.2", "dnat", False),
        ("192.168.77.1", "seen-reply", False),
    ],
)
def test_connections_of_the_node_itself_that_are_older_than_the_rule(led_to: str, status: str, is_stale: bool) -> None:
    client, node = Endpoint(IPv4Address("192.0.2.7"), 4711), Endpoint(IPv4Address("192.168.77.1"), 5353)
    reply = Flow(Protocol.UDP, Endpoint(IPv4Address(led_to), 5353), client)
    entry = ConntrackEntry(original=Flow(Protocol.UDP, client, node), reply=reply, status=frozenset({status} - {""}))
    found = [each for each in wrong(changed("swarm1", HOST, conntrack=(entry,))) if each.what == "connections"]
    assert [(each.where, each.fix) for each in found] == (
        [("swarm1", f"on swarm1: conntrack -D -p udp --orig-port-dst 5353 --reply-src {led_to}")] if is_stale else []
    )


@pytest.mark.parametrize(
    ("queued", "stopped", "state"),
    [
        (0, False, None),
        (3, False, Severity.OPTIONAL),
        (8, False, Severity.OPTIONAL),
        (9, False, Severity.WRONG),
        (0, True, Severity.WRONG),
    ],
)
def test_a_server_that_takes_no_connections(queued: int, stopped: bool, state: Severity | None) -> None:
    task = next(task for task in healthy().names.tasks if task.service == "web" and task.node == "swarm2")
    sockets = healthy().nodes["swarm2"].namespaces[task.netns].sockets
    busy = tuple(
        replace(each, queued=queued, backlog=8, stopped=stopped) if each.protocol is Protocol.TCP and each.port == 80 else each
        for each in sockets or ()
    )
    cluster = changed("swarm2", task.netns, sockets=busy)
    found = [each for each in findings(cluster, Facts()) if each.what == "task"]
    assert [(each.where, each.state) for each in found] == ([(f"swarm2: task {task.name}", state)] if state else [])
    told = explain(cluster, ask(cluster, target("swarm1:8080"), "", None))
    assert any("may not answer" in note for note in told.notes) == (state is Severity.OPTIONAL)
    silent = state is Severity.WRONG
    assert (told.outcome, task.name in told.reached) == ("partly" if silent else "reaches", not silent)
    assert ("it accepts, but does not answer: " in told.verdict) == silent
    assert [way.task for way in told.ways if not way.arrives] == ([task.name] if silent else [])


@pytest.mark.parametrize("checked", [None, False, True])
def test_a_health_check_is_named_where_it_would_have_helped(checked: bool | None) -> None:
    task = next(task for task in healthy().names.tasks if task.service == "web" and task.node == "swarm2")
    services = tuple(replace(service, checked=checked) for service in healthy().names.services)
    sockets = healthy().nodes["swarm2"].namespaces[task.netns].sockets
    away = tuple(replace(each, address=IPv4Address("127.0.0.1")) for each in sockets or ())
    broken = changed("swarm2", task.netns, sockets=away)
    for cluster, said in ((broken, checked is False), (healthy(), False)):
        named_so = replace(cluster, names=replace(cluster.names, services=services))
        told = explain(named_so, ask(named_so, target("swarm1:8080"), "", None))
        line = "web has no health check: tasks get connections as soon as they run"
        assert (line in told.notes) == said
        assert any(line in each.effect for each in findings(named_so, Facts())) == said
    verdict = explain(broken, ask(broken, target("swarm1:8080"), "", None)).verdict
    assert "nothing listens on tcp/80; " in verdict and " listens on 127.0.0.1:80" in verdict


def test_a_destination_that_is_no_task_of_the_service_is_not_planned() -> None:
    sandbox = healthy().nodes["swarm1"].namespaces["ingress_sbox"]
    one = next(item for item in sandbox.items if isinstance(item, IpvsDestination))
    for weight, surplus in ((1, True), (0, False)):
        stray = replace(one, address=IPv4Address("10.0.0.77"), weight=weight)
        found = lacking(changed("swarm1", "ingress_sbox", items=(*sandbox.items, stray)))["swarm1"]
        expected = [f"IPVS destination 10.0.0.77 of FWM {one.mark} is not planned"] if surplus else []
        assert [each.what for each in found] == expected
        assert all(f"ipvsadm -d -f {one.mark} -r 10.0.0.77" in each.command for each in found)


def test_what_a_node_or_the_manager_could_not_do() -> None:
    (found,) = wrong(healthy(), of("swarm1", failures=("ip link add …: exists",)))
    assert (found.what, found.where, found.found) == ("node", "swarm1", "ip link add …: exists")
    (found,) = wrong(healthy(), Facts(errors=("web: no virtual IP",)))
    assert (found.what, found.found) == ("manager", "web: no virtual IP")


# --- words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "words"),
    [
        (Create("", Element("ip", "marks", ("tcp", 8080), 256)), "element tcp . 8080 of marks is missing"),
        (Delete("", FdbEntry("vxlan0", "02:42:0a:00:00:07")), "the FDB entry of 02:42:0a:00:00:07 on vxlan0 is not planned"),
        (Change("", Sysctl("net/a", "0"), Sysctl("net/a", "1")), "net/a is 0 instead of 1"),
        (
            Change("", Link(name="br0", kind="bridge", mtu=1400, up=False), Link(name="br0", kind="bridge", mtu=1450)),
            "device br0 has mtu 1400 instead of 1450 and up no instead of yes",
        ),
    ],
)  # fmt: skip
def test_an_operation_is_told_as_what_is_wrong_now(op: Create | Change | Delete, words: str) -> None:
    assert told(op) == words


@pytest.mark.parametrize(
    ("chain", "beside", "tool"),
    [
        (Chain("inet", "filter_FORWARD", table="firewalld"), (), "firewalld"),
        (XtChain("filter", "ufw-user-input"), (), "ufw"),
        (XtChain("filter", "DOCKER-ISOLATION-STAGE-2"), (), "Docker"),
        (XtChain("filter", "KUBE-FIREWALL"), (), "kube-proxy"),
        (XtChain("filter", "FORWARD", (), "DROP"), ("DOCKER", "DOCKER-USER"), "Docker"),
        (XtChain("filter", "FORWARD", (), "DROP"), ("DOCKER", "ufw-before-forward"), ""),
        (XtChain("filter", "FORWARD", (), "DROP"), (), ""),
        (Chain("inet", "c", table="enemy"), (), ""),
    ],
)
def test_a_firewall_is_known_by_the_names_of_its_chains(chain: Chain | XtChain, beside: Sequence[str], tool: str) -> None:
    there = [XtChain("filter", name) for name in beside]
    assert by_whom(chain, None, there) == tool
    if isinstance(chain, XtChain) and chain.name == "FORWARD":
        assert by_whom(chain, DROP, there) == ""  # a rule in it may be anybody's


def test_each_firewall_is_told_in_its_own_words_to_let_a_packet_pass() -> None:
    client, node = Endpoint(IPv4Address("192.0.2.7"), 4000), Endpoint(IPv4Address("172.18.0.2"), 8080)
    plain = Packet(protocol=Protocol.TCP, source=client, destination=node)
    outer = replace(plain, protocol=Protocol.UDP, destination=node._replace(port=4789), inner=Encapsulated(4096, plain))
    assert letting_pass("ufw", outer) == "ufw allow 4789/udp"
    assert letting_pass("firewalld", outer).startswith("firewall-cmd --permanent --add-port=4789/udp")
    assert letting_pass("Docker", plain) == "iptables -I DOCKER-USER -p tcp -d 172.18.0.2 --dport 8080 -j ACCEPT"
    assert letting_pass("fail2ban", plain) == ""


def test_long_lists_are_cut() -> None:
    assert [listed("ab"[:number]) for number in (0, 1, 2)] == ["", "a", "a and b"]
    assert listed("abcde") == "a, b, c and 2 more"


def test_a_task_is_healthy_unless_said_otherwise() -> None:
    assert NamedTask(name="web.1").healthy
