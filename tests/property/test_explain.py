"""An explanation says of any cluster what a person expects who reads its state, and can always be printed and drawn."""

import xml.etree.ElementTree as ET
from collections import defaultdict
from fractions import Fraction

from hypothesis import given, settings

from routemesh.api.snapshots import named
from routemesh.explain.answer import explain
from routemesh.explain.ask import Asked, Target
from routemesh.explain.nouns import Explanation
from routemesh.explain.picture import mermaid, svg
from routemesh.explain.text import text
from routemesh.model import Node, NodeState, Protocol, State
from routemesh.snapshot import ClusterSnapshot, Endpoint, NodeSnapshot
from routemesh.walk import OUTSIDE, Network
from tests.property.clusters import CLIENT, PORTS, SOURCE_PORT, from_outside, network, states
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


@settings(max_examples=15, deadline=None)
@given(states())
def test_every_explanation_can_be_printed_and_drawn(state: State) -> None:
    cluster, net = seen(state), network(state)
    for entry in state.nodes.values():
        if entry.state is NodeState.READY:
            for protocol, port in PORTS:
                found = explained(cluster, net, entry, protocol, port)
                if found is not None:
                    assert found.verdict in text(found)
                    assert ET.fromstring(svg(found)) is not None
                    assert mermaid(found).startswith("%% ")
