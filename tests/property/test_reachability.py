"""Every published port of every node leads to the healthy tasks of its service, in their shares, and nowhere else."""

from fractions import Fraction
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routemesh import names
from routemesh.model import ClientIp, Locality, Node, NodeState, Protocol, Scheduler, State, Task, TaskState
from routemesh.nodeplan import HOST
from routemesh.walk import Delivered, Network, Place, Refused, ReplyArrives, Walk
from tests.addresses import on_ingress
from tests.property.clusters import PORTS, Attempt, from_inside, from_outside, network, states, tried

UNPUBLISHED = (Protocol.TCP, 9)
ENGINES = pytest.mark.parametrize("engines", [("nftables",), ("ipvs",), ("nftables", "ipvs")], ids="+".join)
"""What the nodes of a cluster have; each has one."""

EQUALLY = (Scheduler.RR, Scheduler.LC)

Expected = dict[Place, tuple[Fraction, int, IPv4Address | None]]
"""Who gets connections: which share of them, on which port, from which address as it sees."""


def specification(state: State, entry: Node, attempt: Attempt, protocol: Protocol, port: int) -> Expected:
    """What a person who reads the cluster's state expects of a port of a node."""
    found: Expected = {}
    live = {node.id: node for node in state.nodes.values() if node.state is NodeState.READY and on_ingress(node)}
    servers = [
        (task, publish.target)
        for task in state.tasks.values()
        for publish in task.spec.publish
        if (publish.protocol, publish.published) == (protocol, port) and task.node_id in live
        if task.desired == task.status.state == TaskState.RUNNING and task.status.healthy
    ]
    near = [server for server in servers if server[0].node_id == entry.id]
    if servers and locality(state, servers[0][0]) is not Locality.ANY:
        takes = any(share(state, task) for task, _ in near)
        servers = near if takes or locality(state, servers[0][0]) is Locality.LOCAL_ONLY else servers
    keeps = all(task.spec.client_ip is ClientIp.KEEP for task, _ in servers) and entry.id in live
    seen_as = attempt.seen_as if keeps and not hides(entry, attempt) else on_ingress(entry)
    shares = {task.id: share(state, task) for task, _ in servers if share(state, task)} if entry.id in live else {}
    for task, target in ((task, target) for task, target in servers if task.id in shares):
        place = Place(str(task.node_id), names.container_id(task.id))
        found[place] = (Fraction(shares[task.id], sum(shares.values())), target, seen_as)
    return found


def locality(state: State, task: Task) -> Locality:
    return state.services[task.service_id].spec.balancing.locality


def share(state: State, task: Task) -> int:
    """How much of the connections a task should get, in proportion to others."""
    balancing = state.services[task.service_id].spec.balancing
    weight = balancing.weights.of(task.slot, str(task.node_id))
    return min(weight, 1) if balancing.scheduler in EQUALLY else weight


def hides(entry: Node, attempt: Attempt) -> bool:
    """Engine ipvs has the sandbox's address in place of those of the node itself and of its own tasks."""
    return entry.engine == "ipvs" and attempt.start.node == entry.name


def check(state: State, entry: Node, attempt: Attempt, protocol: Protocol, port: int, walked: Walk) -> None:
    expected = specification(state, entry, attempt, protocol, port)
    outcomes = [branch.outcome for branch in walked]
    if not expected:
        # As in Swarm, IPVS refuses what is for a port whose tasks all drain.
        refusing = {Place(entry.name, HOST), *({Place(entry.name, names.SANDBOX)} if entry.engine == "ipvs" else ())}
        assert all(isinstance(outcome, Refused) and outcome.place in refusing for outcome in outcomes), outcomes
        return
    assert all(isinstance(outcome, Delivered) and outcome.reply == ReplyArrives() for outcome in outcomes), outcomes
    got = {
        outcome.place: (branch.share, outcome.port, outcome.peer.address)
        for branch in walked
        if isinstance(outcome := branch.outcome, Delivered)
    }
    assert got == expected


def check_all(state: State, net: Network, entry: Node, attempt: Attempt) -> None:
    for protocol, port in (*PORTS, UNPUBLISHED):
        check(state, entry, attempt, protocol, port, tried(net, attempt, protocol, port))


@ENGINES
@given(st.data(), st.booleans())
@settings(max_examples=500, deadline=None)
def test_an_outside_client_reaches_the_healthy_tasks_of_a_port_through_every_node(
    engines: tuple[str, ...], data: st.DataObject, wildcard_udp: bool
) -> None:
    state = data.draw(states(engines=engines, balanced="nftables" not in engines))
    net = network(state, wildcard_udp=wildcard_udp)
    for entry in state.nodes.values():
        if entry.state is NodeState.READY:
            check_all(state, net, entry, from_outside(entry))


@ENGINES
@given(st.data(), st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_so_do_the_nodes_themselves_and_their_tasks(
    engines: tuple[str, ...], data: st.DataObject, wildcard_udp: bool, filters_bridges: bool
) -> None:
    state = data.draw(states(engines=engines))
    net = network(state, wildcard_udp=wildcard_udp, filters_bridges=filters_bridges)
    for entry in state.nodes.values():
        if entry.state is NodeState.READY:
            for attempt in from_inside(state, entry):
                check_all(state, net, entry, attempt)


@ENGINES
@given(st.data())
@settings(max_examples=100, deadline=None)
def test_so_it_is_while_an_update_changes_whom_tasks_take_for_their_client(engines: tuple[str, ...], data: st.DataObject) -> None:
    other = states(engines=engines, old_client_ip=lambda new: ClientIp.SNAT if new is ClientIp.KEEP else ClientIp.KEEP)
    state = data.draw(other)
    net = network(state)
    for entry in state.nodes.values():
        if entry.state is NodeState.READY:
            check_all(state, net, entry, from_outside(entry))
