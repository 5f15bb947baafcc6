"""What the fake kernel holds, and how one thing follows from another there: referents, cascades, transactions.

Each rule here is one of Linux's, and a contract test shows that it is (tests/kernel/test_contract.py).
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import chain
from typing import TypeGuard, assert_never

from routemesh.language import xtables
from routemesh.language.xtsave import is_open
from routemesh.nodeplan import (
    HOST,
    Address,
    Assign,
    Chain,
    ClampMss,
    Counter,
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
    Neighbour,
    Netns,
    Op,
    Redirect,
    Reject,
    Route,
    RoutingRule,
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
    item_of,
    key,
)
from routemesh.values import replace

Items = dict[ItemKey, Item]

_CONFIGURATION = "net/ipv4/conf/"
_ALWAYS_CONFIGURED = ("all", "default", "lo")


class KernelRefusal(Exception):
    """The kernel does not do that; the text is its reason."""


class Contents:
    """Namespaces and their items; `strangers` are links of others, by namespace and name."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Items] = {HOST: {}}
        self.strangers: set[tuple[str, str]] = set()

    def items(self, netns: str) -> Items:
        """What is in a namespace. Raises KernelRefusal when there is no such namespace."""
        if netns not in self.namespaces:
            raise KernelRefusal(f"there is no namespace {netns}")
        return self.namespaces[netns]

    def has_setting(self, netns: str, path: str) -> bool:
        """Whether there is such a kernel setting: those of a link come and go with it."""
        if not path.startswith(_CONFIGURATION):
            return path.startswith("net/")
        link = path.removeprefix(_CONFIGURATION).split("/")[0]
        return link in _ALWAYS_CONFIGURED or ("Link", link) in self.namespaces[netns]

    # --- one by one --------------------------------------------------------------------------------------------------

    def put(self, netns: str, item: Item) -> None:
        """Create or change anything but rules. Raises KernelRefusal."""
        items = self.items(netns)
        match item:
            case Netns(name):
                self.namespaces.setdefault(name, {})
            case Link():
                item = self._link(netns, item)
            case Sysctl(path):
                if not self.has_setting(netns, path):
                    raise KernelRefusal("No such file or directory")
            case RoutingRule() | IpvsTimeouts() | IpvsService():
                pass
            case IpvsDestination():
                if ("IpvsService", item.mark) not in items:
                    raise KernelRefusal(f"there is no service by mark {item.mark}")
            case Address() | Route() | Neighbour() | FdbEntry():
                self._check_link(netns, item)
            case Table() | CtTimeouts() | Map() | Chain() | Element() | XtChain() | XtRule():
                raise AssertionError(f"{item} belongs in a transaction")
            case _:
                assert_never(item)
        items[key(item)] = item

    def delete(self, netns: str, item: Item) -> None:
        """Delete anything but rules, with what hangs on it; what is gone is gone."""
        items = self.namespaces.get(netns, {})
        present = items.get(key(item))
        match present:
            case None | Sysctl() | IpvsTimeouts():
                return
            case Netns(name):
                for inside in list(self.namespaces[name].values()):
                    self._delete_peer(inside)
                del self.namespaces[name]
            case Link():
                self._delete_peer(present)
                self._delete_hanging(netns, present.name)
            case IpvsService(mark=mark):
                self._delete_destinations(netns, mark)
            case Address() | Route() | RoutingRule() | Neighbour() | FdbEntry() | IpvsDestination():
                pass
            case Table() | CtTimeouts() | Map() | Chain() | Element() | XtChain() | XtRule():
                raise AssertionError(f"{present} belongs in a transaction")
            case _:
                assert_never(present)
        del items[key(item)]
        if isinstance(present, Address):
            own = present.address.ip
            for gone in [other for other, it in items.items() if isinstance(it, Route) and it.source == own]:
                del items[gone]
            self._forget_unaddressed(netns, present.link)

    def _link(self, netns: str, link: Link) -> Link:
        """The link as it will be: what is changed at an existing one has consequences, and MACs are given by the kernel."""
        items = self.items(netns)
        if (netns, link.name) in self.strangers:
            raise KernelRefusal(f"there is a link {link.name} that is not routemesh's; its owner must give it another name")
        if link.master is not None and ("Link", link.master) not in items:
            raise KernelRefusal(f"there is no link {link.master} to be its master")
        if link.peer is not None:
            self.items(link.peer.netns)
        old = items.get(key(link))
        if isinstance(old, Link):
            if (old.kind, old.peer, old.vxlan) != (link.kind, link.peer, link.vxlan):
                self.delete(netns, old)
            else:
                self._consequences(netns, old, link)
                return replace(link, mac=link.mac or old.mac)
        return replace(link, mac=link.mac or _mac(netns, link.name))

    def _consequences(self, netns: str, old: Link, new: Link) -> None:
        items = self.items(netns)
        moved = old.mac != new.mac and new.mac is not None
        down = old.up and not new.up
        for name, item in list(items.items()):
            lost = (
                (isinstance(item, Neighbour) and (moved or down))
                or (isinstance(item, Route) and down)
                or (isinstance(item, FdbEntry) and item.dst is None and old.master != new.master)
            )
            if lost and getattr(item, "link", None) == old.name:
                del items[name]

    def _delete_peer(self, item: Item) -> None:
        """Of a veth, nothing is left when one end goes."""
        if not isinstance(item, Link) or item.peer is None or item.peer.netns not in self.namespaces:
            return
        if self.namespaces[item.peer.netns].pop(("Link", item.peer.link), None) is not None:
            self._delete_hanging(item.peer.netns, item.peer.link)

    def _delete_hanging(self, netns: str, link: str) -> None:
        """What goes with a link; ports of a bridge lose their master and with it their static FDB entries."""
        items = self.namespaces[netns]
        ports = {item.name for item in items.values() if isinstance(item, Link) and item.master == link}
        for name, item in list(items.items()):
            if isinstance(item, Link) and item.name in ports:
                items[name] = replace(item, master=None, flood=True, isolated=False)
            elif _link_of(item) == link or (isinstance(item, FdbEntry) and item.dst is None and item.link in ports):
                del items[name]

    def _delete_destinations(self, netns: str, mark: int) -> None:
        items = self.namespaces[netns]
        for name, item in list(items.items()):
            if isinstance(item, IpvsDestination) and item.mark == mark:
                del items[name]

    def _forget_unaddressed(self, netns: str, link: str) -> None:
        """A link without any address speaks no IPv4: its routes and neighbours go."""
        items = self.namespaces[netns]
        if any(isinstance(item, Address) and item.link == link for item in items.values()):
            return
        for name, item in list(items.items()):
            if isinstance(item, Route | Neighbour) and item.link == link:
                del items[name]

    def _check_link(self, netns: str, item: Address | Route | Neighbour | FdbEntry) -> None:
        items = self.items(netns)
        link = items.get(("Link", item.link))
        if not isinstance(link, Link):
            raise KernelRefusal(f"there is no link {item.link}")
        if isinstance(item, Route) and item.via is not None:
            networks = [
                other.address.network for other in items.values() if isinstance(other, Address) and other.link == link.name
            ]
            if not any(item.via in network for network in networks):
                raise KernelRefusal("Nexthop has invalid gateway")
        if isinstance(item, FdbEntry) and item.dst is None and link.master is None:
            raise KernelRefusal("Operation not supported")

    # --- transactions ------------------------------------------------------------------------------------------------

    def transact(self, netns: str, ops: Sequence[Op]) -> list[tuple[Op, str]]:
        """Carry out operations on rules, all at once but for those at fault; these, with the reason."""
        if netns not in self.namespaces:
            return [(op, f"there is no namespace {netns}") for op in ops if not isinstance(op, Delete)]
        at_fault: list[tuple[Op, str]] = []
        remaining = list(ops)
        while True:
            items = dict(self.namespaces[netns])
            for op in remaining:
                _carry_out(items, op)
            culprit = _culprit(items, remaining)
            if culprit is None:
                self.namespaces[netns] = items
                return at_fault
            at_fault.append(culprit)
            remaining.remove(culprit[0])


def _carry_out(items: Items, op: Op) -> None:
    item = item_of(op)
    if not isinstance(op, Delete) and not (isinstance(item, XtChain) and is_open(item)):
        items[key(item)] = item
        return
    gone = items.pop(key(item), None)
    for name, item in list(items.items()):
        in_table = isinstance(gone, Table) and getattr(item, "family", None) == gone.family
        in_map = isinstance(gone, Map) and isinstance(item, Element) and (item.family, item.map) == (gone.family, gone.name)
        if in_table or in_map:
            del items[name]


def _culprit(items: Items, ops: Sequence[Op]) -> tuple[Op, str] | None:
    """An operation that leaves a reference to nothing: by its item, or by having deleted what another item needs."""
    for op in ops:
        try:
            xtables.transaction([op])
        except ValueError as exc:
            return op, str(exc)
    for item in items.values():
        for missing in (name for name in _needs(item) if name not in items):
            for op in ops:
                if not isinstance(op, Delete) and key(item_of(op)) == key(item):
                    return op, "No such file or directory"
                if isinstance(op, Delete) and key(op.item) == missing:
                    return op, "Device or resource busy"
    return None


def _needs(item: Item) -> Iterator[ItemKey]:
    match item:
        case CtTimeouts(family) | Map(family):
            yield ("Table", family)
        case Chain(family, rules=rules):
            yield ("Table", family)
            for statement in chain.from_iterable(rules):
                yield from _named(family, statement)
        case Element(family, name, _, value):
            yield ("Map", family, name)
            yield from _named_by_value(family, value)
        case XtChain(table, rules=rules):
            yield from (("XtChain", table, part.chain) for part in chain.from_iterable(rules) if _jumps(part))
        case XtRule(table, rule=rule):
            yield from (("XtChain", table, part.chain) for part in rule if _jumps(part))
        case Netns() | Link() | Sysctl() | Address() | Route() | RoutingRule() | Neighbour() | FdbEntry():
            pass
        case IpvsTimeouts() | IpvsService() | IpvsDestination() | Table():
            pass
        case _:
            assert_never(item)


def _jumps(part: object) -> TypeGuard[Verdict]:
    return isinstance(part, Verdict) and part.chain != ""


def _named(family: str, statement: Statement) -> Iterator[ItemKey]:
    match statement:
        case VerdictLookup(_, name) | InSet(_, name) | Learn(map=name):
            yield ("Map", family, name)
        case Verdict():
            yield from _named_by_value(family, statement)
        case SetTimeouts(name):
            yield ("CtTimeouts", family, name)
        case Assign(_, value) | Dnat(value) | Redirect(value):
            yield from _named_by_value(family, value)
        case Match() | MarkMatch() | IpvsMatch() | ClampMss() | Counter() | Snat() | Masquerade() | Reject() | Unknown():
            pass
        case _:
            assert_never(statement)


def _named_by_value(family: str, value: object) -> Iterator[ItemKey]:
    if isinstance(value, Lookup):
        yield ("Map", family, value.map)
    elif isinstance(value, Verdict) and value.chain:
        yield ("Chain", family, value.chain)


def _link_of(item: Item) -> str | None:
    if isinstance(item, Address | Neighbour | FdbEntry | Route):
        return item.link
    if isinstance(item, Sysctl) and item.path.startswith(_CONFIGURATION):
        return item.path.removeprefix(_CONFIGURATION).split("/")[0]
    return None


def _mac(netns: str, link: str) -> str:
    """As the kernel would, but the same for the same link: locally administered, not a group's."""
    return "06:" + sha256(f"{netns} {link}".encode()).digest()[:5].hex(":")
