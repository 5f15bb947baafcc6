"""What a Docker Swarm puts into a node's kernel for the services and tasks that its manager knows: Swarm's way alone. PURE.

Devices, addresses, neighbours and FDB entries are those of routemesh's layout, which has them from Swarm. Rules, marks and IPVS
are written down here, so that nothing which routemesh's engines do besides is ever asked of a Swarm. A service has one mark,
whatever the protocols of its ports.

Source: moby daemon/libnetwork/service_linux.go, drivers/overlay, drivers/bridge/setup_ip_tables.go (20.10 to 27); recordings.
"""

from collections.abc import Iterator, Mapping
from operator import itemgetter

from routemesh import names
from routemesh.model import Network, Protocol, Service, Task
from routemesh.nodeplan import (
    HOST,
    Address,
    Assign,
    Capabilities,
    Dnat,
    FdbEntry,
    IpvsDestination,
    IpvsMatch,
    IpvsService,
    Item,
    Link,
    Masquerade,
    Match,
    Neighbour,
    Redirect,
    Route,
    Rule,
    Snat,
    Sysctl,
    Verdict,
    XtChain,
)
from routemesh.plan import layout
from routemesh.plan.view import NodeView

IPVS = "net/ipv4/vs/"

_OF_NO_MATTER = Capabilities(nf_tables=False, ip_vs=True, kernel="")
"""What a Swarm's node can does not change its devices and addresses."""

_LOCAL_GATEWAY = Match("oifname", names.GWBRIDGE)
_FROM_GATEWAY = Match("iifname", names.GWBRIDGE)
_ESTABLISHED = Match("ct state", "established,related")
_ACCEPT, _DROP, _RETURN = Verdict("accept"), Verdict("drop"), Verdict("return")
_FENCED = ("sctp", "udp", "tcp")


def swarm_plan(view: NodeView) -> Mapping[str, tuple[Item, ...]]:
    """By namespace, named as routemesh's planner names them. Between the rules of a chain others' may stand."""
    network = view.ingress
    spaces = {
        HOST: (*_layout(layout.host(view, _OF_NO_MATTER), Link, Address), *_host(view)),
        names.SANDBOX: (*_layout(layout.sandbox(view, network), Link, Address, Route), *_sandbox(view, network)),
        names.overlay_netns(network.id): tuple(
            _layout(layout.overlay(view, network, _OF_NO_MATTER), Link, Address, Neighbour, FdbEntry)
        ),
    }
    for task in layout.placed(view):
        spaces[names.container_id(task.id)] = (
            *_layout(layout.task(view, task), Link, Address, Route),
            *_task(view, task),
        )
    return spaces


def _layout(items: Iterator[Item], *kinds: type[Item]) -> Iterator[Item]:
    """The items of these kinds that Swarm has too: entries of the tunnel, the route to everywhere."""
    for item in items:
        has_no_way = (isinstance(item, FdbEntry) and item.dst is None) or (isinstance(item, Route) and item.via is None)
        elsewhere = isinstance(item, Neighbour) and item.link != names.VXLAN
        if isinstance(item, kinds) and not has_no_way and not elsewhere:
            yield item


def _host(view: NodeView) -> Iterator[Item]:
    subnet = str(view.cluster.gwbridge_subnet)
    sandbox = layout.sandbox_gwbridge_address(view.cluster)
    to_ingress: Rule = (Match("fib daddr type", "local"), Verdict("jump", names.INGRESS_CHAIN))
    ports = [port for service, _ in _served(view) for port in _ports(service)][::-1]
    publish = tuple((*_to(*port), Dnat(sandbox, port[1])) for port in ports)
    admit = tuple(rule for port in ports for rule in ((*_to(*port), _ACCEPT), (*_from(*port), _ACCEPT)))
    if ports:  # the first published port makes the chains
        yield XtChain("nat", names.INGRESS_CHAIN, (*publish, (_RETURN,)))
        yield XtChain("filter", names.INGRESS_CHAIN, (*admit, (_RETURN,)))
        yield XtChain("nat", "PREROUTING", (to_ingress,))
        yield XtChain("nat", "OUTPUT", (to_ingress,))
    yield XtChain(
        "nat",
        "POSTROUTING",
        (
            (_LOCAL_GATEWAY, Match("fib saddr type", "local"), Masquerade()),
            (Match("ip saddr", subnet), Match("oifname", names.GWBRIDGE, negate=True), Masquerade()),
        ),
    )
    yield XtChain(
        "filter",
        "FORWARD",
        (
            *([(Verdict("jump", names.INGRESS_CHAIN),)] if ports else []),
            (_LOCAL_GATEWAY, _ESTABLISHED, _ACCEPT),
            (_FROM_GATEWAY, Match("oifname", names.GWBRIDGE, negate=True), _ACCEPT),
            (_FROM_GATEWAY, _LOCAL_GATEWAY, _DROP),
        ),
    )
    yield Sysctl("net/ipv4/ip_forward", "1")
    yield Sysctl(f"net/ipv4/conf/{names.GWBRIDGE}/route_localnet", "1")


def _sandbox(view: NodeView, network: Network) -> Iterator[Item]:
    own = view.node.sandbox_on(network.id)
    assert own is not None
    served = _served(view)
    marking = tuple((*_to(*port), Assign("meta mark", mark)) for service, mark in served for port in _ports(service))
    vips = [(vip, mark) for service, mark in served if (vip := service.vip_on(network.id)) is not None]
    to_vip = tuple((Match("ip daddr", str(vip)), Assign("meta mark", mark)) for vip, mark in vips)
    if marking:
        yield XtChain("mangle", "PREROUTING", marking, "ACCEPT")
    if to_vip:
        yield XtChain("mangle", "INPUT", to_vip, "ACCEPT")
    snat: Rule = (Match("ip daddr", str(network.subnet)), IpvsMatch(), Snat(own))
    yield XtChain("nat", "POSTROUTING", (snat,), "ACCEPT")
    yield Sysctl("net/ipv4/ip_forward", "1")
    yield Sysctl(f"{IPVS}conntrack", "1")
    for service, mark in served:
        yield IpvsService(mark=mark, scheduler="rr")
        for task in view.serving.get(service.id, ()):
            if (address := task.address_on(network.id)) is not None:
                yield IpvsDestination(mark=mark, address=address)


def _task(view: NodeView, task: Task) -> Iterator[Item]:
    """A published port to its target; through the network nothing else gets in or out."""
    address = task.address_on(view.ingress.id)
    if address is None:
        return
    into, out = Match("ip daddr", str(address)), Match("ip saddr", str(address))
    published = task.spec.publish
    calls = tuple((into, *_to(port.protocol, port.target), Match("ct state", "established,new"), _ACCEPT) for port in published)
    answers = tuple(
        (
            out,
            Match("meta l4proto", port.protocol),
            Match("th sport", str(port.target)),
            Match("ct state", "established"),
            _ACCEPT,
        )
        for port in published
    )
    redirects = tuple((into, *_to(port.protocol, port.published), Redirect(port.target)) for port in published)
    yield XtChain("nat", "PREROUTING", redirects, "ACCEPT")
    yield XtChain("filter", "INPUT", (*calls, *((into, Match("meta l4proto", of), _DROP) for of in _FENCED)), "ACCEPT")
    yield XtChain("filter", "OUTPUT", (*answers, *((out, Match("meta l4proto", of), _DROP) for of in _FENCED)), "ACCEPT")


def _served(view: NodeView) -> list[tuple[Service, int]]:
    """The services that have a task, with their marks, the oldest first: a Swarm's node balances no others."""
    having = (service for service in view.services if view.serving.get(service.id))
    marked = [(service, service.fwmark) for service in having if service.fwmark is not None]
    return sorted(marked, key=itemgetter(1))


def _ports(service: Service) -> Iterator[tuple[Protocol, int]]:
    return ((port.protocol, port.published) for port in service.spec.publish)


def _to(protocol: Protocol, port: int) -> Rule:
    return Match("meta l4proto", protocol), Match("th dport", str(port))


def _from(protocol: Protocol, port: int) -> Rule:
    return Match("meta l4proto", protocol), _ESTABLISHED, Match("th sport", str(port))
