"""Gives out addresses on networks and firewall marks. PURE.

Order: nodes, then VIPs, then tasks. Marks count up: one more than the highest in use, FIRST_FWMARK for the first; after the last
mark come those that have become free.
"""

from collections.abc import Iterator, Set

from routemesh.decide.edit import blocked, with_tasks
from routemesh.decide.pool import AddressPool, network_pool
from routemesh.model import FIRST_FWMARK, LAST_FWMARK, Attachment, Network, Service, State, Task, TaskState, TaskStatus
from routemesh.values import replace


def allocate(state: State, now: float) -> State:
    """Give nodes, services and tasks what they lack, and take from services what they need no more.

    What the pool has no address for keeps an error that says so, until an address is free.
    """
    network = state.ingress
    if network is None:
        return state
    pool = network_pool(state, network)
    state = _with_nodes(state, network, pool)
    state = _with_services(state, network, pool)
    return with_tasks(state, _tasks(state, network, pool, now))


def _with_nodes(state: State, network: Network, pool: AddressPool) -> State:
    lacking = [node for node in state.nodes.values() if node.sandbox_on(network.id) is None]
    lacking.sort(key=lambda node: (node.created_at, node.name))
    given = {
        node.id: replace(node, attachments=(*node.attachments, Attachment(network.id, address)))
        for node in lacking
        if (address := pool.take()) is not None
    }
    return replace(state, nodes={**state.nodes, **given}) if given else state


def _with_services(state: State, network: Network, pool: AddressPool) -> State:
    marks = _free_marks({service.fwmark for service in state.services.values()})
    changed = {}
    for service in sorted(state.services.values(), key=lambda service: (service.created_at, service.spec.name)):
        allocated = _allocated(service, network, pool, marks)
        if allocated is not service:
            changed[service.id] = allocated
    return replace(state, services={**state.services, **changed}) if changed else state


def _free_marks(used: Set[int | None]) -> Iterator[int]:
    highest = max((mark for mark in used if mark is not None), default=FIRST_FWMARK - 1)
    yield from range(highest + 1, LAST_FWMARK + 1)
    yield from (mark for mark in range(FIRST_FWMARK, highest) if mark not in used)


def _allocated(service: Service, network: Network, pool: AddressPool, marks: Iterator[int]) -> Service:
    if not service.spec.publish:
        unused = not service.vips and service.fwmark is None and not service.error
        return service if unused else replace(service, vips=(), fwmark=None, mark_port=None, error="")
    if service.vip_on(network.id) is not None:
        return service
    vip = pool.take()
    mark = next(marks, None) if vip is not None else None
    if vip is None or mark is None:
        no_mark = "no firewall mark: all are in use; remove a service"
        error = f"no virtual IP: {_exhausted(network, pool)}" if vip is None else no_mark
        return service if service.error == error else replace(service, error=error)
    port = min((publish.protocol, publish.published) for publish in service.spec.publish)
    return replace(service, vips=(Attachment(network.id, vip),), fwmark=mark, mark_port=port, error="")


def _tasks(state: State, network: Network, pool: AddressPool, now: float) -> Iterator[Task]:
    waiting = [task for task in state.tasks.values() if task.status.state < TaskState.ASSIGNED]
    for task in sorted(waiting, key=lambda task: task_order(state, task)):
        if task.address_on(network.id) is not None or not task.spec.on_overlay:
            yield task if task.status.state is TaskState.PENDING else _pending(task, now)
        elif address := pool.take():
            yield _pending(replace(task, attachments=(*task.attachments, Attachment(network.id, address))), now)
        else:
            yield blocked(task, f"no address: {_exhausted(network, pool)}", now)


def task_order(state: State, task: Task) -> tuple[object, ...]:
    """Sorts tasks that wait for something: the older service first, then by slot or node name."""
    service = state.services[task.service_id]
    node = state.nodes[task.node_id].name if task.node_id is not None else ""
    return (service.created_at, service.spec.name, task.slot, node, task.created_at, task.id)


def _pending(task: Task, now: float) -> Task:
    return replace(task, status=TaskStatus(state=TaskState.PENDING, at=now))


def _exhausted(network: Network, pool: AddressPool) -> str:
    return f"all addresses of the {network.name} pool {pool} are in use; scale a service down or remove one"
