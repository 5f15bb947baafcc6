"""A recorded Swarm, and what routemesh would make of the same services, tasks and nodes: both as comparable facts."""

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from routemesh import names
from routemesh.model import (
    ClientIp,
    TaskId,
)
from routemesh.nodeplan import (
    HOST,
    Address,
    Capabilities,
    FdbEntry,
    Item,
    Link,
    Neighbour,
    Netns,
    Peer,
    Route,
    RoutingRule,
    Rule,
    Sysctl,
    XtChain,
    XtRule,
    XtTable,
    comes_along,
    key,
)
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.recording.read import read
from routemesh.recording.state import state
from routemesh.snapshot import ClusterSnapshot
from routemesh.values import differing, replace

DATA = Path(__file__).parent.parent / "data" / "swarm"
KERNELS_OWN = 2
KERNELS_RULES = (0, 32766, 32767)


@functools.cache
def recording(step: str) -> ClusterSnapshot:
    """The cluster of one directory of tests/data/swarm."""
    return read([DATA / step])


# --- facts -------------------------------------------------------------------------------------------------------


class Policy(msgspec.Struct, frozen=True):
    """What a built-in chain does with what none of its rules decided, where that is not to accept it."""

    table: XtTable
    chain: str
    policy: str


class Placed(msgspec.Struct, frozen=True):
    """A rule in a chain."""

    table: XtTable
    chain: str
    rule: Rule


Fact = Item | Policy | Placed
Facts = Mapping[str, tuple[Fact, ...]]
"""By namespace, in order where the order of rules is one."""


def planned(cluster: ClusterSnapshot, node: str, client_ip: ClientIp = ClientIp.KEEP) -> Facts:
    """routemesh's plan of a node, in the recorded namespaces, without what the kernel makes along with it."""
    at = state(cluster, node, client_ip)
    node_id = next(each.id for each in at.nodes.values() if each.name == node)
    caps = Capabilities(nf_tables=True, ip_vs=True, kernel=cluster.nodes[node].kernel, iptables="nft")
    made = plan(view(at, node_id), caps)
    renamed = {names.container_id(TaskId(task.id)): task.netns for task in cluster.names.tasks}
    of_mesh = {netns: [item for item in items.values() if not comes_along(item)] for netns, items in made.namespaces.items()}
    found = {renamed.get(netns, netns): [_in(item, renamed) for item in items] for netns, items in of_mesh.items()}
    ports = {
        (netns, item.name): item.peer for netns, items in found.items() for item in items if isinstance(item, Link) and item.peer
    }
    return {netns: tuple(_facts([_named(item, netns, ports) for item in items])) for netns, items in found.items()}


def seen(cluster: ClusterSnapshot, node: str) -> Facts:
    """What the Swarm had there, without what every kernel has by itself and what the moment brought."""
    spaces = cluster.nodes[node].namespaces
    ports = {(netns, link.name): link.peer for netns, space in spaces.items() for link in space.of(Link) if link.peer}
    found = {netns: [_named(item, netns, ports) for item in space.items if _made(item)] for netns, space in spaces.items()}
    facts = {netns: tuple(_facts(items)) for netns, items in found.items()}
    return {**facts, HOST: (*(Netns(netns) for netns in spaces if netns != HOST), *facts[HOST])}


def _made(item: Item) -> bool:
    """Whether somebody made it: no route that came with an address, no learned neighbour, no device of the kernel's."""
    match item:
        case Route(protocol=protocol):
            return protocol != KERNELS_OWN
        case RoutingRule(priority=priority):
            return priority not in KERNELS_RULES
        case Neighbour(state=state):
            return state == "permanent"
        case FdbEntry(kind=kind):
            return kind == "static"
        case Link(kind="loopback") | Address(link="lo"):
            return False
        case _:
            return True


def _in(item: Item, renamed: Mapping[str, str]) -> Item:
    """The item with the recorded names of tasks' namespaces."""
    match item:
        case Netns(name):
            return Netns(renamed.get(name, name))
        case Link(peer=Peer(netns, link)):
            return replace(item, peer=Peer(renamed.get(netns, netns), link))
        case _:
            return item


def _named(item: Item, netns: str, ports: Mapping[tuple[str, str], Peer]) -> Item:
    """The item with a bridge port called by what it leads to: its own name is random in a Swarm, a hash in routemesh."""
    match item:
        case Link(master=str(), peer=Peer() as peer):
            return replace(item, name=f"port of {peer.netns} {peer.link}", mac=None)
        case Link(peer=Peer(other, link)) if (other, link) in ports:
            return replace(item, peer=Peer(other, f"port of {netns} {item.name}"))
        case FdbEntry(link=link) if (peer_of := ports.get((netns, link))) is not None:
            return replace(item, link=f"port of {peer_of.netns} {peer_of.link}")
        case _:
            return item


def _facts(items: Iterable[Item]) -> Iterator[Fact]:
    heads: list[Placed] = []
    for item in items:
        match item:
            case XtChain(table, name, rules, policy):
                if policy == "DROP":
                    yield Policy(table, name, policy)
                yield from (Placed(table, name, rule) for rule in rules)
            case XtRule(table, chain, rule, head):
                heads.insert(0 if head else len(heads), Placed(table, chain, rule))
            case _:
                yield item
    yield from heads


# --- differences -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that only one of them has (the other is None), or two states of one object with the fields that differ.

    `role`: host, sandbox, overlay or task; elsewhere, if it is about networks that routemesh does not make.
    """

    role: str
    swarm: Fact | None
    ours: Fact | None
    changed: frozenset[str] = frozenset()


def compare(step: str, node: str, client_ip: ClientIp = ClientIp.KEEP) -> Iterator[Difference]:
    """Everything in which routemesh's plan of a node differs from what was recorded there."""
    cluster = recording(step)
    return compare_facts(cluster, seen(cluster, node), planned(cluster, node, client_ip))


def compare_facts(cluster: ClusterSnapshot, theirs: Facts, ours: Facts) -> Iterator[Difference]:
    """Everything in which `ours` differs from `theirs`."""
    elsewhere = _elsewhere(cluster, theirs)
    for netns in {**ours, **theirs}:
        for found in _differences(theirs.get(netns, ()), ours.get(netns, ())):
            fact = found.swarm or found.ours
            about = {netns, *(other for other in elsewhere if other in str(fact))}
            role = "elsewhere" if about & elsewhere else _ROLES.get(netns, "overlay" if netns.startswith("1-") else "task")
            yield replace(found, role=role)


_ROLES = {HOST: "host", names.SANDBOX: "sandbox"}


def _elsewhere(cluster: ClusterSnapshot, theirs: Facts) -> set[str]:
    """The namespaces of other overlays, and of what is connected to them."""
    ingress = next(network for network in cluster.names.networks if network.name == "ingress")
    ours = {task.netns for task in cluster.names.tasks if task.addresses.keys() == {ingress.id}}
    return theirs.keys() - ours - {HOST, names.SANDBOX, ingress.netns}


def _differences(swarm: tuple[Fact, ...], ours: tuple[Fact, ...]) -> Iterator[Difference]:
    theirs, own = ({_key(fact): fact for fact in facts} for facts in (swarm, ours))
    settings_are_known = any(isinstance(fact, Sysctl) for fact in swarm)
    for name, fact in theirs.items():
        if name not in own and not isinstance(fact, Sysctl):
            yield Difference("", fact, None)
    for name, fact in own.items():
        other = theirs.get(name)
        if other is None and (settings_are_known or not isinstance(fact, Sysctl)):
            yield Difference("", None, fact)
        elif other is not None and other != fact:
            yield Difference("", other, fact, frozenset(differing(fact, other)))
    common = [_rules_by_chain(facts, theirs.keys() & own.keys()) for facts in (swarm, ours)]
    for one, another in zip(*common, strict=True):
        if one != another:
            yield Difference("", one, another, frozenset({"order"}))


def _rules_by_chain(facts: tuple[Fact, ...], common: Collection[Any]) -> list[Placed]:
    rules = [fact for fact in facts if isinstance(fact, Placed) and fact in common]
    return sorted(rules, key=lambda rule: (rule.table, rule.chain))


def _key(fact: Fact) -> Any:
    match fact:
        case Policy(table, chain, _):
            return "policy", table, chain
        case Placed():
            return fact
        case FdbEntry(link=link, mac=mac, dst=dst):
            return "fdb", link, mac, dst is None
        case _:
            return key(fact)
