"""A cluster as it would be with some of its differences mended, to be walked again. PURE.

A difference from the plan is a cause only of ways that would go otherwise without it. Source of what the kernel adds by itself:
fib_add_ifaddr (the route of an address's subnet), inetdev_init (a new link's settings).
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from ipaddress import IPv4Address
from typing import assert_never

from routemesh.nodeplan import (
    HOST,
    MAIN_TABLE,
    Address,
    Change,
    Create,
    Delete,
    FdbEntry,
    Item,
    Link,
    Neighbour,
    Netns,
    Op,
    Route,
    Rule,
    Sysctl,
    XtChain,
    XtRule,
    item_of,
    key,
)
from routemesh.plan.along import routes
from routemesh.snapshot import LINK_SYSCTLS, ClusterSnapshot, NamespaceSnapshot, NodeSnapshot
from routemesh.values import differing, replace

_NOTHING = NamespaceSnapshot(path="", conntrack=(), sockets=())


def mended(cluster: ClusterSnapshot, ops: Mapping[str, Sequence[Op]]) -> ClusterSnapshot:
    """The cluster after these operations, by node."""
    nodes = {name: _node(node, ops[name]) if ops.get(name) else node for name, node in cluster.nodes.items()}
    return replace(cluster, nodes=nodes)


def _node(node: NodeSnapshot, ops: Sequence[Op]) -> NodeSnapshot:
    spaces = dict(node.namespaces)
    for netns in dict.fromkeys(op.netns for op in ops):
        own = [op for op in ops if op.netns == netns]
        spaces[netns] = _namespace(spaces.get(netns, _NOTHING), own)
    gone = {op.item.name for op in ops if isinstance(op, Delete) and isinstance(op.item, Netns)}
    kept = {name: space for name, space in spaces.items() if name not in gone or name == HOST}
    links = {(op.netns, item.name) for op in ops if isinstance(item := item_of(op), Link)}
    told = {item.ip for op in ops if isinstance(item := item_of(op), Neighbour)}
    if told:
        kept = {name: _without_caches(space, told) for name, space in kept.items()}
    if links:
        new = any(isinstance(op, Create) and isinstance(op.item, Link) for op in ops)
        started = {(op.netns, name) for op in ops if (name := _started(op))}
        kept = {name: _connected(_forgetful(space, name, started, new=new), name, links) for name, space in kept.items()}
    return replace(node, namespaces=kept)


def _started(op: Op) -> str:
    """The link that is switched on, "" for none."""
    match op:
        case Change(old=Link(up=False), new=Link(name=name, up=True)):
            return name
        case _:
            return ""


def _namespace(space: NamespaceSnapshot, ops: Sequence[Op]) -> NamespaceSnapshot:
    items = list(space.items)
    for op in ops:
        _carry_out(items, op)
    items += _subnets(items)
    items += _settings(items, [op.item.name for op in ops if isinstance(op, Create) and isinstance(op.item, Link)])
    return replace(space, items=tuple(items))


def _carry_out(items: list[Item], op: Op) -> None:
    match op:
        case Create(item=XtRule() as rule):
            _into_chain(items, rule)
        case Delete(item=XtRule(table, chain, rule)):
            _out_of_chain(items, XtRule(table, chain, rule))
        case Create(item=item):
            _put(items, item)
        case Change(old=old, new=new):
            _change(items, old, new)
        case Delete(item=Link(name=name)):
            items[:] = [each for each in items if getattr(each, "link", "") != name and _key(each) != ("Link", name)]
        case Delete(item=item):
            wanted = _key(item)
            items[:] = [each for each in items if _key(each) != wanted]
        case _:
            assert_never(op)


def _key(item: Item) -> tuple[object, ...]:
    """A MAC may be known to a tunnel and, beside that, to the bridge whose port it is."""
    return (*key(item), item.dst is None) if isinstance(item, FdbEntry) else key(item)


def _put(items: list[Item], item: Item) -> None:
    wanted = _key(item)
    at = next((number for number, each in enumerate(items) if _key(each) == wanted), None)
    if at is None:
        items.append(item)
    else:
        items[at] = item


def _change(items: list[Item], old: Item, new: Item) -> None:
    """Only what the two differ in: other changes of the same object may have been made before."""
    present = next((each for each in items if _key(each) == _key(new)), None)
    if present is None or type(present) is not type(new):
        _put(items, new)
    elif isinstance(present, XtChain) and isinstance(old, XtChain) and isinstance(new, XtChain):
        _put(items, replace(present, rules=_with_rules(present.rules, old.rules, new.rules)))
    else:
        changes = {name: getattr(new, name) for name in differing(old, new)}
        if isinstance(new, Link) and new.mac is None:
            changes.pop("mac", None)
        _put(items, replace(present, **changes))


def _with_rules(present: tuple[Rule, ...], old: tuple[Rule, ...], new: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """What is new goes behind the rule that it follows; what is no longer wanted goes."""
    if present == old:
        return new
    rules = [rule for rule in present if rule in new or rule not in old]
    for number, rule in enumerate(new):
        if rule not in rules:
            before = new[number - 1] if number else None
            rules.insert(rules.index(before) + 1 if before in rules else 0, rule)
    return tuple(rules)


def _chain(items: list[Item], rule: XtRule) -> XtChain:
    found = (each for each in items if isinstance(each, XtChain) and (each.table, each.name) == (rule.table, rule.chain))
    return next(found, XtChain(rule.table, rule.chain, (), "ACCEPT"))


def _into_chain(items: list[Item], rule: XtRule) -> None:
    """A snapshot has the rules of a built-in chain, whosever they are, in the chain."""
    chain = _chain(items, rule)
    rules = (rule.rule, *chain.rules) if rule.head else (*chain.rules, rule.rule)
    _put(items, replace(chain, rules=rules))


def _out_of_chain(items: list[Item], rule: XtRule) -> None:
    chain = _chain(items, rule)
    _put(items, replace(chain, rules=tuple(each for each in chain.rules if each != rule.rule)))


def _subnets(items: Sequence[Item]) -> Iterator[Item]:
    """The routes that the kernel adds for addresses on links that are up."""
    up = {item.name for item in items if isinstance(item, Link) and item.up}
    routed = {(item.link, item.destination) for item in items if isinstance(item, Route) and item.table == MAIN_TABLE}
    added = (route for item in items if isinstance(item, Address) and item.link in up for route in routes(item))
    yield from (route for route in added if route.table == MAIN_TABLE and (route.link, route.destination) not in routed)


def _settings(items: Sequence[Item], created: Sequence[str]) -> Iterator[Item]:
    """Those of new links, and, in a namespace that was not there, of all."""
    known = {item.path: item.value for item in items if isinstance(item, Sysctl)}
    if not created:
        return
    paths = ["net/ipv4/ip_forward", *(f"net/ipv4/conf/{link}/{each}" for link in ("all", *created) for each in LINK_SYSCTLS)]
    for path in paths:
        if path not in known:
            yield Sysctl(path, known.get(f"net/ipv4/conf/default/{path.rpartition('/')[2]}", "0"))


def _forgetful(space: NamespaceSnapshot, netns: str, mended: Set[tuple[str, str]], *, new: bool) -> NamespaceSnapshot:
    """Without what was learned on links that went down (neigh_ifdown); anywhere, where one is new, for it has another MAC."""

    def forgotten(item: Item) -> bool:
        return _is_learned(item) and (new or (netns, getattr(item, "link", "")) in mended)

    return replace(space, items=tuple(item for item in space.items if not forgotten(item)))


def _connected(space: NamespaceSnapshot, netns: str, mended: Set[tuple[str, str]]) -> NamespaceSnapshot:
    """With a carrier where a mended link, its other end or its bridge was without one."""
    masters = {item.master for item in space.of(Link) if (netns, item.name) in mended}

    def connected(item: Item) -> Item:
        if not isinstance(item, Link) or item.carrier or item.kind == "other":
            return item
        end = None if item.peer is None else (item.peer.netns, item.peer.link)
        return replace(item, carrier=True) if (netns, item.name) in mended or end in mended or item.name in masters else item

    return replace(space, items=tuple(map(connected, space.items)))


def _without_caches(space: NamespaceSnapshot, addresses: Set[IPv4Address]) -> NamespaceSnapshot:
    """Without what ARP told of these addresses: the answers are others now."""
    items = (item for item in space.items if not (isinstance(item, Neighbour) and item.ip in addresses and _is_learned(item)))
    return replace(space, items=tuple(items))


def _is_learned(item: Item) -> bool:
    return (isinstance(item, Neighbour) and item.state not in ("permanent", "noarp")) or (
        isinstance(item, FdbEntry) and item.kind == "learned"
    )
