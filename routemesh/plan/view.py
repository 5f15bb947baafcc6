"""What one node may see of the cluster: the input of `plan`. PURE."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from routemesh.errors import NotFound
from routemesh.model import Cluster, Network, Node, NodeId, NodeState, Service, ServiceId, State, Task, TaskState


@dataclass(frozen=True, slots=True)
class NodeView:
    """The cluster as a node needs it.

    `ingress`: the network that every node has, and `networks`: all that the node takes part in, that one first. `peers`: the
    other nodes that have a sandbox on the ingress network, silent ones too: the data plane of a node works on without its daemon,
    and replies must return through it. `tasks`: this node's own, until they have ended, without those that their driver has yet
    to prepare; those that were given up while it was silent, until it has said that they have ended. `remote`: tasks attached to
    a network on live peers, until they have ended, and such as were given up with a peer that is not lost. `serving`: per
    service, the tasks that new connections may go to, in slot order; each is on the ingress network. `draining`: those that run
    and may get no new ones. `names`: of all nodes. `gateways`: the ingress addresses of the gateway's tasks. All are sorted, so
    that equal states give equal views.
    """

    cluster: Cluster
    ingress: Network
    networks: tuple[Network, ...]
    node: Node
    peers: tuple[Node, ...]
    tasks: tuple[Task, ...]
    remote: tuple[Task, ...]
    services: tuple[Service, ...]
    serving: Mapping[ServiceId, tuple[Task, ...]]
    draining: Mapping[ServiceId, tuple[Task, ...]]
    names: Mapping[NodeId, str]
    gateways: tuple[IPv4Address, ...] = ()

    def on_ingress(self, tasks: Iterable[Task]) -> Iterator[IPv4Address]:
        """The tasks' addresses on the ingress network."""
        return _addresses(self.ingress, tasks)

    def sandboxes(self, network: Network) -> Iterator[IPv4Address]:
        """The addresses of all nodes' sandboxes on a network, in order of the nodes' ids."""
        nodes = sorted((self.node, *self.peers), key=lambda node: node.id)
        return (address for node in nodes if (address := node.sandbox_on(network.id)) is not None)


def view(state: State, node_id: NodeId) -> NodeView:
    """Project the state on one node. Raises NotFound before the cluster or the node exists."""
    ingress = state.ingress
    if state.cluster is None or ingress is None or node_id not in state.nodes:
        raise NotFound(f"node {node_id} has not joined the cluster; is a manager running?")
    node = state.nodes[node_id]
    others = (other for other in state.nodes.values() if other.id != node_id)
    peers = {other.id: other for other in others if other.sandbox_on(ingress.id) is not None}
    own, remote, running = [], [], []
    for task in sorted(_placed(state), key=_by_slot):
        if task.node_id == node_id:
            if not task.prepared:
                continue
            own.append(task)
        elif task.attachments and task.node_id in peers and _has_way(task, peers[task.node_id]):
            remote.append(task)
        else:
            continue
        if _runs(task) and task.address_on(ingress.id) is not None:
            running.append(task)
    cut_off = {task.id for task in remote if task.node_id is not None and not peers[task.node_id].reachable}
    return NodeView(
        cluster=state.cluster,
        ingress=ingress,
        networks=(ingress,),
        node=node,
        peers=tuple(sorted(peers.values(), key=lambda peer: peer.id)),
        tasks=tuple(own),
        remote=tuple(remote),
        services=tuple(sorted(state.services.values(), key=lambda service: service.id)),
        serving=_by_service(task for task in running if task.serving and task.id not in cut_off),
        draining=_by_service(task for task in running if not task.serving or task.id in cut_off),
        names={other.id: other.name for other in state.nodes.values()},
        gateways=tuple(sorted(_addresses(ingress, (task for task in (*own, *remote) if task.spec.gateway is not None)))),
    )


def _placed(state: State) -> Iterable[Task]:
    """The tasks that may have something in their node's kernel; of two with one address the one that is meant to live."""
    tasks = [task for task in state.tasks.values() if task.status.state.may_live and task.status.state >= TaskState.ASSIGNED]
    if not any(map(_is_given_up, tasks)):
        return tasks
    given = {address for task in tasks if not _is_given_up(task) for address in _held(task)}
    return (task for task in tasks if not _is_given_up(task) or given.isdisjoint(_held(task)))


def _held(task: Task) -> Iterator[tuple[str, IPv4Address]]:
    """The addresses of a task, each with the network on which it must be the only one to have it."""
    yield from ((each.network_id, each.address) for each in task.attachments)
    if task.gateway_address is not None:
        yield f"docker_gwbridge of {task.node_id}", task.gateway_address


def _is_given_up(task: Task) -> bool:
    """Whether the cluster has let go of it with its silent node, where it may run on and have connections."""
    return task.status.state is TaskState.ORPHANED


def _has_way(task: Task, peer: Node) -> bool:
    return peer.state is NodeState.READY or (_is_given_up(task) and not peer.lost)


def _addresses(network: Network, tasks: Iterable[Task]) -> Iterator[IPv4Address]:
    return (address for task in tasks if (address := task.address_on(network.id)) is not None)


def _runs(task: Task) -> bool:
    """Whether it may have connections: also when its end was asked for."""
    return task.status.state is TaskState.RUNNING or _is_given_up(task)


def _by_service(tasks: Iterable[Task]) -> Mapping[ServiceId, tuple[Task, ...]]:
    found: dict[ServiceId, list[Task]] = {}
    for task in tasks:
        found.setdefault(task.service_id, []).append(task)
    return {service: tuple(of_service) for service, of_service in found.items()}


def _by_slot(task: Task) -> tuple[int, str]:
    return (task.slot, task.id)
