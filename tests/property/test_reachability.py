"""Every published port of every node leads to the healthy tasks of its service, in equal shares, and nowhere else."""

from fractions import Fraction
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from routemesh import names
from routemesh.model import ClientIp, Node, NodeState, Protocol, State, TaskState
from routemesh.nodeplan import HOST
from routemesh.walk import Delivered, Network, Place, Refused, ReplyArrives, Walk
from tests.property.clusters import PORTS, Attempt, from_inside, from_outside, network, states, tried

UNPUBLISHED = (Protocol.TCP, 9)

Expected = dict[Place, tuple[Fraction, int, IPv4Address | None]]
"""Who gets connections: which share of them, on which port, from which address as it sees."""


def specification(state: State, entry: Node, attempt: Attempt, protocol: Protocol, port: int) -> Expected:
    """What a person who reads the cluster's state expects of a port of a node."""
    found: Expected = {}
    live = {node.id for node in state.nodes.values() if node.state is NodeState.READY and node.ingress_address}
    servers = [
        (task, publish.target)
        for task in state.tasks.values()
        for publish in task.spec.publish
        if (publish.protocol, publish.published) == (protocol, port) and task.node_id in live
        if task.desired == task.status.state == TaskState.RUNNING and task.status.healthy
    ]
    keeps = all(task.spec.client_ip is ClientIp.KEEP for task, _ in servers)
    seen_as = attempt.seen_as if keeps else entry.ingress_address
    for task, target in servers if entry.id in live else ():
        place = Place(str(task.node_id), names.container_id(task.id))
        found[place] = (Fraction(1, len(servers)), target, seen_as)
    return found


def check(state: State, entry: Node, attempt: Attempt, protocol: Protocol, port: int, walked: Walk) -> None:
    expected = specification(state, entry, attempt, protocol, port)
    outcomes = [branch.outcome for branch in walked]
    if not expected:
        assert [(type(outcome), outcome.place) for outcome in outcomes] == [(Refused, Place(entry.name, HOST))]
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


@given(states(), st.booleans())
@settings(max_examples=2000, deadline=None)
def test_an_outside_client_reaches_the_healthy_tasks_of_a_port_through_every_node(state: State, wildcard_udp: bool) -> None:
    net = network(state, wildcard_udp=wildcard_udp)
    for entry in state.nodes.values():
        if entry.state is NodeState.READY:
            check_all(state, net, entry, from_outside(entry))


@given(states(), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_so_do_the_nodes_themselves_and_their_tasks(state: State, wildcard_udp: bool, filters_bridges: bool) -> None:
    net = network(state, wildcard_udp=wildcard_udp, filters_bridges=filters_bridges)
    for entry in state.nodes.values():
        if entry.state is NodeState.READY:
            for attempt in from_inside(state, entry):
                check_all(state, net, entry, attempt)


@given(states(old_client_ip=lambda new: ClientIp.SNAT if new is ClientIp.KEEP else ClientIp.KEEP))
@settings(max_examples=200, deadline=None)
def test_so_it_is_while_an_update_changes_whom_tasks_take_for_their_client(state: State) -> None:
    net = network(state)
    for entry in state.nodes.values():
        if entry.state is NodeState.READY:
            check_all(state, net, entry, from_outside(entry))
