"""Whether the cluster has room for a service: its ports and its addresses. PURE."""

from routemesh.decide.pool import network_pool
from routemesh.errors import Conflict
from routemesh.model import Mode, NodeState, Protocol, Publish, Service, State


def check_ports(state: State, service: Service) -> None:
    """Raises Conflict for a port that the cluster, another service or a process on a live node has.

    What the service publishes already is not looked for on the nodes: it may be the mesh itself that holds it there.
    """
    present = state.services.get(service.id)
    held = _published(present) if present else set()
    others = {key: other for other in state.services.values() if other.id != service.id for key in _published(other)}
    holders = _holders(state)
    for port in service.spec.publish:
        _check_tunnel(state, service, port)
        if (other := others.get(_key(port))) is not None:
            raise Conflict(
                f"{_subject(service, port)} is already published by service {other.spec.name} (id {other.id}); "
                "choose another or remove that service"
            )
        if _key(port) not in held and (by := holders.get(_key(port))):
            raise Conflict(f"{_subject(service, port)} is taken by {', '.join(sorted(by))}; choose another or stop the process")


def _check_tunnel(state: State, service: Service, port: Publish) -> None:
    if state.cluster is not None and _key(port) == (state.cluster.vxlan_port, Protocol.UDP):
        raise Conflict(f"{_subject(service, port)} carries the cluster's own VXLAN; choose another")


def _holders(state: State) -> dict[tuple[int, Protocol], set[str]]:
    """Which processes have which ports, on live nodes."""
    found: dict[tuple[int, Protocol], set[str]] = {}
    for node in state.nodes.values():
        for listener in node.listeners if node.state is NodeState.READY else ():
            process = f"process {listener.process}" if listener.process else "a process"
            found.setdefault((listener.port, listener.protocol), set()).add(f"{process} on {node.name}")
    return found


def _published(service: Service) -> set[tuple[int, Protocol]]:
    return {_key(port) for port in service.spec.publish}


def _key(port: Publish) -> tuple[int, Protocol]:
    return (port.published, port.protocol)


def _subject(service: Service, port: Publish) -> str:
    return f"service {service.spec.name}: port {port.published}/{port.protocol}"


def check_addresses(state: State, service: Service) -> None:
    """Raises Conflict when the ingress pool can't hold the service's VIP and tasks beside what all others need.

    What the specs ask for counts, not what is in use: others may not have got their addresses yet, or be about to give some back.
    """
    network = state.ingress
    if network is None:
        return
    present = state.services.get(service.id)
    more = _needed(state, service) - (_needed(state, present) if present else 0)
    others = sum(_needed(state, other) for other in state.services.values() if other.id != service.id)
    pool = network_pool(state, network)
    room = pool.size - len(state.nodes) - others
    if more > 0 and _needed(state, service) > room:
        raise Conflict(
            f"service {service.spec.name}: {network.name} address pool exhausted: it needs {_needed(state, service)} addresses "
            f"(its own and one per task), {pool} has {max(room, 0)} left; use fewer replicas or remove a service"
        )


def _needed(state: State, service: Service) -> int:
    if not service.spec.on_overlay:
        return 0
    return bool(service.spec.publish) + (len(state.nodes) if service.spec.mode is Mode.GLOBAL else service.spec.replicas)
