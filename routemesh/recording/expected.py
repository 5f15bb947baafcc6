"""What a Docker Swarm should have in its nodes' kernels, by what its manager knows, and what of that is not there. PURE.

A Swarm's kernels are those of the ipvs engine, but for the differences of docs/swarm.md; so routemesh's plan of the same services
and tasks, without what is routemesh's alone, is what a Swarm is held against. Only what is missing or other is told: what is
there besides may be anybody's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from routemesh import names
from routemesh.doctor.facts import Difference
from routemesh.language import command
from routemesh.language.commands import inside
from routemesh.language.xtrule import rule_text
from routemesh.model import (
    TaskId,
)
from routemesh.nodeplan import (
    HOST,
    Address,
    Capabilities,
    ClampMss,
    Create,
    FdbEntry,
    IpvsDestination,
    IpvsMatch,
    IpvsService,
    Item,
    Link,
    Masquerade,
    Match,
    Neighbour,
    Peer,
    Route,
    Rule,
    Snat,
    Sysctl,
    Verdict,
    XtChain,
    XtRule,
    XtTable,
)
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.recording.state import ingress, state
from routemesh.snapshot import ClusterSnapshot, NamespaceSnapshot, NodeSnapshot, Part

_IPVS = "net/ipv4/vs/"
_OUR_CHAINS = "ROUTEMESH-"
_LOOPBACK = "127.0.0.0/8"
_LOAD = "modprobe ip_vs"
"""What everything else of IPVS needs."""

_SETTINGS = ("net/ipv4/ip_forward", f"net/ipv4/conf/{names.GWBRIDGE}/route_localnet", f"{_IPVS}conntrack")
_OF_A_NODE = (Sysctl("net/ipv4/ip_forward", "1"),)
"""What a Swarm's node has in its own namespace, and we leave to the machine's owner."""

_PARTS: Mapping[type, Part] = {
    Address: "links", Link: "links", Route: "routes", Neighbour: "neighbours", FdbEntry: "fdb", Sysctl: "settings",
    IpvsService: "balancing", IpvsDestination: "balancing", XtChain: "filters",
}  # fmt: skip


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
    made = plan(view(at, me.id), Capabilities(nf_tables=True, ip_vs=True, kernel=node.kernel, iptables="nft"))
    # On a network of its own a task has another eth0 and eth1.
    elsewhere = {task.netns for task in cluster.names.tasks if task.addresses.keys() != {at.cluster.ingress_id}}
    spaces = {names.container_id(TaskId(task.id)): task.netns for task in cluster.names.tasks}
    for planned, items in made.namespaces.items():
        netns = spaces.get(planned, planned)
        space = node.namespaces.get(netns)
        if space is None:
            continue
        closed = {unread.part for unread in space.unread}
        for item in _as_in_a_swarm((*items.values(), *(_OF_A_NODE if planned == HOST else ()))):
            of_rules = isinstance(item, XtChain)
            if not closed & {_PARTS[type(item)], "all"} and (of_rules or netns not in elsewhere):
                yield from lacks(space, netns, _renamed(item, spaces))


# --- the plan without what is ours alone -------------------------------------------------------------------------


def _as_in_a_swarm(items: Iterable[Item]) -> Iterator[Item]:
    """What a Swarm has too. Chains and rules of built-in chains come as chains."""
    rules: dict[tuple[XtTable, str], list[Rule]] = {}
    for item in items:
        match item:
            case XtChain(table, chain, chain_rules) if not chain.startswith(_OUR_CHAINS):
                rules[table, chain] = [rule for rule in map(_translated, chain_rules) if rule]
            case XtRule(table, chain, rule, head) if not _is_ours(rule):
                found = rules.setdefault((table, chain), [])
                found.insert(0 if head else len(found), _jump_of_all(rule))
            case FdbEntry(dst=None):
                continue
            case Link() | Neighbour() | FdbEntry() | Address() | Route() | IpvsService() | IpvsDestination():
                yield item
            case Sysctl(path) if path in _SETTINGS:
                yield item
    yield from (XtChain(table, chain, tuple(dict.fromkeys(found))) for (table, chain), found in rules.items())


def _is_ours(rule: Rule) -> bool:
    """Rules that Swarm has no need of, or makes otherwise."""
    has = {type(statement) for statement in rule}
    to_ours = any(isinstance(statement, Verdict) and statement.chain.startswith(_OUR_CHAINS) for statement in rule)
    return (
        to_ours
        or ClampMss in has
        or Match("ct state", "invalid") in rule
        or any(isinstance(statement, Match) and statement.value == _LOOPBACK for statement in rule)
        or (Masquerade in has and Match("ct status", "dnat") in rule)
    )


def _jump_of_all(rule: Rule) -> Rule:
    """In a Swarm everything that is forwarded meets DOCKER-INGRESS."""
    to_ingress = Verdict("jump", names.INGRESS_CHAIN)
    return (to_ingress,) if rule == (Match("oifname", names.GWBRIDGE), to_ingress) else rule


def _translated(rule: Rule) -> Rule:
    """Swarm's one SNAT rule for ours, which go by mark or by client; nothing for what is ours alone."""
    if _is_ours(rule):
        return ()
    if IpvsMatch() in rule:
        return tuple(part for part in rule if isinstance(part, IpvsMatch | Snat) or getattr(part, "field", "") == "ip daddr")
    return rule


def _renamed(item: Item, spaces: Mapping[str, str]) -> Item:
    """With the namespaces' own names, where planned ones are mentioned."""
    if isinstance(item, Link) and item.peer is not None and item.peer.netns in spaces:
        return replace(item, peer=Peer(spaces[item.peer.netns], item.peer.link))
    return item


# --- what is not there -------------------------------------------------------------------------------------------


def closed_part(space: NamespaceSnapshot, item: Item) -> bool:
    """Whether that part of a namespace was not read."""
    closed = {unread.part for unread in space.unread}
    return bool(closed & {_PARTS.get(type(item), "filters"), "all"})


def lacks(space: NamespaceSnapshot, netns: str, item: Item) -> Iterator[Difference]:
    """What a namespace lacks of an item."""

    def path(_: str) -> str:
        return space.path

    match item:
        case XtChain():
            for what, text in _missing_rules(space, item):
                yield Difference(netns, what, inside(netns, text, path))
        case Sysctl(path=setting) if setting.startswith(_IPVS) and not any(each.path == setting for each in space.of(Sysctl)):
            yield Difference(HOST, "IPVS is not there: nothing balances connections", _LOAD)
        case Link():
            for what, text in _wrong_link(space, item):
                yield Difference(netns, what, inside(netns, text, path) if text else "")
        case _:
            if what := _wrong(space, item):
                yield Difference(netns, what, command(Create(netns, item), path))


def _wrong(space: NamespaceSnapshot, item: Item) -> str:
    """What is wrong about something that is there or not, "" if nothing."""
    match item:
        case Route(destination=destination, via=via):
            there = any(
                (route.destination, route.via, route.table) == (destination, via, item.table) for route in space.of(Route)
            )
            return "" if there else f"the route to {destination} via {via} is missing"
        case IpvsDestination(mark=mark, address=address):
            same = [each.weight for each in space.of(IpvsDestination) if (each.mark, each.address) == (mark, address)]
            missing = f"IPVS destination {address} of FWM {mark} is missing"
            return missing if not same else f"{missing[:-10]}has weight {same[0]}" if same[0] != item.weight else ""
        case Sysctl(path, value):
            found = next((setting.value for setting in space.of(Sysctl) if setting.path == path), "not there")
            return "" if found == value else f"{path} is {found} instead of {value}"
        case _:
            return "" if item in space.items else f"{_called(item)} is missing"


def _called(item: Item) -> str:
    match item:
        case Neighbour(link=link, ip=ip, mac=mac):
            return f"the permanent neighbour {ip} with {mac} on {link}"
        case FdbEntry(link=link, mac=mac, dst=dst):
            return f"the FDB entry of {mac} on {link} for {dst}"
        case Address(link=link, address=address):
            return f"address {address} on {link}"
        case IpvsService(mark=mark, scheduler=scheduler):
            return f"IPVS service FWM {mark} {scheduler}"
        case _:
            return str(item)


def _wrong_link(space: NamespaceSnapshot, item: Link) -> Iterator[tuple[str, str]]:
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
        yield f"device {item.name} is missing", ""
        return
    if not found.up:
        yield f"device {found.name} is down", f"ip link set {found.name} up"
    if found.mtu != item.mtu:
        yield f"device {found.name} has MTU {found.mtu} instead of {item.mtu}", f"ip link set {found.name} mtu {item.mtu}"
    if found.master != item.master:
        text = f"ip link set {found.name} master {item.master}" if item.master else ""
        yield f"device {found.name} is {f'no port of {item.master}' if item.master else 'the port of a bridge'}", text


def _missing_rules(space: NamespaceSnapshot, wanted: XtChain) -> Iterator[tuple[str, str]]:
    """Each goes behind the rule that it follows in a Swarm, so that the order comes out right."""
    place, name = f"{wanted.table} {wanted.name}", (wanted.table, wanted.name)
    there = next((list(found.rules) for found in space.of(XtChain) if (found.table, found.name) == name), [])
    at = 0
    for rule in wanted.rules:
        if rule in there:
            at = there.index(rule) + 1
            continue
        there.insert(at, rule)
        at += 1
        text = rule_text(rule)
        yield f"rule '{text}' is missing in {place}", f"iptables -t {wanted.table} -I {wanted.name} {at} {text}"
