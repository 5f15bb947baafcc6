"""The engines: what a node balances with. PURE.

ENGINES is the one place that knows them. Nothing else may know which there are, or ask which one is in use: who must treat one
otherwise than another asks its row (`entry.Engine`).
"""

from routemesh.errors import UserError
from routemesh.model import Scheduler
from routemesh.nodeplan import Capabilities
from routemesh.plan.engines import ipvs, nftables
from routemesh.plan.engines.entry import Engine

AUTO = "auto"
"""Instead of a name: the default."""

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (nftables.ENGINE, ipvs.ENGINE)}
"""By name; the default comes first."""

SWARM = ipvs.ENGINE.name
"""The one that balances as a Docker Swarm does, and walks like one."""


def engine_names() -> tuple[str, ...]:
    """All, the default first."""
    return tuple(ENGINES)


def meant(wanted: str) -> str:
    """The name that `wanted` stands for, which may be AUTO."""
    return next(iter(ENGINES)) if wanted == AUTO else wanted


def schedulers(engine: str) -> frozenset[Scheduler]:
    """How an engine can share out connections; one that this version does not know, not at all."""
    found = ENGINES.get(engine)
    return frozenset() if found is None else found.schedulers


def check_engine(wanted: str, caps: Capabilities) -> Engine:
    """The engine that `wanted` (a name, or AUTO) means on this kernel; raises UserError where there is none."""
    engine = ENGINES.get(meant(wanted))
    if engine is None:
        raise UserError(f"engine '{wanted}' is not available; choose one of: {', '.join([AUTO, *ENGINES])}")
    if lacking := engine.lacks(caps):
        works = next((other.name for other in ENGINES.values() if not other.lacks(caps)), "")
        instead = f"use --engine {works}" if works else "no other engine works here either"
        raise UserError(f"engine '{engine.name}' {lacking}; {instead}")
    return engine
