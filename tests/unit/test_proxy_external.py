"""Configurations for proxies outside of the cluster. HAProxy and nginx run theirs in the lab; Envoy was not available."""

import json
from ipaddress import IPv4Network
from typing import Any

from routemesh.model import Gateway, NodeState, Protocol, Publish
from routemesh.proxy import external
from routemesh.values import replace
from tests.simulation import WEB, Simulation
from tests.unit.test_labels_http import GATEWAY

DNS = replace(WEB, name="dns", replicas=1, publish=(Publish(published=53, target=53, protocol=Protocol.UDP),))


def cluster() -> Simulation:
    simulation = Simulation()
    for spec in (WEB, DNS, replace(GATEWAY, gateway=Gateway(accept_proxy=(IPv4Network("192.0.2.1/32"),)))):
        simulation.create(spec)
    simulation.settle()
    return simulation


def test_every_port_leads_to_every_live_node() -> None:
    simulation = cluster()
    down = simulation.state.nodes[next(iter(simulation.state.nodes))]
    state = replace(simulation.state, nodes={**simulation.state.nodes, down.id: replace(down, state=NodeState.DOWN)})
    found = {port.name: [target.name for target in port.targets] for port in external.ports(state, "nodes")}
    assert found == {name: ["node2", "node3"] for name in ("dns_53_udp", "gateway_80", "gateway_443", "web_8080")}


def test_to_tasks_only_nodes_with_tasks_count_by_their_number() -> None:
    simulation = cluster()
    simulation.update("web", replicas=4)
    simulation.settle()
    (web,) = (port for port in external.ports(simulation.state, "tasks") if port.name == "web_8080")
    assert sum(target.weight for target in web.targets) == 4


def test_haproxy_says_what_it_can_not_carry() -> None:
    text = external.haproxy(cluster().state, "nodes")
    assert "# 53/udp of service dns: HAProxy carries no UDP" in text
    assert "  server node1 192.168.200.10:8080 weight 1\n" in text
    assert "  server node1 192.168.200.10:80 weight 1 send-proxy-v2\n" in text
    assert "systemctl reload haproxy" in text


def test_envoys_bootstrap_hangs_together() -> None:
    text: dict[str, Any] = json.loads(external.envoy(cluster().state, "nodes"))
    listeners, clusters = (text["static_resources"][kind] for kind in ("listeners", "clusters"))
    names = {each["name"] for each in clusters}
    assert names == {each["name"] for each in listeners} == {"dns_53_udp", "gateway_80", "gateway_443", "web_8080"}
    for listener in listeners:
        udp = listener["address"]["socket_address"]["protocol"] == "UDP"
        (entry,) = listener["listener_filters"] if udp else listener["filter_chains"][0]["filters"]
        assert entry["typed_config"]["@type"].startswith("type.googleapis.com/envoy.extensions.filters.")
        assert entry["typed_config"]["cluster"] in names
    for each in clusters:
        (endpoints,) = each["load_assignment"]["endpoints"]
        assert len(endpoints["lb_endpoints"]) == 3
        assert ("health_checks" in each) == (not each["name"].endswith("_udp"))
        assert ("transport_socket" in each) == each["name"].startswith("gateway")
    assert "--mode validate" in text["node"]["metadata"]["use"]
