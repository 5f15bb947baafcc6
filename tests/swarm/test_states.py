"""What is said of states of a real Swarm in which one thing is other than it was recorded: the cause, once, and no more."""

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

import pytest

from routemesh.doctor import Finding, Severity
from routemesh.doctor.facts import Facts, NodeFacts
from routemesh.doctor.mesh import findings, recorded
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from routemesh.explain.nouns import Explanation
from routemesh.nodeplan import HOST, Item, Link, Match, Neighbour, Route, RouteKind, Rule, Sysctl, Unknown, XtChain, XtTable
from routemesh.recording.expected import lacking
from routemesh.recording.usual import settings
from routemesh.sightings import Echoes
from routemesh.snapshot import ClusterSnapshot
from routemesh.values import replace
from tests.swarm.recorded import recording

BOX, WEB_2 = "ingress_sbox", "63b6e03e3e30"


def healthy() -> ClusterSnapshot:
    return recording("faults/00-healthy")


Edit = Callable[[Item], Item | None]


def changed(cluster: ClusterSnapshot, name: str, netns: str, edit: Edit, more: Iterable[Item] = ()) -> ClusterSnapshot:
    """With every item of a namespace as `edit` makes it; None: gone."""
    node = cluster.nodes[name]
    space = node.namespaces[netns]
    items = (*(made for item in space.items if (made := edit(item)) is not None), *more)
    spaces = {**node.namespaces, netns: replace(space, items=items)}
    return replace(cluster, nodes={**cluster.nodes, name: replace(node, namespaces=spaces)})


def told(cluster: ClusterSnapshot) -> list[Finding]:
    every = findings(cluster, recorded(lacking(cluster)))
    return [each for each in every if each.state not in (Severity.OK, Severity.UNKNOWN)]


def explained(cluster: ClusterSnapshot, question: str) -> Explanation:
    return explain(cluster, ask(cluster, target(question), "", None), recorded(lacking(cluster)).repairs())


def link(name: str, **changes: object) -> Edit:
    return lambda item: (
        replace(item, **changes) if isinstance(item, Link) and item.name == name else item  # type: ignore[arg-type]
    )


def without_rules(pattern: str) -> Edit:
    def edit(item: Item) -> Item:
        if isinstance(item, XtChain):
            return replace(item, rules=tuple(rule for rule in item.rules if not re.search(pattern, str(rule))))
        return item

    return edit


def test_an_underlay_that_carries_too_little_is_one_finding_at_its_device() -> None:
    (found,) = told(changed(healthy(), "swarm1", HOST, link("eth0", mtu=1400)))
    assert (found.what, found.where, found.state) == ("MTU", "swarm1", Severity.WRONG)
    assert found.found == "eth0 has MTU 1400, and vxlan0 has 1450, which needs 1500"
    assert found.fix.startswith("on swarm1: ip link set eth0 mtu 1500")


def test_a_service_that_is_scaled_to_nothing_is_one_finding_and_asks_for_no_rule() -> None:
    cluster = healthy()
    tasks = tuple(task for task in cluster.names.tasks if task.service != "web")
    cluster = replace(cluster, names=replace(cluster.names, tasks=tasks))
    for name in cluster.nodes:
        cluster = changed(cluster, name, HOST, without_rules("'8080'|8080"))
    (found,) = told(cluster)
    assert (found.where, found.found) == ("service web", "web has no task")
    assert [cause.why for cause in explained(cluster, "swarm1:8080").causes] == ["web has no task"]


def test_before_the_first_published_port_no_chain_for_published_ports_is_missed() -> None:
    cluster = recording("1-no-service")
    for name in cluster.nodes:
        for each in ("DOCKER-INGRESS",):
            gone = without_rules(each)
            cluster = changed(cluster, name, HOST, lambda item: None if getattr(item, "name", "") == each else gone(item))  # noqa: B023
    assert told(cluster) == []


def test_chains_that_are_missing_are_made_before_their_rules_and_led_to_behind_that() -> None:
    cluster, gone = healthy(), without_rules("DOCKER-INGRESS")
    cluster = changed(cluster, "swarm1", HOST, lambda item: None if getattr(item, "name", "") == "DOCKER-INGRESS" else gone(item))
    (found,) = told(cluster)
    made: set[str] = set()
    for command in found.commands:
        assert " -D " not in command, "nobody else's rule goes"
        table = re.search(r"-t (\w+)", command)
        assert table is not None
        if " -N " in command:
            made.add(table[1])
        else:
            assert table[1] in made, command
    assert made == {"nat", "filter"}
    jumps = [place for place, command in enumerate(found.commands) if command.endswith("-j DOCKER-INGRESS")]
    assert jumps and min(jumps) > max(place for place, command in enumerate(found.commands) if " -N " in command)


def test_a_bridge_that_is_missing_is_made_first_and_stays_dockers() -> None:
    def gone(item: Item) -> Item | None:
        mine = [getattr(item, field, "") for field in ("name", "link", "path")]
        if any("docker_gwbridge" in str(each) for each in mine):
            return None
        if isinstance(item, Link) and item.master == "docker_gwbridge":
            return replace(item, master=None)
        return without_rules("docker_gwbridge|172.18.0.0")(item)

    found = next(each for each in told(changed(healthy(), "swarm1", HOST, gone)) if each.what == "plan")
    assert found.commands[0] == "ip link add docker_gwbridge type bridge && ip link set docker_gwbridge up"
    assert any(command.endswith("master docker_gwbridge") for command in found.commands)
    assert not any("alias" in command for command in found.commands)


@pytest.mark.parametrize("question", ["swarm1:8080", "swarm1:5353/udp"])
def test_an_answer_that_is_lost_whatever_was_not_read_is_told_as_lost(question: str) -> None:
    """Without its SNAT rule: whichever address a UDP server answers from, whatever arp_filter is, which was not recorded."""
    cluster = changed(healthy(), "swarm1", BOX, without_rules("Snat"))
    assert not any(
        isinstance(item, Sysctl) and item.path.endswith("all/arp_filter") for item in cluster.nodes["swarm1"].host.items
    )
    assert explained(cluster, question).outcome == "broken"
    (found,) = told(cluster)
    assert (found.what, found.where) == ("plan", "swarm1: ingress_sbox")
    assert found.effect == "every connection fails: dns 5353/udp and web 8080/tcp through swarm1"


def test_a_task_whose_device_is_down_leaves_nothing_that_cant_be_told() -> None:
    def down(item: Item) -> Item | None:
        if isinstance(item, Route) and item.link == "eth0":
            return None
        return link("eth0", up=False)(item)

    cluster = changed(healthy(), "swarm1", WEB_2, down)
    assert [(each.what, each.where) for each in told(cluster)] == [("plan", "swarm1: task web.2")]


# --- the underlay ------------------------------------------------------------------------------------------------

PEER = IPv4Address("192.168.77.2")
WRONG_MAC = "52:54:00:00:77:99"


def with_route(destination: str, link: str, via: str = "", *, kind: RouteKind = "unicast") -> ClusterSnapshot:
    router = IPv4Address(via) if via else None
    route = Route(destination=IPv4Network(destination), link=link, via=router, kind=kind)
    return changed(healthy(), "swarm1", HOST, lambda item: item, [route])


def with_peers_mac(state: Literal["permanent", "reachable"]) -> ClusterSnapshot:
    def edit(item: Item) -> Item:
        return replace(item, mac=WRONG_MAC, state=state) if isinstance(item, Neighbour) and item.ip == PEER else item

    return changed(healthy(), "swarm1", HOST, edit)


def test_a_wrong_mac_of_a_peer_is_the_cause_at_the_node_that_has_it() -> None:
    cluster = with_peers_mac("permanent")
    (found,) = told(cluster)
    assert (found.where, found.found) == ("swarm1", f"the ARP table has {WRONG_MAC} for {PEER}, which has 52:54:00:00:77:02")
    look, mend = f"look on swarm1: ip neighbour show {PEER} dev eth0", f"{PEER} lladdr 52:54:00:00:77:02 dev eth0 nud permanent"
    assert look in found.fix and found.fix.endswith(f"on swarm1: ip neighbour replace {mend}")
    assert "swarm1 and swarm2" in found.effect, "answers are lost too"
    assert explained(cluster, "swarm1:8080").reached == ("web.2",)


def test_of_a_mac_that_was_learned_it_is_not_known_whose_it_is() -> None:
    (found,) = told(with_peers_mac("reachable"))
    assert (found.state, found.where) == (Severity.UNTOLD, "swarm1")


@pytest.mark.parametrize(
    ("cluster", "what", "fix"),
    [
        (
            with_route("172.18.0.2/32", "eth0", "192.168.77.254"),
            "the route to 172.18.0.2 leads to eth0, and that address is behind docker_gwbridge",
            "ip route show 172.18.0.2/32 table 254",
        ),
        (
            with_route(f"{PEER}/32", "docker0"),
            f"the route to {PEER} leads to docker0, and that address is behind eth0",
            f"ip route show {PEER}/32 table 254",
        ),
    ],
    ids=["sandbox", "peer"],
)
def test_a_route_that_leads_elsewhere_is_named_where_it_is(cluster: ClusterSnapshot, what: str, fix: str) -> None:
    (found,) = told(cluster)
    assert (found.where, found.found) == ("swarm1", what)
    assert found.fix.endswith(f"look on swarm1: {fix}")


def test_a_default_route_is_never_deleted_where_a_subnets_own_is_missing() -> None:
    cluster = changed(
        healthy(),
        "swarm1",
        HOST,
        lambda item: None if isinstance(item, Route) and item.destination == IPv4Network("172.18.0.0/16") else item,
    )
    fixes = [each.fix for each in told(cluster)]
    assert any("ip route add 172.18.0.0/16 dev docker_gwbridge" in fix for fix in fixes)
    assert not any("route del" in fix for fix in fixes)


def test_what_is_behind_a_vpn_to_a_peer_is_not_seen() -> None:
    cluster = changed(healthy(), "swarm1", HOST, lambda item: item, [Link(name="wg0", kind="other")])
    cluster = changed(
        cluster, "swarm1", HOST, lambda item: item, [Route(destination=IPv4Network(f"{PEER}/32"), link="wg0", via=None)]
    )
    (found,) = told(cluster)
    assert (found.state, found.where) == (Severity.UNTOLD, "swarm1")
    assert "by wg0: that is not the underlay" in found.found


def test_routes_to_nowhere_are_told_though_the_client_that_is_asked_has_another() -> None:
    (found,) = told(with_route("192.168.77.200/32", "", kind="blackhole"))
    assert (found.what, found.state) == ("clients", Severity.OPTIONAL)
    assert found.fix.endswith("look on swarm1: ip route show 192.168.77.200/32 table 254")


def test_probes_that_are_lost_where_a_cable_is_out_advise_no_firewall() -> None:
    cluster = changed(healthy(), "swarm2", HOST, link("eth0", carrier=False))
    sizes = (100, 1450)
    nodes = {
        name: NodeFacts(node=name, probes=(Echoes(peer=peer, sizes=sizes, answered=(), heard=()),))
        for name, peer in (("swarm1", "swarm2"), ("swarm2", "swarm1"))
    }
    found = findings(cluster, Facts(nodes=nodes, repairing=False))
    assert not [each for each in found if each.what == "overlay"], "it follows from what is told of swarm2"
    assert any(each.where == "swarm2" and each.found == "eth0 has no carrier" for each in found)
    assert not any("UDP 4789" in each.fix or "firewall" in each.fix for each in found)
    assert "a cloud" in next(each.fix for each in findings(healthy(), Facts(nodes=nodes)) if each.what == "overlay")


def with_rule(cluster: ClusterSnapshot, table: XtTable, chain: str, *words: str) -> ClusterSnapshot:
    """With a rule of somebody else's, as iptables-save prints its parts, on swarm1."""
    rule: Rule = (Match("meta l4proto", "tcp"), *map(Unknown, words))
    return changed(cluster, "swarm1", HOST, lambda item: item, [XtChain(table, chain, (rule,), "ACCEPT")])


def test_a_rule_that_keeps_connection_tracking_away_is_the_cause_of_what_nat_does_not_do() -> None:
    cluster = with_rule(healthy(), "raw", "PREROUTING", "-j CT --notrack")
    (cause,) = explained(cluster, "swarm1:8080").causes
    assert cause.why.startswith("raw PREROUTING keeps connection tracking from it, and so nothing translates it (iptables raw: ")
    assert cause.look == ("iptables -t raw -nvL PREROUTING --line-numbers",)
    assert cause.mend[0].startswith("iptables -t raw -I PREROUTING 1 -d ") and cause.mend[0].endswith(" --dport 8080 -j ACCEPT")
    (found,) = told(cluster)
    assert (found.what, found.where, found.state) == ("firewall", "swarm1", Severity.WRONG)


def test_every_broken_node_is_in_the_verdict() -> None:
    cluster = changed(healthy(), "swarm2", HOST, link("eth0", carrier=False))
    cluster = changed(cluster, "swarm1", WEB_2, without_rules("Redirect"))
    verdict = explained(cluster, "swarm1:8080").verdict
    assert "swarm2: eth0 has no carrier" in verdict and "swarm1: task web.2: published port 8080/tcp is not redirected" in verdict


# --- what was not recorded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["faults/00-healthy", "2-service", "5-overlay"])
def test_what_is_taken_for_usual_of_a_swarm_is_what_recorded_ones_have(step: str) -> None:
    for node in recording(step).nodes.values():
        for name, space in node.namespaces.items():
            there = {item.path: item.value for item in space.of(Sysctl)}
            usual = settings(name or "host", [link.name for link in space.of(Link)])
            other = [each for each in usual if there.get(each.path, each.value) != each.value]
            assert other == [], name


@pytest.mark.parametrize(
    ("question", "reached"),
    [
        ("swarm1:9053/udp", ("udp.1", "udp.2")),
        ("swarm2:8085", ("diff.1", "diff.2")),
        ("swarm2:8085/udp", ("diff.1", "diff.2")),
        ("swarm1:8087/udp", ("diff.1", "diff.2")),
        ("swarm1:8070", ("hostp.swarm1",)),
        ("swarm1:8086", ()),
    ],
)
def test_without_recorded_settings_the_answers_are_those_that_real_requests_got(question: str, reached: tuple[str, ...]) -> None:
    """tests/data/swarm/4-udp-host-ports/requests.txt; nothing listens on 82, to which 8086 leads."""
    found = explained(recording("4-udp-host-ports"), question)
    assert (found.reached, found.outcome) == (reached, "reaches" if reached else "broken")
