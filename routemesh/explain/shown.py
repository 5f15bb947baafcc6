"""How things in a kernel are shown to people: what kind they are, their text, and the command that prints them. PURE.

Source: nft(8), iptables(8), ipvsadm(8), ip-route(8), ip-neighbour(8), bridge(8), ss(8).
"""

from shlex import quote
from typing import assert_never

from routemesh.explain.nouns import Kind
from routemesh.language import nft, xtrule
from routemesh.nodeplan import (
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
    Rule,
    Statement,
    Sysctl,
    Table,
    Unknown,
    XtChain,
    XtRule,
)
from routemesh.snapshot import NodeSnapshot

_KINDS: dict[type, Kind] = {
    Chain: "rule",
    XtChain: "rule",
    XtRule: "rule",
    Element: "element",
    Route: "route",
    RoutingRule: "route",
    Address: "route",
    Neighbour: "neighbour",
    FdbEntry: "fdb",
    Link: "link",
    IpvsService: "ipvs",
    IpvsDestination: "ipvs",
}
_XT = (XtChain, XtRule)


def kind_of(item: Item | None) -> Kind:
    """What an item is to people."""
    return "other" if item is None else _KINDS.get(type(item), "other")


def rule_text(item: Item | None, rule: Rule | None) -> str:
    """A rule as its own tool spells it, "" for none; what is not understood stands in it as it was read."""
    if rule is None:
        return ""
    if isinstance(item, _XT):
        return " ".join(_xt_words(rule))
    return " ".join(_nft_word(statement) for statement in rule)


def _nft_word(statement: Statement) -> str:
    if isinstance(statement, Unknown):
        return f"⟨{statement.json}⟩"
    try:
        return nft.rule_text((statement,)).removeprefix(nft.ANY_PORT_PROTOCOL).strip()
    except ValueError:
        return str(statement)


def _xt_words(rule: Rule) -> list[str]:
    unknown = [f"⟨{statement.json}⟩" for statement in rule if isinstance(statement, Unknown)]
    try:
        return [*unknown, xtrule.rule_text(tuple(each for each in rule if not isinstance(each, Unknown)))]
    except ValueError:
        return [str(statement) for statement in rule]


def in_namespace(node: NodeSnapshot | None, netns: str, command: str) -> str:
    """A command as it is run on the node for one of its namespaces; "" remains "". A pipe's other end is outside."""
    space = None if node is None else node.namespaces.get(netns)
    path = "" if space is None else space.path
    return f"nsenter --net={quote(path)} {command}" if path and command else command


def command(node: NodeSnapshot | None, item: Item | None) -> str:
    """The command that prints an item, in its namespace; "" where there is none."""
    match item:
        case Chain(family, name, table=table):
            return f"nft list chain {family} {quote(table)} {quote(name)}"
        case Element(family, of, table=table):
            return _of_element(family, table, of, item)
        case XtChain(table=xt, name=name) | XtRule(table=xt, chain=name):
            legacy = node is not None and node.iptables == "legacy"
            return f"iptables{'-legacy' * legacy} -t {xt} -nvL {quote(name)}"
        case IpvsService(mark=mark) | IpvsDestination(mark=mark):
            return f"ipvsadm -Ln -f {mark}"
        case Link() | Address() | Route() | RoutingRule() | Neighbour() | FdbEntry():
            return _of_links(item)
        case Netns() | Sysctl() | IpvsTimeouts() | Table() | CtTimeouts() | Map() | None:
            return ""
        case _:
            assert_never(item)


def _of_links(item: Link | Address | Route | RoutingRule | Neighbour | FdbEntry) -> str:
    match item:
        case Route(destination=destination, table=table):
            where = "default" if destination.prefixlen == 0 else str(destination)
            return f"ip route show {where} table {table}"
        case RoutingRule(priority=priority):
            return f"ip rule show pref {priority}"
        case Address(link=link):
            return f"ip address show dev {quote(link)}"
        case Neighbour(link=link, ip=ip):
            return f"ip neighbour show {ip} dev {quote(link)}"
        case FdbEntry(link=link):
            return f"bridge fdb show dev {quote(link)}"
        case Link(name=name):
            return f"ip -details link show {quote(name)}"
        case _:
            assert_never(item)


def _of_element(family: str, table: str, of: str, item: Element) -> str:
    place = f"{family} {quote(table)} {quote(of)}"
    try:
        return f"nft get element {place} {quote('{ ' + nft.element_key(item) + ' }')}"
    except ValueError:
        return f"nft list map {place}"
