"""What others have made that ends a packet: whose it is, how to look at it, how to let a packet past it. PURE.

Nothing of somebody else's is taken away or changed: a rule may drop for a reason, and only who made it knows. What can be done
without its owner is an exception for packets like this one, before the rule that ended it.
Source: nft(8) (insert rule … handle), iptables(8) (-I CHAIN NUMBER), ip-route(8), ip-rule(8).
"""

from collections.abc import Iterable
from shlex import quote
from typing import assert_never

from routemesh import names
from routemesh.explain.firewalls import by_whom
from routemesh.explain.shown import command
from routemesh.explain.way import Places
from routemesh.model import VXLAN_PORT
from routemesh.nodeplan import (
    HOST,
    Address,
    Chain,
    CtTimeouts,
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
    Route,
    RoutingRule,
    Sysctl,
    Table,
    XtChain,
    XtRule,
)
from routemesh.reasons.ends import End, IpsecBlocks, LeadsAway, PolicyDrops, RuleDrops, RuleRejects
from routemesh.snapshot import NodeSnapshot
from routemesh.walk import Hop, Packet

_WITH_IPV4 = frozenset({"ip", "inet", "bridge", "netdev"})


def foreign(places: Places, last: Hop | None) -> str:
    """Whose rule ended a way, where it is not ours: the tool's name, else the table's."""
    item = None if last is None else last.item
    if last is None or not isinstance(item, Chain | XtChain) or _is_ours(item):
        return ""
    node = places.cluster.nodes.get(last.place.node)
    space = None if node is None else node.namespaces.get(last.place.netns)
    of_mesh = node is not None and last.place.netns != HOST and isinstance(item, XtChain) and last.rule in _fence(item)
    return "" if of_mesh else by_whom(item, last.rule, () if space is None else space.items) or table_of(item)


def _is_ours(chain: Chain | XtChain) -> bool:
    return chain.table == names.TABLE or chain.name.startswith(names.OWN_CHAINS)


def _fence(chain: XtChain) -> tuple[object, ...]:
    """The rules of a namespace of the mesh that end a packet by intention: the last of a task's INPUT, in the ipvs engine."""
    return chain.rules[-1:] if chain.table == "filter" else ()


def table_of(item: Chain | XtChain) -> str:
    """A chain's table, for people."""
    return f"{item.family} {item.table}" if isinstance(item, Chain) else f"iptables {item.table}"


def looking_at(node: NodeSnapshot | None, item: Item | None, end: End) -> str:
    """The command that shows what somebody else has made, with the numbers by which its owner would change it; "" for nothing."""
    if isinstance(end, IpsecBlocks):
        return f"ip xfrm policy list dir {end.direction}"
    match item:
        case Chain():
            return "" if _is_ours(item) else command(node, item).replace("nft list", "nft -a list")
        case XtChain():
            return "" if _is_ours(item) else f"{command(node, item)} --line-numbers"
        case Element(table=table):
            return "" if table == names.TABLE else command(node, item)
        case Neighbour(state=state):
            return command(node, item) if state == "permanent" else ""
        case Route():
            leads_away = isinstance(end, LeadsAway) and item.destination.prefixlen
            return command(node, item) if item.kind != "unicast" or leads_away else ""
        case RoutingRule():
            return command(node, item)
        case Netns() | Link() | Sysctl() | Address() | FdbEntry() | Table() | CtTimeouts() | Map() | XtRule() | None:
            return ""
        case IpvsTimeouts() | IpvsService() | IpvsDestination():
            return ""
        case _:
            assert_never(item)


def chains(items: Iterable[Item], end: RuleDrops | PolicyDrops | RuleRejects) -> list[Chain | XtChain]:
    """The chains of others that may have ended a packet so."""
    return [
        item
        for item in items
        if isinstance(item, Chain | XtChain) and item.name == end.chain and not _is_ours(item)
        and (isinstance(item, Chain) or item.table == end.kind)
    ]  # fmt: skip


def hearing_of_mtu(node: NodeSnapshot | None, chain: Chain | XtChain) -> str:
    """The command that lets senders hear that their packets are too large, which many firewalls forget."""
    if isinstance(chain, Chain):
        place = f"{chain.family} {quote(chain.table)} {quote(chain.name)}"
        return f"nft insert rule {place} ct state related accept"
    what = "-m conntrack --ctstate RELATED -j ACCEPT"
    return f"{_iptables(node)} -t {chain.table} -I {quote(chain.name)} {what}"


def exception(node: NodeSnapshot | None, last: Hop, *, answer: bool) -> str:
    """The command that lets packets like this one past the rule or the policy that ended it; "" where there is none.

    `answer`: it is one, known by where it comes from.
    """
    item, packet = last.item, last.before
    if packet.error or packet.arp:
        return ""
    if isinstance(item, Chain) and item.family in _WITH_IPV4:
        return f"nft {_nft_place(item, last)} {_nft_match(packet, answer=answer)} accept"
    if isinstance(item, XtChain):
        return f"{_iptables(node)} -t {item.table} {_xt_place(item, last)} {_xt_match(packet, answer=answer)} -j ACCEPT"
    return ""


def _iptables(node: NodeSnapshot | None) -> str:
    return "iptables-legacy" if node is not None and node.iptables == "legacy" else "iptables"


def _nft_place(chain: Chain, last: Hop) -> str:
    """Before the rule that ended it; what a policy ends is decided behind all rules."""
    place = f"{chain.family} {quote(chain.table)} {quote(chain.name)}"
    at = chain.rules.index(last.rule) if last.rule in chain.rules else -1
    if last.rule is None:
        return f"add rule {place}"
    handle = chain.handles[at] if 0 <= at < len(chain.handles) else 0
    return f"insert rule {place}" + (f" handle {handle}" if handle else "")


def _xt_place(chain: XtChain, last: Hop) -> str:
    if last.rule is None:
        return f"-A {quote(chain.name)}"
    return f"-I {quote(chain.name)} {chain.rules.index(last.rule) + 1 if last.rule in chain.rules else 1}"


def _nft_match(packet: Packet, *, answer: bool) -> str:
    if _is_tunnel(packet):
        return f"{packet.protocol} dport {VXLAN_PORT}"
    end, which = (packet.source, "s") if answer else (packet.destination, "d")
    return f"ip {which}addr {end.address} {packet.protocol} {which}port {end.port}"


def _xt_match(packet: Packet, *, answer: bool) -> str:
    if _is_tunnel(packet):
        return f"-p {packet.protocol} --dport {VXLAN_PORT}"
    end, which = (packet.source, "s") if answer else (packet.destination, "d")
    return f"-{which} {end.address} -p {packet.protocol} --{which}port {end.port}"


def _is_tunnel(packet: Packet) -> bool:
    return packet.inner is not None and packet.destination.port == VXLAN_PORT
