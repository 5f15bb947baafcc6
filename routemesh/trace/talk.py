"""What is said while a trace runs: between the tracer and a daemon, and between daemons. PURE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from routemesh.sightings import Observation, Opening, Probe, SeenPacket, Sent, Wanted
from routemesh.trace.nouns import Traced

# --- with the daemon that is asked ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """All are armed. `probe`: what is to be sent, by the asker if it comes from outside; None: somebody else's is waited for.

    `unwatched`: the nodes that can't be watched, with the reason.
    """

    probe: Probe | None
    unwatched: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """The probe may be sent; or it was, by the asker."""

    sent: Sent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it. `error`: why nothing did."""

    traced: Traced | None = None
    error: str = ""


# --- between daemons ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What to watch, in which namespaces besides the node's own."""

    wanted: Wanted
    namespaces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Send a probe; wait for the first packet of an `opening` connection, if it has not been seen; tell what was seen of the
    connection from `port`, and end."""

    kind: Literal["send", "first", "collect"]
    probe: Probe | None = None
    opening: Opening | None = None
    within_s: float = 0.0
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The answer to an order. `error`: it could not be carried out."""

    error: str = ""
    sent: Sent | None = None
    seen: SeenPacket | None = None
    observation: Observation | None = None
