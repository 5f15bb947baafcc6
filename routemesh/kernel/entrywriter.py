"""Addresses, routes, rules, neighbours and FDB entries of one namespace, many requests in one datagram."""

from collections.abc import Iterator, Sequence
from errno import EADDRNOTAVAIL, EEXIST, ENODEV, ENOENT, EPERM, ESRCH
from typing import assert_never

from routemesh.kernel.netlink import APPEND, CREATE, EXCLUSIVE, REPLACE, Message, entries
from routemesh.kernel.netlink.entries import NO_LINK, Entry
from routemesh.kernel.netlink.links import Row
from routemesh.kernel.owner import Owner
from routemesh.kernel.spaces import Space
from routemesh.nodeplan import HOST, LOOPBACK, Change, Create, Delete, Item, Op, Route, RoutingRule, comes_along, item_of, key

_GONE = (ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL)


class EntryWriter:
    """Writes entries in `space`, for as long as no link there changes: their indices are asked for once."""

    def __init__(self, space: Space, owner: Owner) -> None:
        self._space = space
        self._owner = owner
        self._rows: dict[str, Row | None] = {}

    def carry_out(self, run: Sequence[Op]) -> Iterator[tuple[Op, OSError]]:
        """The operations that are refused, with the refusal. Raises OSError when the kernel does not answer."""
        sent: list[tuple[Op, Message]] = []
        for op in run:
            try:
                sent += ((op, message) for message in self._messages(op))
            except OSError as missing:
                yield op, missing
        outcome = self._space.requests.execute([message for _, message in sent])
        for (op, _), refusal in zip(sent, outcome, strict=True):
            if refusal is None or (isinstance(op, Delete) and refusal.errno in _GONE):
                continue
            if refusal.errno == EEXIST and comes_along(item_of(op)):
                continue  # the kernel itself was first
            if isinstance(op, Create) and refusal.errno == EEXIST:
                yield from self._settle(op)
            else:
                yield op, refusal

    def _messages(self, op: Op) -> list[Message]:
        """A rule can't be changed: the new one comes, then the old one goes. A new route must not replace one of others.

        What comes along with an address is put behind what others have, as the kernel does it (fib_magic).
        """
        match op:
            case Create(_, Route() as new) if comes_along(new):
                return [self._put(new, CREATE | APPEND)]
            case Create(_, Route() | RoutingRule() as new):
                return [self._put(new, CREATE | EXCLUSIVE)]
            case Change(_, RoutingRule() as before, RoutingRule() as after):
                return [self._put(after, CREATE | EXCLUSIVE), entries.drop(before, NO_LINK, self._owner.protocol)]
            case Create(_, item) | Change(_, _, item):
                return [self._put(_entry(item), CREATE | REPLACE)]
            case Delete(_, item):
                return self._drop(_entry(item))
            case _:
                assert_never(op)

    def _put(self, entry: Entry, flags: int) -> Message:
        return entries.put(entry, self._index(entry), flags, self._owner.protocol)

    def _drop(self, entry: Entry) -> list[Message]:
        """Nothing where the link is gone or not ours: then the entry is gone, too, or none of our business."""
        try:
            return [entries.drop(entry, self._index(entry), self._owner.protocol)]
        except OSError as refusal:
            if refusal.errno in (ENODEV, EPERM):
                return []
            raise

    def _index(self, entry: Entry) -> int:
        """The index of the entry's link. Raises OSError when it is not there, or not ours (a route may use any link)."""
        if isinstance(entry, RoutingRule):
            return NO_LINK
        if entry.link not in self._rows:
            self._rows[entry.link] = self._space.find(entry.link)
        row = self._rows[entry.link]
        if row is None:
            raise OSError(ENODEV, f"there is no link {entry.link}")
        own_loopback = entry.link == LOOPBACK and self._space.name != HOST
        if row.alias != self._owner.alias and not own_loopback and not isinstance(entry, Route):
            raise OSError(EPERM, f"link {entry.link} is not routemesh's")
        return row.index

    def _settle(self, op: Create) -> Iterator[tuple[Op, OSError]]:
        """A route or rule is there already: ours as wanted, ours to be replaced, or somebody else's."""
        memory = self._space.memory
        memory.forget()
        memory.renew()
        ours = next((table[key(op.item)] for table in memory.hanging(()) if key(op.item) in table), None)
        if ours == op.item:
            return
        if isinstance(ours, Route):
            yield from self.carry_out([Change(op.netns, ours, op.item)])
        else:
            yield op, OSError(EEXIST, "there is one already that is not routemesh's; its owner must choose another")


def _entry(item: Item) -> Entry:
    assert isinstance(item, Entry)
    return item
