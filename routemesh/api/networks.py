"""The networks of one node in the shape of `docker network inspect`: docker_gwbridge and ingress. PURE.

Source: a recording of Docker 20.10.24 (`ingress-sbox` among the Containers is what its users look for).
"""

import hashlib
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from routemesh import names
from routemesh.errors import NotFound
from routemesh.model import NodeId, State, Task, TaskId
from routemesh.plan.layout import gwbridge_address, overlay_bridge_address, placed, sandbox_gwbridge_address
from routemesh.plan.view import NodeView, view

Network = dict[str, Any]

INGRESS = "ingress"


def networks(state: State, node_id: NodeId) -> tuple[Network, ...]:
    """All networks as the node has them. Raises NotFound before the node has joined."""
    seen = view(state, node_id)
    return (_gwbridge(seen), _ingress(state, seen))


def find_network(state: State, node_id: NodeId, wanted: str, *, verbose: bool = False) -> Network:
    """A network by name, id or the beginning of its id; `verbose` adds the services to ingress. Raises NotFound."""
    found = networks(state, node_id)
    for network in found:
        if wanted == network["Name"] or (wanted and network["Id"].startswith(wanted)):
            return network | {"Services": _services(state, node_id)} if verbose and network["Ingress"] else network
    known = " and ".join(network["Name"] for network in found)
    raise NotFound(f"no network named {wanted!r}; networks are: {known}")


def _gwbridge(seen: NodeView) -> Network:
    cluster = seen.cluster
    subnet = cluster.gwbridge_subnet
    containers = {
        _container_key(task.id): _endpoint(f"gateway_{names.container_id(task.id)}", task.gateway_address, subnet)
        for task in placed(seen)
        if task.gateway_address is not None
    }
    containers[names.SANDBOX_CONTAINER] = _endpoint(
        f"gateway_{names.SANDBOX_CONTAINER}", sandbox_gwbridge_address(cluster), subnet
    )
    return {
        "Name": names.GWBRIDGE,
        "Id": _hash("network", names.GWBRIDGE, seen.node.id),
        "Scope": "local",
        "Driver": "bridge",
        **_common(cluster.created_at, subnet, gwbridge_address(cluster), ingress=False),
        "Containers": containers,
        "Options": {
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.enable_ip_masquerade": "true",
            "com.docker.network.bridge.name": names.GWBRIDGE,
        },
        "Labels": {},
    }


def _ingress(state: State, seen: NodeView) -> Network:
    network = seen.ingress
    subnet = network.subnet
    containers = {
        _container_key(task.id): _endpoint(_endpoint_name(state, task), address, subnet)
        for task in placed(seen)
        if (address := task.address_on(network.id)) is not None
    }
    if (own := seen.node.sandbox_on(network.id)) is not None:
        containers[names.SANDBOX_CONTAINER] = _endpoint("ingress-endpoint", own, subnet)
    return {
        "Name": network.name,
        "Id": network.id,
        "Scope": "swarm",
        "Driver": "overlay",
        **_common(network.created_at, subnet, overlay_bridge_address(network), ingress=True),
        "Containers": containers,
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": str(network.vni)},
        "Labels": {},
        "Peers": [{"Name": _hash("peer", node.id)[:12], "IP": str(node.address)} for node in (seen.node, *seen.peers)],
    }


def _services(state: State, node_id: NodeId) -> Network:
    """What docker's --verbose adds to ingress: each service's VIP, ports and the tasks that the node balances over."""
    seen = view(state, node_id)
    hosts = {node.id: str(node.address) for node in (seen.node, *seen.peers)}
    return {
        service.spec.name: {
            "VIP": str(vip),
            "Ports": [f"Target: {port.target}, Publish: {port.published}" for port in service.spec.publish],
            "LocalLBIndex": service.fwmark,
            "Tasks": [
                {
                    "Name": _endpoint_name(state, task),
                    "EndpointID": _endpoint_id(task.address_on(seen.ingress.id)),
                    "EndpointIP": str(task.address_on(seen.ingress.id)),
                    "Info": {"Host IP": hosts.get(task.node_id or NodeId(""), "")},
                }
                for task in seen.serving.get(service.id, ())
            ],
        }
        for service in seen.services
        if (vip := service.vip_on(seen.ingress.id)) is not None
    }


def _common(created_at: float, subnet: IPv4Network, gateway: IPv4Address, *, ingress: bool) -> Network:
    return {
        "Created": datetime.fromtimestamp(created_at, UTC).isoformat().replace("+00:00", "Z"),
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": str(subnet), "Gateway": str(gateway)}]},
        "Internal": False,
        "Attachable": False,
        "Ingress": ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
    }


def _endpoint(name: str, address: IPv4Address, subnet: IPv4Network) -> Network:
    return {
        "Name": name,
        "EndpointID": _endpoint_id(address),
        "MacAddress": names.mac(address),
        "IPv4Address": f"{address}/{subnet.prefixlen}",
        "IPv6Address": "",
    }


def _endpoint_name(state: State, task: Task) -> str:
    return f"{names.name_of(state, task)}.{task.id}"


def _endpoint_id(address: IPv4Address | None) -> str:
    return _hash("endpoint", address)


def _container_key(task_id: TaskId) -> str:
    """64 hex digits, the first 12 of which name the task's namespace."""
    short = names.container_id(task_id)
    return short + _hash("container", task_id)[len(short) :]


def _hash(*parts: object) -> str:
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()
