"""Whether the nodes' engines can do what a service asks for. PURE."""

from routemesh.errors import Conflict, UserError
from routemesh.labels.balance import LB
from routemesh.model import FIRST_FWMARK, LAST_FWMARK, Node, Service, State
from routemesh.plan.engines import schedulers

_MARKS = LAST_FWMARK - FIRST_FWMARK + 1


def check_engines(state: State, service: Service) -> None:
    """Raises UserError for a scheduler that the engine of a node does not have, naming those that all nodes have."""
    wanted = service.spec.balancing.scheduler
    unable = sorted(node.name for node in state.nodes.values() if wanted not in schedulers(node.engine))
    if not service.spec.publish or not unable:
        return
    engines = {node.engine for node in state.nodes.values()}
    common = sorted(frozenset.intersection(*map(schedulers, engines)))
    names = " and ".join(sorted(engine for engine in engines if wanted not in schedulers(engine)))
    raise UserError(
        f"service {service.spec.name}: engine {names} (of {', '.join(unable)}) has no scheduler '{wanted}' (label {LB}); "
        f"use one of: {', '.join(common)}"
    )


def check_services(state: State, node: Node) -> None:
    """Raises Conflict for a node that joins with an engine which has not the scheduler of a service that publishes ports."""
    for service in state.services.values():
        wanted = service.spec.balancing.scheduler
        if service.spec.publish and wanted not in schedulers(node.engine):
            raise Conflict(
                f"node {node.name}: its engine {node.engine} has no scheduler '{wanted}' (label {LB}), which service "
                f"{service.spec.name} needs; join with another --engine, or change that label first"
            )


def check_marks(state: State, service: Service) -> None:
    """Raises Conflict when more services would publish ports than there are firewall marks."""
    others = sum(bool(other.spec.publish) for other in state.services.values() if other.id != service.id)
    if service.spec.publish and others >= _MARKS:
        raise Conflict(
            f"service {service.spec.name}: all {_MARKS} firewall marks are in use, one per service that publishes ports; "
            "remove a service, or publish its ports with another one"
        )
