"""The `nftables` engine: what it puts into the node, the sandbox and a task. PURE.

The rules that a packet meets are the same however many services there are; ports, marks and backends are map elements. Only
how a task is chosen is up to the service: each has a chain, reached by a verdict map (plan.engines.nftbalance, docs/adr/0002).

Source: nft(8); docs/path.md; the kernel's net/netfilter/nft_numgen.c, nft_hash.c, nft_dynset.c.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

from routemesh import names
from routemesh.model import ClientIp, Network, Task
from routemesh.nodeplan import (
    Assign,
    Capabilities,
    Chain,
    ClampMss,
    Counter,
    CtTimeouts,
    Dnat,
    Element,
    Field,
    Hook,
    InSet,
    Item,
    KeyType,
    Lookup,
    Map,
    Masquerade,
    Match,
    Neighbour,
    Redirect,
    Reject,
    Route,
    RoutingRule,
    Rule,
    SetTimeouts,
    Snat,
    Table,
    Verdict,
    VerdictLookup,
)
from routemesh.plan import doors, layout
from routemesh.plan.engines import flows, nftbalance
from routemesh.plan.engines.entry import Engine, Feature
from routemesh.plan.pools import Pool
from routemesh.plan.view import NodeView

TIMEOUTS_S: Mapping[Literal["tcp", "udp"], Mapping[str, int]] = {
    # The other states have the kernel's own 120 s (syn_sent, time_wait), 60 (syn_recv), 432,000 (established), 10 (close),
    # 300 (retrans, unack), which nft sets besides.
    "tcp": {
        "close_wait": 432_000,  # one side has said all and may wait for the answer as long as any connection may rest
        "fin_wait": 300,  # a FIN without an answer is sent again, the last times every 120 s (TCP_RTO_MAX)
        "last_ack": 300,  # the same of the other side's
    },
    "udp": {"unreplied": 120, "replied": 300},  # what RFC 4787 demands and recommends (REQ-5)
}
"""What conntrack remembers of a connection in which nothing is said, where that is not the kernel's own; docs/path.md."""

RETURN_TABLE = 82
"""Routing table, in a task's namespace, of replies to clients that came through a node's sandbox."""

_RAW, _MANGLE, _DSTNAT, _FILTER, _SRCNAT = -300, -150, -100, 0, 100
_TCP_AND_IP_HEADER_BYTES = 40
_LAST_ZONE = 0xFFFF
"""A pool that is larger than a /16 has nodes that share a zone, if it has that many."""

_PORT: tuple[Field, Field] = ("meta l4proto", "th dport")
_PORT_KEY: KeyType = ("proto", "port")
_INVALID = Match("ct state", "invalid")
"""Of no connection that is tracked (out of window, an error about nothing known): NAT leaves it alone."""
_REFUSE: tuple[Rule, ...] = (
    (Match("meta l4proto", "tcp"), Reject("tcp reset")),
    (Reject("icmp port-unreachable"),),
)


def host(view: NodeView, pools: Sequence[Pool], caps: Capabilities) -> Iterator[Item]:
    """DOCKER-INGRESS: published ports of local addresses go to the sandbox, the port as it is; nothing else goes that way."""
    cluster = view.cluster
    gateway, subnet = names.GWBRIDGE, str(cluster.gwbridge_subnet)
    to_ingress: Rule = (Match("fib daddr type", "local"), Verdict("goto", names.INGRESS_CHAIN))
    as_node = Snat(view.node.address)
    published, to_sandbox = InSet(_PORT, "published"), Dnat(layout.sandbox_gwbridge_address(cluster))
    publish: Rule = (published, *_remembered(caps), Counter(), to_sandbox)
    yield Table("ip")
    yield from _timeouts(caps)
    yield Map("ip", "published", _PORT_KEY)
    # A local stack would answer what is not translated by a reset, which ends the connection that the packet only resembles.
    strays: tuple[Rule, ...] = (
        (Match("iifname", gateway), _INVALID, Verdict("drop")),
        (_INVALID, Match("fib daddr type", "local"), published, Verdict("drop")),
    )
    yield Chain("ip", "filter-prerouting", Hook("filter", "prerouting", _MANGLE), strays)
    yield Chain("ip", names.INGRESS_CHAIN, rules=(publish, (Verdict("return"),)))
    yield Chain("ip", "raw-prerouting", Hook("filter", "prerouting", _RAW), doors.loopback())
    yield Chain("ip", "filter-forward", Hook("filter", "forward", _FILTER), doors.forwarding(view, caps))
    yield Map("ip", "peers", ("ip",))
    tunnel = doors.tunnel(view)
    from_peers: tuple[Rule, ...] = ((*tunnel, InSet(("ip saddr",), "peers"), Verdict("accept")), (*tunnel, Verdict("drop")))
    yield Chain("ip", "filter-input", Hook("filter", "input", _FILTER), from_peers)
    yield Chain("ip", "nat-prerouting", Hook("nat", "prerouting", _DSTNAT), (to_ingress,))
    yield Chain("ip", "nat-output", Hook("nat", "output", _DSTNAT), (to_ingress,))
    yield Chain(
        "ip",
        "nat-postrouting",
        Hook("nat", "postrouting", _SRCNAT),
        (
            # The node itself and its own tasks as clients: the reply must come back through the node, and 127.0.0.1 or an
            # address of docker_gwbridge, which every node has, would mean another machine where the task runs.
            (Match("oifname", gateway), Match("fib saddr type", "local"), Match("ct status", "dnat"), as_node),
            (Match("oifname", gateway), Match("ip saddr", subnet), Match("ct status", "dnat"), as_node),
            (Match("ip saddr", subnet), Match("oifname", gateway, negate=True), Masquerade()),
        ),
    )
    for pool in pools:
        for port in pool.ports if pool.open else ():
            yield Element("ip", "published", port)
    for peer in view.peers:
        yield Element("ip", "peers", (peer.address,))


def sandbox(view: NodeView, network: Network, pools: Sequence[Pool], caps: Capabilities) -> Iterator[Item]:
    """Mark by published port, balance by mark, as IPVS does in Swarm's sandbox."""
    own = view.node.sandbox_on(network.id)
    assert own is not None
    from_node = Match("iifname", names.GWBRIDGE_LINK)
    to_overlay = Match("oifname", names.OVERLAY_LINK)
    open_pools = [pool for pool in pools if pool.open]
    yield Table("ip")
    yield from _timeouts(caps)
    yield Map("ip", "marks", _PORT_KEY, "mark")
    yield Map("ip", "services", ("mark",), "verdict")
    yield from nftbalance.maps(open_pools)
    yield Map("ip", "snat-marks", ("mark",))
    mark: Rule = (from_node, Assign("meta mark", Lookup(_PORT, "marks")))
    yield Chain("ip", "mangle-prerouting", Hook("filter", "prerouting", _MANGLE), ((_INVALID, Verdict("drop")), mark))
    balance: Rule = (from_node, VerdictLookup(("meta mark",), "services"))
    yield Chain("ip", "nat-prerouting", Hook("nat", "prerouting", _DSTNAT), (*_remembering(caps, from_node), balance))
    # Without it a client's first full segment is 50 bytes too long for the overlay, and the connection hangs on ICMP.
    clamp: Rule = (Match("tcp flags", "syn"), ClampMss(layout.overlay_mtu(view, network) - _TCP_AND_IP_HEADER_BYTES))
    yield Chain("ip", "filter-forward", Hook("filter", "forward", _FILTER), (clamp,))
    snat: Rule = (to_overlay, InSet(("meta mark",), "snat-marks"), Snat(own))
    yield Chain("ip", "nat-postrouting", Hook("nat", "postrouting", _SRCNAT), (snat,))
    for pool in open_pools:
        yield from _balance(pool)


def tasks(view: NodeView, caps: Capabilities) -> Callable[[Task], Iterator[Item]]:
    """Published port → target port, and what the gateway asks; nothing else gets in or out through the overlay.

    Replies go the way the request came. The gateway's own tasks may call others; the other task's filter-prerouting decides.
    """
    return partial(_task, view, caps, tuple(_return_path(view)))


def _task(view: NodeView, caps: Capabilities, back: Iterable[Item], task: Task) -> Iterator[Item]:
    """`back`: the way back to clients, the same from all tasks."""
    address = task.address_on(view.ingress.id)
    if address is None:
        return
    keep = task.spec.client_ip is ClientIp.KEEP
    from_overlay = Match("iifname", names.OVERLAY_LINK)
    yield Table("ip")
    yield from _timeouts(caps)
    yield Map("ip", "published", _PORT_KEY)
    yield Map("ip", "ports", _PORT_KEY, "port")
    remember: Rule = (Assign("ct mark", Lookup(("ether saddr",), "nodes")),)
    fence: tuple[Rule, ...] = (
        (Match("iifname", names.OVERLAY_LINK, negate=True), Verdict("accept")),
        (Match("ct state", "established,related"), Verdict("accept")),
        (_INVALID, Verdict("drop")),
        *((remember,) if keep else ()),
        (InSet(_PORT, "published"), Verdict("accept")),
        *_gateway_calls(task),
        *_REFUSE,
    )
    yield Chain("ip", "filter-prerouting", Hook("filter", "prerouting", _MANGLE), fence)
    redirect: Rule = (from_overlay, Redirect(Lookup(_PORT, "ports")))
    yield Chain("ip", "nat-prerouting", Hook("nat", "prerouting", _DSTNAT), (*_remembering(caps, from_overlay), redirect))
    outward = (Match("oifname", names.OVERLAY_LINK), Match("ct direction", "original"))
    calls: tuple[Rule, ...] = ((*outward, Match("meta l4proto", "tcp"), Verdict("accept")),) if task.spec.gateway else ()
    no_calls = tuple((*outward, *refuse) for refuse in _REFUSE)
    yield Chain("ip", "filter-output", Hook("filter", "output", _FILTER), (*calls, *no_calls))
    for port in task.spec.publish:
        yield Element("ip", "published", (port.protocol, port.published))
        yield Element("ip", "ports", (port.protocol, port.published), port.target)
    if task.spec.http is not None:
        yield Map("ip", "gateways", ("ip",))
        for gateway in view.gateways:
            yield Element("ip", "gateways", (gateway,))
    if keep:
        yield from back
    if layout.answers_from(view, task) is not None:
        assert task.gateway_address is not None
        own: Rule = (Match("oifname", names.GWBRIDGE_LINK), Match("ip saddr", str(address)), Snat(task.gateway_address))
        yield Chain("ip", "nat-postrouting", Hook("nat", "postrouting", _SRCNAT), (own,))


def _timeouts(caps: Capabilities) -> Iterator[Item]:
    """For how long each hop remembers a connection, the same at all hops and whatever the machine's own settings are."""
    if caps.ct_timeouts:
        for protocol, seconds in TIMEOUTS_S.items():
            yield CtTimeouts("ip", f"mesh-{protocol}", protocol, tuple(sorted(seconds.items())))


def _remembered(caps: Capabilities) -> tuple[SetTimeouts, ...]:
    """Each passes over what is of the other protocol."""
    return tuple(SetTimeouts(f"mesh-{protocol}") for protocol in TIMEOUTS_S) if caps.ct_timeouts else ()


def _remembering(caps: Capabilities, which: Match) -> tuple[Rule, ...]:
    """In a NAT chain, which sees no more than the first packet of a connection, and before whatever ends the chain."""
    return ((which, *_remembered(caps)),) if caps.ct_timeouts else ()


def _gateway_calls(task: Task) -> tuple[Rule, ...]:
    """The gateway's proxies, and nobody else, reach the port that the service's label names."""
    if task.spec.http is None:
        return ()
    to_port = (Match("meta l4proto", "tcp"), Match("th dport", str(task.spec.http.port)))
    return ((*to_port, InSet(("ip saddr",), "gateways"), Verdict("accept")),)


def _return_path(view: NodeView) -> Iterator[Item]:
    """The mark names the sandbox by which the connection came; it chooses the route and then the MAC of the reply.

    The next hop is only a name for `that way`: the egress hook puts the right sandbox's MAC in, so one route serves all nodes.
    """
    subnet, hop = view.ingress.subnet, layout.overlay_bridge_address(view.ingress)
    yield Neighbour(names.OVERLAY_LINK, hop, names.mac(hop))
    yield Route(destination=layout.EVERYWHERE, via=hop, link=names.OVERLAY_LINK, table=RETURN_TABLE)
    yield RoutingRule(priority=RETURN_TABLE, fwmark=int(subnet.network_address), mask=int(subnet.netmask), table=RETURN_TABLE)
    yield Map("ip", "nodes", ("mac",), "mark")
    yield from _zones(view)
    recall: Rule = (Match("ct direction", "reply"), Assign("meta mark", "ct mark"))
    yield Chain("ip", "route-output", Hook("route", "output", _MANGLE), (recall,))
    yield Table("netdev")
    yield Map("netdev", "macs", ("mark",), "mac")
    steer: Rule = (Assign("ether daddr", Lookup(("meta mark",), "macs")),)
    yield Chain("netdev", "egress", Hook("filter", "egress", _FILTER, names.OVERLAY_LINK), (steer,))
    for sandbox in view.sandboxes(view.ingress):
        mac, mark = names.mac(sandbox), int(sandbox)
        yield Element("ip", "nodes", (mac,), mark)
        yield Element("netdev", "macs", (mark,), mac)


def _zones(view: NodeView) -> Iterator[Item]:
    """Keep apart connections from one client port that came through several nodes: here they have the same addresses and ports.

    Each node is a conntrack zone of the original direction. Replies have no zone, so where two connections' replies would look
    alike, NAT gives the later one another source port; it does so at the input hook, which needs a chain to be there.
    Source: the kernel's nf_nat_core.c (get_unique_tuple), nft(8) on ct original zone.
    """
    yield Map("ip", "zones", ("mac",), "zone")
    apart: Rule = (Match("iifname", names.OVERLAY_LINK), Assign("ct original zone", Lookup(("ether saddr",), "zones")))
    yield Chain("ip", "raw-prerouting", Hook("filter", "prerouting", _RAW), (apart,))
    yield Chain("ip", "nat-input", Hook("nat", "input", _SRCNAT))
    for sandbox in view.sandboxes(view.ingress):
        zone = (int(sandbox) - int(view.ingress.subnet.network_address)) & _LAST_ZONE
        yield Element("ip", "zones", (names.mac(sandbox),), zone)


def _balance(pool: Pool) -> Iterator[Item]:
    yield from nftbalance.chain(pool)
    yield Element("ip", "services", (pool.mark,), Verdict("goto", f"FWM-{pool.mark}"))
    for port in pool.ports:
        yield Element("ip", "marks", port, pool.mark)
    if pool.snat:
        yield Element("ip", "snat-marks", (pool.mark,))


def _lacks(caps: Capabilities) -> str:
    return "" if caps.nf_tables else f"needs nf_tables, which kernel {caps.kernel} does not have (its module is nf_tables)"


ENGINE = Engine(
    name="nftables",
    schedulers=nftbalance.SCHEDULERS,
    host=host,
    sandbox=sandbox,
    tasks=tasks,
    lacks=_lacks,
    features=(
        Feature(
            name="nf_conntrack zones",
            module="",
            option="NF_CONNTRACK_ZONES",
            without="clients with the same port through two nodes get mixed up",
        ),
        Feature(name="nf_tables ip", module="nf_tables", option="NF_TABLES_IPV4", without="no rules for IPv4"),
        Feature(
            name="nf_tables netdev",
            module="nf_tables",
            option="NF_TABLES_NETDEV",
            without="replies do not find the client's node",
        ),
        Feature(name="nf_tables egress", module="", option="NETFILTER_EGRESS", without="replies do not find the client's node"),
        Feature(
            name="nf_tables ct timeout",
            module="",
            option="NF_CONNTRACK_TIMEOUT",
            without="a half-closed connection is forgotten after 60 s of silence",
            needed=False,
        ),
        Feature(name="nft_fib", module="nft_fib_ipv4", option="NFT_FIB_IPV4", without="no port is published"),
        Feature(name="nft_numgen", module="nft_numgen", option="NFT_NUMGEN", without="nothing is balanced"),
        Feature(
            name="nft_hash",
            module="nft_hash",
            option="NFT_HASH",
            without="no services with routemesh.lb=sh or mh, or with affinity, on engine nftables",
            needed=False,
        ),
    ),
    libraries=frozenset({"libnftables"}),
    stale=flows.stale,
    clients=nftbalance,
)
