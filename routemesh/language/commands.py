"""Operations as the command lines a person would type. PURE.

Source: ip-link(8), ip-address(8), ip-route(8), ip-rule(8), ip-neighbour(8), bridge(8), sysctl(8), nsenter(1), nft(8),
iptables(8), ipvsadm(8).
"""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from shlex import quote
from typing import assert_never

from routemesh import names
from routemesh.language import xtables
from routemesh.language.nft import transaction
from routemesh.nodeplan import (
    HOST,
    ROUTE_PROTOCOL,
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
    Route,
    RoutingRule,
    Sysctl,
    Table,
    XtChain,
    XtRule,
    comes_along,
    item_of,
)

PathOf = Callable[[str], object]
"""A namespace's name → the path of its file."""

_DEFAULT = IPv4Network("0.0.0.0/0")
_VERBS: dict[type, str] = {Create: "add", Change: "replace", Delete: "del"}
_IPVS_VERBS: dict[type, str] = {Create: "A", Change: "E", Delete: "D"}
"""Of a service; a destination's are the same in lower case."""
_METHODS = {"masq": "m", "route": "g", "tunnel": "i"}


def default_path(netns: str) -> str:
    """Where a node's daemon keeps its namespaces, unless it was started with another run directory."""
    return f"/run/routemesh/netns/{netns}"


def command(op: Op, path_of: PathOf = default_path) -> str:
    """The command line that carries out `op`, run in the node's own namespace; several commands are joined by &&.

    Raises ValueError for an item that has no place in the language of nft or iptables.
    """
    item = item_of(op)
    if isinstance(item, Netns):
        return _netns(op, _path(item.name, path_of))
    if script := xtables.restore(op):
        return f"{script} | {inside(op.netns, 'iptables-restore --noflush', path_of)}"
    texts = [inside(op.netns, text, path_of) for text in _commands(op, item)]
    if isinstance(item, Link) and isinstance(op, Create) and not comes_along(item):
        texts.insert(0, _new_link(op.netns, item, path_of))
    return " && ".join(texts)


def inside(netns: str, text: str, path_of: PathOf = default_path) -> str:
    """A command line that runs the command `text` in a namespace."""
    return text if netns == HOST else f"nsenter --net={_path(netns, path_of)} {text}"


def _commands(op: Op, item: Item) -> Iterator[str]:
    verb = _VERBS[type(op)]
    match item:
        case Table() | CtTimeouts() | Map() | Chain() | Element():
            yield "nft " + quote("; ".join(transaction([op]).splitlines()))
        case Link(name=link):
            yield from (f"ip link del {quote(link)}",) if isinstance(op, Delete) else _link_settings(item)
        case Sysctl(path, value):
            yield f"sysctl {quote(path)}" if isinstance(op, Delete) else f"sysctl -w {quote(f'{path}={value}')}"
        case Address(link, address):
            yield f"ip address {verb} {address} dev {quote(link)}"
        case Route():
            yield f"ip route {'append' if isinstance(op, Create) and comes_along(item) else verb} {_route(item)}"
        case RoutingRule():
            yield from _routing_rule(op, item)
        case Neighbour(link, ip, mac):
            place = f"{ip} dev {quote(link)}"
            entry = "" if isinstance(op, Delete) else f" lladdr {quote(mac)} nud permanent protocol {ROUTE_PROTOCOL}"
            yield f"ip neighbour {verb} {place}{entry}"
        case FdbEntry():
            yield f"bridge fdb {verb} {_fdb_entry(item)}"
        case IpvsTimeouts() | IpvsService() | IpvsDestination():
            yield f"ipvsadm {_ipvs(op, item)}"
        case XtChain() | XtRule():
            yield from xtables.commands(op)
        case Netns():
            raise AssertionError("a namespace is made as a whole: see command()")
        case _:
            assert_never(item)


# --- namespaces --------------------------------------------------------------------------------------------------


def _netns(op: Op, path: str) -> str:
    if isinstance(op, Delete):
        return f"umount {path} && rm {path}"
    return f"touch {path} && unshare --net={path} true"


def _path(netns: str, path_of: PathOf) -> str:
    return quote(str(path_of(netns)))


# --- links -------------------------------------------------------------------------------------------------------


def _new_link(netns: str, link: Link, path_of: PathOf) -> str:
    """Made from the node's namespace: there a tunnel's underlay socket stays, and there a veth's other end may be."""
    place = _place(netns, path_of)
    return f"ip link add {quote(link.name)}{place} type {link.kind}{_tunnel(link)}{_peer(link, path_of)}"


def _place(netns: str, path_of: PathOf) -> str:
    return "" if netns == HOST else f" netns {_path(netns, path_of)}"


def _tunnel(link: Link) -> str:
    if link.vxlan is None:
        return ""
    flags = ("learning" if link.vxlan.learning else "nolearning") + " proxy" * link.vxlan.proxy
    return f" id {link.vxlan.vni} local {link.vxlan.local} dstport {link.vxlan.port} {flags}"


def _peer(link: Link, path_of: PathOf) -> str:
    return "" if link.peer is None else f" peer name {quote(link.peer.link)}{_place(link.peer.netns, path_of)}"


def _link_settings(link: Link) -> Iterator[str]:
    name = quote(link.name)
    mac = "" if link.mac is None else f" address {quote(link.mac)}"
    master = "nomaster" if link.master is None else f"master {quote(link.master)}"
    if comes_along(link):
        yield f"ip link set {name} mtu {link.mtu} {'up' if link.up else 'down'}"
        return
    yield f"ip link set {name} alias {names.ALIAS} mtu {link.mtu}{mac} {master} {'up' if link.up else 'down'}"
    if link.master is not None:
        learning, flood, isolated = ("on" if flag else "off" for flag in (link.learning, link.flood, link.isolated))
        yield f"bridge link set dev {name} learning {learning} flood {flood} isolated {isolated}"


# --- the rest ----------------------------------------------------------------------------------------------------


def _route(route: Route) -> str:
    destination = "default" if route.destination == _DEFAULT else str(route.destination)
    source = "" if route.source is None else f" src {route.source}"
    via = "" if route.via is None else f" via {route.via}"
    metric = f" metric {route.metric}" if route.metric else ""
    kind = "" if route.kind == "unicast" else f"{route.kind} "
    return f"{kind}{destination}{via} dev {quote(route.link)} table {route.table} protocol {route.protocol}{source}{metric}"


def _routing_rule(op: Op, rule: RoutingRule) -> Iterator[str]:
    """There is no `ip rule replace`."""
    if not isinstance(op, Create):
        yield f"ip rule del pref {rule.priority} protocol {rule.protocol}"
    if not isinstance(op, Delete):
        mark = f" fwmark {rule.fwmark:#x}/{rule.mask:#x}" if rule.mask else ""
        yield f"ip rule add pref {rule.priority}{mark} lookup {rule.table} protocol {rule.protocol}"


def _fdb_entry(entry: FdbEntry) -> str:
    where = "master static" if entry.dst is None else f"dst {entry.dst} self permanent"
    return f"{quote(entry.mac)} dev {quote(entry.link)} {where}"


# --- IPVS --------------------------------------------------------------------------------------------------------


def _ipvs(op: Op, item: IpvsTimeouts | IpvsService | IpvsDestination) -> str:
    if isinstance(item, IpvsTimeouts):
        return "-L --timeout" if isinstance(op, Delete) else f"--set {item.tcp_s} {item.tcp_fin_s} {item.udp_s}"
    verb = _IPVS_VERBS[type(op)]
    if isinstance(item, IpvsService):
        return f"-{verb} -f {item.mark}{'' if isinstance(op, Delete) else _service(item)}"
    place = f"-{verb.lower()} -f {item.mark} -r {item.address}:{item.port}"
    return place if isinstance(op, Delete) else f"{place} -{_METHODS[item.method]} -w {item.weight}"


def _service(service: IpvsService) -> str:
    persistent = f" -p {service.persistent_s}" if service.persistent_s else ""
    fallback = f" -b {service.scheduler}-fallback" if service.fallback else ""
    return f" -s {quote(service.scheduler)}{persistent}{fallback}"
