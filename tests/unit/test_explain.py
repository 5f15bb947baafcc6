"""Explanations of a recorded Swarm, whole and broken: verdicts, causes and what mends them, texts and pictures."""

import json
import re
from functools import cache
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec
import pytest

from routemesh.errors import NotFound, RoutemeshError, Unavailable, UserError
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from routemesh.explain.mend import Repair
from routemesh.explain.nouns import Explanation
from routemesh.explain.text import Screen, text
from routemesh.model import Protocol
from routemesh.nodeplan import HOST, Link, Neighbour, Route, Unknown, Verdict, XtChain
from routemesh.recording.read import read
from routemesh.snapshot import ClusterSnapshot, ConntrackEntry, Endpoint, Flow, Unread
from routemesh.values import replace

DATA = Path(__file__).parent.parent / "data" / "swarm"
WEB = "swarm1:8080"
BROKEN = {
    "01-dnat-deleted": (
        "broken", "swarm1",
        "port 8080/tcp is not forwarded to the sandbox: dockerd, which is not a task of web, takes the connection",
        "iptables -t nat -I DOCKER-INGRESS -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:8080",
    ),
    "08-ipvs-dest-deleted": (
        "partly", "swarm1: ingress_sbox", "web.1 serves, but gets no connections",
        "nsenter --net=/var/run/docker/netns/ingress_sbox ipvsadm -a -f 256 -r 10.0.0.5:0 -m -w 1",
    ),
    "12-fdb-deleted": (
        "partly", "swarm1: overlay ingress", "vxlan0 does not know which node has 02:42:0a:00:00:05",
        "bridge fdb add 02:42:0a:00:00:05 dev vxlan0 dst 192.168.77.2 self permanent",
    ),
    "16-vxlan-port-dropped-input-node2": (
        "partly", "swarm2", "filter INPUT drops it (iptables filter: -p udp -m udp --dport 4789 -j DROP)",
        "iptables -t filter -I INPUT 1 -p udp --dport 4789 -j ACCEPT",
    ),
    "21-task-redirect-deleted": (
        "partly", "swarm2: task web.1", "published port 8080/tcp is not redirected to 80, and filter INPUT drops it",
        "iptables -t nat -A PREROUTING -d 10.0.0.5 -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80",
    ),
}  # fmt: skip
"""Fault → outcome, and place, reason and command of its first cause."""


@cache
def recorded(step: str) -> ClusterSnapshot:
    return read([DATA / step])


def explained(cluster: ClusterSnapshot, what: str = WEB, client: str = "", **repairs: list[Repair]) -> Explanation:
    return explain(cluster, ask(cluster, target(what), client, None), repairs)


def changed(cluster: ClusterSnapshot, name: str, netns: str, **changes: object) -> ClusterSnapshot:
    node = cluster.nodes[name]
    spaces = {**node.namespaces, netns: replace(node.namespaces[netns], **changes)}  # type: ignore[arg-type]
    return replace(cluster, nodes={**cluster.nodes, name: replace(node, namespaces=spaces)})


@pytest.fixture
def healthy() -> ClusterSnapshot:
    return recorded("2-service")


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest) -> Explanation:
    return explained(recorded(f"faults/{request.param}"))


# --- verdicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", ["", "192.168.77.9", "127.0.0.1", "swarm1", "swarm2", "192.0.2.1:5555"])
@pytest.mark.parametrize("node", ["swarm1", "swarm2", "192.168.77.2"])
def test_a_whole_mesh_reaches_all_tasks(healthy: ClusterSnapshot, node: str, client: str) -> None:
    found = explained(healthy, f"{node}:8080", client)
    assert (found.outcome, found.status, found.causes) == ("reaches", 0, ())
    assert found.verdict == f"{found.question.node}:8080/tcp reaches web.1 and web.2"
    assert [(way.share, way.arrives) for way in found.ways] == [((1, 2), True)] * 2
    assert {way.task for way in found.ways} == {"web.1", "web.2"}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_named_with_its_place_and_what_mends_it(fault: str) -> None:
    outcome, place, why, command = BROKEN[fault]
    found = explained(recorded(f"faults/{fault}"))
    first = found.causes[0]
    assert (found.outcome, found.status, first.place, first.why) == (outcome, 3, place, why)
    assert first.mend[0].endswith(command)
    assert found.verdict.endswith(f"{place}: {why}")


def test_a_route_that_came_with_an_address_is_put_back(healthy: ClusterSnapshot) -> None:
    """A Swarm has no plan that names it: it comes with the address, and may go without it."""
    host = healthy.nodes["swarm1"].namespaces[HOST]
    ways_out = [each for each in host.items if isinstance(each, Route) and each.destination.prefixlen in (0, 16)]
    without = changed(healthy, "swarm1", HOST, items=tuple(each for each in host.items if each not in ways_out))
    first = explained(without).causes[0]
    assert first.why == "there is no route to 172.18.0.2"
    assert first.mend == ("ip route add 172.18.0.0/16 dev docker_gwbridge proto kernel scope link src 172.18.0.1",)


def test_what_only_the_packet_will_learn_by_arp_has_no_command_that_shows_it(healthy: ClusterSnapshot) -> None:
    """An entry of the tunnel answers, and the asker has none yet."""
    for name, space in healthy.nodes["swarm1"].namespaces.items():
        kept = tuple(each for each in space.items if not isinstance(each, Neighbour) or each.link == "vxlan0")
        healthy = changed(healthy, "swarm1", name, items=kept)
    steps = [step for way in explained(healthy).ways for step in way.there if step.kind == "neighbour"]
    assert {step.show for step in steps if step.place == "swarm1: ingress_sbox"} == {""}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_step_that_fails_is_the_one_that_the_cause_names(fault: str) -> None:
    found = explained(recorded(f"faults/{fault}"))
    for cause in found.causes:
        if cause.step >= 0:
            way = found.ways[cause.way]
            step = (*way.there, *way.back)[cause.step]
            assert (step.failed, step.place) == (True, cause.place)
    failed = [step for way in found.ways for step in (*way.there, *way.back) if step.failed]
    assert len(failed) == sum(not way.arrives for way in found.ways)


def test_what_the_nodes_own_plan_would_do_comes_before_what_a_person_would() -> None:
    cluster = recorded("faults/12-fdb-deleted")
    own = Repair("1-po75a2uo3p", "what the plan says")
    elsewhere = Repair("ingress_sbox", "another thing")
    first, second = explained(cluster, swarm1=[own, elsewhere]).causes
    assert first.mend == ("what the plan says",)
    assert (second.place, second.why, second.mend) == ("swarm1: ingress_sbox", "it differs from the plan", ("another thing",))


def test_large_packets_may_be_lost_where_small_ones_get_through(healthy: ClusterSnapshot) -> None:
    netns = "1-mwyjqw5o1s"
    items = healthy.nodes["swarm1"].namespaces[netns].items
    narrow = tuple(replace(item, mtu=1300) if isinstance(item, Link) and item.name == "vxlan0" else item for item in items)
    found = explained(changed(healthy, "swarm1", netns, items=narrow))
    why = "large packets are lost: its 1450 bytes exceed the MTU of vxlan0, 1300"
    assert (found.outcome, found.status, found.reached) == ("partly", 3, ("web.1", "web.2"))
    assert [(cause.place, cause.why) for cause in found.causes] == [("swarm1: overlay ingress", why)]
    assert found.causes[0].mend[0].endswith("ip link set vxlan0 mtu 1450")
    assert [f"but {why.replace(':', ' in swarm1: overlay ingress:', 1)}" in way.end for way in found.ways] == [
        way.task == "web.2" for way in found.ways
    ]


def test_a_service_whose_tasks_are_unhealthy_says_so(healthy: ClusterSnapshot) -> None:
    tasks = tuple(replace(task, serving=False, note="it is unhealthy") for task in healthy.names.tasks)
    cluster = replace(healthy, names=replace(healthy.names, tasks=tasks))
    assert explained(cluster).causes[0].why.startswith("none of its tasks takes connections (web.1 on swarm1: it is unhealthy;")


def test_a_rule_that_is_not_understood_is_named_and_not_passed_over(healthy: ClusterSnapshot) -> None:
    odd = XtChain("raw", "PREROUTING", ((Unknown("-m carrots --orange"), Verdict("drop")),), "ACCEPT")
    items = healthy.nodes["swarm1"].host.items
    found = explained(changed(healthy, "swarm1", HOST, items=(*items, odd)))
    assert (found.outcome, found.status) == ("untold", 4)
    assert "-m carrots --orange" in found.verdict
    assert found.causes[0].place == "swarm1"


@pytest.mark.parametrize("part", ["all", "filters", "routes", "links", "fdb", "neighbours", "settings"])
def test_what_was_not_read_is_no_verdict(healthy: ClusterSnapshot, part: str) -> None:
    space = next(name for name in healthy.nodes["swarm1"].namespaces if name.startswith("1-"))
    where = space if part == "fdb" else HOST
    lost = Unread("a file", "missing", "something", part)  # type: ignore[arg-type]
    kept = healthy.nodes["swarm1"].namespaces[where]
    items = tuple(item for item in kept.items if part != "settings" or "Sysctl" not in type(item).__name__)
    found = explained(changed(healthy, "swarm1", where, unread=(lost,), items=items))
    assert found.outcome in ("untold", "partly")
    assert found.status in (3, 4)
    assert any("told" in cause.why for cause in found.causes)
    assert any("a file can't be read" in note for note in found.notes)


def test_a_node_that_was_not_read_is_named(healthy: ClusterSnapshot) -> None:
    nodes = tuple(replace(node, absent="it is down" if node.name == "swarm2" else "") for node in healthy.names.nodes)
    alone = {name: node for name, node in healthy.nodes.items() if name == "swarm1"}
    cluster = replace(healthy, nodes=alone, names=replace(healthy.names, nodes=nodes))
    found = explained(cluster)
    assert (found.outcome, found.reached) == ("partly", ("web.1",))
    assert "it is down" in found.causes[0].why
    assert "node swarm2 was not read: it is down" in found.notes
    with pytest.raises(Unavailable, match="node swarm2 can't be explained: it is down"):
        explained(cluster, "swarm2:8080")


def test_a_link_that_is_down_is_switched_on(healthy: ClusterSnapshot) -> None:
    host = healthy.nodes["swarm1"].host
    items = tuple(
        replace(item, up=False) if isinstance(item, Link) and item.name == "docker_gwbridge" else item for item in host.items
    )
    found = explained(changed(healthy, "swarm1", HOST, items=items))
    assert (found.outcome, found.causes[0].why) == ("broken", "docker_gwbridge is down")
    assert found.causes[0].mend == ("ip link set docker_gwbridge up",)


def test_connections_to_who_is_gone_are_told(healthy: ClusterSnapshot) -> None:
    client, gone = Endpoint(IPv4Address("192.0.2.7"), 4711), Endpoint(IPv4Address("10.0.0.99"), 8080)
    asked = Flow(Protocol.TCP, client, Endpoint(IPv4Address("172.18.0.2"), 8080))
    entry = ConntrackEntry(original=asked, reply=Flow(Protocol.TCP, gone, client), status=frozenset({"dnat"}))
    found = explained(changed(healthy, "swarm1", "ingress_sbox", conntrack=(entry,)))
    assert found.outcome == "reaches"
    (note,) = found.notes
    assert note.startswith("1 known connection still leads to 10.0.0.99, which no serving task has; nsenter")
    assert note.endswith("conntrack -D -p tcp --reply-src 10.0.0.99 lets go of them")


@pytest.mark.parametrize("length", [8, 24, 30, 31, 32])
def test_somebody_outside_is_no_node(healthy: ClusterSnapshot, length: int) -> None:
    items = tuple(
        replace(item, destination=IPv4Network(f"192.168.77.1/{length}", strict=False))
        if isinstance(item, Route) and item.table == 254 and item.link == healthy.nodes["swarm1"].device and item.via is None
        else item
        for item in healthy.nodes["swarm1"].host.items
    )
    source = IPv4Address(explained(changed(healthy, "swarm1", HOST, items=items)).question.source.partition(":")[0])
    assert source not in (IPv4Address("192.168.77.1"), IPv4Address("192.168.77.2"))


def test_nobody_listens(healthy: ClusterSnapshot) -> None:
    task = next(task for task in healthy.names.tasks if task.name == "web.2")
    found = explained(changed(healthy, task.node, task.netns, sockets=()))
    assert found.causes[0].why == "nothing listens on tcp/80"
    assert found.causes[0].place == f"{task.node}: task web.2"


# --- questions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "client", "error", "message"),
    [
        ("swarm1", "", UserError, "swarm1 is not NODE:PORT or NODE:PORT/udp"),
        ("swarm1:0", "", UserError, "port 0 of swarm1:0 is not between 1 and 65535"),
        ("swarm1:80/sctp", "", UserError, "protocol sctp of swarm1:80/sctp is neither tcp nor udp"),
        ("swarm3:8080", "", NotFound, "there is no node swarm3; there are swarm1, swarm2"),
        ("swarm1:8081", "", NotFound, r"port 8081/tcp is not published; published are: 8080/tcp \(web\)"),
        ("swarm1:8080/udp", "", NotFound, r"port 8080/udp is not published; published are: 8080/tcp \(web\)"),
        (
            "swarm1:8080",
            "carrots",
            NotFound,
            "client carrots is not an address, a node or a task; nodes are swarm1, swarm2, tasks web.1, web.2",
        ),
        ("swarm1:8080", "192.0.2.1:99999", UserError, "port 99999 of client 192.0.2.1:99999 is not between"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    healthy: ClusterSnapshot, what: str, client: str, error: type[RoutemeshError], message: str
) -> None:
    with pytest.raises(error, match=message):
        explained(healthy, what, client)


def test_the_client_is_who_was_named(healthy: ClusterSnapshot) -> None:
    asked = explained(healthy, client="192.0.2.1:5555").question
    assert (asked.client, asked.source) == ("client 192.0.2.1", "192.0.2.1:5555")
    asked = explained(healthy, client="swarm2").question
    assert (asked.client, asked.client_node, asked.source) == ("node swarm2 itself", "swarm2", "192.168.77.2:40000")
    asked = explained(healthy).question
    assert IPv4Address(asked.source.partition(":")[0]) not in [node.address for node in healthy.names.nodes]


# --- text ---------------------------------------------------------------------------------------------------------


def test_text_is_plain_unless_there_is_a_terminal(broken: Explanation) -> None:
    plain = text(broken)
    assert "\x1b" not in plain
    told = sum(1 + len(cause.mend) + bool(cause.look) + len(cause.look) for cause in broken.causes)
    assert plain.splitlines()[-1 - len(broken.notes) - told] == broken.verdict
    coloured = text(broken, Screen(colour=True))
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert "\x1b[33m" in coloured or "\x1b[31;1m" in coloured


def test_text_shows_each_step_with_the_command_that_shows_it(healthy: ClusterSnapshot) -> None:
    lines = text(explained(healthy)).splitlines()
    assert "swarm1: ingress_sbox" in lines
    assert any(line.strip() == "$ iptables -t nat -nvL DOCKER-INGRESS" for line in lines)
    assert any(line.strip().endswith("ipvsadm -Ln -f 256") and "nsenter" in line for line in lines)
    assert any("⇒ tcp 10.0.0.2:40000 → 10.0.0.6:8080" in line for line in lines)


def test_rules_are_wrapped_at_words_and_commands_are_not(healthy: ClusterSnapshot) -> None:
    narrow = text(explained(healthy), Screen(width=60))
    assert narrow.split() == text(explained(healthy)).split(), "nothing is left out"
    lines = narrow.splitlines()
    rules = [line for line in lines if line.startswith(" " * 19) and not line.strip().startswith("$")]
    assert rules
    assert max(map(len, rules)) <= 62
    assert any(len(line) > 62 for line in lines if line.strip().startswith("$"))


def test_twenty_tasks_stay_readable(healthy: ClusterSnapshot) -> None:
    found = explained(healthy)
    ways = tuple(replace(found.ways[number % 2], share=(1, 20), task=f"web.{number}") for number in range(20))
    lines = text(replace(found, ways=ways)).splitlines()
    assert sum(line.lstrip().startswith("✓ 1/20") for line in lines) == 20
    assert len(lines) < 140


# --- JSON ---------------------------------------------------------------------------------------------------------


def test_json_is_the_explanation_with_its_version(broken: Explanation) -> None:
    found = json.loads(msgspec.json.encode(broken))
    assert found["version"] == 2
    assert found.keys() == {
        "version",
        "question",
        "outcome",
        "verdict",
        "reached",
        "causes",
        "ways",
        "notes",
        "unread_nodes",
        "ground",
    }
    assert msgspec.convert(found, Explanation) == broken


def test_a_task_that_no_connection_is_led_to_by_plan_is_no_fault() -> None:
    """By hash, weight or distance others are chosen; the node says that nothing is missing."""
    cluster = recorded("faults/08-ipvs-dest-deleted")
    assert explained(cluster).outcome == "partly"
    found = explained(cluster, swarm1=[])
    assert (found.outcome, found.causes) == ("reaches", ())


def test_a_node_that_may_lead_to_no_task_is_told_as_such() -> None:
    cluster = recorded("faults/01-dnat-deleted")
    services = tuple(replace(service, answering=("swarm2",)) for service in cluster.names.services)
    found = explained(replace(cluster, names=replace(cluster.names, services=services)))
    assert found.outcome == "broken"
    assert found.verdict.startswith("swarm1:8080/tcp is broken at swarm1: web has no task that this node may use (labels ")
