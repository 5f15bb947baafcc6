"""Which nodes lead to a service's tasks. PURE."""

from routemesh.model import Locality, Service, State, Weights


def answering(state: State, service: Service) -> tuple[str, ...] | None:
    """The names of the live nodes that lead to a task, by the service's weights and locality; None where these keep none from it.

    Who has heard of a task yet is another question.
    """
    balancing = service.spec.balancing
    if balancing.weights == Weights() and balancing.locality is not Locality.LOCAL_ONLY:
        return None
    ready = [node for node in state.nodes.values() if node.reachable]
    homes = {
        task.node_id
        for task in state.tasks.values()
        if task.service_id == service.id and task.serving and task.node_id is not None and state.nodes[task.node_id].reachable
        if balancing.weights.of(task.slot, state.nodes[task.node_id].name)
    }
    near = balancing.locality is Locality.LOCAL_ONLY
    found = [node.name for node in ready if (node.id in homes if near else homes)]
    return None if len(found) == len(ready) else tuple(sorted(found))
