"""A configuration for a proxy that is not part of the cluster: every published port, over the nodes. PURE.

Addresses, names and numbers only, no text of a label: there is nothing that could be injected.
Sources: HAProxy's configuration.txt; nginx.org/en/docs/stream; envoyproxy.io (bootstrap, tcp_proxy; JSON is accepted).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Literal

from routemesh.model import Availability, NodeState, Protocol, Service, State

To = Literal["nodes", "tasks"]


@dataclass(frozen=True, slots=True)
class Target:
    """A node that the proxy leads to, with its share."""

    name: str
    address: IPv4Address
    weight: int


@dataclass(frozen=True, slots=True)
class Port:
    """A published port and the nodes that answer on it. `proxied`: the gateway believes PROXY protocol headers there."""

    service: str
    published: int
    protocol: Protocol
    targets: tuple[Target, ...]
    proxied: bool

    @property
    def name(self) -> str:
        """A name that every proxy takes: web_8080."""
        return f"{self.service}_{self.published}{'_udp' if self.protocol is Protocol.UDP else ''}"


def ports(state: State, to: To) -> tuple[Port, ...]:
    """All published ports; `tasks`: only nodes that run tasks of the service, by their number."""
    found = []
    for service in sorted(state.services.values(), key=lambda service: service.spec.name):
        targets = tuple(_targets(state, service, to))
        proxied = service.spec.gateway is not None and bool(service.spec.gateway.accept_proxy)
        for port in service.spec.publish:
            found.append(Port(service.spec.name, port.published, port.protocol, targets, proxied))
    return tuple(found)


def _targets(state: State, service: Service, to: To) -> Iterator[Target]:
    tasks = Counter(task.node_id for task in state.tasks.values() if task.service_id == service.id and task.serving)
    for node in sorted(state.nodes.values(), key=lambda node: node.name):
        weight = 1 if to == "nodes" else tasks[node.id]
        usable = node.state is NodeState.READY and (to == "tasks" or node.availability is not Availability.DRAIN)
        if usable and weight:
            yield Target(node.name, node.address, weight)


def _head(program: str, path: str, check: str, reload: str, revision: int) -> Iterator[str]:
    yield f"# {program} in front of routemesh, as the cluster was at revision {revision}: every published port over the nodes."
    yield f"# Save as {path}; check it: {check}; take it into use without a break: {reload}"
    yield "# Print it anew when ports or nodes come or go; tasks may come and go without."


def haproxy(state: State, to: To) -> str:
    """HAProxy 2.6 or newer."""
    path = "/etc/haproxy/haproxy.cfg"
    lines = [*_head("HAProxy", path, f"haproxy -c -f {path}", "systemctl reload haproxy", state.revision)]
    lines += ["global", "  log stderr format raw daemon", "defaults", "  mode tcp", "  log global", "  option tcplog"]
    lines += ["  option dontlognull", "  option redispatch 1", "  retries 3", "  timeout connect 1s"]
    lines += ["  timeout client 1h", "  timeout server 1h", "  default-server check inter 1s fall 2 rise 1"]
    for port in ports(state, to):
        if port.protocol is Protocol.UDP:
            lines.append(f"# {port.published}/udp of service {port.service}: HAProxy carries no UDP; nginx and Envoy do")
            continue
        lines += [f"listen {port.name}", f"  bind :{port.published}", "  balance roundrobin"]
        told = " send-proxy-v2" if port.proxied else ""
        lines += (f"  server {each.name} {each.address}:{port.published} weight {each.weight}{told}" for each in port.targets)
    return "\n".join(lines) + "\n"


def nginx(state: State, to: To) -> str:
    """nginx 1.22 or newer with its stream module."""
    path = "/etc/nginx/nginx.conf"
    lines = [*_head("nginx", path, f"nginx -t -c {path}", "nginx -s reload", state.revision)]
    lines += ["load_module /usr/lib/nginx/modules/ngx_stream_module.so;  # Debian's libnginx-mod-stream"]
    lines += ["worker_processes auto;", "events { worker_connections 4096; }", "stream {", "  proxy_connect_timeout 1s;"]
    for port in ports(state, to):
        udp = port.protocol is Protocol.UDP
        if not port.targets:
            lines.append(f"  # {port.published}/{port.protocol} of service {port.service}: no node to lead to")
            continue
        lines.append(f"  upstream {port.name} {{")
        options = "max_fails=1 fail_timeout=2s"
        lines += (f"    server {each.address}:{port.published} weight={each.weight} {options};" for each in port.targets)
        lines += ["  }", "  server {", f"    listen {port.published}{' udp' if udp else ''};", f"    proxy_pass {port.name};"]
        lines += ["    proxy_timeout 30s;"] if udp else ["    proxy_timeout 1h;"]
        lines += ["    proxy_protocol on;"] if port.proxied else []
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def envoy(state: State, to: To) -> str:
    """Envoy's bootstrap, as JSON. It has no comments, so what to do with it is in `node.metadata`."""
    found = ports(state, to)
    told = {
        "revision": state.revision,
        "use": "save as envoy.json; check it: envoy --mode validate -c envoy.json; take a new one into use by a hot restart "
        "(envoy --restart-epoch N)",
    }
    resources = {"listeners": [_listener(port) for port in found], "clusters": [_cluster(port) for port in found]}
    node = {"id": "routemesh", "cluster": "routemesh", "metadata": told}
    return json.dumps({"node": node, "static_resources": resources}, indent=2) + "\n"


def _listener(port: Port) -> dict[str, Any]:
    udp = port.protocol is Protocol.UDP
    address = {"protocol": "UDP" if udp else "TCP", "address": "0.0.0.0", "port_value": port.published}
    listener: dict[str, Any] = {"name": port.name, "address": {"socket_address": address}}
    if udp:
        kind = "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig"
        config = {"@type": kind, "stat_prefix": port.name, "cluster": port.name}
        return listener | {"listener_filters": [{"name": "envoy.filters.udp_listener.udp_proxy", "typed_config": config}]}
    kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    config = {"@type": kind, "stat_prefix": port.name, "cluster": port.name}
    return listener | {"filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": config}]}]}


def _cluster(port: Port) -> dict[str, Any]:
    endpoints = [
        {
            "endpoint": {"address": {"socket_address": {"address": str(each.address), "port_value": port.published}}},
            "load_balancing_weight": each.weight,
        }
        for each in port.targets
    ]
    cluster: dict[str, Any] = {
        "name": port.name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": port.name, "endpoints": [{"lb_endpoints": endpoints}]},
    }
    if port.protocol is Protocol.TCP:
        check = {"timeout": "1s", "interval": "1s", "unhealthy_threshold": 2, "healthy_threshold": 1, "tcp_health_check": {}}
        cluster["health_checks"] = [check]
    if port.proxied:
        raw = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
        upstream = {
            "@type": kind,
            "config": {"version": "V2"},
            "transport_socket": {"name": "envoy.transport_sockets.raw_buffer", "typed_config": raw},
        }
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": upstream}
    return cluster


TO: tuple[To, ...] = ("nodes", "tasks")
FOR: Mapping[str, Callable[[State, To], str]] = {"haproxy": haproxy, "nginx": nginx, "envoy": envoy}
