"""The form in which nft lists a rule. PURE.

nft (1.0.6 to 1.1.3) does not list what it was given: it drops `meta l4proto tcp` before a statement that implies it, and lists
flags in the order of their bits. `canonical` gives what is planned and what is read one form:
- `meta l4proto` stands directly before the first statement that needs it, unless something that acts (a counter, a mark) is
  between them;
- `meta l4proto tcp` beside `tcp flags` is left out;
- a mark that is compared whole is a MarkMatch;
- values are spelled as nft prints them.
A plan's rules should be canonical, else they are replaced after every reading. Out of reach are rules that demand two
protocols, and rules that compare both ports, or both MACs, with constants: nft merges such a pair into one comparison.

Source: nftables src/netlink_delinearize.c (payload_dependency_kill), src/evaluate.c (stmt merging).
"""

from routemesh.language import values
from routemesh.nodeplan import (
    Assign,
    Dnat,
    InSet,
    Key,
    Learn,
    Lookup,
    MarkMatch,
    Match,
    Redirect,
    Reject,
    Rule,
    Statement,
    VerdictLookup,
)

_PORTS = ("th sport", "th dport")
_TRANSPARENT = (Match, MarkMatch, InSet, VerdictLookup)
"""Across these nft forgets where the demand for a protocol stood."""


def canonical(rule: Rule) -> Rule:
    """The rule as it would be read back. Raises ValueError for a value that its field can't have."""
    spelled = tuple(_spelled(statement) for statement in rule)
    return _l4proto_where_needed(_tcp_for_reset(spelled))


def l4proto(statement: Statement) -> str | None:
    """The layer-4 protocol that a statement demands of a packet by itself, by name."""
    match statement:
        case Match("meta l4proto", protocol, False):
            return protocol
        case Match("tcp flags"):
            return "tcp"
        case _:
            return None


def needs_l4proto(statement: Statement) -> bool:
    """Whether nft lists the statement with a layer-4 protocol (`tcp dport`) where the rule demands one."""
    match statement:
        case Match(field):
            return field in _PORTS or field == "tcp flags"
        case Reject(with_):
            return with_ == "tcp reset"
        case _:
            return any(part in _PORTS for part in _key(statement))


def _spelled(statement: Statement) -> Statement:
    match statement:
        case Match("meta mark" | "ct mark" as field, value, False):
            return MarkMatch(field, values.number(value), values.MAX_U32)
        case Match(field, value, negate):
            return Match(field, values.match_value(field, value), negate)
        case _:
            return statement


def _tcp_for_reset(rule: Rule) -> Rule:
    """Only TCP can be reset: nft puts the demand first where the rule does not make it (stmt_reject_gen_dependency)."""
    if Reject("tcp reset") not in rule or any(l4proto(statement) for statement in rule):
        return rule
    return (Match("meta l4proto", "tcp"), *rule)


def _l4proto_where_needed(rule: Rule) -> Rule:
    for place, statement in enumerate(rule):
        if isinstance(statement, Match) and statement.field == "meta l4proto" and not statement.negate:
            return _moved(rule[:place], statement, rule[place + 1 :])
    return rule


def _moved(before: Rule, demand: Match, after: Rule) -> Rule:
    implied = demand.value == "tcp" and any(isinstance(other, Match) and other.field == "tcp flags" for other in before)
    for distance, statement in enumerate(after):
        if needs_l4proto(statement):
            implied |= l4proto(statement) == demand.value
            kept = () if implied else (demand,)
            return (*before, *after[:distance], *kept, *after[distance:])
        if not isinstance(statement, _TRANSPARENT):
            break
    return (*before, demand, *after)


def _key(statement: Statement) -> Key:
    match statement:
        case InSet(key) | VerdictLookup(key):
            return key
        case Learn(key=key) | Assign(_, Lookup(key)) | Dnat(Lookup(key)) | Redirect(Lookup(key)):
            return key
        case _:
            return ()
