"""The manager's decisions: from the cluster's state to its next state. PURE: no clock, no I/O, no randomness.

    clock ─ liveness ─ orchestrate ─ allocate ─ schedule  one pass (`step`), in this order
    admit                                                 what people and nodes ask for, checked
    progress                                              how far a service is

Laws: `step(step(s, now, live), now, live) is step(s, now, live)`; a pass with nothing to do returns the very state it was given;
the order of the mappings does not matter; before `next_deadline` a pass does nothing unless something else changes.
"""

from collections.abc import Set

from routemesh.decide.allocate import allocate
from routemesh.decide.clock import in_bounds
from routemesh.decide.liveness import liveness
from routemesh.decide.orchestrate import next_deadline, orchestrate
from routemesh.decide.schedule import schedule
from routemesh.model import NodeId, State

__all__ = ["next_deadline", "step"]


def step(state: State, now: float, live: Set[NodeId]) -> State:
    """One whole pass; a new task is created, given its addresses and its node in one go. `live`: nodes that hold their lease."""
    state = in_bounds(state, now)
    state = liveness(state, now, live)
    state = orchestrate(state, now)
    state = allocate(state, now)
    return schedule(state, now)
