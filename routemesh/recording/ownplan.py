"""A recorded node of ours held against the plan that its daemon had when it was recorded (plan.json). PURE.

Told is what is missing or other, and what of our maps, tunnel entries and permanent neighbours is not planned. Our rules in
iptables' built-in chains are left out: among those of others a recording does not tell them apart.
"""

from collections.abc import Iterator, Mapping

from routemesh.codec.plain import plain_op
from routemesh.doctor.facts import Difference
from routemesh.doctor.told import told
from routemesh.language import command
from routemesh.nodeplan import (
    HOST,
    Change,
    Create,
    Delete,
    Element,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    IpvsTimeouts,
    Item,
    Link,
    Map,
    Namespace,
    Neighbour,
    Netns,
    NodePlan,
    XtChain,
    XtRule,
    key,
)
from routemesh.recording.expected import closed_part, lacks
from routemesh.snapshot import NamespaceSnapshot, NodeSnapshot

FILE = "plan.json"
Plans = Mapping[str, NodePlan]
"""By node name."""

_NOT_TOLD = (Netns, XtRule, IpvsTimeouts)
"""What a recording does not tell."""


def differing(plan: NodePlan, node: NodeSnapshot) -> tuple[Difference, ...]:
    """What is not as planned, namespace by namespace."""
    return tuple(_of_node(plan, node))


def _of_node(plan: NodePlan, node: NodeSnapshot) -> Iterator[Difference]:
    for netns, items in plan.namespaces.items():
        space = node.namespaces.get(netns)
        if space is None:
            yield Difference(HOST, f"namespace {netns} is missing")
            continue
        there = {key(item): item for item in space.items}
        for item in items.values():
            if not isinstance(item, _NOT_TOLD) and not closed_part(space, item):
                yield from _wrong(space, netns, there, item)
        if not closed_part(space, next(iter(items.values()))):
            yield from _stale(space, netns, items)


def _wrong(space: NamespaceSnapshot, netns: str, there: Namespace, item: Item) -> Iterator[Difference]:
    if isinstance(item, Link | XtChain):
        yield from lacks(space, netns, item)
    elif (found := there.get(key(item))) != item:
        op = Create(netns, item) if found is None else Change(netns, found, item)
        yield Difference(netns, told(op), command(op, lambda _: space.path), plain_op(op))


def _stale(space: NamespaceSnapshot, netns: str, items: Namespace) -> Iterator[Difference]:
    learning = {item.name for item in items.values() if isinstance(item, Map) and item.learns}
    maps = {(item.family, item.name, item.table) for item in items.values() if isinstance(item, Map)}
    for item in space.items:
        ours = (
            (isinstance(item, Element) and (item.family, item.map, item.table) in maps and item.map not in learning)
            or (isinstance(item, FdbEntry) and item.dst is not None and netns != HOST)
            or (isinstance(item, Neighbour) and item.state == "permanent" and netns != HOST)
            or (isinstance(item, IpvsDestination | IpvsService) and netns != HOST)
        )
        if ours and key(item) not in items:
            op = Delete(netns, item)
            yield Difference(netns, told(op), command(op, lambda _: space.path), plain_op(op))
