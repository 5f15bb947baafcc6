"""What a trace watches for, what it saw, and what it says, in plain types: the last is the JSON of `--format json`. PURE.

Whatever changes a field's name or meaning raises VERSION; a field that is added does not. Times in sightings are seconds since
the epoch by the clock of the node; in an answer they are seconds since the probe was sent.
"""

from typing import Literal

import msgspec

from routemesh.explain.nouns import UNTOLD, Explanation
from routemesh.sightings import Observation, Sent

VERSION = 3

Mark = Literal["seen", "passed", "missing", "unwatched"]
"""A predicted step: its packet was seen; was not, but further on the way; was not; nobody looked there."""


class Traced(msgspec.Struct, frozen=True):
    """What was predicted, what became of the probe, and what the nodes saw.

    `onward`: the same of the connection that a proxy opened because of it.
    """

    prediction: Explanation
    sent: Sent
    observations: tuple[Observation, ...]
    onward: "Traced | None" = None
    notes: tuple[str, ...] = ()


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """A predicted step and what was seen of it. `step`: its number in the way, counted through there and back.

    `evidence`: what was seen, for people; `at_s`: when, None where nothing was.
    """

    step: int
    mark: Mark
    evidence: str = ""
    at_s: float | None = None


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """A place on the way: node, namespace, its name for people, device, when, and what was or should have been there.

    `later`: it is of a packet that followed once the connection was opened.
    """

    node: str
    namespace: str
    place: str
    device: str
    what: str
    at_s: float | None = None
    later: bool = False


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `way`: which of the predicted ways the packet took (-1: none is predicted). `agrees`: it did as predicted;
    None: it did so as far as anything could be predicted, which is not to the end.

    `last`: the last step of the way where the packet was seen, or, where it was at none, the last place of all. `lost`: the first
    step where it was not, though it should have been; None where it went all the way. `drops`: rules that were seen to drop it.
    `strays`: where it was seen though no step is there.
    `onward`: the same of the connection that the gateway's proxy opened because of it.
    """

    version: int
    prediction: Explanation
    way: int
    sent: Sent
    hops: tuple[Hop, ...]
    agrees: bool | None
    arrives: bool
    verdict: str
    last: Where | None
    lost: Where | None
    drops: tuple[str, ...]
    strays: tuple[Where, ...]
    observations: tuple[Observation, ...]
    notes: tuple[str, ...] = ()
    unwatched_nodes: tuple[str, ...] = ()
    onward: "Trace | None" = None

    @property
    def status(self) -> int:
        """The exit status: 0 it arrives as predicted, 3 it does not arrive, or not as predicted, 4 that can't be told."""
        if self.agrees is None and (self.arrives or self.sent.outcome == "live"):
            return UNTOLD
        if not (self.agrees and self.arrives):
            return 3
        return 0 if self.onward is None else self.onward.status
