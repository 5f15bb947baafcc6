"""iptables of one network namespace: reading what is ours, and transactions.

What was read is kept together with the kernel's evidence (xtevidence), so an unchanged namespace costs no process. A change costs
one iptables-restore, after which one iptables-save reads what came of it. Where nothing of iptables is wanted and nothing of ours
was there at the first look, nothing is asked at all.

Both variants of iptables may have rules in one namespace, and packets meet both. We write with the one that works here; what is
ours in the other, from before somebody changed the alternatives, is shown as different from anything planned and removed.

Source: iptables-restore(8), iptables-save(8), xtables-nft(8).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import groupby
from typing import cast

from routemesh import names
from routemesh.errors import KernelError
from routemesh.kernel.netlink import SocketPool
from routemesh.kernel.tables.transactions import Search, fold
from routemesh.kernel.tables.xtevidence import NOTHING, Evidence, Witness
from routemesh.kernel.tables.xttools import VARIANTS, Tools, Variant
from routemesh.language import command
from routemesh.language.commands import PathOf, default_path, inside
from routemesh.language.xtables import transaction
from routemesh.language.xtsave import SavedChain, is_open, ours_in_a_namespace_of_ours, ours_on_a_node, parse
from routemesh.nodeplan import (
    HOST,
    Change,
    Delete,
    Failure,
    Item,
    ItemKey,
    Namespace,
    Op,
    Unknown,
    Verdict,
    XtChain,
    XtRule,
    item_of,
    key,
    namespace,
    of_kind,
)
from routemesh.values import replace

_READ_ATTEMPTS = 5
_APPLY_ATTEMPTS = 3
_LONGEST_COMMAND = 1000
_NONE_WORKS = "neither iptables-nft nor iptables-legacy works here; install Debian's iptables"

Items = dict[ItemKey, Item]


def save(tools: Tools, variant: Variant) -> tuple[SavedChain, ...]:
    """Every chain of a variant in the namespace that the calling thread is in, whatever made it. Raises KernelError."""
    try:
        return parse(tools.save(variant))
    except ValueError as exc:
        raise KernelError(f"iptables-{variant}-save", str(exc)) from exc


class Xtables:
    """The rules of ours in the namespace `netns`, to which `enter` switches the calling thread; use from one thread.

    `path_of` gives the files of namespaces, for the commands in failures; `pool` limits the sockets. Its methods raise
    KernelError.
    """

    def __init__(
        self,
        netns: str,
        enter: Callable[[], AbstractContextManager[None]],
        tools: Tools,
        path_of: PathOf = default_path,
        pool: SocketPool | None = None,
    ) -> None:
        self._netns = netns
        self._enter = enter
        self._tools = tools
        self._path_of = path_of
        self._witness = Witness(enter, pool)
        self._evidence: Evidence | None = None
        self._saved: dict[Variant, tuple[SavedChain, ...]] = {}
        self._concern: bool | None = None

    def read(self, want: Namespace) -> tuple[Item, ...]:
        """Everything of ours. `want` tells where a rule among those of others is to stand, and which chain is claimed."""
        wanted = namespace([*of_kind(want, XtChain), *of_kind(want, XtRule)])
        if not wanted and not self._is_concerned():
            return ()
        self._renew()
        found = self._view(wanted)
        self._concern = bool(wanted or found)
        return tuple(found.values())

    def apply(self, ops: Sequence[Op]) -> tuple[Failure, ...]:
        """Carry out operations, all those of a table at once; what is already so is left alone.

        When a transaction is refused, the operations at fault are found and reported, and the others carried out.
        """
        self._concern = True
        variant = self._tools.variant()
        if variant is None:
            return tuple(self._failure(op, _NONE_WORKS) for op in ops if not isinstance(op, Delete))
        needed: Sequence[Op] = ()
        for _ in range(_APPLY_ATTEMPTS):
            self._renew()
            needed = self._needed(variant, ops)
            if not needed or self._execute(variant, needed) is None:
                return self._sweep(variant)
            if self._testify() == self._evidence:
                break  # it was neither a part of it nor somebody else's change that was carried out meanwhile
        by_table = {table: list(run) for table, run in groupby(sorted(needed, key=_table), _table)}
        searches = (Search(lambda part: self._execute(variant, part), self._failure).apply(run) for run in by_table.values())
        return (*(failure for failures in searches for failure in failures), *self._sweep(variant))

    def close(self) -> None:
        """Let go of the sockets; what is in the kernel stays."""
        self._witness.close()

    # --- reading ---------------------------------------------------------------------------------------------------

    def _is_concerned(self) -> bool:
        """Whether something of ours may be here though nothing is wanted; looked at once, as only we put it there."""
        if self._concern is None:
            evidence = self._testify()
            with self._as_kernel_errors():
                self._concern = evidence != NOTHING and (self._netns != HOST or self._witness.has_marks_of_ours(evidence))
        return self._concern

    def _renew(self) -> None:
        """Read everything unless the kernel attests that nothing happened. If it never rests, the last reading counts."""
        before = self._testify()
        for _ in range(_READ_ATTEMPTS):
            if before == self._evidence:
                return
            self._saved = {variant: self._save(variant) for variant in VARIANTS if getattr(before, variant)}
            self._evidence, before = before, self._testify()
        self._evidence = None

    def _testify(self) -> Evidence:
        with self._as_kernel_errors():
            return self._witness.testify()

    def _save(self, variant: Variant) -> tuple[SavedChain, ...]:
        with self._enter():
            return save(self._tools, variant)

    @contextmanager
    def _as_kernel_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise KernelError(self._command("iptables-save"), str(exc.strerror), exc.errno or 0) from exc

    def _view(self, wanted: Mapping[ItemKey, Item]) -> Items:
        """What is ours in both variants together."""
        variant = self._tools.variant()
        found = {} if variant is None else self._claimed(variant, wanted)
        for name, item in found.items():
            found[name] = _placed(item, wanted.get(name))
        for other in self._others(variant):
            mark = (Unknown(f'-m comment --comment "in iptables-{other}"'),)
            for item in self._claimed(other, {}).values():
                stray = _stray(item, found.get(key(item)), mark)
                found[key(stray)] = stray
        return found

    def _ours(self, variant: Variant) -> Items:
        saved = self._saved.get(variant, ())
        found = ours_on_a_node(saved) if self._netns == HOST else ours_in_a_namespace_of_ours(saved)
        return {key(item): item for item in found}

    def _claimed(self, variant: Variant, wanted: Collection[ItemKey]) -> Items:
        """On a node, a chain of our name may be what is left of a Swarm: unless wanted, it is ours only beside rules of ours."""
        items = self._ours(variant)
        if self._netns != HOST or any(isinstance(item, XtRule) for item in items.values()):
            return items
        return {name: item for name, item in items.items() if name in wanted}

    def _others(self, variant: Variant | None) -> list[Variant]:
        return [other for other in self._saved if other != variant]

    # --- writing ---------------------------------------------------------------------------------------------------

    def _needed(self, variant: Variant, ops: Sequence[Op]) -> list[Op]:
        items = self._ours(variant)
        needed = []
        for op in ops:
            wanted = item_of(op)
            if (present := items.get(key(wanted))) is not None:
                items[key(wanted)] = _placed(present, wanted)
            nothing = isinstance(wanted, XtChain) and is_open(wanted)
            if (found := fold(items, Delete(op.netns, wanted) if nothing else op)) is not None:
                needed.append(self._emptied(variant, found))
        return needed

    def _emptied(self, variant: Variant, op: Op) -> Op:
        """A chain to which rules of others jump can't go; they get an empty one."""
        chain = item_of(op)
        if isinstance(op, Delete) and isinstance(chain, XtChain) and op.netns == HOST and self._is_used_by_others(variant, chain):
            return Change(op.netns, chain, replace(chain, rules=()))
        return op

    def _is_used_by_others(self, variant: Variant, chain: XtChain) -> bool:
        return any(
            isinstance(part, Verdict) and part.chain == chain.name
            for saved in self._saved[variant]
            for rule in saved.rules
            for part in rule.rule
            if saved.table == chain.table and saved.name != chain.name and rule.comment != names.ALIAS
        )

    def _execute(self, variant: Variant, ops: Sequence[Op]) -> str | None:
        """Carry out operations, each table all or nothing; why one was refused, or None."""
        try:
            text = transaction(ops, self._texts(variant))
        except ValueError as exc:
            return str(exc)
        with self._enter():
            return self._tools.restore(variant, text)

    def _texts(self, variant: Variant) -> dict[ItemKey, list[str]]:
        """How our rules among those of others are spelled there, for to delete a rule one must name it so."""
        found: dict[ItemKey, list[str]] = {}
        for chain in self._saved.get(variant, ()):
            for rule in chain.rules:
                if rule.comment == names.ALIAS:
                    found.setdefault(key(XtRule(chain.table, chain.name, rule.rule)), []).append(rule.text)
        return found

    def _sweep(self, variant: Variant) -> tuple[Failure, ...]:
        """Remove what is ours from the variant that is not in use."""
        failures: list[Failure] = []
        for other in self._others(variant):
            ops = [self._emptied(other, Delete(self._netns, item)) for item in self._claimed(other, {}).values()]
            reason = self._execute(other, ops) if ops else None
            failures += [self._failure(op, f"iptables-{other}: {reason}") for op in ops if reason is not None]
        return tuple(failures)

    def _failure(self, op: Op, reason: str) -> Failure:
        try:
            text = command(op, self._path_of)
        except ValueError:
            text = self._command("iptables-save")
        if len(text) > _LONGEST_COMMAND:  # a chain of some hundred rules; failures are kept in the cluster's state
            text = f"{text[:_LONGEST_COMMAND]}… ({len(text)} characters, see routemesh diff)"
        return Failure(op, text, reason)

    def _command(self, text: str) -> str:
        return inside(self._netns, text, self._path_of)


def _table(op: Op) -> str:
    return cast(XtChain | XtRule, item_of(op)).table


def _placed(item: Item, wanted: Item | None) -> Item:
    """A rule stands where it is wanted, wherever it stands."""
    return replace(item, head=wanted.head) if isinstance(item, XtRule) and isinstance(wanted, XtRule) else item


def _stray(item: Item, beside: Item | None, mark: tuple[Unknown]) -> Item:
    """What is ours in the variant not in use, as something that nobody plans; of a chain, behind what the other variant has."""
    if isinstance(item, XtChain):
        before = beside.rules if isinstance(beside, XtChain) else ()
        return replace(item, rules=(*before, mark, *item.rules))
    if isinstance(item, XtRule):
        return replace(item, rule=(*mark, *item.rule))
    raise AssertionError(item)
