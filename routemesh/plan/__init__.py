"""What a node's kernel should hold, from what the node may see of the cluster. PURE (rule 1).

`layout` makes what every engine shares: namespaces, links, addresses, routes, neighbours. An Engine gives the balancing and
translating items for those namespaces; nothing else knows which one is in use.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from routemesh import names
from routemesh.errors import UserError
from routemesh.model import Scheduler, Task
from routemesh.nodeplan import HOST, Capabilities, Item, Namespace, NodePlan, namespace
from routemesh.plan import ipvs, layout, nftables
from routemesh.plan.view import NodeView


class Engine(Protocol):
    """What a node balances with: a module of this package."""

    SCHEDULERS: frozenset[Scheduler]

    def host(self, view: NodeView) -> Iterator[Item]:
        """What goes into the node's own namespace."""
        ...

    def sandbox(self, view: NodeView, caps: Capabilities) -> Iterator[Item]:
        """What goes into ingress_sbox."""
        ...

    def task(self, view: NodeView, task: Task) -> Iterator[Item]:
        """What goes into a task's namespace."""
        ...


_ENGINES: Mapping[str, Engine] = {"nftables": nftables, "ipvs": ipvs}


def plan(view: NodeView, caps: Capabilities) -> NodePlan:
    """The whole plan of the view's node, from scratch.

    A node without an ingress address (its pool is exhausted, or the manager has not seen it yet) has an empty plan.
    Raises UserError for an engine that does not exist or that this kernel can't run, naming the one that works.
    """
    engine = _ENGINES[check_engine(view.node.engine, caps)]
    if view.node.ingress_address is None:
        return NodePlan()
    namespaces: dict[str, Namespace] = {
        HOST: namespace((*layout.host(view), *engine.host(view))),
        names.SANDBOX: namespace((*layout.sandbox(view), *engine.sandbox(view, caps))),
        names.overlay_netns(view.cluster.ingress_id): namespace(layout.overlay(view)),
    }
    for task in layout.placed(view):
        namespaces[names.container_id(task.id)] = namespace((*layout.task(view, task), *engine.task(view, task)))
    return NodePlan(namespaces)


def schedulers(engine: str) -> frozenset[Scheduler]:
    """How an engine can share out connections. Raises KeyError for none of ours."""
    return _ENGINES[engine].SCHEDULERS


def check_engine(wanted: str, caps: Capabilities) -> str:
    """The engine that `wanted` (auto, nftables, ipvs) means on this kernel; raises UserError where there is none."""
    engine = caps.engine(wanted)
    if engine == "ipvs" and not caps.ip_vs:
        raise UserError(f"engine 'ipvs' needs the ip_vs module, which kernel {caps.kernel} does not have; use --engine nftables")
    if engine == "ipvs" and not caps.iptables:
        raise UserError(
            "engine 'ipvs' needs iptables, which does not work here; install Debian's iptables or use --engine nftables"
        )
    if engine not in _ENGINES:
        known = ", ".join(["auto", *_ENGINES])
        raise UserError(f"engine '{wanted}' is not available; choose one of: {known}")
    if engine == "nftables" and not caps.nf_tables:
        raise UserError(f"engine 'nftables' needs nf_tables, which kernel {caps.kernel} does not have; load the nf_tables module")
    return engine
