"""iptables' chains and rules."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from routemesh.nodeplan.fields import Theirs
from routemesh.nodeplan.rules import Rule

XtTable = Literal["raw", "mangle", "nat", "filter", "security"]
BUILT_IN: Mapping[XtTable, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
"""The chains that a table has by itself, named for their hooks; `security` is read, never planned. Source: iptables(8)."""


class XtChain(msgspec.Struct, frozen=True):
    """An iptables chain that is ours alone, with all its rules, in order.

    In the node's own namespace it has one of our names (DOCKER-INGRESS); in a namespace of ours every chain is ours. A built-in
    chain is an item only while it has rules or its policy is not ACCEPT. `policy` is None for the others, which have none.
    """

    table: XtTable
    name: str
    rules: tuple[Rule, ...] = ()
    policy: Literal["ACCEPT", "DROP"] | None = None


class XtRule(msgspec.Struct, frozen=True):
    """A rule of ours in a built-in chain of the node's namespace, among rules of others: known by the comment `routemesh`.

    `head`: it is put before what is there, else behind it; where it stands later is for those others to say too, so every such
    rule is read as it is wanted. `copies`: how often it is there, which should be once.
    """

    table: XtTable
    chain: str
    rule: Rule
    head: bool = True
    copies: Theirs[int] = 1
