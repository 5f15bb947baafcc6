"""The engines: what a node balances with. PURE.

Nothing else knows which one is in use.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from routemesh.errors import UserError
from routemesh.model import Network, Scheduler, Task
from routemesh.nodeplan import Capabilities, Item
from routemesh.plan.engines import ipvs, nftables
from routemesh.plan.view import NodeView


class Engine(Protocol):
    """What a node balances with: a module of this package."""

    SCHEDULERS: frozenset[Scheduler]

    def host(self, view: NodeView, caps: Capabilities) -> Iterator[Item]:
        """What goes into the node's own namespace."""
        ...

    def sandbox(self, view: NodeView, network: Network, caps: Capabilities) -> Iterator[Item]:
        """What goes into a network's sandbox."""
        ...

    def task(self, view: NodeView, task: Task) -> Iterator[Item]:
        """What goes into a task's namespace."""
        ...


ENGINES: Mapping[str, Engine] = {"nftables": nftables, "ipvs": ipvs}


def schedulers(engine: str) -> frozenset[Scheduler]:
    """How an engine can share out connections. Raises KeyError for none of ours."""
    return ENGINES[engine].SCHEDULERS


def check_engine(wanted: str, caps: Capabilities) -> str:
    """The engine that `wanted` (auto, nftables, ipvs) means on this kernel; raises UserError where there is none."""
    engine = caps.engine(wanted)
    if engine == "ipvs" and not caps.ip_vs:
        raise UserError(f"engine 'ipvs' needs the ip_vs module, which kernel {caps.kernel} does not have; use --engine nftables")
    if engine == "ipvs" and not caps.iptables:
        raise UserError(
            "engine 'ipvs' needs iptables, which does not work here; install Debian's iptables or use --engine nftables"
        )
    if engine not in ENGINES:
        known = ", ".join(["auto", *ENGINES])
        raise UserError(f"engine '{wanted}' is not available; choose one of: {known}")
    if engine == "nftables" and not caps.nf_tables:
        raise UserError(f"engine 'nftables' needs nf_tables, which kernel {caps.kernel} does not have; load the nf_tables module")
    return engine
