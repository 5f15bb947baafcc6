"""Whatever is taken out of a plan, the walker notices, unless it is known to decide nothing about reachability.

One item at a time is removed as the kernel would remove it, and one rule at a time from every chain.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from ipaddress import IPV4LENGTH, IPv4Address
from itertools import product

import pytest

from routemesh import names
from routemesh.model import Protocol, State, Task
from routemesh.nodeplan import (
    HOST,
    KERNEL_PROTOCOL,
    LOOPBACK,
    Address,
    Chain,
    CtTimeouts,
    Element,
    InSet,
    IpvsTimeouts,
    Link,
    Match,
    Neighbour,
    Route,
    RoutingRule,
    Rule,
    SetTimeouts,
    Sysctl,
    Table,
    Verdict,
    XtChain,
    XtRule,
)
from routemesh.values import replace
from routemesh.walk import OUTSIDE, Endpoint, Network, Packet, Place, UnknownRule, walk
from tests.addresses import ingress_address, on_ingress
from tests.property.clusters import CLIENT, CLUSTER, GATEWAY, PORTS, SOURCE_PORT, from_inside, from_outside, network
from tests.property.removal import KEEPING, TARGET, Removal, removals, two_nodes

UNPUBLISHED = 9
ELSEWHERE = IPv4Address("203.0.113.1")

# --- what is observed ---------------------------------------------------------------------------------------------


def observed(net: Network, packet: Packet, start: Place, router: str = "") -> list[object]:
    """Where each branch ends, and as what; the error where the walker can't tell."""
    try:
        return [
            (branch.share, branch.outcome, [str(hop.after) for hop in branch.hops[-1:]])
            for branch in walk(net, packet, start, router=router)
        ]
    except UnknownRule as error:
        return [str(error)]


def alone(net: Network, packet: Packet, start: Place, router: str = "") -> tuple[list[object], Set[Place]]:
    """What is observed, and the namespaces on which alone it depends."""
    own = replace(net)
    return observed(own, packet, start, router), own.asked


def probes(state: State) -> Iterator[tuple[Packet, Place] | tuple[Packet, Place, str]]:
    """Connections to published ports from everywhere, and what nodes, sandboxes, tasks and neighbours might try besides."""
    for entry in state.nodes.values():
        for attempt in (from_outside(entry), *from_inside(state, entry)):
            for protocol, port in PORTS:
                yield packet(protocol, attempt.source, attempt.destination, port), attempt.start
    for some, protocol in product(state.tasks.values(), Protocol):
        yield from around(state, some, protocol)
    for home in state.nodes.values():
        for target in (ELSEWHERE, CLUSTER.gwbridge_subnet[2], CLUSTER.gwbridge_subnet[3]):
            yield packet(Protocol.TCP, CLIENT, target, 8080), OUTSIDE, home.name
    for home, service in product(state.nodes.values(), state.services.values()):
        if home.engine == "ipvs":
            yield packet(Protocol.TCP, ingress_address(home), ingress_address(service), TARGET), Place(home.name, names.SANDBOX)


def around(state: State, task: Task, protocol: Protocol) -> Iterator[tuple[Packet, Place]]:
    """From a task to its node, to outside and to sandboxes; from its node and from sandboxes past the published ports to it."""
    assert task.node_id is not None and on_ingress(task) is not None and task.gateway_address is not None
    place, home = Place(task.node_id, names.container_id(task.id)), state.nodes[task.node_id]
    yield packet(protocol, task.gateway_address, home.address, 8080), place
    yield packet(protocol, GATEWAY, task.gateway_address, TARGET), Place(home.name, HOST)
    for source, other in product((ingress_address(task), task.gateway_address), state.nodes.values()):
        yield packet(protocol, source, ELSEWHERE, 443), place
        yield packet(protocol, source, other.address, UNPUBLISHED), place
    for other in state.nodes.values():
        yield packet(protocol, ingress_address(task), ingress_address(other), 8080), place
        for port in (8080, TARGET, UNPUBLISHED):
            yield packet(protocol, ingress_address(other), ingress_address(task), port), Place(other.name, names.SANDBOX)


def packet(protocol: Protocol, source: IPv4Address, destination: IPv4Address, port: int) -> Packet:
    return Packet(protocol=protocol, source=Endpoint(source, SOURCE_PORT), destination=Endpoint(destination, port))


# --- what may be missing ----------------------------------------------------------------------------------------------


Reasons = Mapping[str, Callable[[Removal], bool]]
"""Why something decides nothing about reachability, and what that is said of."""


def has_no_say_in_reverse_paths(gone: Removal) -> bool:
    """Only to a task that is told the client's address do packets come by eth0 though the way back leads through eth1."""
    return (
        isinstance(gone.item, Sysctl)
        and gone.item.path.endswith("rp_filter")
        and not (gone.netns in KEEPING and names.GWBRIDGE_LINK not in gone.item.path)
    )


def lets_answers_back(gone: Removal) -> bool:
    """One of DOCKER-INGRESS's rules for answers."""
    return gone.rule is not None and Match("ct state", "established,related") in gone.rule and gone.netns == HOST


def is_of_timeouts(rule: Rule | None) -> bool:
    """A rule that only says for how long a connection is remembered."""
    return rule is not None and any(isinstance(part, SetTimeouts) for part in rule)


LETS_IN = InSet(("iifname", "ether saddr", "ip saddr"), "senders")
AGEING = ("tcp_max_tw_buckets", "vs/conn_reuse_mode", "vs/expire_nodest_conn", "vs/expire_quiescent_template")

EITHER: Reasons = {
    "packets come by the way that leads back": has_no_say_in_reverse_paths,
    "forwarding is switched on for a namespace and for its links, either of which does": lambda gone: (
        isinstance(gone.item, Sysctl)
        and (gone.item.path.endswith("/forwarding") or (gone.item.path.endswith("/ip_forward") and gone.netns == names.SANDBOX))
    ),
    "strange sources do not pass the reverse path filter, which a machine need not have": lambda gone: (
        gone.rule is not None and gone.netns == HOST and Match("ip saddr", str(CLUSTER.gwbridge_subnet), negate=True) in gone.rule
    ),
    "what is for a loopback address, or from one, does not leave a namespace": lambda gone: (
        isinstance(gone.item, Chain | XtRule) and gone.netns == HOST and "127.0.0.0/8" in str(gone.rule or gone.item)
    ),
    "no packet of a walk is of no connection": lambda gone: (
        "'invalid'" in str(gone.rule or gone.item) or getattr(gone.item, "name", "") == names.STRAY_CHAIN
    ),
    "nobody but nodes sends anything to tunnels": lambda gone: (
        (
            gone.netns == HOST
            and getattr(gone.item, "name", "") in ("filter-input", names.PEER_CHAIN)
            and (gone.rule or (Verdict("drop"),))[-1] == Verdict("drop")
        )
        or (isinstance(gone.item, XtRule) and gone.item.rule[-1] == Verdict("jump", names.PEER_CHAIN))
    ),
    "who is honest needs no ARP where there is ARP, and is let in where all are": lambda gone: (
        (isinstance(gone.item, Neighbour) and gone.item.link in (names.GWBRIDGE, names.GWBRIDGE_LINK))
        or (isinstance(gone.item, Table) and gone.item.family == "bridge")
        or (isinstance(gone.item, Element) and gone.item.map == "guarded")
        or (isinstance(gone.item, Chain) and gone.item.family == "bridge" and LETS_IN not in (gone.rule or ()))
    ),
    "a plan takes for granted what comes along with an address or a namespace; what was read does not": lambda gone: (
        (isinstance(gone.item, Route | RoutingRule) and gone.item.protocol == KERNEL_PROTOCOL)
        or (isinstance(gone.item, Link) and gone.item.name == LOOPBACK)
        or (isinstance(gone.item, Address) and gone.item.link == LOOPBACK)
    ),
    "a chain ends by itself": lambda gone: gone.rule == (Verdict("return"),),
}

NFTABLES: Reasons = {
    **EITHER,
    "a walk takes no time": lambda gone: (
        isinstance(gone.item, CtTimeouts)
        or is_of_timeouts(gone.rule)
        or (isinstance(gone.item, Chain) and gone.rule is None and all(map(is_of_timeouts, gone.item.rules)))
    ),
    "a VIP is there for people to see": lambda gone: (
        isinstance(gone.item, Address) and gone.item.address.network.prefixlen == IPV4LENGTH and gone.netns == names.SANDBOX
    ),
    "either of a task's permanent neighbour and the overlay bridge's address does": lambda gone: (
        (isinstance(gone.item, Neighbour) and gone.netns in KEEPING)
        or (isinstance(gone.item, Address) and gone.item.link == names.OVERLAY_BRIDGE)
    ),
    "the walker does not weigh packets": lambda gone: (
        isinstance(gone.item, Chain) and gone.item.name == "filter-forward" and gone.netns == names.SANDBOX
    ),
    "there is but one connection in a walk, so neither zones nor old sockets matter": lambda gone: (
        (isinstance(gone.item, Sysctl) and gone.item.path == "net/ipv4/tcp_max_tw_buckets")
        or (isinstance(gone.item, Chain) and gone.item.name in ("raw-prerouting", "nat-input"))
        or (isinstance(gone.item, Element) and gone.item.map == "zones")
    ),
    "a connection's later packets would be let in as its first was": lambda gone: (
        gone.rule == (Match("ct state", "established,related"), Verdict("accept"))
    ),
}

IPVS: Reasons = {
    **EITHER,
    "the overlay's bridge speaks to nobody": lambda gone: (
        isinstance(gone.item, Address) and gone.item.link == names.OVERLAY_BRIDGE
    ),
    "the walker does not weigh packets": lambda gone: (
        isinstance(gone.item, XtChain) and (gone.item.table, gone.item.name) == ("mangle", "POSTROUTING")
    ),
    "there is but one connection in a walk, so neither its age nor old sockets matter": lambda gone: (
        isinstance(gone.item, IpvsTimeouts)
        or (isinstance(gone.item, Sysctl) and gone.item.path.removeprefix("net/ipv4/") in AGEING)
    ),
    "what leaves docker_gwbridge is let out, and answers into it in": lambda gone: (
        isinstance(gone.item, XtChain) and lets_answers_back(gone)
    ),
    "tasks are kept apart by their bridge ports, too": lambda gone: (
        isinstance(gone.item, XtRule) and gone.item.rule[-1] == Verdict("drop")
    ),
    "nothing here speaks SCTP": lambda gone: gone.rule is not None and Match("meta l4proto", "sctp") in gone.rule,
}
ENGINES: Mapping[str, Reasons] = {"nftables": NFTABLES, "ipvs": IPVS}

FOREIGN = XtChain("filter", "FORWARD", policy="DROP")
"""What a machine with a firewall, or with Docker, has: what is to be forwarded must be accepted."""


@pytest.mark.parametrize("engine", ENGINES)
def test_the_walker_notices_whatever_is_missing_but_for_what_is_known_to_be_harmless(engine: str) -> None:
    state = two_nodes(engine)
    net = network(state, wildcard_udp=True, foreign=(FOREIGN,) if engine == "ipvs" else ())
    usual = [(attempt, *alone(net, *attempt)) for attempt in probes(state)]

    def unnoticed(gone: Removal) -> bool:
        missing, places = gone.of(net), gone.places
        for index, (attempt, before, asked) in enumerate(usual):
            if not places.isdisjoint(asked) and observed(missing, *attempt) != before:
                usual.insert(0, usual.pop(index))  # it will most probably notice what is missing next, too
                return False
        return True

    unexplained: list[str] = []
    idle = set(ENGINES[engine])
    # The two nodes are alike, and probes go from each to the other.
    for gone in removals(net):
        reasons = {reason for reason, explains in ENGINES[engine].items() if explains(gone)}
        is_known = bool(reasons) and idle.isdisjoint(reasons)  # a walk over every probe would tell nothing new
        if gone.node == "node0" and gone.item != FOREIGN and not is_known and unnoticed(gone):
            idle -= reasons
            if not reasons:
                unexplained.append(str(gone))
    assert (unexplained, idle) == ([], set())
