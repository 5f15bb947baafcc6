"""What a part of a rule that is beyond our own vocabulary means for a packet. PURE.

`xtwords` reads them of iptables' language, `nftwords` of nft's; `rules` carries them out.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from routemesh.nodeplan import Statement
from routemesh.walk.flight import Flight

Test = Callable[[Flight], bool | None]
"""Yes, no, or None: that depends on what nobody can see here, and then both are supposed."""


class Condition(msgspec.Struct, frozen=True):
    """Whether the rule goes on."""

    test: Test


class Does(msgspec.Struct, frozen=True):
    """The same as a statement of ours, or one that depends on the packet: False for none, None where that can't be told."""

    statement: Statement | Callable[[Flight], Statement | bool | None]


class SetMark(msgspec.Struct, frozen=True):
    """`field = (field & ~mask) ^ value`."""

    field: Literal["meta mark", "ct mark"]
    value: int
    mask: int


class CopyMark(msgspec.Struct, frozen=True):
    """`to = (to & ~to_mask) ^ (from & from_mask)`: the packet's mark to the connection (save), or back (restore)."""

    save: bool
    nfmask: int
    ctmask: int


class Adds(msgspec.Struct, frozen=True):
    """Something of the packet is put into a set; `key` gives None where that can't be told."""

    set: str
    key: Callable[[Flight], tuple[Any, ...] | None]


class Untrack(msgspec.Struct, frozen=True):
    """Connection tracking leaves the packet alone."""


class ClampToPath(msgspec.Struct, frozen=True):
    """A SYN's MSS is lowered to what the route's device takes."""


class Nothing(msgspec.Struct, frozen=True):
    """Nothing that changes the packet's way."""


Word = Condition | Does | SetMark | CopyMark | Adds | Untrack | ClampToPath | Nothing
