"""Finds out what of a silent node is gone: its daemon alone, or the machine with its data plane.

While its data plane answers, the connections of its tasks are left alone. When it does not, the cluster is told, every node lets
go of them, and their clients hear a reset as soon as they send.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Set
from functools import partial
from ipaddress import IPv4Address

from routemesh.agent.report import Reporter
from routemesh.decide import admit
from routemesh.model import NodeId, NodeState, State, TaskState
from routemesh.store import Store

log = logging.getLogger(__name__)

Ping = Callable[[Mapping[str, IPv4Address]], Awaitable[Set[str]]]
"""Asks the sandboxes of nodes, name → overlay address, for about a second; the names of those that answered."""

LOOKS = 2
"""So often in a row a node must not have answered."""
_AGAIN_S = 0.2
_NOTHING_ELSE_S = 3600.0


class Silence:
    """Looks at the nodes that are down and have tasks that may run on."""

    def __init__(self, store: Store, reporter: Reporter, probe: Ping) -> None:
        self._store = store
        self._reporter = reporter
        self._probe = probe
        self._missed: dict[NodeId, int] = {}

    async def look(self) -> float:
        """Returns when to look again; something that is written is another reason to."""
        silent = _silent(await self._store.snapshot())
        if not silent:
            self._missed.clear()
            return _NOTHING_ELSE_S
        answered = await self._probe({name: address for name, address in silent.values()})
        self._missed = {node: self._missed.get(node, 0) + 1 for node, (name, _) in silent.items() if name not in answered}
        for node in [node for node, times in self._missed.items() if times >= LOOKS]:
            log.warning("%s is not heard, and its data plane does not answer: its connections are given up", silent[node][0])
            await self._reporter.report(partial(admit.node_lost, node_id=node))
        return _AGAIN_S


def _silent(state: State) -> Mapping[NodeId, tuple[str, IPv4Address]]:
    ingress = state.ingress
    given_up = {task.node_id for task in state.tasks.values() if task.status.state is TaskState.ORPHANED}
    return {
        node.id: (node.name, address)
        for node in state.nodes.values()
        if node.id in given_up and node.state is NodeState.DOWN and not node.lost
        if ingress is not None and (address := node.sandbox_on(ingress.id)) is not None
    }


async def all_answer(nodes: Mapping[str, IPv4Address]) -> Set[str]:
    """The Ping where nobody can be asked."""
    return nodes.keys()
