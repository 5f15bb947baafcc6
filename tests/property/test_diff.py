"""The laws of `diff`, for arbitrary plans without loose ends."""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from routemesh.diff import applied, diff
from routemesh.nodeplan import (
    HOST,
    KIND_ORDER,
    Address,
    Assign,
    Chain,
    Change,
    Counter,
    Create,
    CtTimeouts,
    Delete,
    Element,
    FdbEntry,
    Hook,
    InSet,
    Item,
    ItemKey,
    Link,
    Lookup,
    Map,
    Neighbour,
    Netns,
    NodePlan,
    Op,
    Peer,
    Route,
    RoutingRule,
    SetTimeouts,
    Statement,
    Sysctl,
    Table,
    Verdict,
    VerdictLookup,
    Vxlan,
    item_of,
    key,
    namespace,
)
from routemesh.values import replace

NAMESPACES = (HOST, "a", "b")
BRIDGES = ("b0", "z0")
LINKS = ("l0", "l1", "l2")
MAPS = ("m0", "m1")
CHAINS = ("c0", "c1", "c2")

Placed = tuple[str, Item]

macs = st.sampled_from(["02:42:0a:00:00:01", "02:42:0a:00:00:02"])
addresses = st.sampled_from([IPv4Address(f"10.0.0.{n}") for n in (1, 2, 3)])
numbers = st.integers(1, 3)


def some(choices: Sequence[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(choices), unique=True) if choices else st.just([])


def up_to(count: int, *strategies: st.SearchStrategy[Item]) -> st.SearchStrategy[list[Item]]:
    return st.lists(st.one_of(*strategies), max_size=count)


def link_of(name: str, bridges: Sequence[str]) -> st.SearchStrategy[Item]:
    return st.builds(
        Link,
        name=st.just(name),
        kind=st.sampled_from(["bridge", "vxlan"]),
        mtu=st.sampled_from([1450, 1500]),
        mac=st.none() | macs,
        master=st.sampled_from([None, *bridges]),
        vxlan=st.none() | st.builds(Vxlan, numbers, addresses, st.just(4789)),
    )


def on_links(names: Sequence[str]) -> st.SearchStrategy[list[Item]]:
    if not names:
        return st.just([])
    link = st.sampled_from(names)
    return up_to(
        5,
        st.builds(Sysctl, link.map("net/ipv4/conf/{}/rp_filter".format), st.sampled_from(["0", "1"])),
        st.builds(Address, link, addresses.map(IPv4Interface)),
        st.builds(Route, destination=st.just(IPv4Network("0.0.0.0/0")), via=addresses, link=link, table=numbers),
        st.builds(Neighbour, link, addresses, macs),
        st.builds(FdbEntry, link, macs, st.none() | addresses),
    )


def chain_of(
    family: str, name: str, chains: Sequence[str], maps: Sequence[str], links: Sequence[str], limits: Sequence[str]
) -> st.SearchStrategy[Item]:
    """Jumps lead from a lower chain to a higher one, so there are no loops; the lowest may be a base chain."""
    statements: list[st.SearchStrategy[Statement]] = [st.just(Counter())]
    statements += [st.just(SetTimeouts(other)) for other in limits]
    statements += [st.just(Verdict("goto", other)) for other in chains if other > name]
    for known in maps:
        statements += [st.just(InSet(("th dport",), known)), st.just(VerdictLookup(("meta mark",), known))]
        statements += [st.just(Assign("meta mark", Lookup(("th dport",), known)))]
    device = st.sampled_from([None, *links])
    hook = (
        st.none()
        if name != CHAINS[0]
        else st.none() | st.builds(Hook, st.just("filter"), st.sampled_from(["output", "egress"]), st.just(0), device)
    )
    rules = st.lists(st.tuples(st.one_of(statements)), max_size=2).map(tuple)
    return st.builds(Chain, st.just(family), st.just(name), hook, rules)


@st.composite
def tables(draw: st.DrawFn, family: str, links: Sequence[str]) -> list[Item]:
    if draw(st.booleans()):
        return []
    maps, chains = draw(some(MAPS)), draw(some(CHAINS))
    kinds = st.tuples(st.sampled_from([("port",), ("mark",)]), st.sampled_from(["mark", "verdict"]))
    found: list[Item] = [Table(family)]  # type: ignore[arg-type]
    limits = draw(some(MAPS))
    found += [CtTimeouts(family, name, "tcp", (("close_wait", draw(numbers)),)) for name in limits]  # type: ignore[arg-type]
    found += [Map(family, name, *draw(kinds)) for name in maps]  # type: ignore[arg-type]
    found += [draw(chain_of(family, name, chains, maps, links, limits)) for name in chains]
    if maps:
        value = st.one_of(numbers, *(st.just(Verdict("goto", name)) for name in chains if name != CHAINS[0]))
        found += draw(up_to(4, st.builds(Element, st.just(family), st.sampled_from(maps), st.tuples(numbers), value)))
    return found


@st.composite
def contents(draw: st.DrawFn, netns: str, veths: Mapping[str, Link]) -> list[Placed]:
    """One namespace: whatever refers to something refers to what is there. In any order."""
    bridges = draw(some(BRIDGES))
    names = [*bridges, *veths, *(name for name in draw(some(LINKS)) if name not in veths)]
    found: list[Item] = [Link(name=name, kind="bridge") for name in bridges]
    found += [veths[name] if name in veths else draw(link_of(name, bridges)) for name in names[len(bridges) :]]
    found += draw(on_links(names))
    found += draw(up_to(2, st.builds(RoutingRule, priority=numbers, fwmark=numbers, mask=numbers, table=numbers)))
    found += draw(tables("ip", names)) + draw(tables("netdev", names))
    salt = draw(st.integers(0, 99))
    return [(netns, item) for item in sorted(found, key=lambda item: crc32(f"{salt} {key(item)}".encode()))]


@st.composite
def plans(draw: st.DrawFn) -> NodePlan:
    present = [HOST, *draw(some(NAMESPACES[1:]))]
    ends = draw(st.lists(st.tuples(st.sampled_from(present), st.sampled_from(LINKS)), unique=True, max_size=4))
    veths: dict[str, dict[str, Link]] = {netns: {} for netns in present}
    for one, other in zip(ends[::2], ends[1::2], strict=False):
        for (netns, name), peer in ((one, other), (other, one)):
            veths[netns][name] = Link(name=name, kind="veth", peer=Peer(*peer))
    placed: list[Placed] = [(HOST, Netns(name)) for name in present[1:]]
    for netns in present:
        placed += draw(contents(netns, veths[netns]))
    found = {name: namespace(item for where, item in placed if where == name) for name in present}
    return NodePlan({name: items for name, items in found.items() if items})


# --- loose ends, written down independently of diff -----------------------------------------------------------------


def wanted_by(item: Item) -> Iterator[ItemKey]:
    """The keys in its own namespace that an item can't be without."""
    match item:
        case Address(link=link) | Neighbour(link=link) | FdbEntry(link=link) | Route(link=link) | Link(master=str(link)):
            yield ("Link", link)
        case Sysctl(path):
            yield ("Link", path.split("/")[3])
        case Map() | CtTimeouts():
            yield ("Table", item.family)
        case Element():
            yield ("Map", item.family, item.map)
            if isinstance(item.value, Verdict):
                yield ("Chain", item.family, item.value.chain)
        case Chain():
            yield ("Table", item.family)
            yield from wanted_by_chain(item)
        case _:
            pass


def wanted_by_chain(chain: Chain) -> Iterator[ItemKey]:
    if chain.hook is not None and chain.hook.device is not None:
        yield ("Link", chain.hook.device)
    for (statement,) in chain.rules:
        match statement:
            case Verdict("goto", other):
                yield ("Chain", chain.family, other)
            case Assign(_, Lookup(_, name)) | VerdictLookup(_, name) | InSet(_, name):
                yield ("Map", chain.family, name)
            case SetTimeouts(name):
                yield ("CtTimeouts", chain.family, name)
            case _:
                pass


def loose(plan: NodePlan) -> list[Placed]:
    """Items that refer to what is not there. (Of a veth pair the ends are made one after the other.)"""
    found: list[Placed] = []
    host = plan.namespaces.get(HOST, {})
    for netns, here in plan.namespaces.items():
        for item in here.values():
            lost = netns != HOST and ("Netns", netns) not in host
            if isinstance(item, Link) and item.peer is not None:
                lost |= item.peer.netns != HOST and ("Netns", item.peer.netns) not in host
            if lost or any(name not in here for name in wanted_by(item)):
                found.append((netns, item))
    return found


def without_free_macs(plan: NodePlan, wish: NodePlan) -> NodePlan:
    """`plan`, its links' MACs removed where `wish` has none."""

    def bare(netns: str, item: Item) -> Item:
        wished = wish.namespaces.get(netns, {}).get(key(item))
        return replace(item, mac=None) if isinstance(item, Link) and isinstance(wished, Link) and wished.mac is None else item

    return NodePlan({netns: {name: bare(netns, item) for name, item in here.items()} for netns, here in plan.namespaces.items()})


# --- laws ---------------------------------------------------------------------------------------------------------


@given(plans(), plans())
@settings(deadline=None)
def test_applying_the_difference_gives_what_was_wanted(actual: NodePlan, desired: NodePlan) -> None:
    result = applied(actual, diff(actual, desired))
    assert without_free_macs(result, desired) == desired
    assert diff(result, desired) == ()


@given(plans())
@settings(deadline=None)
def test_nothing_is_done_twice(plan: NodePlan) -> None:
    assert loose(plan) == []
    assert diff(plan, plan) == ()
    assert applied(plan, ()) == plan


@given(plans())
@settings(deadline=None)
def test_a_mac_that_nobody_asked_for_is_no_difference(wish: NodePlan) -> None:
    """What the kernel chose is left alone (rule 7)."""
    chosen = {
        netns: {
            name: replace(item, mac="02:00:00:00:00:09") if isinstance(item, Link) and item.mac is None else item
            for name, item in here.items()
        }
        for netns, here in wish.namespaces.items()
    }
    assert diff(NodePlan(chosen), wish) == ()


@given(plans(), plans())
@settings(deadline=None)
def test_every_prefix_leaves_nothing_that_refers_to_what_is_not_there(actual: NodePlan, desired: NodePlan) -> None:
    present = actual
    for op in diff(actual, desired):
        check_possible(op, present)
        present = applied(present, [op])
        assert loose(present) == [], op


def check_possible(op: Op, present: NodePlan) -> None:
    """What is created is not there yet, what is changed is there as said and can be so. (What is deleted may be gone already.)"""
    here = present.namespaces.get(op.netns, {})
    match op:
        case Create(_, item):
            assert key(item) not in here
        case Change(_, old, new):
            assert here[key(new)] == old != new
            assert fixed(old) == fixed(new)
        case Delete():
            pass


def fixed(item: Item) -> object:
    """What an object has from its birth to its end."""
    match item:
        case Link():
            return item.kind, item.peer, item.vxlan
        case Map():
            return item.key, item.value
        case Chain():
            return item.hook
        case _:
            return None


@given(plans(), plans())
@settings(deadline=None)
def test_deletes_come_last_unless_they_make_room(actual: NodePlan, desired: NodePlan) -> None:
    ops = diff(actual, desired)
    last = max((n for n, op in enumerate(ops) if not isinstance(op, Delete)), default=-1)
    for op in ops[: last + 1]:
        if isinstance(op, Delete):
            assert key(op.item) in desired.namespaces.get(op.netns, {}) or hangs_on_replaced(op, ops)
    order = [KIND_ORDER.index(type(item_of(op))) for op in ops[: last + 1] if not isinstance(op, Delete)]
    assert order == sorted(order)


def hangs_on_replaced(op: Delete, ops: tuple[Op, ...]) -> bool:
    """Whether an early delete is of something that refers, perhaps through others, to what is deleted early too."""
    return any(
        isinstance(other, Delete) and other.netns == op.netns and key(other.item) in set(wanted_by(op.item)) for other in ops
    )


@given(plans(), plans())
@settings(deadline=None)
def test_stopping_anywhere_and_starting_again_ends_the_same(actual: NodePlan, desired: NodePlan) -> None:
    ops = diff(actual, desired)
    halfway = applied(actual, ops[: len(ops) // 2])
    assert diff(applied(halfway, diff(halfway, desired)), desired) == ()


@given(plans(), plans(), plans())
@settings(deadline=None)
def test_the_way_does_not_matter(first: NodePlan, second: NodePlan, last: NodePlan) -> None:
    through = applied(applied(first, diff(first, second)), diff(applied(first, diff(first, second)), last))
    straight = applied(first, diff(first, last))
    assert without_free_macs(through, last) == without_free_macs(straight, last) == last
