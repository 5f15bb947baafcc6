"""What transactions of nftables and of iptables have in common: what there is to do, and who is at fault when one is refused."""

from collections.abc import Callable, Sequence

from routemesh.nodeplan import Change, Create, Delete, Element, Failure, Item, ItemKey, Map, Op, Table, item_of, key

_ATTEMPTS_AT_MOST = 200
"""How many smaller transactions are tried to find the operations at fault in one that was refused."""


class Search:
    """Carries out what can be carried out of a refused transaction, halving it until the operations at fault stand alone."""

    def __init__(self, execute: Callable[[Sequence[Op]], str | None], failure: Callable[[Op, str], Failure]) -> None:
        self._execute = execute
        self._failure = failure
        self._attempts = 0

    def apply(self, ops: Sequence[Op]) -> list[Failure]:
        """The failures among `ops`; once there were too many attempts, whole parts fail together."""
        self._attempts += 1
        reason = self._execute(ops)
        if reason is None:
            return []
        if len(ops) == 1 or self._attempts > _ATTEMPTS_AT_MOST:
            return [self._failure(op, reason) for op in ops]
        middle = len(ops) // 2
        return self.apply(ops[:middle]) + self.apply(ops[middle:])


def fold(items: dict[ItemKey, Item], op: Op) -> Op | None:
    """Carry out `op` on `items`. The operation that a kernel with these items needs for it; None if there is nothing to do."""
    wanted = item_of(op)
    name = key(wanted)
    present = items.get(name)
    if isinstance(op, Delete):
        if present is None:
            return None
        _remove(items, name, present)
        return Delete(op.netns, present)
    if present == wanted:
        return None
    items[name] = wanted
    return Create(op.netns, wanted) if present is None else Change(op.netns, present, wanted)


def _remove(items: dict[ItemKey, Item], name: ItemKey, item: Item) -> None:
    """A table goes with all that is in it, a map with its elements."""
    del items[name]
    gone: list[ItemKey] = []
    if isinstance(item, Table):
        gone = [other for other, inside in items.items() if getattr(inside, "family", None) == item.family]
    if isinstance(item, Map):
        gone = [
            other
            for other, inside in items.items()
            if isinstance(inside, Element) and (inside.family, inside.map) == (item.family, item.name)
        ]
    for other in gone:
        del items[other]
