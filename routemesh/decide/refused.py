"""Which services the gateway's proxies leave out, and why. PURE."""

from collections.abc import Iterator

from routemesh.model import Service, State, Task


def left_out(state: State, service: Service) -> str:
    """Which proxies refuse the service's present spec, in their own words; "" if none does."""
    found: dict[str, list[str]] = {}
    for node, task in _proxies(state):
        for refusal in task.status.proxy.refused if task.status.proxy else ():
            if (refusal.service, refusal.version) == (service.id, service.version):
                found.setdefault(refusal.reason, []).append(node)
    return "; ".join(f"the gateway leaves it out on {', '.join(nodes)}: {reason}" for reason, nodes in found.items())


def lagging(state: State, node: str) -> Iterator[str]:
    """Why proxies on a node can't be brought to the newest state."""
    for where, task in _proxies(state):
        if where == node and task.status.proxy is not None and task.status.proxy.error:
            yield f"the gateway on {node}: {task.status.proxy.error}"


def _proxies(state: State) -> Iterator[tuple[str, Task]]:
    """The gateway's tasks that have not ended, each with its node's name, by name."""
    running = (
        (node.name, task)
        for task in state.tasks.values()
        if task.spec.gateway is not None and not task.status.state.ended
        if task.node_id is not None and (node := state.nodes.get(task.node_id)) is not None
    )
    return iter(sorted(running, key=lambda found: (found[0], found[1].id)))
