"""Whatever a service's labels say of balancing: a port leads to the tasks that may have connections, each with its share."""

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from routemesh import names
from routemesh.model import (
    Balancing,
    Locality,
    Node,
    NodeState,
    Protocol,
    Scheduler,
    Service,
    ServiceId,
    State,
    Task,
    TaskState,
    Weights,
)
from routemesh.nodeplan import HOST
from routemesh.plan.engines.nftbalance import SCHEDULERS
from routemesh.values import replace
from routemesh.walk import Delivered, Place, Refused, ReplyArrives
from tests.addresses import on_ingress
from tests.property.clusters import PORTS, from_outside, network, states, tried

HASHED = (Scheduler.SH, Scheduler.MH)
few = st.integers(0, 3)
weights = st.builds(
    Weights,
    default=st.integers(0, 2),
    nodes=st.dictionaries(st.sampled_from(["node0", "node1", "elsewhere"]), few, max_size=2),
    slots=st.dictionaries(st.integers(1, 12), few, max_size=3),
)
balancings = st.builds(
    Balancing,
    scheduler=st.sampled_from(sorted(SCHEDULERS)),
    affinity_s=st.sampled_from([0, 0, 1, 10_800]),
    weights=st.one_of(st.just(Weights()), weights),
    locality=st.sampled_from(Locality),
)


@st.composite
def balanced(draw: st.DrawFn) -> State:
    """A state whose services are balanced in any way that nftables knows; older tasks know nothing of that."""
    state = draw(states())
    services: dict[ServiceId, Service] = {}
    for service in state.services.values():
        services[service.id] = replace(service, spec=replace(service.spec, balancing=draw(balancings)))
    return replace(state, services=services)


def expected(state: State, entry: Node, protocol: Protocol, port: int) -> tuple[Balancing, dict[Place, int]]:
    """How the port's service is balanced, and the weight of each task that gets connections through the node."""
    ready = {node.id for node in state.nodes.values() if node.state is NodeState.READY and on_ingress(node)}
    found: dict[Place, int] = {}
    balancing = Balancing()
    servers = list(_servers(state, protocol, port)) if entry.id in ready else []
    local = any(task.node_id == entry.id and service.spec.balancing.weights.of(task.slot, entry.id) for task, service in servers)
    for task, service in servers:
        balancing = service.spec.balancing
        elsewhere = balancing.locality is Locality.LOCAL_ONLY or (balancing.locality is Locality.PREFER_LOCAL and local)
        if task.node_id not in ready or (elsewhere and task.node_id != entry.id):
            continue
        weight = balancing.weights.of(task.slot, str(task.node_id))
        if weight:
            found[Place(str(task.node_id), names.container_id(task.id))] = weight
    return balancing, found


def _servers(state: State, protocol: Protocol, port: int) -> Iterator[tuple[Task, Service]]:
    for task in state.tasks.values():
        serves = task.desired == task.status.state == TaskState.RUNNING and task.status.healthy
        if serves and any((one.protocol, one.published) == (protocol, port) for one in task.spec.publish):
            yield task, state.services[task.service_id]


@given(balanced())
@settings(max_examples=400, deadline=None)
def test_shares_are_as_the_labels_say(state: State) -> None:
    net = network(state)
    for entry in state.nodes.values():
        for protocol, port in PORTS if entry.state is NodeState.READY else ():
            balancing, tasks = expected(state, entry, protocol, port)
            got: dict[Place, Fraction] = defaultdict(Fraction)
            for branch in tried(net, from_outside(entry), protocol, port):
                if not tasks:
                    assert isinstance(branch.outcome, Refused)
                    assert branch.outcome.place == Place(entry.name, HOST), "at once, not somewhere on the way"
                    continue
                assert isinstance(branch.outcome, Delivered)
                assert branch.outcome.reply == ReplyArrives()
                got[branch.outcome.place] += branch.share
            if balancing.affinity_s or balancing.scheduler in HASHED:
                assert len(got) == min(len(tasks), 1)
                assert got.keys() <= tasks.keys()
            elif balancing.scheduler is Scheduler.RR:
                assert got == dict.fromkeys(tasks, Fraction(1, max(len(tasks), 1)))
            else:
                assert got == {place: Fraction(weight, sum(tasks.values())) for place, weight in tasks.items()}


@given(balanced())
@settings(max_examples=200, deadline=None)
def test_every_node_leads_a_client_that_it_does_not_know_to_the_same_task(state: State) -> None:
    everywhere = {
        key: replace(service, spec=replace(service.spec, balancing=replace(service.spec.balancing, locality=Locality.ANY)))
        for key, service in state.services.items()
    }
    state = replace(state, services=everywhere)
    net = network(state)
    ready = [node for node in state.nodes.values() if node.state is NodeState.READY and on_ingress(node)]
    for protocol, port in PORTS:
        balancing = expected(state, ready[0], protocol, port)[0] if ready else Balancing()
        if balancing.affinity_s or balancing.scheduler in HASHED:
            walks = [tried(net, from_outside(entry), protocol, port) for entry in ready]
            assert (
                len({branch.outcome.place for walked in walks for branch in walked if isinstance(branch.outcome, Delivered)}) <= 1
            )
