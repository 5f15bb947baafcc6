"""iptables' chains and rules, and operations on them, in the language of iptables-save and iptables-restore. PURE.

A transaction is one input of `iptables-restore --noflush`, table by table, each of which is replaced in one go. `:CHAIN - [0:0]`
makes a chain or empties it; a built-in chain is emptied by -F. Of a chain that changes, only the rules that differ are touched,
by their number, so that the others keep counting. Within a run of creations and changes chains are declared before any rule is
added, since they may jump to one another; within a run of deletions rules go first, then chains are emptied, then they go.

Source: iptables-restore(8), iptables(8); iptables/iptables-restore.c.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import groupby

from routemesh import names
from routemesh.language.xtrule import chain_name, rule_text, words
from routemesh.nodeplan import (
    BUILT_IN,
    HOST,
    Change,
    Create,
    Delete,
    Item,
    ItemKey,
    Op,
    XtChain,
    XtRule,
    XtTable,
    item_of,
    key,
)

XT_ITEMS = (XtChain, XtRule)

Script = Iterator[str]
"""Lines of a table's section."""

Texts = Mapping[ItemKey, Sequence[str]]
"""How the copies of a rule that is there are spelled, where not as rule_text does: what follows `-A CHAIN`."""


def saved(items: Iterable[Item]) -> str:
    """The chains and rules of one namespace as iptables-save would print them, were nothing of others there."""
    mine = [item for item in items if isinstance(item, XT_ITEMS)]
    tables = [table for table in BUILT_IN if any(item.table == table for item in mine)]
    return "".join(_section(table, _saved_table(table, [item for item in mine if item.table == table])) for table in tables)


def transaction(ops: Iterable[Op], texts: Texts | None = None) -> str:
    """What `iptables-restore --noflush` is to read; ops on other kinds of items are passed over.

    Raises ValueError for what iptables has no word for, and for a built-in chain of the node's own namespace, which is not ours.
    """
    tables: dict[XtTable, list[Op]] = {}
    for op in ops:
        item = item_of(op)
        if isinstance(item, XT_ITEMS):
            tables.setdefault(item.table, []).append(op)
    return "".join(_section(table, _runs(mine, texts or {})) for table, mine in tables.items())


def commands(op: Op) -> Iterator[str]:
    """The command lines that a person would type for an operation, but for those that make or fill a chain (restore)."""
    item, outdated = item_of(op), op.old if isinstance(op, Change) else item_of(op)
    if isinstance(item, XtChain) and isinstance(op, Delete):
        yield _command(item.table, f"-F {chain_name(item.name)}")
        if item.policy is None:
            yield _command(item.table, f"-X {item.name}")
        elif item.policy != "ACCEPT":
            yield _command(item.table, f"-P {item.name} ACCEPT")
    if isinstance(outdated, XtRule) and not isinstance(op, Create):
        yield from (_command(outdated.table, line) for line in _removal(outdated, {}))
    if isinstance(item, XtRule) and not isinstance(op, Delete):
        yield _command(item.table, _insertion(item))


def restore(op: Op) -> str | None:
    """What a person would pipe into `iptables-restore --noflush` to make or fill a chain; None for other operations."""
    if isinstance(op, Delete) or not isinstance(item_of(op), XtChain):
        return None
    return "printf '%s\\n' " + shlex.join(transaction([op]).splitlines())


def _command(table: XtTable, line: str) -> str:
    return shlex.join(["iptables", "-t", table, *words(line)])


def _section(table: XtTable, lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in (f"*{table}", *lines, "COMMIT"))


def _saved_table(table: XtTable, items: Sequence[XtChain | XtRule]) -> Script:
    """Built-in chains come first; a rule for the head stands before those that are there already."""
    chains = {item.name: item for item in items if isinstance(item, XtChain)}
    for name in BUILT_IN[table]:
        yield _declaration(chains.get(name, XtChain(table, name, (), "ACCEPT")))
    yield from (_declaration(chain) for name, chain in chains.items() if name not in BUILT_IN[table])
    among_others = [item for item in items if isinstance(item, XtRule)]
    for name in BUILT_IN[table]:
        here = [item for item in among_others if item.chain == name]
        order = [*reversed([item for item in here if item.head]), *(item for item in here if not item.head)]
        yield from (f"-A {name} {rule_text(item.rule, names.ALIAS)}" for item in order)
    for chain in chains.values():
        yield from _filling(chain)


# --- transactions ------------------------------------------------------------------------------------------------


def _runs(ops: Sequence[Op], texts: Texts) -> Script:
    runs = (list(run) for _, run in groupby(ops, lambda op: isinstance(op, Delete)))
    for run in runs:
        yield from (_deletion if isinstance(run[0], Delete) else _creation)(run, texts)


def _creation(run: Sequence[Op], texts: Texts) -> Script:
    made = [_own_chain(op.netns, op.item) for op in run if isinstance(op, Create) and isinstance(op.item, XtChain)]
    yield from map(_declaration, made)
    yield from (f"-F {chain_name(chain.name)}" for chain in made if chain.policy is not None)
    for chain in made:
        yield from _filling(chain)
    for op in run:
        if isinstance(op, Change) and isinstance(op.old, XtChain) and isinstance(op.new, XtChain):
            yield from _edits(op.old, _own_chain(op.netns, op.new))
    for op in run:
        if isinstance(op, Change) and isinstance(op.old, XtRule):
            yield from _removal(op.old, texts)
        if isinstance(rule := item_of(op), XtRule):
            yield _insertion(rule)


def _deletion(run: Sequence[Op], texts: Texts) -> Script:
    for op in run:
        if isinstance(rule := item_of(op), XtRule):
            yield from _removal(rule, texts)
    chains = [_own_chain(op.netns, chain) for op in run if isinstance(chain := item_of(op), XtChain)]
    yield from (f"-F {chain_name(chain.name)}" for chain in chains)
    for chain in chains:
        yield f"-X {chain.name}" if chain.policy is None else f"-P {chain.name} ACCEPT"


def _own_chain(netns: str, chain: XtChain) -> XtChain:
    if netns == HOST and chain.name in BUILT_IN[chain.table]:
        raise ValueError(f"the node's own chain {chain.name} of table {chain.table} is not routemesh's")
    return chain


def _declaration(chain: XtChain) -> str:
    return f":{chain_name(chain.name)} {chain.policy or '-'} [0:0]"


def _filling(chain: XtChain) -> Script:
    return (_line(f"-A {chain.name}", rule_text(rule)) for rule in chain.rules)


def _edits(old: XtChain, new: XtChain) -> Script:
    """From behind, so that the numbers of what is still to come stay right."""
    if old.policy != new.policy:
        yield f"-P {chain_name(new.name)} {new.policy}"
    for what, start, end, first, last in reversed(SequenceMatcher(None, old.rules, new.rules, autojunk=False).get_opcodes()):
        if what != "equal":
            yield from (f"-D {chain_name(new.name)} {number}" for number in range(end, start, -1))
            yield from (_line(f"-I {new.name} {start + 1}", rule_text(rule)) for rule in reversed(new.rules[first:last]))


def _insertion(item: XtRule) -> str:
    return _line(f"{'-I' if item.head else '-A'} {chain_name(item.chain)}", rule_text(item.rule, names.ALIAS))


def _removal(item: XtRule, texts: Texts) -> Script:
    spelled = texts.get(key(item)) or [rule_text(item.rule, names.ALIAS, present=True)] * item.copies
    return (_line(f"-D {chain_name(item.chain)}", text) for text in spelled)


def _line(command: str, rule: str) -> str:
    return f"{command} {rule}".rstrip()
