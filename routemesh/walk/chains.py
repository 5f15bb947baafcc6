"""nftables' and iptables' chains in one form: as a packet meets them. PURE.

In a node's built-in iptables chains rules of ours are items of their own, before or behind what the chain has besides.
Source: iptables(8); include/uapi/linux/netfilter_ipv4.h (nf_ip_hook_priorities).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

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


@dataclass(frozen=True, slots=True)
class RuleChain:
    """A chain, each rule with the item that a hop names as having decided.

    `space`: nftables' family or iptables' table, within which its jumps and its maps are. `item` is what the chain itself is;
    None for a chain that is none of ours as such. `drops`: its policy.
    """

    space: Family | XtTable
    name: str
    rules: tuple[tuple[Rule, Item], ...]
    item: Item | None
    hook: Hook | None = None
    drops: bool = False

    @property
    def iptables(self) -> bool:
        """Whether iptables made it."""
        return self.space in get_args(XtTable)


def of_nftables(chain: Chain) -> RuleChain:
    """An nftables chain."""
    return RuleChain(chain.family, chain.name, tuple((rule, chain) for rule in chain.rules), chain, chain.hook)


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
    return RuleChain(table, name, tuple(rules), chain, _hook(table, name), chain is not None and chain.policy == "DROP")


def _hook(table: XtTable, name: str) -> Hook | None:
    if name not in BUILT_IN[table]:
        return None
    hook = _HOOKS[name]
    if table == "nat":
        return Hook("nat", hook, _PRIORITIES[table] if hook in ("prerouting", "output") else _SOURCE_NAT)
    # Its mangle table routes a packet of the namespace's own again, as nftables' type route does (ipt_mangle_out).
    return Hook("route" if (table, hook) == ("mangle", "output") else "filter", hook, _PRIORITIES[table])
