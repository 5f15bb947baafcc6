"""The routes of one namespace: which rule asks which table, and which of its routes is taken. PURE.

A planned route counts only while its next hop is on one of its link's subnets (fib_check_nh) and its source address is here
(fib_valid_prefsrc); an observed one is there, so the kernel took it. Local addresses are the stack's affair: the table `local` is
asked first, unless its rule is gone.

Source: ip-route(8), ip-rule(8); the kernel's fib_rules.c, fib_frontend.c, fib_semantics.c, fib_trie.c.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import NamedTuple, Protocol

import msgspec

from routemesh.nodeplan import LOCAL_TABLE, MAIN_TABLE, Address, Item, Link, Route, RouteKind, RoutingRule
from routemesh.reasons.events import Routed
from routemesh.reasons.unclear import RouteUnknown, RoutingRuleUnknown
from routemesh.snapshot import Place
from routemesh.walk.nouns import UnknownRule

_MAIN_RULE = RoutingRule(priority=32766, fwmark=0, mask=0, table=MAIN_TABLE)
_EVERYWHERE = IPv4Network("0.0.0.0/0")
_ON_LINK = IPv4Address("0.0.0.0")
_HOST_PREFIX = 32


class NextHop(msgspec.Struct, frozen=True):
    """Where a route leads. `item` is the route or rule, or the address that brought it; None for what no plan contains.

    `kind` other than unicast: to nowhere, then `link` is "".
    """

    link: str
    address: IPv4Address
    item: Item | None
    source: IPv4Address | None = None
    kind: RouteKind = "unicast"

    @property
    def event(self) -> Routed:
        """What a hop says of it."""
        via = self.address if isinstance(self.item, Route) and self.item.via is not None else None
        return Routed(self.link, via)


class Links(Protocol):
    """The links of the namespace, as walk.stack.Stack has them."""

    @property
    def place(self) -> Place:
        """Which namespace it is."""
        ...

    @property
    def underlay(self) -> str:
        """The device to the other nodes, "" for none."""
        ...

    @property
    def addresses(self) -> Mapping[str, Sequence[Address]]:
        """By link."""
        ...

    def link(self, name: str) -> Link | None:
        """The link, if it is there and up."""
        ...

    def addresses_on(self, link: str) -> Sequence[IPv4Interface]:
        """A link's addresses."""
        ...

    def is_local(self, address: IPv4Address) -> bool:
        """Whether packets to `address` end in this namespace."""
        ...


class _Entry(NamedTuple):
    table: int
    network: IPv4Network
    metric: int
    hop: NextHop


def asks_local_first(items: Iterable[Item]) -> bool:
    """Whether an address of an observed namespace is its own, whatever other routes there are.

    A namespace begins with a rule for its own addresses, which can be deleted; rules that were not read are there.
    """
    rules = [item for item in items if isinstance(item, RoutingRule)]
    own, main = ([rule.priority for rule in rules if rule.table == table] for table in (LOCAL_TABLE, MAIN_TABLE))
    return not rules or (bool(own) and min(own) <= min(main, default=min(own)))


class Routing:
    """Rules by priority, each table's routes with the narrowest first."""

    def __init__(self, links: Links, items: Sequence[Item], *, observed: bool) -> None:
        self._links = links
        self._rules = [] if observed else [_MAIN_RULE]
        self._rules += [item for item in items if isinstance(item, RoutingRule)]
        self._rules.sort(key=lambda rule: rule.priority)
        self.minds_marks = any(rule.mask for rule in self._rules)
        """Whether a packet's mark can choose its route."""
        self._tables: dict[int, list[_Entry]] = defaultdict(list)
        for entry in _of_items(items) if observed else self._planned(items):
            self._tables[entry.table].append(entry)
        for entries in self._tables.values():
            entries.sort(key=lambda entry: (-entry.network.prefixlen, entry.metric))

    def look_up(self, destination: IPv4Address, mark: int, source: IPv4Address | None, incoming: str) -> NextHop | None:
        """The next hop to an address; None where no rule leads to a route. Raises UnknownRule where that can't be told."""
        for rule in self._rules:
            if rule.table == LOCAL_TABLE or not self._applies(rule, destination, mark, source, incoming):
                continue
            if rule.action == "unknown":
                raise UnknownRule(self._links.place, RoutingRuleUnknown(rule.priority))
            if rule.action != "lookup":
                return NextHop("", destination, rule, kind=rule.action)
            found = self._in_table(rule.table, destination)
            if found is not None:
                return found
        return None

    def _applies(self, rule: RoutingRule, destination: IPv4Address, mark: int, source: IPv4Address | None, incoming: str) -> bool:
        known = (
            mark & rule.mask == rule.fwmark
            and (rule.source is None or (source is not None and source in rule.source))
            and (rule.destination is None or destination in rule.destination)
            and (rule.iif in ("", incoming or "lo"))
            and not rule.oif  # that asks for a socket's or a redirected packet's device, which nothing here has
        )
        if rule.unknown and known is not rule.negate:
            raise UnknownRule(self._links.place, RoutingRuleUnknown(rule.priority, rule.unknown))
        return known is not rule.negate

    def _in_table(self, table: int, destination: IPv4Address) -> NextHop | None:
        """The narrowest route; one of kind `throw` leads to the next rule."""
        for _, network, _, hop in self._tables.get(table, ()):
            if destination not in network:
                continue
            if hop.kind in ("unknown", "local", "multicast"):
                raise UnknownRule(self._links.place, RouteUnknown(network, hop.kind))
            if hop.kind == "throw":
                return None
            return hop if hop.address != _ON_LINK else NextHop(hop.link, destination, hop.item, hop.source, hop.kind)
        return None

    def _planned(self, items: Iterable[Item]) -> Iterator[_Entry]:
        """The routes of the plan, those that addresses bring, the underlay for all else."""
        links = self._links
        for name, found in links.addresses.items():
            for item in found if links.link(name) else ():
                if item.address.network.prefixlen == _HOST_PREFIX:
                    continue  # brings no route (fib_add_ifaddr)
                yield _Entry(MAIN_TABLE, item.address.network, 0, NextHop(name, _ON_LINK, item))
        yield from _of_items(item for item in items if isinstance(item, Route) and self._usable(item))
        if links.underlay:
            yield _Entry(MAIN_TABLE, _EVERYWHERE, 0, NextHop(links.underlay, _ON_LINK, None))

    def _usable(self, route: Route) -> bool:
        near = route.via is None or any(route.via in address.network for address in self._links.addresses_on(route.link))
        return near and (route.source is None or self._links.is_local(route.source))


def _of_items(items: Iterable[Item]) -> Iterator[_Entry]:
    for item in items:
        if isinstance(item, Route) and item.kind != "broadcast":
            hop = NextHop(item.link, item.via or _ON_LINK, item, item.source, item.kind)
            yield _Entry(item.table, item.destination, item.metric, hop)
