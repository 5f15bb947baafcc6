"""What is wrong, what that costs, what to do about it: findings made of facts. PURE.

    machine   what one machine offers                 mesh     everything about a cluster as it was read, put together
    facts     what a node says of itself              ways     the way of every published port from every node
    told      operations, as what is wrong now        planned  what is not as a node's plan wants it
    certificates, refused   of the gateway            overlay  what real packets met between the nodes; devices
    twice        two looks at what goes on changing   load     tables, pools, clocks, tasks, ports
    mtu       underlay devices that carry too little

Who gathers the facts is elsewhere (sight.machine, sight.checkup, ask.checkups).
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

from routemesh.explain.nouns import UNTOLD
from routemesh.reasons.named import Named

VERSION = 2
"""Of the JSON (docs/doctor.md). Whatever changes a field's name or meaning raises it; a field that is added does not."""


class Severity(StrEnum):
    """How it is with what was looked at."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It can't be told without changing something, or was not read; nothing that is asked depends on it."""
    OPTIONAL = "optional"
    """It is missing, and routemesh does without it; or it will be wrong some day."""
    UNTOLD = "untold"
    """It is asked, and can't be told."""
    WRONG = "wrong"
    """It is missing or broken, and routemesh needs it."""


Basis = Literal["asked", "predicted", "recorded"]
"""Nodes, or real packets, answered so; it follows from what was read; a recording has it so."""

Outcome = Literal["clean", "findings", "untold"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at, all in words for people.

    `found` is how it is there. `effect` is what that costs and `fix` what to do; both are empty where all is well. `commands`:
    all that a person could type on that node instead, of which `fix` may show the first. `ours`: a node mends it by itself when
    it carries out its plan (doctor --fix). `reason`: why a way fails, as a value (reasons.causes). `basis`: on what
    `found` rests; `effect_basis`: on what `effect` does, where that is something else.
    """

    what: str
    where: str
    state: Severity
    found: str
    effect: str = ""
    fix: str = ""
    commands: tuple[str, ...] = ()
    ours: bool = False
    reason: Named | None = None
    basis: Basis = "asked"
    effect_basis: Basis | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All findings. `outcome`: nothing is wrong, something is, or, where nothing is, something that is asked can't be told."""

    version: int
    outcome: Outcome
    findings: tuple[Finding, ...]

    @property
    def status(self) -> int:
        """The exit status."""
        return {"clean": 0, "findings": 3, "untold": UNTOLD}[self.outcome]


def report(findings: Iterable[Finding]) -> Report:
    """The findings and what they come to."""
    told = tuple(findings)
    states = {finding.state for finding in told}
    outcome: Outcome = "findings" if Severity.WRONG in states else "untold" if Severity.UNTOLD in states else "clean"
    return Report(version=VERSION, outcome=outcome, findings=told)


def listed(words: Iterable[str], most: int = 3) -> str:
    """Words as people list them, with how many more there are."""
    every = list(dict.fromkeys(words))
    if len(every) > most:
        return f"{', '.join(every[:most])} and {len(every) - most} more"
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} and {every[-1]}" if every else ""
