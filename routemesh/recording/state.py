"""What a Docker Swarm's manager knows, as a state of routemesh: by it a Swarm's kernels can be planned. PURE."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

from routemesh import names
from routemesh.model import (
    VXLAN_OVERHEAD_BYTES,
    Attachment,
    ClientIp,
    Cluster,
    Network,
    NetworkId,
    NetworkKind,
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
from routemesh.plan.engines import SWARM
from routemesh.snapshot import ClusterSnapshot, NamedNetwork, NamedService, NamedTask
from routemesh.values import replace

USUAL_MTU = 1500
"""What Docker takes for the network below, whatever it is there. Source: moby daemon/libnetwork, overlay's maxMTU."""

_INGRESS, _SUBNET = "ingress", IPv4Network("10.0.0.0/24")


def state(cluster: ClusterSnapshot, node: str, client_ip: ClientIp = ClientIp.SNAT) -> State:
    """Nodes, services with ports, and their serving tasks, with the marks that one node gave: in a Swarm they are each node's
    own."""
    overlay = _network(ingress(cluster))
    bridge = next((network for network in cluster.names.networks if network.name == names.GWBRIDGE), None)
    made = Cluster(id="swarm", ingress_id=overlay.id, created_at=0)
    if bridge is not None and bridge.subnet is not None:
        made = replace(made, gwbridge_subnet=bridge.subnet)
    mtu = USUAL_MTU if bridge is None else bridge.mtu_bytes or USUAL_MTU
    nodes = {
        NodeId(each.id or each.name): Node(
            id=NodeId(each.id or each.name),
            name=each.name,
            address=each.address or IPv4Address(0),
            state=NodeState.READY if each.ready else NodeState.DOWN,
            engine=SWARM,
            mtu_bytes=mtu,
            attachments=() if each.ingress_address is None else (Attachment(overlay.id, each.ingress_address),),
        )
        for each in cluster.names.nodes
    }
    services = {
        each.name: _service(each, overlay.id, node, client_ip) for each in cluster.names.services if overlay.id in each.vips
    }
    ids = {each.name: each.id for each in nodes.values()}
    tasks = (
        _task(each, services[each.service], overlay.id, ids)
        for each in cluster.names.tasks
        if each.service in services and each.serving and overlay.id in each.addresses
    )
    return State(
        cluster=made,
        nodes=nodes,
        services={service.id: service for service in services.values()},
        tasks={task.id: task for task in tasks},
        networks={overlay.id: overlay},
    )


def ingress(cluster: ClusterSnapshot) -> NamedNetwork | None:
    """The ingress network."""
    return next((network for network in cluster.names.networks if network.name == _INGRESS), None)


def _network(named: NamedNetwork | None) -> Network:
    """The ingress network as recorded; a Swarm's defaults where it was not."""
    if named is None or named.subnet is None:
        return Network(id=NetworkId(""), name=_INGRESS, kind=NetworkKind.INGRESS, subnet=_SUBNET, created_at=0)
    return Network(
        id=NetworkId(named.id),
        name=named.name,
        kind=NetworkKind.INGRESS,
        subnet=named.subnet,
        vni=named.vni,
        created_at=0,
        mtu_bytes=(named.mtu_bytes or USUAL_MTU) - VXLAN_OVERHEAD_BYTES,
    )


def _service(service: NamedService, ingress: NetworkId, node: str, client_ip: ClientIp) -> Service:
    publish = tuple(
        Publish(published=port.published, target=port.target, protocol=port.protocol) for port in service.ports if not port.host
    )
    return Service(
        id=ServiceId(service.id or service.name),
        spec=ServiceSpec(name=service.name, publish=publish, client_ip=client_ip),
        version=1,
        created_at=0,
        updated_at=0,
        vips=(Attachment(ingress, service.vips[ingress]),),
        fwmark=service.mark_on(node),
        mark_port=(publish[0].protocol, publish[0].published) if publish else None,
    )


def _task(task: NamedTask, service: Service, ingress: NetworkId, ids: Mapping[str, NodeId]) -> Task:
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
        attachments=(Attachment(ingress, task.addresses[ingress]),),
        gateway_address=task.gateway_address,
    )
