"""What the kernel has said of one namespace: in dumps, and in the events since.

The law (rule 4, READ BACK): only the kernel's words are remembered, never what we asked of it. Our own writes come back
as events like everybody's. The kernel is asked again where events do not tell the whole: for a link that changed, for routes
(which it drops silently with links and addresses), for all after lost events, and anyway when the memory is old.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from routemesh.kernel.netlink import Reply, entries, links
from routemesh.kernel.netlink.entries import NO_LINK, EntryMessage
from routemesh.kernel.netlink.entryreader import BRIDGE_FAMILY
from routemesh.kernel.netlink.links import Row
from routemesh.nodeplan import KERNEL_PROTOCOL, Address, Item, ItemKey, Route, RoutingRule, comes_along, key

MEMORY_S = 30.0
_EARLY_AT_MOST = 10_000

List = Callable[[], Sequence[Row]]
Find = Callable[[int], Row | None]
Dump = Callable[[int, bytes], Sequence[Reply]]


class Memory:
    """The links of one namespace and what hangs on them.

    `list_links` and `find_link` ask for the links, `dump` for other tables; what they raise passes through. `protocol` is the
    number by which routes and rules are known as ours.
    """

    def __init__(self, list_links: List, find_link: Find, dump: Dump, protocol: int) -> None:
        self._list_links = list_links
        self._find_link = find_link
        self._dump = dump
        self._protocol = protocol
        self._known = False
        self._read_at = 0.0
        self._rows: dict[int, Row] = {}
        self._names: dict[int, str] = {}
        self._hanging: dict[int, dict[ItemKey, Item]] = {}
        self._routes: dict[ItemKey, Item] = {}
        self._along: dict[int, dict[ItemKey, Item]] = {}
        self._changed_links: set[int] = set()
        self._routes_known = False
        self._early: list[Reply] = []

    @property
    def rows(self) -> Mapping[int, Row]:
        """All links by index."""
        return self._rows

    @property
    def names(self) -> Mapping[int, str]:
        """The links' names by index."""
        return self._names

    def hanging(self, indices: Iterable[int]) -> Iterator[Mapping[ItemKey, Item]]:
        """What hangs on these links, and all routes and rules of ours."""
        yield self._hanging.get(NO_LINK, {})
        yield self._routes
        for index in indices:
            yield self._hanging.get(index, {})
            yield self._along.get(index, {})

    def forget(self) -> None:
        """Ask for everything next time."""
        self._known = False

    def renew(self) -> None:
        """Ask the kernel for whatever is not known any more. Raises KernelError."""
        if not self._known or time.monotonic() - self._read_at > MEMORY_S:
            self._read_all()
        if self._changed_links:
            self._read_changed_links()
        if not self._routes_known:
            self._read_routes()

    def fold(self, event: Reply) -> bool:
        """Take in an event; whether it told anything new. While nothing is known nothing can be new."""
        if not self._known:
            return False
        if event.kind in (links.NEW_LINK, links.DELETE_LINK):
            return self._fold_link(event)
        if entries.link_of(event) not in self._hanging:
            self._keep_for_later(event)
            return False
        seen = entries.read(event, self._names, self._protocol)
        return seen is not None and self._fold_entry(seen)

    # --- asking ------------------------------------------------------------------------------------------------------

    def _read_all(self) -> None:
        self._known = False
        self._read_at = time.monotonic()
        self._changed_links.clear()
        self._early.clear()
        self._rows = {row.index: row for row in self._list_links()}
        self._names = {index: row.name for index, row in self._rows.items()}
        self._hanging = {NO_LINK: {}, **{index: {} for index in self._rows}}
        for question in (entries.dump_addresses(), entries.dump_rules(), entries.dump_neighbours(), entries.dump_fdb()):
            self._fold_dump(question)
        self._read_routes()
        self._known = True

    def _read_changed_links(self) -> None:
        for index in tuple(self._changed_links):
            row = self._find_link(index)
            if row is None:
                for known in (self._rows, self._names, self._hanging):
                    known.pop(index, None)
                continue
            if self._names.get(index, row.name) != row.name:
                self._read_all()  # its name is in all that hangs on it
                return
            self._rows[index] = row
            self._names[index] = row.name
            self._hanging.setdefault(index, {})
        self._changed_links.clear()
        self._routes_known = False
        early, self._early = self._early, []
        for event in early:
            if entries.link_of(event) in self._hanging:
                self.fold(event)

    def _read_routes(self) -> None:
        self._routes.clear()
        self._along.clear()
        for maker in (self._protocol, KERNEL_PROTOCOL):
            self._fold_dump(entries.dump_routes(maker))
        self._routes_known = True

    def _fold_dump(self, question: tuple[int, bytes]) -> None:
        for reply in self._dump(*question):
            seen = entries.read(reply, self._names, self._protocol)
            if seen is not None:
                self._fold_entry(seen)

    # --- listening ---------------------------------------------------------------------------------------------------

    def _fold_entry(self, seen: EntryMessage) -> bool:
        """What hangs on links of others is kept, too: a link can become ours."""
        table = self._table(seen)
        name = key(seen.entry)
        if seen.present:
            changed = table.get(name) != seen.entry
            table[name] = seen.entry
            return changed
        if isinstance(seen.entry, RoutingRule) and table.get(name) != seen.entry:
            return False  # another rule of the same priority: the one before a change
        gone = table.pop(name, None) is not None
        if gone and isinstance(seen.entry, Address | Route):
            self._routes_known = False  # routes go with addresses, and there may be another to the same destination
        return gone

    def _table(self, seen: EntryMessage) -> dict[ItemKey, Item]:
        if not isinstance(seen.entry, Route):
            return self._hanging[seen.link]
        return self._along.setdefault(seen.link, {}) if comes_along(seen.entry) else self._routes

    def _fold_link(self, event: Reply) -> bool:
        """Note that a link is not what we know. Its new state is asked for later, once for many events."""
        family, index = links.link_of(event.body)
        row = self._rows.get(index)
        if index in self._changed_links:
            return True
        if family == BRIDGE_FAMILY:  # it tells of a port
            port = links.read_port(event.body)
            changed = row is not None and port is not None and port != (row.flood, row.isolated, row.port_learns)
        elif event.kind == links.DELETE_LINK:
            changed = row is not None
        else:
            changed = row is None or row != links.read_row(event.body)
        if changed:
            self._changed_links.add(index)
        return changed

    def _keep_for_later(self, event: Reply) -> None:
        """It is about a link that we have not read yet. A caller that never reads must not collect for ever."""
        self._early.append(event)
        if len(self._early) > _EARLY_AT_MOST:
            self._known = False
            self._early.clear()
