"""What a Docker Swarm should have in its nodes' kernels, by what its manager knows, and what of that is not there. PURE.

They are held against Swarm's own plan of the same services and tasks (swarmplan). Only what is missing or other is told: what is
there besides may be anybody's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import assert_never

from routemesh import names
from routemesh.codec.plain import plain_op
from routemesh.doctor.facts import Difference
from routemesh.doctor.told import told
from routemesh.language import command
from routemesh.language.commands import inside
from routemesh.language.xtrule import rule_text
from routemesh.model import (
    TaskId,
)
from routemesh.nodeplan import (
    BUILT_IN,
    HOST,
    Address,
    Chain,
    Change,
    Create,
    CtTimeouts,
    Delete,
    Element,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    IpvsTimeouts,
    Item,
    Link,
    Map,
    Neighbour,
    Netns,
    Op,
    Peer,
    Route,
    RoutingRule,
    Rule,
    Sysctl,
    Table,
    Verdict,
    XtChain,
    XtRule,
    key,
)
from routemesh.plan.view import view
from routemesh.recording.state import ingress, state
from routemesh.recording.swarmplan import IPVS, swarm_plan
from routemesh.snapshot import ClusterSnapshot, NamespaceSnapshot, NodeSnapshot, Part
from routemesh.values import replace

_LOAD = "modprobe ip_vs"
"""What everything else of IPVS needs."""


def lacking(cluster: ClusterSnapshot) -> Mapping[str, Sequence[Difference]]:
    """What each recorded node of a Swarm lacks. Nodes without names, and parts that were not read, are passed over."""
    found = {}
    for node in cluster.nodes.values():
        if node.kind == "swarm" and any(known.name == node.name for known in cluster.names.nodes) and ingress(cluster):
            found[node.name] = sorted(_of_node(cluster, node), key=lambda lack: lack.command != _LOAD)
    return found


def _of_node(cluster: ClusterSnapshot, node: NodeSnapshot) -> Iterator[Difference]:
    at = state(cluster, node.name)
    me = next(each for each in at.nodes.values() if each.name == node.name)
    if at.cluster is None or not me.attachments:
        return
    # On a network of its own a task has another eth0 and eth1.
    elsewhere = {task.netns for task in cluster.names.tasks if task.addresses.keys() != {at.cluster.ingress_id}}
    spaces = {names.container_id(TaskId(task.id)): task.netns for task in cluster.names.tasks}
    for planned, items in swarm_plan(view(at, me.id)).items():
        netns = spaces.get(planned, planned)
        space = node.namespaces.get(netns)
        if space is None:
            continue
        for item in items:
            of_rules = isinstance(item, XtChain)
            if not closed_part(space, item) and (of_rules or netns not in elsewhere):
                yield from lacks(space, netns, _renamed(item, spaces))
        if not _is_closed(space, "balancing"):
            yield from _surplus(space, netns, items)


def _surplus(space: NamespaceSnapshot, netns: str, items: Iterable[Item]) -> Iterator[Difference]:
    """Servers that get connections of a service and are none of its tasks; one that ends keeps those that it has, by weight 0."""
    planned = [item for item in items if isinstance(item, IpvsDestination)]
    marks, known = {item.mark for item in planned}, {(item.mark, item.address) for item in planned}
    for each in space.of(IpvsDestination):
        if each.mark in marks and each.weight and (each.mark, each.address) not in known:
            op = Delete(netns, each)
            yield Difference(netns, told(op), command(op, lambda _: space.path), plain_op(op))


def _renamed(item: Item, spaces: Mapping[str, str]) -> Item:
    """With the namespaces' own names, where planned ones are mentioned."""
    if isinstance(item, Link) and item.peer is not None and item.peer.netns in spaces:
        return replace(item, peer=Peer(spaces[item.peer.netns], item.peer.link))
    return item


# --- what is not there -------------------------------------------------------------------------------------------


def closed_part(space: NamespaceSnapshot, item: Item) -> bool:
    """Whether the part of a namespace that an item is in was not read."""
    return _is_closed(space, _part(item))


def _is_closed(space: NamespaceSnapshot, part: Part) -> bool:
    return any(unread.part in (part, "all") for unread in space.unread)


def _part(item: Item) -> Part:
    """The part of a namespace's snapshot that it is in."""
    match item:
        case Netns() | Link() | Address():
            return "links"
        case Route():
            return "routes"
        case RoutingRule():
            return "rules"
        case Neighbour():
            return "neighbours"
        case FdbEntry():
            return "fdb"
        case Sysctl():
            return "settings"
        case IpvsTimeouts() | IpvsService() | IpvsDestination():
            return "balancing"
        case Table() | CtTimeouts() | Map() | Chain() | Element() | XtChain() | XtRule():
            return "filters"
        case _:
            assert_never(item)


def lacks(space: NamespaceSnapshot, netns: str, item: Item) -> Iterator[Difference]:
    """What a namespace lacks of an item."""

    def path(_: str) -> str:
        return space.path

    match item:
        case XtChain():
            for what, texts, op in _missing_rules(space, netns, item):
                yield Difference(netns, what, " && ".join(inside(netns, text, path) for text in texts), plain_op(op))
        case Sysctl(path=setting) if setting.startswith(IPVS) and not any(each.path == setting for each in space.of(Sysctl)):
            yield Difference(HOST, "IPVS is not there: nothing balances connections", _LOAD)
        case Link():
            for what, text, op in _wrong_link(space, netns, item):
                yield Difference(netns, what, inside(netns, text, path) if text else "", plain_op(op) if text else None)
        case Netns() | Sysctl() | Address() | Route() | RoutingRule() | Neighbour() | FdbEntry() | XtRule():
            yield from _other_or_missing(space, netns, item)
        case IpvsTimeouts() | IpvsService() | IpvsDestination() | Table() | CtTimeouts() | Map() | Chain() | Element():
            yield from _other_or_missing(space, netns, item)
        case _:
            assert_never(item)


def _other_or_missing(space: NamespaceSnapshot, netns: str, item: Item) -> Iterator[Difference]:
    wanted = key(item)
    of_its_kind = (each for each in space.items if type(each) is type(item))
    there = [each for each in of_its_kind if key(each) == wanted and _is_lasting(each)]
    if not any(_agrees(found, item) for found in there):
        op = Change(netns, there[0], item) if there else Create(netns, item)
        yield Difference(netns, told(op), command(op, lambda _: space.path), plain_op(op))


def _is_lasting(found: Item) -> bool:
    """Whether it is what somebody put there; what kernels learn gives way to that, and is beside it."""
    if isinstance(found, FdbEntry):
        return found.kind == "static"
    return not isinstance(found, Neighbour) or found.state == "permanent"


def _agrees(found: Item, wanted: Item) -> bool:
    """Whether what is there does what is wanted. A Swarm's routes have other protocols and metrics than ours."""
    if isinstance(found, Route) and isinstance(wanted, Route):
        return found.via == wanted.via
    if isinstance(found, IpvsDestination) and isinstance(wanted, IpvsDestination):
        return found.weight == wanted.weight
    return found == wanted


def _wrong_link(space: NamespaceSnapshot, netns: str, item: Link) -> Iterator[tuple[str, str, Op]]:
    """A bridge port has a name of Swarm's own: it is known by what it leads to."""
    found = next((link for link in space.of(Link) if link.name == item.name), None)
    if item.master is not None and item.peer is not None:
        end = item.peer.netns, item.peer.link
        found = next(
            (link for link in space.of(Link) if link.peer is not None and (link.peer.netns, link.peer.link) == end), None
        )
        if found is None:
            return  # its other end tells
    if found is None:
        made = f"ip link add {item.name} type bridge && ip link set {item.name} up" if item.kind == "bridge" else ""
        yield f"device {item.name} is missing", made, Create(netns, item)
        return
    if not found.up:
        yield f"device {found.name} is down", f"ip link set {found.name} up", Change(netns, found, replace(found, up=True))
    if found.mtu != item.mtu:
        what = f"device {found.name} has MTU {found.mtu} instead of {item.mtu}"
        op = Change(netns, found, replace(found, mtu=item.mtu))
        yield what, f"ip link set {found.name} mtu {item.mtu}", op
    if found.master != item.master:
        text = f"ip link set {found.name} master {item.master}" if item.master else ""
        what = f"device {found.name} is {f'no port of {item.master}' if item.master else 'the port of a bridge'}"
        yield what, text, Change(netns, found, replace(found, master=item.master))


def _missing_rules(space: NamespaceSnapshot, netns: str, wanted: XtChain) -> Iterator[tuple[str, tuple[str, ...], Op]]:
    """Each goes behind the rule that it follows in a Swarm, so that the order comes out right.

    One that is there with another target goes first: behind it, what is put in would not count, or be overwritten.
    """
    place, name = f"{wanted.table} {wanted.name}", (wanted.table, wanted.name)
    found = next((each for each in space.of(XtChain) if (each.table, each.name) == name), None)
    there = [] if found is None else list(found.rules)
    if found is None and wanted.name not in BUILT_IN[wanted.table]:
        yield (
            f"chain {place} is missing",
            (f"iptables -t {wanted.table} -N {wanted.name}",),
            Create(netns, replace(wanted, rules=())),
        )
    at = 0
    for rule in wanted.rules:
        if rule in there:
            at = there.index(rule) + 1
            continue
        text, before = rule_text(rule), tuple(there)
        other = next((each for each in there if _is_instead(each, rule) and each not in wanted.rules), None)
        if other is None:
            what, first = f"rule '{text}' is missing in {place}", ""
        else:
            at = min(at, there.index(other))
            there.remove(other)
            what = f"rule '{rule_text(other)}' in {place} should be '{text}'"
            first = f"iptables -t {wanted.table} -D {wanted.name} {rule_text(other)}"
        there.insert(at, rule)
        at += 1
        op = Change(netns, replace(wanted, rules=before), replace(wanted, rules=tuple(there)))
        yield what, tuple(filter(None, (first, f"iptables -t {wanted.table} -I {wanted.name} {at} {text}"))), op


def _is_instead(other: Rule, wanted: Rule) -> bool:
    """Whether a rule takes the same packets and does something else with them. A verdict on them may be anybody's."""
    alike = bool(wanted) and len(other) == len(wanted) > 1 and other[:-1] == wanted[:-1]
    return alike and type(other[-1]) is type(wanted[-1]) and not isinstance(other[-1], Verdict)
