"""What is wrong, what that costs, what to do about it: findings made of facts. PURE.

Who gathers the facts is elsewhere (kernel.probe). `machine` looks at what one machine offers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How it is with what was looked at."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It can't be told without changing something."""
    OPTIONAL = "optional"
    """It is missing, and routemesh does without it."""
    WRONG = "wrong"
    """It is missing or broken, and routemesh needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at, all in words for people.

    `found` is how it is there. `effect` is what that costs and `fix` what to do; both are empty where all is well.
    """

    what: str
    where: str
    state: State
    found: str
    effect: str = ""
    fix: str = ""


def is_clean(findings: Iterable[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(finding.state is not State.WRONG for finding in findings)
