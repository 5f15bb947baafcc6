"""What must be done to a node's kernel: from what it has to what it should have. PURE.

Laws: `applied(actual, diff(actual, desired)) == desired`; `diff(x, x) == ()`; after every prefix of the operations nothing in the
kernel refers to what is not there (rules 6 and 7).

Three parts follow one another. First, rarely, what must make room because a property of it that is fixed at birth is to differ
(`_FIXED`), with all that hangs on it. Then what is missing or different, in KIND_ORDER over all namespaces together. Last, what
is not wanted, in reverse. What the kernel removes with something else (`_owners`) needs no operation of its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from graphlib import TopologicalSorter
from typing import TypeVar, assert_never

from routemesh.nodeplan import (
    HOST,
    KIND_ORDER,
    Address,
    Assign,
    Chain,
    Change,
    ClampMss,
    Counter,
    Create,
    CtTimeouts,
    Delete,
    Dnat,
    Element,
    FdbEntry,
    InSet,
    IpvsDestination,
    IpvsMatch,
    IpvsService,
    IpvsTimeouts,
    Item,
    ItemKey,
    Learn,
    Link,
    Lookup,
    Map,
    MarkMatch,
    Masquerade,
    Match,
    Namespace,
    Neighbour,
    Netns,
    NodePlan,
    Op,
    Redirect,
    Reject,
    Route,
    RoutingRule,
    Rule,
    SetTimeouts,
    Snat,
    Statement,
    Sysctl,
    Table,
    Unknown,
    Verdict,
    VerdictLookup,
    XtChain,
    XtRule,
    key,
)
from routemesh.values import replace

Keys = Mapping[str, Set[ItemKey]]
"""Some objects of a node: namespace name → keys there."""

_Made = TypeVar("_Made", Create, Delete)

_EMPTY: Namespace = {}
_FIXED: Mapping[type, tuple[str, ...]] = {
    Link: ("kind", "peer", "vxlan"),
    CtTimeouts: ("protocol", "seconds"),
    Map: ("key", "value", "learns"),
    Chain: ("hook",),
}
"""Source: ip-link(8); the kernel's vxlan_nl2conf, nf_tables_newobj, nf_tables_newset and nf_tables_newchain."""

_PER_LINK = ("net/ipv4/conf/", "net/ipv4/neigh/")


def diff(actual: NodePlan, desired: NodePlan) -> tuple[Op, ...]:
    """The operations that turn `actual` into `desired`, in the order in which they can be carried out.

    A desired link without a MAC is content with any. A namespace that goes takes along all that is in it.
    """
    room = tuple(_deletes(actual, _in_the_way(actual, desired)))
    present = applied(actual, room) if room else actual
    return (*room, *_build(present, desired), *_deletes(present, _unwanted(present, desired)))


def applied(plan: NodePlan, ops: Iterable[Op]) -> NodePlan:
    """What a kernel that has `plan` holds after `ops`, without what vanishes along; empty namespaces are left out."""
    namespaces = {name: dict(items) for name, items in plan.namespaces.items()}
    for op in ops:
        items = namespaces.setdefault(op.netns, {})
        match op:
            case Create(_, item):
                items[key(item)] = item
            case Change(_, old, new):
                items[key(new)] = _with_mac_of(old, new)
            case Delete(_, item):
                _remove(namespaces, op.netns, key(item))
            case _:
                assert_never(op)
    return NodePlan({name: items for name, items in namespaces.items() if items})


# --- building ----------------------------------------------------------------------------------------------------


def _build(actual: NodePlan, desired: NodePlan) -> Iterator[Op]:
    """What is missing or different. Of one kind, what is new comes first: a changed rule may refer to a new chain."""
    missing: dict[type, list[Create]] = {kind: [] for kind in KIND_ORDER}
    different: dict[type, list[Change]] = {kind: [] for kind in KIND_ORDER}
    for netns, items in sorted(desired.namespaces.items()):
        present = actual.namespaces.get(netns, _EMPTY)
        for name, item in items.items():
            old = present.get(name)
            if old is None:
                missing[type(item)].append(Create(netns, item))
            elif old != item and _with_mac_of(old, item) != old:
                different[type(item)].append(Change(netns, old, item))
    for kind in KIND_ORDER:
        yield from _referents_first(kind, missing[kind])
        yield from different[kind]


def _with_mac_of(old: Item, new: Item) -> Item:
    if isinstance(old, Link) and isinstance(new, Link) and new.mac is None:
        return replace(new, mac=old.mac)
    return new


# --- clearing ----------------------------------------------------------------------------------------------------


def _deletes(plan: NodePlan, gone: Keys) -> Iterator[Delete]:
    """Deletion of what is `gone` and does not go with its owner, dependents first."""
    doomed: dict[type, list[Delete]] = {kind: [] for kind in KIND_ORDER}
    for netns, names in sorted(gone.items()):
        for name, item in plan.namespaces[netns].items():
            if name in names and not _goes_along(item, names):
                doomed[type(item)].append(Delete(netns, item))
    for kind in reversed(KIND_ORDER):
        yield from reversed(_referents_first(kind, doomed[kind]))


def _unwanted(actual: NodePlan, desired: NodePlan) -> Keys:
    """What no plan wants, but for the contents of namespaces that go as a whole."""
    host, wanted_host = (plan.namespaces.get(HOST, _EMPTY).keys() for plan in (actual, desired))
    vanishing = {name[1] for name in host - wanted_host if name[0] == "Netns"}
    found = {}
    for netns, items in actual.namespaces.items():
        gone = items.keys() - desired.namespaces.get(netns, _EMPTY).keys()
        if gone and netns not in vanishing:
            found[netns] = gone
    return found


def _in_the_way(actual: NodePlan, desired: NodePlan) -> Keys:
    """What has a wanted name but can't become what is wanted, and everything that refers to it."""
    found = {}
    for netns, items in actual.namespaces.items():
        wanted = desired.namespaces.get(netns, _EMPTY)
        blocking = {name for name, item in items.items() if type(item) in _FIXED and _differs_for_good(item, wanted.get(name))}
        if blocking:
            found[netns] = _with_dependents(items, blocking)
    return found


def _differs_for_good(old: Item, new: Item | None) -> bool:
    if new is None or old == new:
        return False
    return any(getattr(old, name) != getattr(new, name) for name in _FIXED[type(old)])


def _with_dependents(items: Namespace, names: Set[ItemKey]) -> Set[ItemKey]:
    found: Set[ItemKey] = set()
    while found != names:
        found = names
        names = found | {name for name, item in items.items() if not found.isdisjoint(_referents(item))}
    return found


def _remove(namespaces: dict[str, dict[ItemKey, Item]], netns: str, name: ItemKey) -> None:
    """Remove one object as the kernel does: with what it owns, and a veth with its other end."""
    items = namespaces.get(netns, {})
    item = items.pop(name, None)
    if isinstance(item, Netns):
        for inside in list(namespaces.get(item.name, ())):
            _remove(namespaces, item.name, inside)
    if isinstance(item, Link) and item.peer is not None:
        _remove(namespaces, item.peer.netns, ("Link", item.peer.link))
    if isinstance(item, Link | Table | Map | IpvsService):
        for owned in [other for other, it in items.items() if name in _owners(it)]:
            _remove(namespaces, netns, owned)


# --- what hangs together -----------------------------------------------------------------------------------------


def _owners(item: Item) -> tuple[ItemKey, ...]:
    """The objects of the same namespace each of which takes this one along when it is removed."""
    match item:
        case Address(link) | Neighbour(link) | FdbEntry(link) | Route(link=link):
            return (("Link", link),)
        case Sysctl(path) if path.startswith(_PER_LINK):
            return (("Link", path.split("/")[3]),)
        case Chain(family, hook=hook) if hook is not None and hook.device is not None:
            return ("Table", family), ("Link", hook.device)
        case CtTimeouts(family) | Map(family) | Chain(family):
            return (("Table", family),)
        case Element(family, name):
            return ("Table", family), ("Map", family, name)
        case IpvsDestination():
            return (("IpvsService", item.mark),)
        case Netns() | Link() | Sysctl() | RoutingRule() | IpvsTimeouts() | IpvsService() | Table() | XtChain() | XtRule():
            return ()
        case _:
            assert_never(item)


def _goes_along(item: Item, gone: Set[ItemKey]) -> bool:
    """Whether an owner that is gone removes this item too, and early enough.

    Chains go before maps, and maps before links: so an element that names a chain can't be left to its map, nor a chain to
    its device.
    """
    owners = _owners(item)
    if isinstance(item, Chain) or (isinstance(item, Element) and isinstance(item.value, Verdict)):
        owners = (("Table", item.family),)
    return any(owner in gone for owner in owners)


def _referents(item: Item) -> Iterator[ItemKey]:
    """What must be in the namespace for this item to be there."""
    yield from _owners(item)
    match item:
        case Link(master=str(master)):
            yield ("Link", master)
        case Element(family, _, _, Verdict(_, chain)):
            yield ("Chain", family, chain)
        case Chain(family, _, _, rules):
            for rule in rules:
                for statement in rule:
                    yield from _named_by(family, statement)
        case XtChain(table, _, rules):
            for rule in rules:
                yield from _jumps(table, rule)
        case XtRule(table, _, rule):
            yield from _jumps(table, rule)
        case Netns() | Link() | Sysctl() | Address() | Route() | RoutingRule() | Neighbour() | FdbEntry():
            pass
        case IpvsTimeouts() | IpvsService() | IpvsDestination() | Table() | CtTimeouts() | Map() | Element():
            pass
        case _:
            assert_never(item)


def _named_by(family: str, statement: Statement) -> Iterator[ItemKey]:
    match statement:
        case Assign(_, value) | Dnat(value) | Redirect(value):
            if isinstance(value, Lookup):
                yield ("Map", family, value.map)
        case VerdictLookup(_, name) | InSet(_, name) | Learn(map=name):
            yield ("Map", family, name)
        case Verdict(_, name):
            if name:
                yield ("Chain", family, name)
        case SetTimeouts(name):
            yield ("CtTimeouts", family, name)
        case Match() | MarkMatch() | IpvsMatch() | ClampMss() | Counter() | Snat() | Masquerade() | Reject() | Unknown():
            pass
        case _:
            assert_never(statement)


def _jumps(table: str, rule: Rule) -> Iterator[ItemKey]:
    return (("XtChain", table, statement.chain) for statement in rule if isinstance(statement, Verdict) and statement.chain)


def _referents_first(kind: type, ops: list[_Made]) -> list[_Made]:
    """Bridges before their ports, chains before those that jump to them; no other kind refers to its own."""
    if kind not in (Link, Chain, XtChain):
        return ops
    by_place = {(op.netns, key(op.item)): op for op in ops}
    order: TopologicalSorter[tuple[str, ItemKey]] = TopologicalSorter()
    for place, op in by_place.items():
        order.add(place, *((op.netns, name) for name in _referents(op.item)))
    return [by_place[place] for place in order.static_order() if place in by_place]
