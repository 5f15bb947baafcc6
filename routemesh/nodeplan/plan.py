"""Items of every kind, the keys that name them, plans, what changes them, what a kernel offers."""

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Literal, TypeVar, cast

import msgspec

from routemesh.names import TABLE
from routemesh.nodeplan.balancer import IpvsDestination, IpvsService, IpvsTimeouts
from routemesh.nodeplan.rules import Chain, CtTimeouts, Element, Map, Table
from routemesh.nodeplan.stack import (
    KERNEL_PROTOCOL,
    LOOPBACK,
    Address,
    FdbEntry,
    Link,
    Neighbour,
    Netns,
    Route,
    RoutingRule,
    Sysctl,
)
from routemesh.nodeplan.xtables import XtChain, XtRule

Item = (
    Netns | Link | Sysctl | Address | Route | RoutingRule | Neighbour | FdbEntry
    | IpvsTimeouts | IpvsService | IpvsDestination | Table | CtTimeouts | Map | Chain | Element | XtChain | XtRule
)  # fmt: skip

KIND_ORDER: tuple[type, ...] = (
    Netns, Link, Sysctl, Address, Route, RoutingRule, Neighbour, FdbEntry,
    IpvsTimeouts, IpvsService, IpvsDestination, Table, CtTimeouts, Map, Chain, Element, XtChain, XtRule,
)  # fmt: skip
"""Referents first (rule 6): created in this order, deleted in reverse. (A verdict element refers to a chain, a chain's rules to
maps; chains that jump to one another are declared, then filled, within one transaction.) What balances comes before the rules
that lead packets to it."""

_T = TypeVar("_T")

ItemKey = tuple[object, ...]
Namespace = Mapping[ItemKey, Item]


_NAMED_BY: Mapping[type, tuple[str, ...]] = {
    Netns: ("name",),
    Link: ("name",),
    Sysctl: ("path",),
    Address: ("link", "address"),
    Route: ("table", "destination", "metric"),
    RoutingRule: ("priority", "fwmark"),
    Neighbour: ("link", "ip"),
    FdbEntry: ("link", "mac"),
    IpvsTimeouts: (),
    IpvsService: ("mark",),
    IpvsDestination: ("mark", "address", "port"),
    Table: ("family",),
    CtTimeouts: ("family", "name"),
    Map: ("family", "name"),
    Chain: ("family", "name"),
    Element: ("family", "map", "key"),
    XtChain: ("table", "name"),
    XtRule: ("table", "chain", "rule"),
}
_IN_TABLE: Mapping[type, str] = {Table: "name", CtTimeouts: "table", Map: "table", Chain: "table", Element: "table"}
"""The field with the table's name, which ends the keys of what is in others' tables."""


def _namer(kind: type) -> Callable[[Any], ItemKey]:
    """What gives the key of an item of that kind; a large cluster has tens of thousands of them."""
    name, fields = kind.__name__, _NAMED_BY[kind]
    if not fields:
        return lambda item: (name,)
    read = attrgetter(*fields)
    if kind not in _IN_TABLE:
        return (lambda item: (name, *read(item))) if len(fields) > 1 else (lambda item: (name, read(item)))
    read_with_table = attrgetter(*fields, _IN_TABLE[kind])

    def named(item: Any) -> ItemKey:
        found: ItemKey = read_with_table(item)
        return (name, *(found[:-1] if found[-1] == TABLE else found))

    return named


_NAMERS: Mapping[type, Callable[[Any], ItemKey]] = {kind: _namer(kind) for kind in _NAMED_BY}


def key(item: Item) -> ItemKey:
    """Which kernel object an item is, unique within its namespace: the kind and the fields that name the object."""
    return _NAMERS[type(item)](item)


def namespace(items: Iterable[Item]) -> Namespace:
    """Items by key; a later item replaces an earlier one with its key."""
    return {_NAMERS[type(item)](item): item for item in items}


def comes_along(item: Item) -> bool:
    """Whether the kernel makes it by itself along with something else: with an address, with a namespace.

    Where no plan wants such a thing, it is nobody's business.
    """
    if isinstance(item, Route | RoutingRule):
        return item.protocol == KERNEL_PROTOCOL
    if isinstance(item, Link):
        return item.name == LOOPBACK
    return isinstance(item, Address) and item.link == LOOPBACK


def of_kind(items: Namespace, kind: type[_T]) -> list[_T]:
    """The items of one kind. Told by their keys: a namespace may have ten thousand items, and every pass asks."""
    wanted = kind.__name__
    return [cast(_T, item) for name, item in items.items() if name[0] == wanted]


class NodePlan(msgspec.Struct, frozen=True):
    """Everything that routemesh has, or should have, in one node's kernel: namespace name → items by key."""

    namespaces: Mapping[str, Namespace] = msgspec.field(default_factory=dict)


class Create(msgspec.Struct, frozen=True):
    """Make `item` in `netns`."""

    netns: str
    item: Item


class Change(msgspec.Struct, frozen=True):
    """Turn `old` into `new`; both have the same key."""

    netns: str
    old: Item
    new: Item


class Delete(msgspec.Struct, frozen=True):
    """Remove `item` from `netns`."""

    netns: str
    item: Item


Op = Create | Change | Delete


def item_of(op: Op) -> Item:
    """What an operation is about; of a change, what it leads to."""
    return op.new if isinstance(op, Change) else op.item


class Failure(msgspec.Struct, frozen=True):
    """An operation that the kernel refused (rule 9): the command that repeats it, and why."""

    op: Op
    command: str
    reason: str

    def __str__(self) -> str:
        return f"{self.command}: {self.reason}"


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a node's kernel and tools offer. `kernel` is its release; `iptables` the variant that works there, "" for none.

    `links`: the devices, not ours, by which packets come to the node. `forwards`: whether its owner has switched forwarding on
    for all of them (net.ipv4.ip_forward). Both may change at any time. `bridge_tables`: nftables can filter what bridges forward.
    `ct_timeouts`: whether nftables can say how long connections are remembered.
    """

    nf_tables: bool
    ip_vs: bool
    kernel: str
    mtu_bytes: int = 1500
    iptables: Literal["nft", "legacy", ""] = ""
    links: tuple[str, ...] = ()
    forwards: bool = False
    bridge_tables: bool = True
    ct_timeouts: bool = True
