"""What a node's kernel should hold, from what the node may see of the cluster. PURE (rule 1).

`layout` makes what every engine shares: namespaces, links, addresses, routes, neighbours. An engine (plan/engines) gives the
balancing and translating items for those namespaces.
"""

from routemesh import names
from routemesh.nodeplan import HOST, Capabilities, Item, Namespace, NodePlan, namespace
from routemesh.plan import layout
from routemesh.plan.along import along
from routemesh.plan.engines import check_engine
from routemesh.plan.pools import pools
from routemesh.plan.view import NodeView


def plan(view: NodeView, caps: Capabilities) -> NodePlan:
    """The whole plan of the view's node, from scratch.

    A node without an address on the ingress network (its pool is exhausted, or the manager has not seen it yet) has an
    empty plan. Raises UserError for an engine that does not exist or that this kernel can't run, naming the one that works.
    """
    engine = check_engine(view.node.engine, caps)
    if view.node.sandbox_on(view.ingress.id) is None:
        return NodePlan()
    balanced = {network.id: tuple(pools(view, network)) for network in view.networks}
    host = engine.host(view, balanced[view.ingress.id], caps)
    namespaces: dict[str, Namespace] = {HOST: _whole(HOST, (*layout.host(view, caps), *host))}
    namespaces |= {netns: _whole(netns, items) for netns, items in layout.further_gwbridges(view, caps)}
    for network in view.networks:
        sandbox, overlay = names.sandbox(network), names.overlay_netns(network.id)
        balancing = engine.sandbox(view, network, balanced[network.id], caps)
        namespaces[sandbox] = _whole(sandbox, (*layout.sandbox(view, network), *balancing))
        namespaces[overlay] = _whole(overlay, tuple(layout.overlay(view, network, caps)))
    of_engine = engine.tasks(view, caps)
    for task in layout.placed(view):
        netns = names.container_id(task.id)
        namespaces[netns] = _whole(netns, (*layout.task(view, task), *of_engine(task)))
    return NodePlan(namespaces)


def _whole(netns: str, items: tuple[Item, ...]) -> Namespace:
    return namespace((*items, *along(netns, items)))
