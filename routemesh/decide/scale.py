"""Which slots a service should have. PURE."""

from collections import Counter
from collections.abc import Iterable
from itertools import count

from routemesh.decide.constraints import obstacle
from routemesh.decide.slots import Scope, SlotKey, Slots, SlotTasks, wanted
from routemesh.model import Mode, NodeId


def wanted_slots(scope: Scope, slots: Slots) -> list[SlotKey]:
    """The slots that should have a running task, present ones and new ones, in order."""
    if scope.service.spec.mode is Mode.GLOBAL:
        nodes = sorted(scope.state.nodes.values(), key=lambda node: node.name)
        return [node.id for node in nodes if obstacle(node, scope.constraints) == ""]
    return sorted(_numbers(slots, scope.service.spec.replicas), key=int)


def is_frozen(scope: Scope, key: SlotKey) -> bool:
    """Whether a global service's task may stay, but gets no successor: its node is paused or has a fault of its own."""
    node = scope.state.nodes.get(NodeId(str(key)))
    return node is not None and obstacle(node, scope.constraints) in ("paused", "faulty")


def _numbers(slots: Slots, replicas: int) -> Iterable[SlotKey]:
    if len(slots) > replicas:
        return _worth_keeping(slots)[:replicas]
    free = (number for number in count(1) if number not in slots)
    return [*slots, *(next(free) for _ in range(replicas - len(slots)))]


def _worth_keeping(slots: Slots) -> list[SlotKey]:
    """The slots in the order in which they are kept.

    The n-th task of the service on its node goes before any (n-1)-th, so that what is left is spread; first of all go those that
    do not serve. Source: moby/swarmkit manager/orchestrator/replicated/services.go, slot.go.
    """
    first = sorted(slots, key=lambda key: (not _serves(slots[key]), int(key)))
    seen: Counter[NodeId | None] = Counter()
    rank: dict[SlotKey, int] = {}
    for key in first:
        node_id = next((task.node_id for task in wanted(slots[key])), None)
        rank[key] = seen[node_id]
        seen[node_id] += 1
    return sorted(slots, key=lambda key: (not _serves(slots[key]), rank[key], int(key)))


def _serves(tasks: SlotTasks) -> bool:
    return any(task.serving for task in tasks)
