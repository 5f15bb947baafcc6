"""What a Docker Swarm's manager knows, as a state of routemesh: by it a Swarm's kernels can be planned. PURE."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from routemesh import names
from routemesh.model import (
    ClientIp,
    Cluster,
    Node,
    NodeId,
    NodeState,
    Publish,
    Service,
    ServiceId,
    ServiceSpec,
    State,
    Task,
    TaskId,
    TaskState,
    TaskStatus,
)
from routemesh.nodeplan import Link
from routemesh.snapshot import ClusterSnapshot, NamedNetwork, NamedService, NamedTask, NodeSnapshot

_INGRESS = "ingress"


def state(cluster: ClusterSnapshot, node: str, client_ip: ClientIp = ClientIp.SNAT) -> State:
    """Nodes, services with ports, and their serving tasks, with the marks that one node gave: in a Swarm they are each node's
    own."""
    network = ingress(cluster)
    bridge = next((network for network in cluster.names.networks if network.name == names.GWBRIDGE), None)
    made = Cluster(id="swarm", ingress_id="", created_at=0)
    if network is not None and network.subnet is not None:
        made = replace(made, ingress_id=network.id, ingress_subnet=network.subnet, vni=network.vni)
    if bridge is not None and bridge.subnet is not None:
        made = replace(made, gwbridge_subnet=bridge.subnet)
    mtu = _underlay_mtu(cluster.nodes[node])
    nodes = {
        NodeId(each.id or each.name): Node(
            id=NodeId(each.id or each.name),
            name=each.name,
            address=each.address or IPv4Address(0),
            state=NodeState.READY if each.ready else NodeState.DOWN,
            engine="ipvs",
            mtu_bytes=mtu,
            ingress_address=each.ingress_address,
        )
        for each in cluster.names.nodes
    }
    services = {
        each.name: _service(each, made.ingress_id, node, client_ip)
        for each in cluster.names.services
        if made.ingress_id in each.vips
    }
    ids = {each.name: each.id for each in nodes.values()}
    tasks = (
        _task(each, services[each.service], made.ingress_id, ids)
        for each in cluster.names.tasks
        if each.service in services and each.serving and made.ingress_id in each.addresses
    )
    return State(
        cluster=made,
        nodes=nodes,
        services={service.id: service for service in services.values()},
        tasks={task.id: task for task in tasks},
    )


def ingress(cluster: ClusterSnapshot) -> NamedNetwork | None:
    """The ingress network."""
    return next((network for network in cluster.names.networks if network.name == _INGRESS), None)


def _underlay_mtu(snapshot: NodeSnapshot) -> int:
    return next((link.mtu for link in snapshot.host.of(Link) if link.name == snapshot.device), 1500)


def _service(service: NamedService, ingress: str, node: str, client_ip: ClientIp) -> Service:
    publish = tuple(
        Publish(published=port.published, target=port.target, protocol=port.protocol) for port in service.ports if not port.host
    )
    return Service(
        id=ServiceId(service.id or service.name),
        spec=ServiceSpec(name=service.name, publish=publish, client_ip=client_ip),
        version=1,
        created_at=0,
        updated_at=0,
        vip=service.vips[ingress],
        fwmark=service.mark_on(node),
        mark_port=(publish[0].protocol, publish[0].published) if publish else None,
    )


def _task(task: NamedTask, service: Service, ingress: str, ids: Mapping[str, NodeId]) -> Task:
    slot = task.name.rpartition(".")[2]
    return Task(
        id=TaskId(task.id),
        service_id=service.id,
        service_version=1,
        spec=service.spec,
        slot=int(slot) if slot.isdigit() else 0,
        desired=TaskState.RUNNING,
        status=TaskStatus(state=TaskState.RUNNING, at=0),
        created_at=0,
        node_id=ids[task.node],
        address=task.addresses[ingress],
        gateway_address=task.gateway_address,
    )
