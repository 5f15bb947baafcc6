"""The `ipvs` engine: Swarm's own rules, iptables and IPVS by firewall mark. PURE.

What differs from Swarm, and why, is in docs/swarm.md. Chains, marks, addresses and the order of rules are libnetwork's.

Source: moby daemon/libnetwork/service_linux.go; ipvsadm(8), iptables-extensions(8); the kernel's ipvs-sysctl.rst.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Address

from routemesh import names
from routemesh.model import ClientIp, Network, Protocol, Scheduler, Task
from routemesh.nodeplan import (
    Assign,
    Capabilities,
    ClampMss,
    Dnat,
    IpvsDestination,
    IpvsMatch,
    IpvsService,
    IpvsTimeouts,
    Item,
    MarkMatch,
    Masquerade,
    Match,
    Redirect,
    Route,
    RoutingRule,
    Rule,
    Snat,
    Sysctl,
    Verdict,
    XtChain,
    XtRule,
)
from routemesh.plan import doors, layout
from routemesh.plan.engines import flows, ipvsmend
from routemesh.plan.engines.entry import Engine, Feature
from routemesh.plan.pools import Pool, mark_of_port
from routemesh.plan.view import NodeView
from routemesh.values import replace

SCHEDULERS = frozenset(Scheduler) - {Scheduler.RANDOM}

RETURN_CHAIN = f"{names.OWN_CHAINS}RETURN"
"""In a task: by which node's sandbox a connection came."""

RETURN_PRIORITY = 82
"""Of the routing rules, one per node, that lead replies back there; their table is numbered as the sandbox's address."""

_INVALID = Match("ct state", "invalid")
"""Of no connection that is tracked (out of window, an error about nothing known): NAT leaves it alone."""

_TIMEOUTS = IpvsTimeouts(tcp_s=432_000, tcp_fin_s=120, udp_s=300)
"""Conntrack's for an established and a closing TCP connection (nf_conntrack_proto_tcp.c); for UDP IPVS's own, which is longer."""

_REUSE_FIXED = (5, 9)
"""Since then a client's port that comes again meets no delay of a second with conn_reuse_mode=1 (kernel f0a5e4d7a594)."""

_ALL_BITS = 0xFFFFFFFF
_TCP_AND_IP_HEADER_BYTES = 40
_HASHED = (Scheduler.SH, Scheduler.MH)
_RETURN: Rule = (Verdict("return"),)
_TO_LOCAL = Match("fib daddr type", "local")
_FENCED = ("sctp", "udp", "tcp")


def host(view: NodeView, pools: Sequence[Pool], caps: Capabilities) -> Iterator[Item]:
    """DOCKER-INGRESS and what docker_gwbridge has around it; the newest port first, as libnetwork inserts them."""
    gateway, subnet = names.GWBRIDGE, str(view.cluster.gwbridge_subnet)
    to_ingress: Rule = (_TO_LOCAL, Verdict("jump", names.INGRESS_CHAIN))
    ports = [port for pool in pools for port in pool.ports][::-1]
    yield XtChain("nat", names.INGRESS_CHAIN, (*(_publish(view, *port) for port in ports), _RETURN))
    yield XtChain("filter", names.INGRESS_CHAIN, (*(rule for port in ports for rule in _admit(*port)), _RETURN))
    yield XtRule("nat", "PREROUTING", to_ingress)
    yield XtRule("nat", "OUTPUT", to_ingress)
    yield XtRule("nat", "POSTROUTING", (Match("ip saddr", subnet), Match("oifname", gateway, negate=True), Masquerade()))
    yield XtRule("nat", "POSTROUTING", (Match("oifname", gateway), Match("fib saddr type", "local"), Masquerade()))
    # A task's call to its own node comes back through the node only so; in Swarm br_netfilter sees to it.
    own_tasks = (Match("ip saddr", subnet), Match("oifname", gateway), Match("ct status", "dnat"), Masquerade())
    yield XtRule("nat", "POSTROUTING", own_tasks)
    # A local stack would answer what is not translated by a reset, which ends the connection that the packet only resembles.
    published = (port for port in ports if port[0] is Protocol.TCP)
    yield XtChain("mangle", names.STRAY_CHAIN, tuple((*_port(*port), Verdict("drop")) for port in published))
    yield XtRule("mangle", "PREROUTING", (_INVALID, _TO_LOCAL, Verdict("jump", names.STRAY_CHAIN)))
    out = Match("iifname", gateway)
    yield XtRule("mangle", "PREROUTING", (out, _INVALID, Verdict("drop")))
    established = Match("ct state", "established,related")
    yield XtRule("filter", "FORWARD", (out, Match("oifname", gateway, negate=True), Verdict("accept")))
    yield XtRule("filter", "FORWARD", (Match("oifname", gateway), established, Verdict("accept")))
    yield XtRule("filter", "FORWARD", (Match("oifname", gateway), Verdict("jump", names.INGRESS_CHAIN)))
    yield XtRule("filter", "FORWARD", (out, Match("oifname", gateway), Verdict("drop")), head=False)
    # Before the chains of filter, in which the first rule that accepts has the last word.
    yield XtChain("mangle", names.FORWARD_CHAIN, doors.forwarding(view, caps))
    yield XtRule("mangle", "FORWARD", (Verdict("jump", names.FORWARD_CHAIN),))
    yield from (XtRule("mangle", "PREROUTING", rule) for rule in doors.loopback())
    peers = tuple((Match("ip saddr", str(peer.address)), Verdict("return")) for peer in view.peers)
    yield XtChain("mangle", names.PEER_CHAIN, (*peers, (Verdict("drop"),)))
    yield XtRule("mangle", "INPUT", (*doors.tunnel(view), Verdict("jump", names.PEER_CHAIN)))


def sandbox(view: NodeView, network: Network, pools: Sequence[Pool], caps: Capabilities) -> Iterator[Item]:
    """Mark by published port, balance by mark; translate the client where it is the node itself or the service wants it."""
    every = tuple(part for pool in pools for part in _by_protocol(pool))
    marking = tuple((*_port(*port), Assign("meta mark", pool.mark)) for pool in every for port in pool.ports)
    served = {pool.service for pool in every}
    oldest_first = sorted(view.services, key=lambda service: service.fwmark or 0)
    to_vip = tuple(
        (Match("ip daddr", str(vip)), Assign("meta mark", service.fwmark))
        for service in oldest_first
        if (vip := service.vip_on(network.id)) is not None and service.fwmark is not None and service.id in served
    )
    yield XtChain("mangle", "PREROUTING", ((_INVALID, Verdict("drop")), *marking), "ACCEPT")
    if to_vip:
        yield XtChain("mangle", "INPUT", to_vip, "ACCEPT")
    yield XtChain("mangle", "POSTROUTING", (_clamp(view, network),), "ACCEPT")
    yield XtChain("nat", "POSTROUTING", tuple(_translations(view, network, every)), "ACCEPT")
    yield Sysctl("net/ipv4/vs/conntrack", "1")
    yield Sysctl("net/ipv4/vs/conn_reuse_mode", _reuse_mode(caps.kernel))
    yield Sysctl("net/ipv4/vs/expire_nodest_conn", "1")
    yield Sysctl("net/ipv4/vs/expire_quiescent_template", "1")
    yield _TIMEOUTS
    for pool in every:
        yield from _balance(pool)


def tasks(view: NodeView, caps: Capabilities) -> Callable[[Task], Iterator[Item]]:
    """Published port → target port, and what the gateway asks; nothing else gets in or out through the overlay.

    Replies go the way the request came. The gateway's own tasks may call others; the callee's filter (INPUT) decides.
    """
    return partial(_task, view, tuple(_return_path(view)))


def _task(view: NodeView, back: Iterable[Item], task: Task) -> Iterator[Item]:
    """`back`: the way back to clients, the same from all tasks."""
    address = task.address_on(view.ingress.id)
    if address is None:
        return
    own = Match("ip daddr", str(address))
    redirects = tuple(
        (own, *_port(publish.protocol, publish.published), Redirect(publish.target)) for publish in task.spec.publish
    )
    yield XtChain("nat", "PREROUTING", redirects, "ACCEPT")
    yield from _fence(view, task, address)
    keep = task.spec.client_ip is ClientIp.KEEP
    strays: Rule = (Match("iifname", names.OVERLAY_LINK), _INVALID, Verdict("drop"))
    yield XtChain("mangle", "PREROUTING", (strays, *(_remembering() if keep else ())), "ACCEPT")
    if keep:
        yield from back
    if layout.answers_from(view, task) is not None:
        assert task.gateway_address is not None
        outside = (Match("ip saddr", str(address)), Match("oifname", names.GWBRIDGE_LINK), Snat(task.gateway_address))
        yield XtChain("nat", "POSTROUTING", (outside,), "ACCEPT")


# --- the node ----------------------------------------------------------------------------------------------------


def _publish(view: NodeView, protocol: Protocol, port: int) -> Rule:
    return (*_port(protocol, port), Dnat(layout.sandbox_gwbridge_address(view.cluster), port))


def _admit(protocol: Protocol, port: int) -> tuple[Rule, Rule]:
    answers = (Match("meta l4proto", protocol), Match("ct state", "established,related"), Match("th sport", str(port)))
    return (*_port(protocol, port), Verdict("accept")), (*answers, Verdict("accept"))


def _port(protocol: Protocol, port: int) -> Rule:
    return Match("meta l4proto", protocol), Match("th dport", str(port))


# --- the sandbox -------------------------------------------------------------------------------------------------


def _clamp(view: NodeView, network: Network) -> Rule:
    """Both ways: the task answers through an interface whose MTU is the node's, and so announces what the overlay can't carry."""
    mss = ClampMss(layout.overlay_mtu(view, network) - _TCP_AND_IP_HEADER_BYTES)
    return Match("meta l4proto", "tcp"), Match("tcp flags", "syn"), mss


def _by_protocol(pool: Pool) -> Iterator[Pool]:
    """UDP apart from TCP, since they drain differently (`_balance`), unless clients are to have one task for both."""
    udp = tuple(port for port in pool.ports if port[0] is Protocol.UDP)
    others = tuple(port for port in pool.ports if port not in udp)
    if not udp or not others or pool.balancing.affinity_s:
        yield pool
        return
    yield replace(pool, ports=others)
    yield replace(pool, ports=udp, mark=mark_of_port(pool.mark, *udp[0]))


def _translations(view: NodeView, network: Network, every: tuple[Pool, ...]) -> Iterator[Rule]:
    """Swarm's one SNAT rule, but for the services that ask for it, and for the node and its tasks as clients.

    Their addresses on docker_gwbridge are the same on every node, so a task could not tell them apart.
    """
    own = view.node.sandbox_on(network.id)
    assert own is not None
    balanced = (Match("ip daddr", str(network.subnet)), IpvsMatch())
    as_node = Snat(own)
    yield (Match("ip saddr", str(view.cluster.gwbridge_subnet)), *balanced, as_node)
    for pool in every:
        if pool.snat:
            daddr, ipvs = balanced
            yield daddr, MarkMatch("meta mark", pool.mark, _ALL_BITS), ipvs, as_node


def _balance(pool: Pool) -> Iterator[Item]:
    scheduler = pool.balancing.scheduler
    yield IpvsService(mark=pool.mark, scheduler=scheduler, persistent_s=pool.balancing.affinity_s, fallback=scheduler in _HASHED)
    for member in pool.members:
        yield IpvsDestination(mark=pool.mark, address=member.address, weight=member.weight)
    # UDP has no end of a connection to wait for: its clients move to other tasks while this one still runs.
    if any(protocol is not Protocol.UDP for protocol, _ in pool.ports):
        for address in pool.draining:
            yield IpvsDestination(mark=pool.mark, address=address, weight=0)


def _reuse_mode(kernel: str) -> str:
    found = re.match(r"(\d+)\.(\d+)", kernel)
    return "1" if found is not None and tuple(map(int, found.groups())) >= _REUSE_FIXED else "0"


# --- a task ------------------------------------------------------------------------------------------------------


def _fence(view: NodeView, task: Task, address: IPv4Address) -> Iterator[Item]:
    """Through the overlay: calls of published ports in, their answers out, nothing else.

    A task whose own packets bear its overlay address (layout.answers_from) sends them by docker_gwbridge, and they pass.
    """
    into, out = Match("ip daddr", str(address)), Match("ip saddr", str(address))
    ports = [(publish.protocol, str(publish.target)) for publish in task.spec.publish]
    accept, drop = Verdict("accept"), Verdict("drop")
    calls = ((into, Match("meta l4proto", of), Match("th dport", port), _states("established,new"), accept) for of, port in ports)
    answers = ((out, Match("meta l4proto", of), Match("th sport", port), _states("established"), accept) for of, port in ports)
    own_in: tuple[Rule, ...] = ()
    own_out: tuple[Rule, ...] = ()
    if layout.answers_from(view, task) is not None:
        own_in = ((into, Match("iifname", names.GWBRIDGE_LINK), _states("established,related"), accept),)
        own_out = ((out, Match("oifname", names.GWBRIDGE_LINK), accept),)
    gateway_in, gateway_out = _gateway(view, task, address)
    no_calls = ((into, Match("meta l4proto", of), drop) for of in _FENCED)
    no_answers = ((out, Match("meta l4proto", of), drop) for of in _FENCED)
    yield XtChain("filter", "INPUT", (*calls, *gateway_in, *own_in, *no_calls), "ACCEPT")
    yield XtChain("filter", "OUTPUT", (*answers, *gateway_out, *own_out, *no_answers), "ACCEPT")


def _gateway(view: NodeView, task: Task, address: IPv4Address) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """What passes a task's filter inwards and outwards for the gateway: its proxies' calls, and the proxies' own way out."""
    into, out, tcp = Match("ip daddr", str(address)), Match("ip saddr", str(address)), Match("meta l4proto", "tcp")
    accept = Verdict("accept")
    if task.spec.gateway is not None:
        return ((into, tcp, _states("established"), accept),), ((out, tcp, _states("established,new"), accept),)
    if task.spec.http is None:
        return (), ()
    port = str(task.spec.http.port)
    calls = tuple(
        (Match("ip saddr", str(proxy)), into, tcp, Match("th dport", port), _states("established,new"), accept)
        for proxy in view.gateways
    )
    return calls, ((out, tcp, Match("th sport", port), _states("established"), accept),) if calls else ()


def _states(states: str) -> Match:
    return Match("ct state", states)


def _remembering() -> tuple[Rule, Rule]:
    """Note by which sandbox a connection came.

    A UDP socket may ask through one node and then through another: its last request counts, for which every packet is marked.
    """
    from_overlay, remember = Match("iifname", names.OVERLAY_LINK), Verdict("jump", RETURN_CHAIN)
    tcp: Rule = (from_overlay, Match("meta l4proto", "tcp"), _states("new"), remember)
    udp: Rule = (from_overlay, Match("meta l4proto", "udp"), Match("ct direction", "original"), remember)
    return tcp, udp


def _return_path(view: NodeView) -> Iterator[Item]:
    """The connection is marked with the sandbox by which it came; one routing rule and table for each leads the reply to it."""
    recalled = Match("ct direction", "reply")
    yield XtChain("mangle", "OUTPUT", ((recalled, Assign("meta mark", "ct mark")),), "ACCEPT")
    marks = []
    for sandbox in view.sandboxes(view.ingress):
        mark = int(sandbox)
        marks.append((Match("ether saddr", names.mac(sandbox)), Assign("ct mark", mark)))
        yield Route(destination=layout.EVERYWHERE, via=sandbox, link=names.OVERLAY_LINK, table=mark)
        yield RoutingRule(priority=RETURN_PRIORITY, fwmark=mark, mask=_ALL_BITS, table=mark)
    yield XtChain("mangle", RETURN_CHAIN, tuple(marks))


def _lacks(caps: Capabilities) -> str:
    if not caps.ip_vs:
        return f"needs the ip_vs module, which kernel {caps.kernel} does not have (./run uml gives a shell in one that has it)"
    return "" if caps.iptables else "needs iptables (Debian's package iptables), which does not work here"


ENGINE = Engine(
    name="ipvs",
    schedulers=SCHEDULERS,
    host=host,
    sandbox=sandbox,
    tasks=tasks,
    lacks=_lacks,
    features=(
        Feature(name="ip_vs", module="ip_vs", option="IP_VS", without="nothing is balanced by engine ipvs"),
        Feature(
            name="xt_ipvs",
            module="xt_ipvs",
            option="NETFILTER_XT_MATCH_IPVS",
            without="engine ipvs can't tell what it has balanced",
        ),
    ),
    programs=frozenset({"iptables", "IPVS schedulers"}),
    stale=flows.stale,
    mend=ipvsmend,
)
