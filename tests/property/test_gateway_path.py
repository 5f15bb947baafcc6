"""The gateway's proxies reach the port that a service behind it names, on every node; nobody else gets past the mesh to it."""

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routemesh import names
from routemesh.model import ClientIp, Gateway, Http, NodeState, Protocol, Publish, State, Task, TaskState, TaskStatus
from routemesh.values import replace
from routemesh.walk import Delivered, Endpoint, Network, Packet, Place, ReplyArrives, Walk, walk
from tests.addresses import ingress_address, on_ingress
from tests.property.clusters import PORTS, SOURCE_PORT, Addresses, attached, has_namespace, network, placed, service, states, task

PORT = 8000
NO_PORTS = [(None, 0)] * len(PORTS)
RUNNING = TaskStatus(state=TaskState.RUNNING, at=0.0)


ENGINES = pytest.mark.parametrize("engines", [("nftables",), ("ipvs",), ("nftables", "ipvs")], ids="+".join)


@st.composite
def with_gateway(draw: st.DrawFn, engines: tuple[str, ...]) -> State:
    """A cluster with a proxy on each node that is up, and a service behind it that publishes nothing, with a task on each too."""
    state = draw(states(engines=engines))
    taken = [
        *(on_ingress(node) for node in state.nodes.values()),
        *(on_ingress(made) for made in state.services.values()),
        *(on_ingress(made) for made in state.tasks.values()),
    ]
    ingress = Addresses(max((address for address in taken if address), default=IPv4Address("10.0.0.1")) + 1)
    up = [node.id for node in state.nodes.values() if node.state is NodeState.READY and on_ingress(node)]
    gateways = {home: Addresses(IPv4Address("172.18.1.0")) for home in up}
    gateway = service(100, 1, NO_PORTS, draw(st.sampled_from(ClientIp)), ingress)
    port = Publish(published=8443, target=8443)
    gateway = replace(gateway, spec=replace(gateway.spec, gateway=Gateway(http_port=8443), publish=(port,)))
    behind = service(101, 1, NO_PORTS, draw(st.sampled_from(ClientIp)), ingress)
    behind = replace(behind, spec=replace(behind.spec, http=Http(hosts=("*",), port=PORT)))
    made: list[Task] = []
    for number, home in enumerate(up):
        for of, slot in ((gateway, 200 + number), (behind, 300 + number)):
            fresh = replace(task(slot, of, RUNNING), spec=of.spec)
            made.append(replace(placed(fresh, home, ingress, gateways[home]), attachments=attached(ingress.take())))
    return replace(
        state,
        services={**state.services, gateway.id: gateway, behind.id: behind},
        tasks={**state.tasks, **{each.id: each for each in made}},
    )


def listening(net: Network, state: State) -> Network:
    """The network in which the tasks behind the gateway listen, though they publish nothing."""
    more = {
        (str(each.node_id), names.container_id(each.id)): frozenset({(Protocol.TCP, PORT)})
        for each in state.tasks.values()
        if each.spec.http is not None
    }
    return Network(net.hosts, {**net.listening, **more}, net.sysctls, net.wildcard_udp)


def servers(state: State) -> Iterator[Task]:
    return (each for each in state.tasks.values() if each.spec.http is not None)


def call(net: Network, caller: Place, source: IPv4Address, to: Task, port: int, protocol: Protocol = Protocol.TCP) -> Walk:
    packet = Packet(protocol=protocol, source=Endpoint(source, SOURCE_PORT), destination=Endpoint(ingress_address(to), port))
    return walk(net, packet, caller)


def place(of: Task) -> Place:
    return Place(str(of.node_id), names.container_id(of.id))


@ENGINES
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_every_proxy_reaches_every_task_behind_the_gateway_and_hears_it(engines: tuple[str, ...], data: st.DataObject) -> None:
    state = data.draw(with_gateway(engines))
    net = listening(network(state), state)
    for proxy in state.tasks.values():
        for server in servers(state) if proxy.spec.gateway is not None else ():
            (branch,) = call(net, place(proxy), ingress_address(proxy), server, PORT)
            outcome = branch.outcome
            assert isinstance(outcome, Delivered) and outcome.place == place(server), outcome
            assert (outcome.port, outcome.peer.address) == (PORT, on_ingress(proxy))
            assert outcome.reply == ReplyArrives()


@ENGINES
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_nobody_else_does_nor_a_proxy_to_another_port(engines: tuple[str, ...], data: st.DataObject) -> None:
    state = data.draw(with_gateway(engines))
    net = listening(network(state), state)
    for server in servers(state):
        for other in state.tasks.values():
            if other.status.state is not TaskState.RUNNING or on_ingress(other) is None or other.id == server.id:
                continue
            if not has_namespace(state, other):
                continue
            port = PORT + 1 if other.spec.gateway is not None else PORT
            walked = call(net, place(other), ingress_address(other), server, port)
            assert not any(isinstance(branch.outcome, Delivered) for branch in walked)
        for node in state.nodes.values():
            if node.state is NodeState.READY and on_ingress(node) is not None:
                walked = call(net, Place(node.name, names.SANDBOX), ingress_address(node), server, PORT)
                assert not any(isinstance(branch.outcome, Delivered) for branch in walked)
