"""An explanation says of any cluster what a person expects who reads its state, and can always be printed and drawn."""

import xml.etree.ElementTree as ET
from collections import defaultdict
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from routemesh.ask.snapshots import named
from routemesh.explain.answer import explain
from routemesh.explain.ask import Asked, Target
from routemesh.explain.nouns import Explanation
from routemesh.explain.picture import mermaid, svg
from routemesh.explain.text import text
from routemesh.explain.through import Decision, Passage, through
from routemesh.model import Node, NodeState, Protocol, State
from routemesh.snapshot import ClusterSnapshot, Endpoint, NodeSnapshot
from routemesh.walk import OUTSIDE, Network
from tests.property.clusters import CLIENT, PORTS, SOURCE_PORT, from_outside, network, states
from tests.property.test_gateway_path import PORT, listening, with_gateway
from tests.property.test_reachability import specification


def seen(state: State) -> ClusterSnapshot:
    """The names of everything; what the kernels hold comes from the plans."""
    up = [node for node in state.nodes.values() if node.state is NodeState.READY]
    nodes = {
        node.name: NodeSnapshot(
            name=node.name, kind="routemesh", engine="nftables", addresses=(node.address,), device="eth0", namespaces={}
        )
        for node in up
    }
    return ClusterSnapshot(nodes=nodes, names=named(state, {}))


def explained(cluster: ClusterSnapshot, net: Network, entry: Node, protocol: Protocol, port: int) -> Explanation | None:
    """What is said to a client outside; None where nobody publishes the port."""
    service = next(
        (
            service
            for service in cluster.names.services
            if any((each.protocol, each.published) == (protocol, port) for each in service.ports)
        ),
        None,
    )
    if service is None:
        return None
    asked = Asked(
        client="a client",
        start=OUTSIDE,
        source=Endpoint(CLIENT, SOURCE_PORT),
        destination=Endpoint(entry.address, port),
        target=Target(node=entry.name, port=port, protocol=protocol),
        service=service,
    )
    return explain(cluster, asked, None, net)


@settings(max_examples=40, deadline=None)
@given(states())
def test_explanations_say_what_is_expected_of_a_cluster(state: State) -> None:
    cluster, net = seen(state), network(state)
    tasks = {task.netns: task.name for task in cluster.names.tasks}
    for entry in state.nodes.values():
        if entry.state is not NodeState.READY:
            continue
        for protocol, port in PORTS:
            found = explained(cluster, net, entry, protocol, port)
            if found is None:
                continue
            got: dict[str, Fraction] = defaultdict(Fraction)
            for way in found.ways:
                if way.arrives:
                    got[way.task] += Fraction(*way.share)
            expected = specification(state, entry, from_outside(entry), protocol, port)
            assert dict(got) == {tasks[place.netns]: share for place, (share, *_) in expected.items()}
            assert found.outcome in (("reaches", "partly") if expected else ("broken",))
            assert all(task in found.verdict for task in got)


def assert_printable(found: Explanation) -> None:
    assert found.verdict in text(found)
    assert ET.fromstring(svg(found)) is not None
    assert mermaid(found).startswith("%% ")


@settings(max_examples=15, deadline=None)
@given(states())
def test_every_explanation_can_be_printed_and_drawn(state: State) -> None:
    cluster, net = seen(state), network(state)
    for entry in state.nodes.values():
        if entry.state is NodeState.READY:
            for protocol, port in PORTS:
                found = explained(cluster, net, entry, protocol, port)
                if found is not None:
                    assert_printable(found)


@settings(max_examples=40, deadline=None)
@given(with_gateway(("nftables", "ipvs")), st.data())
def test_explanations_go_on_through_the_gateway_to_every_task_and_back(state: State, data: st.DataObject) -> None:
    cluster, net = seen(state), listening(network(state), state)
    behind = [task for task in cluster.names.tasks if task.service == "service101"]
    tasks = {task.name: Endpoint(next(iter(task.addresses.values())), PORT) for task in behind}
    dead = data.draw(st.sets(st.sampled_from(sorted(tasks))), "tasks that do not listen") if tasks else set()
    places = {(task.node, task.netns) for task in behind if task.name in dead}
    net = Network(net.hosts, {place: ports for place, ports in net.listening.items() if place not in places}, net.sysctls)
    passage = Passage(
        driver="haproxy", decisions=(Decision(at="server", decision="one of all", why="in turn", show=""),), servers=tasks
    )
    for entry in state.nodes.values():
        first = explained(cluster, net, entry, Protocol.TCP, 8443) if entry.state is NodeState.READY else None
        if first is None or not first.reached:
            continue
        found = through(cluster, first, "http://a.example", dict.fromkeys(first.reached, passage), None, net)
        assert set(found.reached) == tasks.keys() - dead
        assert found.outcome == ("broken" if dead == tasks.keys() else "partly" if dead else first.outcome)
        assert {cause.place.rpartition(" ")[2] for cause in found.causes if "nothing listens" in cause.why} == dead
        assert sum(Fraction(*way.share) for way in found.ways) == 1
        for way in found.ways:
            (gate,) = (step for step in way.there if step.kind == "proxy")
            assert way.arrives == (way.task not in dead)
            assert gate.after.destination == str(tasks[way.task])
            assert way.arrives or way.there[-1].failed
            assert not way.arrives or way.back[-1].after.destination == first.question.source
        for cause in found.causes:
            if cause.step >= 0:
                way = found.ways[cause.way]
                assert (*way.there, *way.back)[cause.step].place == cause.place
        assert_printable(found)
