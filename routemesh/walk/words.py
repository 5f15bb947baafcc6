"""What a part of a rule that is beyond our own vocabulary means for a packet. PURE.

`xtwords` reads them of iptables' language, `nftwords` of nft's; `rules` carries them out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from routemesh.nodeplan import Statement
from routemesh.walk.flight import Flight

Test = Callable[[Flight], bool | None]
"""Yes, no, or None: that depends on what nobody can see here, and then both are supposed."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether the rule goes on."""

    test: Test


@dataclass(frozen=True, slots=True)
class Does:
    """The same as a statement of ours, or one that depends on the packet: False for none, None where that can't be told."""

    statement: Statement | Callable[[Flight], Statement | bool | None]


@dataclass(frozen=True, slots=True)
class SetMark:
    """`field = (field & ~mask) ^ value`."""

    field: Literal["meta mark", "ct mark"]
    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class CopyMark:
    """`to = (to & ~to_mask) ^ (from & from_mask)`: the packet's mark to the connection (save), or back (restore)."""

    save: bool
    nfmask: int
    ctmask: int


@dataclass(frozen=True, slots=True)
class Untrack:
    """Connection tracking leaves the packet alone."""


@dataclass(frozen=True, slots=True)
class ClampToPath:
    """A SYN's MSS is lowered to what the route's device takes."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing that changes the packet's way."""


Word = Condition | Does | SetMark | CopyMark | Untrack | ClampToPath | Nothing
