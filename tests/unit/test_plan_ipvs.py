"""The ipvs engine's plan: what labels, draining and the kernel change of it. That it is Swarm's, the golden comparison shows."""

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import TypeVar

import pytest

from routemesh import names
from routemesh.errors import UserError
from routemesh.model import Gateway, Mode, NodeId, Protocol, Publish, ServiceSpec, TaskState
from routemesh.nodeplan import (
    HOST,
    Assign,
    Capabilities,
    Dnat,
    IpvsDestination,
    IpvsMatch,
    IpvsService,
    IpvsTimeouts,
    Item,
    MarkMatch,
    Match,
    Namespace,
    Redirect,
    Route,
    RoutingRule,
    Rule,
    Snat,
    Sysctl,
    Verdict,
    XtChain,
    XtRule,
    comes_along,
    key,
)
from routemesh.plan import plan
from routemesh.plan.engines import check_engine, schedulers
from routemesh.plan.engines.ipvsmend import to_task
from routemesh.plan.view import view
from routemesh.values import replace
from tests.addresses import ingress_address, on_ingress
from tests.simulation import WEB, Simulation

CAPS = Capabilities(nf_tables=False, ip_vs=True, kernel="6.1.0-50-cloud-amd64", iptables="legacy")
DNS = ServiceSpec(name="dns", publish=(Publish(published=53, target=5353, protocol=Protocol.UDP),))

STRAYS: Rule = (Match("ct state", "invalid"), Verdict("drop"))

K = TypeVar("K", bound=Item)


def cluster(*specs: ServiceSpec) -> Simulation:
    made = Simulation()
    for state in made.state.nodes.values():
        made.state = replace(made.state, nodes={**made.state.nodes, state.id: replace(state, engine="ipvs")})
    for spec in specs:
        made.create(spec)
        made.settle()
    return made


def labelled(spec: ServiceSpec = WEB, **labels: str) -> ServiceSpec:
    return replace(spec, labels={f"routemesh.{name.replace('_', '-')}": value for name, value in labels.items()})


def planned(simulation: Simulation, netns: str, node: str = "node1", caps: Capabilities = CAPS) -> Namespace:
    return plan(view(simulation.state, NodeId(f"id-{node}")), caps).namespaces[netns]


def of_kind(kind: type[K], items: Namespace) -> list[K]:
    return [item for item in items.values() if isinstance(item, kind) and not comes_along(item)]


def chain(items: Namespace, table: str, name: str) -> tuple[Rule, ...]:
    found = items.get(("XtChain", table, name))
    return found.rules if isinstance(found, XtChain) else ()


def task_items(simulation: Simulation, service: str = "web") -> Namespace:
    task = next(task for task in simulation.tasks(service) if task.node_id == "id-node1")
    return planned(simulation, names.container_id(task.id))


def statements(rules: Iterable[Rule]) -> set[object]:
    return {statement for rule in rules for statement in rule}


def test_ports_lead_to_the_sandbox_the_newest_first() -> None:
    simulation = cluster(WEB, DNS)
    items = planned(simulation, HOST)
    rules = chain(items, "nat", names.INGRESS_CHAIN)
    assert [rule[-1].port for rule in rules[:-1] if isinstance(rule[-1], Dnat)] == [53, 8080]
    assert rules[-1] == (Verdict("return"),)
    assert len(chain(items, "filter", names.INGRESS_CHAIN)) == 5


def test_what_goes_first_in_a_chain_of_others_leads_to_ours() -> None:
    inserted = [
        rule for rule in of_kind(XtRule, planned(cluster(WEB), HOST)) if (rule.table, rule.chain) == ("filter", "FORWARD")
    ]
    heads = [rule for rule in inserted if rule.head]
    assert heads[-1].rule == (Match("oifname", names.GWBRIDGE), Verdict("jump", names.INGRESS_CHAIN))
    assert [rule.rule[-1] for rule in inserted if not rule.head] == [Verdict("drop")]


def test_a_mark_is_balanced_over_all_tasks() -> None:
    simulation = cluster(WEB)
    items = planned(simulation, names.SANDBOX)
    assert (Match("meta l4proto", "tcp"), Match("th dport", "8080"), Assign("meta mark", 256)) in chain(
        items, "mangle", "PREROUTING"
    )
    assert (Match("ip daddr", str(on_ingress(simulation.service()))), Assign("meta mark", 256)) in chain(items, "mangle", "INPUT")
    assert of_kind(IpvsService, items) == [IpvsService(mark=256, scheduler="rr")]
    addresses = [on_ingress(task) for task in simulation.tasks()]
    assert of_kind(IpvsDestination, items) == [IpvsDestination(mark=256, address=address) for address in addresses if address]


def test_a_draining_task_keeps_its_destination_with_weight_0() -> None:
    simulation = cluster(WEB)
    first, second = simulation.tasks()
    simulation.report(first, TaskState.RUNNING, healthy=False)
    weights = {item.address: item.weight for item in of_kind(IpvsDestination, planned(simulation, names.SANDBOX))}
    assert weights == {on_ingress(second): 1, on_ingress(first): 0}


BOTH = replace(DNS, publish=(*DNS.publish, Publish(published=53, target=5353)))
UDP_MARK = 53 << 16 | 0x8000 | 256


def draining(spec: ServiceSpec) -> tuple[Namespace, dict[tuple[int, bool], int]]:
    """A sandbox while the first of two tasks drains; by mark and whether it drains, a task's weight."""
    simulation = cluster(replace(spec, replicas=2))
    first, _ = simulation.tasks("dns")
    simulation.report(first, TaskState.RUNNING, healthy=False)
    items = planned(simulation, names.SANDBOX)
    return items, {(item.mark, item.address == on_ingress(first)): item.weight for item in of_kind(IpvsDestination, items)}


def test_clients_of_udp_leave_a_draining_task_at_once() -> None:
    _, weights = draining(DNS)
    assert weights == {(256, False): 1}


def test_tcp_and_udp_of_a_service_drain_each_in_its_way() -> None:
    items, weights = draining(BOTH)
    assert weights == {(256, False): 1, (256, True): 0, (UDP_MARK, False): 1}
    marks = {rule[:2]: rule[2] for rule in chain(items, "mangle", "PREROUTING") if rule != STRAYS}
    assert marks == {
        (Match("meta l4proto", Protocol.TCP), Match("th dport", "53")): Assign("meta mark", 256),
        (Match("meta l4proto", Protocol.UDP), Match("th dport", "53")): Assign("meta mark", UDP_MARK),
    }


def test_a_client_that_is_to_have_one_task_has_it_for_both() -> None:
    _, weights = draining(labelled(BOTH, affinity="client-ip"))
    assert weights == {(256, False): 1, (256, True): 0}


def test_both_are_translated_where_the_service_wants_it() -> None:
    items, _ = draining(labelled(BOTH, client_ip="snat"))
    rules = chain(items, "nat", "POSTROUTING")
    assert {part.value for rule in rules for part in rule if isinstance(part, MarkMatch)} == {256, UDP_MARK}


def test_with_the_last_task_the_service_goes() -> None:
    simulation = cluster(WEB)
    simulation.update(replicas=0)
    assert {item.weight for item in of_kind(IpvsDestination, planned(simulation, names.SANDBOX))} == {0}
    simulation.settle()
    items = planned(simulation, names.SANDBOX)
    assert of_kind(IpvsService, items) == []
    assert (chain(items, "mangle", "PREROUTING"), chain(items, "mangle", "INPUT")) == ((STRAYS,), ())
    assert chain(planned(simulation, HOST), "nat", names.INGRESS_CHAIN) == ((Verdict("return"),),)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"lb": "lc"}, IpvsService(mark=256, scheduler="lc")),
        ({"lb": "least-conn"}, IpvsService(mark=256, scheduler="wlc")),
        ({"lb": "maglev"}, IpvsService(mark=256, scheduler="mh", fallback=True)),
        ({"weight": "3"}, IpvsService(mark=256, scheduler="wrr")),
        ({"affinity": "client-ip;timeout=1h30m"}, IpvsService(mark=256, scheduler="rr", persistent_s=5400)),
        ({"affinity": "client-ip", "lb": "sh"}, IpvsService(mark=256, scheduler="sh", persistent_s=10800, fallback=True)),
    ],
)
def test_labels_choose_scheduler_and_persistence(labels: dict[str, str], expected: IpvsService) -> None:
    assert of_kind(IpvsService, planned(cluster(labelled(WEB, **labels)), names.SANDBOX)) == [expected]


def test_weights_are_those_of_the_label() -> None:
    items = planned(cluster(labelled(weight="2,node2=0,.9=4")), names.SANDBOX)
    assert [item.weight for item in of_kind(IpvsDestination, items)] == [2, 0]


def test_the_client_is_translated_only_where_it_is_asked_for() -> None:
    simulation = cluster(WEB, labelled(DNS, client_ip="snat"))
    rules = chain(planned(simulation, names.SANDBOX), "nat", "POSTROUTING")
    own, asked = rules
    assert own[0] == Match("ip saddr", "172.18.0.0/16")
    assert isinstance(asked[-1], Snat)
    assert all(IpvsMatch() in rule for rule in rules)
    assert MarkMatch("meta mark", 0x101, 0xFFFFFFFF) in asked


def test_replies_find_the_node_by_which_the_call_came() -> None:
    simulation = cluster(WEB)
    items = task_items(simulation)
    nodes = {ingress_address(node) for node in simulation.state.nodes.values() if node.attachments}
    marks = {int(address) for address in nodes}
    assert {rule.fwmark for rule in of_kind(RoutingRule, items)} == marks
    assert {(route.table, route.via) for route in of_kind(Route, items) if route.table != 254} == {
        (int(via), via) for via in nodes
    }
    returning = statements(chain(items, "mangle", "ROUTEMESH-RETURN"))
    assert {Match("ether saddr", names.mac(address)) for address in nodes} <= returning


def test_a_task_of_a_translated_service_needs_no_way_back() -> None:
    items = task_items(cluster(labelled(client_ip="snat")))
    assert of_kind(RoutingRule, items) == []
    mangled = [item for item in of_kind(XtChain, items) if item.table == "mangle"]
    assert [(item.name, item.rules) for item in mangled] == [("PREROUTING", ((Match("iifname", "eth0"), *STRAYS),))]


def test_a_task_takes_its_port_and_nothing_else() -> None:
    simulation = cluster(WEB)
    items = task_items(simulation)
    (redirect,) = chain(items, "nat", "PREROUTING")
    assert redirect[-1] == Redirect(80)
    into = chain(items, "filter", "INPUT")
    assert [rule[-1] for rule in into] == [Verdict("accept"), *[Verdict("drop")] * 3]
    assert Match("th dport", "80") in into[0]


def test_the_gateways_proxies_reach_a_task_that_joined_and_nobody_else_does() -> None:
    publish = (Publish(published=80, target=80),)
    gateway = ServiceSpec(name="gateway", mode=Mode.GLOBAL, publish=publish, gateway=Gateway(https_port=0))
    joined = ServiceSpec(name="web", labels={"routemesh.http.host": "*", "routemesh.http.port": "8000"})
    simulation = cluster(gateway, joined)
    (task,) = simulation.serving("web")
    assert task.node_id is not None
    own = planned(simulation, names.container_id(task.id), simulation.state.nodes[task.node_id].name)
    inward, accept = chain(own, "filter", "INPUT"), Verdict("accept")
    into, states = Match("ip daddr", str(on_ingress(task))), Match("ct state", "established,new")
    tcp, port = Match("meta l4proto", "tcp"), Match("th dport", "8000")
    proxies = [str(on_ingress(proxy)) for proxy in simulation.serving("gateway")]
    assert len(proxies) == 3
    assert inward[:3] == tuple((Match("ip saddr", proxy), into, tcp, port, states, accept) for proxy in sorted(proxies))
    assert all(rule[-1] == Verdict("drop") for rule in inward[3:])
    (proxy, *_) = simulation.serving("gateway")
    assert proxy.node_id is not None
    outward = planned(simulation, names.container_id(proxy.id), simulation.state.nodes[proxy.node_id].name)
    call = (Match("ip saddr", str(on_ingress(proxy))), tcp, states, accept)
    assert call in chain(outward, "filter", "OUTPUT")


def test_a_udp_task_may_still_call_others() -> None:
    """Its packets bear the overlay address, which the filter would stop, and leave by docker_gwbridge under its address there."""
    items = task_items(cluster(DNS), "dns")
    out = chain(items, "filter", "OUTPUT")
    passing = next(number for number, rule in enumerate(out) if Match("oifname", names.GWBRIDGE_LINK) in rule)
    assert out[passing][-1] == Verdict("accept")
    assert passing < next(number for number, rule in enumerate(out) if rule[-1] == Verdict("drop"))
    ((_, _, translated),) = chain(items, "nat", "POSTROUTING")
    assert isinstance(translated, Snat)


@pytest.mark.parametrize(("kernel", "mode"), [("5.8.18", "0"), ("5.9.0", "1"), ("6.18.44", "1"), ("4.19", "0"), ("odd", "0")])
def test_reuse_mode_follows_the_kernel(kernel: str, mode: str) -> None:
    items = planned(cluster(WEB), names.SANDBOX, caps=replace(CAPS, kernel=kernel))
    assert items[key(Sysctl("net/ipv4/vs/conn_reuse_mode", ""))] == Sysctl("net/ipv4/vs/conn_reuse_mode", mode)


def test_idle_connections_live_as_long_as_conntracks() -> None:
    (timeouts,) = of_kind(IpvsTimeouts, planned(cluster(), names.SANDBOX))
    assert timeouts.tcp_s >= 432_000


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        (replace(CAPS, ip_vs=False, nf_tables=True), ("ip_vs", "--engine nftables")),
        (replace(CAPS, iptables="", nf_tables=True), ("iptables", "--engine nftables")),
        (replace(CAPS, ip_vs=False), ("ip_vs", "no other engine works here")),
    ],
)
def test_a_kernel_that_lacks_something_is_told_what_works(caps: Capabilities, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as refusal:
        check_engine("ipvs", caps)
    assert all(word in str(refusal.value) for word in words)


def test_every_engine_takes_turns() -> None:
    assert all("rr" in schedulers(engine) for engine in ("ipvs", "nftables"))


def test_a_task_is_added_to_its_service_by_hand_and_changed_where_it_is_there_but_gets_no_connections() -> None:
    served = IpvsDestination(mark=256, address=IPv4Address("10.0.0.8"))
    assert to_task([], 256, served.address) == "ipvsadm -a -f 256 -r 10.0.0.8:0 -m -w 1"
    assert to_task([replace(served, weight=0)], 256, served.address) == "ipvsadm -e -f 256 -r 10.0.0.8:0 -m -w 1"
    assert to_task([replace(served, mark=257)], 256, served.address) == "ipvsadm -a -f 256 -r 10.0.0.8:0 -m -w 1"
