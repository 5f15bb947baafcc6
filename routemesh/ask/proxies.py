"""What the gateway's proxies have, asked of the nodes where they are."""

import asyncio
from collections.abc import Mapping

from routemesh.ask.context import Context
from routemesh.decide.admit.routes import find_gateway
from routemesh.errors import NotFound, RoutemeshError, UserError
from routemesh.model import Node, NodeState, Service, State
from routemesh.proxy import external
from routemesh.proxy.observed import RunningProxy

_IN_MEMORY = {"tmpfs", "ramfs", ""}


async def proxies_of(context: Context, node: Node) -> list[RunningProxy]:
    """What the proxies of a node have, asked by any daemon. Raises Unavailable."""
    if node.id == context.node_id:
        return await context.proxies()
    return await context.peers.get(node, f"/nodes/{node.id}/proxies", list[RunningProxy])


def the_gateway(state: State) -> Service:
    """The gateway's service. Raises NotFound."""
    service = find_gateway(state)
    if service is None:
        raise NotFound("the gateway is not enabled; routemesh gateway enable runs it")
    return service


def external_config(state: State, program: str, to: str) -> str:
    """A configuration for a proxy `program` outside of the cluster that leads to its nodes or tasks. Raises UserError."""
    towards = next((known for known in external.TO if known == to), None)
    if program not in external.FOR or towards is None:
        programs = ", ".join(external.FOR)
        raise UserError(f"for={program}&to={to} is not a valid query: for is one of {programs}; to is {' or '.join(external.TO)}")
    return external.FOR[program](state, towards)


async def keys_on_disk(context: Context, state: State) -> Mapping[str, str]:
    """The nodes whose proxies have their files elsewhere than in memory, and on which file system; none that can't be asked."""
    tasks = (task for task in state.tasks.values() if not task.status.state.ended)
    homes = {task.node_id for task in tasks if task.spec.gateway is not None and task.spec.gateway.https_port}
    every = sorted(state.nodes.values(), key=lambda node: node.name)
    nodes = [node for node in every if node.id in homes and node.state is NodeState.READY]

    async def ask(node: Node) -> set[str]:
        try:
            return {seen.filesystem for seen in await proxies_of(context, node)} - _IN_MEMORY
        except RoutemeshError:
            return set()

    found = await asyncio.gather(*map(ask, nodes))
    return {node.name: ", ".join(sorted(kinds)) for node, kinds in zip(nodes, found, strict=True) if kinds}
