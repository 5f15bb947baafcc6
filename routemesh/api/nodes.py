"""What is asked and told about nodes, their plans, and their networks."""

from aiohttp import web

from routemesh import wire
from routemesh.api.describe import diff_info, node_info, plan_info, task_info
from routemesh.api.networks import find_network, networks
from routemesh.api.reply import CONTEXT, json_reply, node_asked, node_named, number, said_by_node
from routemesh.ask import joining, nodes
from routemesh.model import Node, State
from routemesh.names import natural
from routemesh.plan.view import view

_NODES = f"{wire.PREFIX}/nodes"
_NETWORKS = f"{wire.PREFIX}/networks"


async def _list(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    state, leases = await context.store.snapshot(), await context.store.leases()
    every = sorted(state.nodes.values(), key=lambda node: natural(node.name))
    return json_reply([node_info(state, context.with_troubles(node), context.node_id, leases) for node in every])


async def _get(request: web.Request) -> web.Response:
    return await _one(request, await request.app[CONTEXT].store.snapshot())


async def _update(request: web.Request) -> web.Response:
    wanted = wire.parse(wire.NodeUpdate, await request.read())
    context, (_, node) = request.app[CONTEXT], await node_asked(request)
    return await _one(request, await nodes.update(context, node.id, wanted))


async def _remove(request: web.Request) -> web.Response:
    """`force=1`: also a node that is up."""
    context, force = request.app[CONTEXT], bool(number(request, "force", int, 0))
    before, leases = await context.store.snapshot(), await context.store.leases()
    gone = await joining.remove(context, node_named(request, before).id, force=force)
    return json_reply(node_info(before, gone, context.node_id, leases))


async def _plan(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]

    async def own(state: State, node: Node) -> wire.PlanInfo:
        return plan_info(node, context.plan(view(state, node.id)), context.netns_path)

    return await said_by_node(request, own, lambda node: context.peers.get(node, f"/nodes/{node.id}/plan", wire.PlanInfo))


async def _diff(request: web.Request) -> web.Response:
    """`strayed=1`: without what is still to be done for a change that has just been made."""
    context, strayed = request.app[CONTEXT], number(request, "strayed", int, 0)

    async def own(state: State, node: Node) -> wire.DiffInfo:
        ops = await (context.strayed if strayed else context.diff)(view(state, node.id))
        return diff_info(node, ops, context.netns_path)

    return await said_by_node(
        request, own, lambda node: context.peers.get(node, f"/nodes/{node.id}/diff?strayed={int(bool(strayed))}", wire.DiffInfo)
    )


async def _tasks(request: web.Request) -> web.Response:
    state, node = await node_asked(request)
    found = [task for task in state.tasks.values() if task.node_id == node.id]
    return json_reply([task_info(state, task) for task in sorted(found, key=lambda task: -task.created_at)])


async def _networks(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    return json_reply(networks(await context.store.snapshot(), context.node_id))


async def _network(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    verbose = request.query.get("verbose", "") in ("1", "true")
    found = find_network(await context.store.snapshot(), context.node_id, request.match_info["ref"], verbose=verbose)
    return json_reply(found)


async def _one(request: web.Request, state: State) -> web.Response:
    context = request.app[CONTEXT]
    node = context.with_troubles(node_named(request, state))
    return json_reply(node_info(state, node, context.node_id, await context.store.leases()))


ROUTES = (
    web.get(_NODES, _list),
    web.get(f"{_NODES}/{{ref}}", _get),
    web.post(f"{_NODES}/{{ref}}", _update),
    web.delete(f"{_NODES}/{{ref}}", _remove),
    web.get(f"{_NODES}/{{ref}}/tasks", _tasks),
    web.get(f"{_NODES}/{{ref}}/plan", _plan),
    web.get(f"{_NODES}/{{ref}}/diff", _diff),
    web.get(_NETWORKS, _networks),
    web.get(f"{_NETWORKS}/{{ref}}", _network),
)
