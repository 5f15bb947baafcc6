"""nftables' and iptables' chains in one form: as a packet meets them. PURE.

In a node's built-in iptables chains rules of ours are items of their own, before or behind what the chain has besides.
Source: iptables(8); include/uapi/linux/netfilter_ipv4.h (nf_ip_hook_priorities).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from routemesh.names import TABLE
from routemesh.nodeplan import BUILT_IN, Chain, Family, Hook, Item, Rule, XtChain, XtRule, XtTable

_HOOKS: Mapping[str, Literal["prerouting", "input", "forward", "output", "postrouting"]] = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
_PRIORITIES: Mapping[XtTable, int] = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_SOURCE_NAT = 100
_OF_IPV4 = frozenset({"ip", "inet"})

Space = str
"""Within which jumps and maps are: iptables' table, or nftables' family and, if it is not ours, the table's name."""


class RuleChain(msgspec.Struct, frozen=True):
    """A chain, each rule with the item that a hop names as having decided.

    `item` is what the chain itself is; None for a chain that is not ours as such. `drops`: its policy. `family` None: it is
    iptables'.
    """

    space: Space
    name: str
    rules: tuple[tuple[Rule, Item], ...]
    item: Item | None
    family: Family | None
    hook: Hook | None = None
    drops: bool = False

    @property
    def iptables(self) -> bool:
        """Whether iptables made it."""
        return self.family is None

    def meets(self, hook: str, device: str | None) -> bool:
        """Whether IPv4 packets at a hook (of a device) meet it."""
        if self.hook is None or self.hook.hook != hook:
            return False
        if device is None:
            return self.hook.device is None and (self.family is None or self.family in _OF_IPV4)
        return self.hook.device is not None and device in self.hook.device.split(",")


def space_of(family: Family, table: str) -> Space:
    """The space of an nftables table."""
    return family if table == TABLE else f"{family} {table}"


def of_nftables(chain: Chain) -> RuleChain:
    """An nftables chain."""
    rules = tuple((rule, chain) for rule in chain.rules)
    space = space_of(chain.family, chain.table)
    return RuleChain(space, chain.name, rules, chain, chain.family, chain.hook, chain.policy == "drop")


def of_iptables(items: Iterable[Item]) -> Iterator[RuleChain]:
    """Every iptables chain that the items make."""
    chains: dict[tuple[XtTable, str], XtChain] = {}
    loose: dict[tuple[XtTable, str], list[XtRule]] = defaultdict(list)
    for item in items:
        if isinstance(item, XtChain):
            chains[item.table, item.name] = item
        elif isinstance(item, XtRule):
            loose[item.table, item.chain].append(item)
    for table, name in chains | loose:
        yield _combined(table, name, chains.get((table, name)), loose[table, name])


def _combined(table: XtTable, name: str, chain: XtChain | None, loose: list[XtRule]) -> RuleChain:
    # Each is inserted before the one that was there: the last one comes first.
    rules: list[tuple[Rule, Item]] = [(item.rule, item) for item in reversed(loose) if item.head]
    rules += [(rule, chain) for rule in chain.rules] if chain is not None else []
    rules += [(item.rule, item) for item in loose if not item.head]
    drops = chain is not None and chain.policy == "DROP"
    return RuleChain(table, name, tuple(rules), chain, None, _hook(table, name), drops)


def _hook(table: XtTable, name: str) -> Hook | None:
    if name not in BUILT_IN[table]:
        return None
    hook = _HOOKS[name]
    if table == "nat":
        return Hook("nat", hook, _PRIORITIES[table] if hook in ("prerouting", "output") else _SOURCE_NAT)
    # Its mangle table routes a packet of the namespace's own again, as nftables' type route does (ipt_mangle_out).
    return Hook("route" if (table, hook) == ("mangle", "output") else "filter", hook, _PRIORITIES[table])
