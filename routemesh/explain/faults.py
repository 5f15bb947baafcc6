"""What is wrong, as explain itself has it: a Cause before it is put in words. PURE."""

from dataclasses import dataclass

from routemesh.explain.nouns import Cause
from routemesh.reasons.causes import Reason
from routemesh.reasons.named import named
from routemesh.reasons.words import of_cause
from routemesh.walk import OUTSIDE, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The fields are Cause's; `called` is the place's name for people.

    `planned`: what mends it is in the node's plan. `remains`: it is so even with everything mended that is not as planned;
    `goes`: it is known not to be.
    """

    at: Place = OUTSIDE
    called: str
    reason: Reason
    mend: tuple[str, ...] = ()
    look: tuple[str, ...] = ()
    way: int = -1
    step: int = -1
    by: str = ""
    planned: bool = False
    remains: bool = False
    goes: bool = False

    @property
    def node(self) -> str:
        """Of the place."""
        return self.at.node

    @property
    def namespace(self) -> str:
        """Of the place."""
        return self.at.netns


def told(fault: Fault) -> Cause:
    """The same for people and as JSON."""
    return Cause(
        node=fault.node,
        namespace=fault.namespace,
        place=fault.called,
        why=of_cause(fault.reason),
        reason=named(fault.reason),
        mend=fault.mend,
        look=fault.look,
        way=fault.way,
        step=fault.step,
        by=fault.by,
    )
