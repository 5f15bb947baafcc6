"""Nodes: what an operator changes of them."""

from routemesh import wire
from routemesh.ask.context import Context
from routemesh.decide import admit
from routemesh.model import NodeId, State


async def update(context: Context, node: NodeId, wanted: wire.NodeUpdate) -> State:
    """Change a node; the state in which that is committed. Raises UserError, NotFound, Conflict."""

    def change(state: State) -> State:
        return admit.update_node(
            state,
            node,
            availability=wanted.availability,
            role=wanted.role,
            labels_add=wanted.labels_add,
            labels_remove=wanted.labels_remove,
        )

    return await context.store.update(change)
