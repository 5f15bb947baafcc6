"""What iptables-save prints, as our nouns. PURE.

Nothing is passed over: every chain of every table is there, and what a rule says that has no place in our vocabulary becomes
`Unknown` with iptables' own words, so that it differs from anything planned. Both variants (nft, legacy; 1.8.9 was tried) print
alike: addresses, interfaces and protocol first, then matches in the order in which they were given, the target last.

Source: iptables-save(8); iptables/iptables-save.c, xtables-save.c.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from routemesh import names
from routemesh.language.xtparse import parse_rule
from routemesh.nodeplan import BUILT_IN, Item, Rule, Unknown, XtChain, XtRule, XtTable
from routemesh.values import replace

_RULE = re.compile(r"(?:\[(\d+):(\d+)\] )?-A (\S+) ?(.*)")
_CHAIN = re.compile(r":(\S+) (ACCEPT|DROP|-) \[(\d+):(\d+)\]")
_BEYOND = re.compile(r"# Table `(\w+)' (?:is incompatible|contains incompatible base-chains), use 'nft' tool")
_OUR_CHAINS = (
    ("nat", names.INGRESS_CHAIN),
    ("filter", names.INGRESS_CHAIN),
    ("mangle", names.STRAY_CHAIN),
    ("mangle", names.FORWARD_CHAIN),
    ("mangle", names.PEER_CHAIN),
)


class Counters(NamedTuple):
    """What has passed a rule, or met a chain's policy."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SavedRule:
    """A rule; `counters` are None where iptables-save was not asked for them (-c). `text` is all that follows `-A CHAIN`."""

    rule: Rule
    comment: str
    text: str
    counters: Counters | None


@dataclass(frozen=True, slots=True)
class SavedChain:
    """A chain of anybody. Policy and its counters are a built-in chain's.

    `beyond`: at its hook there are rules in that table that iptables can't show; its words.
    """

    table: XtTable
    name: str
    policy: Literal["ACCEPT", "DROP"] | None
    counters: Counters
    rules: tuple[SavedRule, ...]
    beyond: str = ""

    def item(self) -> XtChain:
        """The chain without counters and comments, as far as iptables shows it."""
        return XtChain(self.table, self.name, tuple(saved.rule for saved in self.rules), self.policy)


def parse(text: str) -> tuple[SavedChain, ...]:
    """Every chain of every table, in the order of the text, which may be the outputs of several calls.

    Raises ValueError for what is not iptables-save's output, or not all of it, with the line.
    """
    found: list[SavedChain] = []
    beyond: dict[XtTable, str] = {}
    table = ""
    lines: list[tuple[int, str]] = []
    for place, line in enumerate(text.splitlines(), 1):
        if hidden := _BEYOND.match(line):
            beyond[_table(place, hidden[1])] = line
        elif not line or line.startswith("#"):
            continue
        elif line.startswith("*") and not table:
            table, lines = line[1:], []
        elif line == "COMMIT" and table:
            found += _chains(_table(place, table), lines)
            table = ""
        elif table:
            lines.append((place, line))
        else:
            raise _not_understood(place, line)
    if table:
        raise ValueError(f"the output of iptables-save ends within the table {table}")
    return tuple(_with_what_is_beyond(found, beyond))


def every_chain(saved: Sequence[SavedChain]) -> tuple[XtChain, ...]:
    """All that a packet may meet, ours and others'; what iptables can't show is an Unknown rule at the head of the chain."""
    return tuple(
        replace(item, rules=((Unknown(chain.beyond),), *item.rules)) if chain.beyond else item
        for chain in saved
        for item in [chain.item()]
    )


def ours_on_a_node(saved: Sequence[SavedChain]) -> tuple[Item, ...]:
    """What is ours in a node's own namespace: chains by their names, rules in built-in chains by their comment.

    Where our rule stands among those of others is not looked at: `head` is True for all.
    """
    found: list[Item] = []
    for chain in saved:
        if (chain.table, chain.name) in _OUR_CHAINS:
            found.append(chain.item())
        elif chain.name in BUILT_IN[chain.table]:
            copies = Counter(saved.rule for saved in chain.rules if saved.comment == names.ALIAS)
            found += (XtRule(chain.table, chain.name, rule, copies=copies[rule]) for rule in copies)
    return tuple(found)


def ours_in_a_namespace_of_ours(saved: Sequence[SavedChain]) -> tuple[XtChain, ...]:
    """Every chain, but for built-in ones that let everything pass."""
    return tuple(item for chain in saved if not is_open(item := chain.item()))


def is_open(chain: XtChain) -> bool:
    """Whether it is a built-in chain that lets everything pass, which is as good as none."""
    return chain.policy == "ACCEPT" and not chain.rules


def beside(present: XtChain | None, chain: XtChain, variant: str) -> XtChain:
    """A chain that both variants have can't be told as one, unless it does nothing in one of them: packets meet both."""
    if present is None or is_open(present):
        return chain
    if is_open(chain):
        return present
    also = Unknown(f"iptables-{variant} has the chain {chain.name} too")
    return replace(present, rules=((also,), *present.rules))


def _table(place: int, name: str) -> XtTable:
    if name not in BUILT_IN:
        raise ValueError(f"line {place}: iptables has no table {name}")
    return cast(XtTable, name)


def _not_understood(place: int, line: str) -> ValueError:
    return ValueError(f"line {place} is not iptables-save's: {line[:80]}")


def _with_what_is_beyond(found: Sequence[SavedChain], beyond: Mapping[XtTable, str]) -> Iterator[SavedChain]:
    """Any built-in chain's hook may have such rules, whether iptables shows a chain there or not."""
    for chain in found:
        yield replace(chain, beyond=beyond.get(chain.table, "")) if chain.policy is not None else chain
    shown = {(chain.table, chain.name) for chain in found}
    for table, line in beyond.items():
        missing = (name for name in BUILT_IN[table] if (table, name) not in shown)
        yield from (SavedChain(table, name, "ACCEPT", Counters(0, 0), (), line) for name in missing)


def _chains(table: XtTable, lines: Sequence[tuple[int, str]]) -> Iterator[SavedChain]:
    heads: dict[str, re.Match[str]] = {}
    rules: dict[str, list[re.Match[str]]] = {}
    for place, line in lines:
        if head := _CHAIN.fullmatch(line):
            heads[head[1]] = head
            rules[head[1]] = []
        elif (found := _RULE.fullmatch(line)) and found[3] in heads:
            rules[found[3]].append(found)
        else:
            raise _not_understood(place, line)
    chains = frozenset(heads)
    for name, head in heads.items():
        policy = cast(Literal["ACCEPT", "DROP"], head[2]) if head[2] != "-" else None
        saved = tuple(_rule(found, chains) for found in rules[name])
        yield SavedChain(table, name, policy, Counters(int(head[3]), int(head[4])), saved)


def _rule(found: re.Match[str], chains: frozenset[str]) -> SavedRule:
    packets, octets, _, text = found.groups()
    rule, comment = parse_rule(text, chains)
    return SavedRule(rule, comment, text, None if packets is None else Counters(int(packets), int(octets)))
