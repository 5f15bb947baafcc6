"""What is full, late, ill or in the way: connection tables, address pools, clocks, tasks, ports. PURE."""

from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from routemesh import names
from routemesh.doctor import Finding, Severity, listed
from routemesh.doctor.facts import Facts
from routemesh.doctor.ways import Walked
from routemesh.explain.deaf import deaf
from routemesh.explain.mend import more_connections
from routemesh.explain.shown import command
from routemesh.explain.stale import stale
from routemesh.explain.way import Places
from routemesh.nodeplan import Route
from routemesh.reasons.ends import TableFull
from routemesh.reasons.words import NOT_OURS, of_server
from routemesh.snapshot import ClusterSnapshot, NamespaceSnapshot, NodeSnapshot
from routemesh.walk import Place

_NEARLY_FULL = 0.8
_SKEW_S = 1.0
_OVERLAY_GATEWAYS, _BRIDGE_GATEWAYS = 1, 2
_NOWHERE = ("blackhole", "unreachable", "prohibit")
_OF_THE_MESH = frozenset({"dockerd", "docker-proxy"})
"""Processes that only keep published ports from others."""


def findings(cluster: ClusterSnapshot, facts: Facts, walked: Walked) -> Iterator[Finding]:
    """All of that."""
    yield from _tables(cluster, walked)
    yield from _pools(cluster)
    yield from _to_nowhere(cluster)
    yield from _clocks(facts)
    yield from _tasks(cluster)
    yield from _deaf(cluster)
    yield from _ports(cluster, facts)
    yield from _doubles(cluster)
    yield from _stale(cluster, facts)
    yield from (
        Finding(what="manager", where="", state=Severity.WRONG, found=error, effect="it is not carried out")
        for error in facts.errors
    )


def _tables(cluster: ClusterSnapshot, walked: Walked) -> Iterator[Finding]:
    """One for each node: all namespaces share one limit, though each has a table of its own."""
    places = Places(cluster)
    for name, node in cluster.nodes.items():
        near = {netns: space for netns, space in node.namespaces.items() if _use(space) >= _NEARLY_FULL}
        if not near:
            continue
        full = any(_use(space) >= 1 for space in near.values())
        lost = walked.by_end(name, TableFull)
        yield Finding(
            what="conntrack",
            where=name,
            state=Severity.WRONG if full else Severity.OPTIONAL,
            found=f"{listed((_tracked(places.called(Place(name, each)), space) for each, space in near.items()), 4)} connections",
            effect=("new connections are dropped" if full else "when it is full, new connections are dropped")
            + (f"; {lost.effect}" if lost else ""),
            fix=f"on {name}: {more_connections(node)}",
        )


def _tracked(called: str, space: NamespaceSnapshot) -> str:
    return f"{called} tracks {space.conntrack_count} of {space.conntrack_max}"


def _use(space: NamespaceSnapshot) -> float:
    return (space.conntrack_count or 0) / space.conntrack_max if space.conntrack_max else 0.0


def _pools(cluster: ClusterSnapshot) -> Iterator[Finding]:
    known = cluster.names
    for network in known.networks:
        if network.subnet is None:
            continue
        if network.name == names.GWBRIDGE:
            per_node = Counter(task.node for task in known.tasks if task.gateway_address is not None)
            for node, used in per_node.items():
                yield from _pool(f"{node}: {network.name}", network.subnet, used, _BRIDGE_GATEWAYS)
        else:
            taken: set[IPv4Address] = {task.addresses[network.id] for task in known.tasks if network.id in task.addresses}
            taken |= {service.vips[network.id] for service in known.services if network.id in service.vips}
            if network.name == "ingress":
                taken |= {node.ingress_address for node in known.nodes if node.ingress_address is not None}
            yield from _pool(f"network {network.name}", network.subnet, len(taken), _OVERLAY_GATEWAYS)


def _pool(where: str, subnet: IPv4Network, used: int, gateways: int) -> Iterator[Finding]:
    size = subnet.num_addresses - 2 - gateways
    if size > 0 and used / size >= _NEARLY_FULL:
        full = used >= size
        yield Finding(
            what="addresses",
            where=where,
            state=Severity.WRONG if full else Severity.OPTIONAL,
            found=f"{used} of {size} addresses of {subnet} are in use",
            effect="new services and tasks wait" if full else "when none is left, new services and tasks wait",
            fix="scale a service down or remove one; a new cluster may have a larger pool (routemesh node --ingress-subnet)",
        )


def _to_nowhere(cluster: ClusterSnapshot) -> Iterator[Finding]:
    """Clients who get no answer, of whom the ways, which are asked as one client, tell nothing."""
    for name, node in cluster.nodes.items():
        routes = [route for route in node.host.of(Route) if route.kind in _NOWHERE and route.destination.prefixlen]
        if routes:
            yield Finding(
                what="clients",
                where=name,
                state=Severity.OPTIONAL,
                found=f"routes lead to nowhere: {listed(f'{route.kind} {route.destination}' for route in routes)}",
                effect="clients there get no answers through this node; ways are asked as another client",
                fix=f"{NOT_OURS}; look on {name}: {command(node, routes[0])}",
            )


def _clocks(facts: Facts) -> Iterator[Finding]:
    for node, ahead in facts.skews.items():
        if abs(ahead) >= _SKEW_S:
            yield Finding(
                what="clock",
                where=node,
                state=Severity.WRONG,
                found=f"its clock is {abs(ahead):.1f} s {'ahead' if ahead > 0 else 'behind'}",
                effect="heartbeats look late, so the node may be taken for dead; certificates, logs",
                fix=f"on {node}: timedatectl set-ntp true (or chronyc makestep)",
            )


def _tasks(cluster: ClusterSnapshot) -> Iterator[Finding]:
    for task in cluster.names.tasks:
        if not task.healthy:
            yield Finding(
                what="task",
                where=f"{task.node}: task {task.name}",
                state=Severity.WRONG,
                found=task.note or "it is unhealthy",
                effect="it gets no connections, and is replaced",
                fix=f"routemesh service logs {task.service}; its health check is in routemesh service inspect {task.service}",
            )


def _deaf(cluster: ClusterSnapshot) -> Iterator[Finding]:
    """Servers that may just be busy; those that surely answer nobody fail the ways that lead to them."""
    checked = {service.name: service.checked for service in cluster.names.services}
    for each in deaf(cluster):
        if not each.certain:
            check = "" if checked.get(each.task.service) else "; a health check would take it out"
            yield Finding(
                what="task",
                where=f"{each.task.node}: task {each.task.name}",
                state=Severity.OPTIONAL,
                found=of_server(each.reason),
                effect="connections may wait for their answers",
                fix=f"find out why it accepts no more, or scale {each.task.service} up{check}",
            )


def _ports(cluster: ClusterSnapshot, facts: Facts) -> Iterator[Finding]:
    """Published ports that other processes of a node have, whom nobody asks any more."""
    published = {
        (port.protocol, port.published): service for service in cluster.names.services for port in service.ports if not port.host
    }
    for name, node in cluster.nodes.items():
        for socket in node.host.sockets or ():
            service = published.get((socket.protocol, socket.port))
            if service is None or _is_ours(node, facts, name, socket.pid, socket.process):
                continue
            who = f"{socket.process} ({socket.pid})" if socket.process else "another process"
            yield Finding(
                what="port",
                where=name,
                state=Severity.WRONG,
                found=f"{who} has {socket.port}/{socket.protocol}, which {service.name} publishes",
                effect=f"its clients reach {service.name} instead" if service.answers_on(name) else "the port is its alone here",
                fix=f"on {name}: stop it (ss -lntup 'sport = :{socket.port}'), or publish another port",
            )


def _is_ours(node: NodeSnapshot, facts: Facts, name: str, pid: int, process: str) -> bool:
    daemon = facts.nodes[name].pid if name in facts.nodes else 0
    return process in _OF_THE_MESH if node.kind == "swarm" else pid != 0 and pid == daemon


def _doubles(cluster: ClusterSnapshot) -> Iterator[Finding]:
    """What is planned of it the node takes away itself."""
    places = Places(cluster)
    for address, having in places.doubles.items():
        rightful, *others = having
        yield Finding(
            what="address",
            where=listed(map(places.called, others)),
            state=Severity.WRONG,
            found=f"{address} is there too, though it is that of {places.called(rightful)}",
            effect="connections to it reach one, the other, or neither",
            fix=f"on {others[0].node}: take it away there (ip address del {address} dev DEVICE), or replace that task",
        )


def _stale(cluster: ClusterSnapshot, facts: Facts) -> Iterator[Finding]:
    for each in stale(cluster):
        yield Finding(
            what="connections",
            where=f"{each.node}: {each.namespace}" if each.namespace else each.node,
            state=Severity.WRONG,
            found=str(each),
            effect="their clients hang until they time out; a UDP client that goes on sending never gets away",
            fix=f"on {each.node}: {each.command}",
            commands=(each.command,),
            ours=facts.repairing,
        )
