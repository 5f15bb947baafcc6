"""Addresses, VIPs and marks."""

from ipaddress import IPv4Address, IPv4Network

from routemesh.decide.pool import AddressPool
from routemesh.model import Publish, RestartPolicy, Service, ServiceId, ServiceSpec, TaskState
from routemesh.values import replace
from tests.addresses import on_ingress
from tests.simulation import WEB, Simulation

BRIDGE = IPv4Network("172.18.0.0/29")
SMALL = IPv4Network("10.0.0.0/29")
API = ServiceSpec(name="api", replicas=1, publish=(Publish(published=9090, target=90),))


def pool(*used: int, known: tuple[int, ...] = ()) -> AddressPool:
    def addresses(numbers: tuple[int, ...]) -> list[IPv4Address]:
        return [SMALL.network_address + number for number in numbers]

    return AddressPool(SMALL, gateways=1, used=addresses(used), known=addresses(known))


def taken(pool: AddressPool) -> list[int]:
    return [int(address) & 7 for address in iter(pool.take, None)]


def test_a_pool_spares_network_gateway_and_broadcast() -> None:
    assert taken(pool()) == [2, 3, 4, 5, 6]
    assert taken(AddressPool(SMALL, gateways=2, used=(), known=())) == [3, 4, 5, 6]
    assert (pool().size, pool().free) == (5, 5)
    assert (pool(2, 4).size, pool(2, 4).free) == (5, 3)


def test_a_pool_goes_on_after_the_highest_and_wraps() -> None:
    assert taken(pool(2, 4)) == [5, 6, 3]
    assert taken(pool(6)) == [2, 3, 4, 5]


def test_a_pool_keeps_what_the_history_knows_for_the_last() -> None:
    assert taken(pool(2, known=(3,))) == [4, 5, 6, 3]
    assert taken(pool(2, 3, 4, 5, known=(6,))) == [6]
    assert taken(pool(2, 3, 4, 5, 6)) == []


def test_nodes_come_first_then_the_vip_then_the_tasks() -> None:
    simulation = Simulation()
    service = simulation.create(WEB)
    nodes = sorted(simulation.state.nodes.values(), key=lambda node: node.name)
    assert [str(on_ingress(node)) for node in nodes] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert (str(on_ingress(service)), service.fwmark) == ("10.0.0.5", 0x100)
    assert [str(on_ingress(task)) for task in simulation.tasks()] == ["10.0.0.6", "10.0.0.7"]


def test_marks_count_up() -> None:
    simulation = Simulation()
    assert simulation.create(WEB).fwmark == 0x100
    assert simulation.create(API).fwmark == 0x101
    simulation.remove("web")
    assert simulation.create(replace(WEB, name="third")).fwmark == 0x102


def test_a_service_that_publishes_nothing_gets_nothing_but_a_gateway_address() -> None:
    simulation = Simulation()
    service = simulation.create(replace(WEB, publish=()))
    assert (on_ingress(service), service.fwmark) == (None, None)
    assert [(on_ingress(task), str(task.gateway_address)) for task in simulation.tasks()] == [(None, "172.18.0.3")] * 2


def test_a_service_that_stops_publishing_gives_its_vip_back() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.update(publish=())
    assert (on_ingress(simulation.service()), simulation.service().fwmark) == (None, None)
    simulation.update(publish=WEB.publish)
    assert on_ingress(simulation.service()) is not None


def test_a_restarted_task_gets_another_address() -> None:
    simulation = Simulation()
    simulation.create(replace(WEB, replicas=1, restart=RestartPolicy(delay_s=0.0)))
    seen = []
    for _ in range(4):
        simulation.settle()
        seen.append(str(on_ingress(simulation.serving()[0])))
        simulation.report(simulation.serving()[0], TaskState.FAILED)
    assert seen == ["10.0.0.6", "10.0.0.7", "10.0.0.8", "10.0.0.9"]


def test_gateway_addresses_are_each_nodes_own() -> None:
    simulation = Simulation(nodes=2)
    simulation.create(replace(WEB, replicas=4))
    assert [str(task.gateway_address) for task in simulation.tasks()] == ["172.18.0.3", "172.18.0.3", "172.18.0.4", "172.18.0.4"]


def test_a_task_waits_for_an_address_and_says_so() -> None:
    simulation = Simulation(nodes=1, ingress=SMALL)
    simulation.create(replace(WEB, replicas=3))
    # Asked for at the same time at another node, and so past the check.
    intruder = Service(id=ServiceId("x"), spec=API, version=1, created_at=2000.0, updated_at=2000.0)
    simulation.commit(replace(simulation.state, services={**simulation.state.services, intruder.id: intruder}))
    simulation.step()
    full = "all addresses of the ingress pool 10.0.0.0/29 (5 addresses) are in use; scale a service down or remove one"
    assert simulation.service("api").error == f"no virtual IP: {full}"
    (task,) = simulation.tasks("api")
    assert (task.status.state, task.status.error) == (TaskState.PENDING, f"no address: {full}")
    assert task.node_id is None
    simulation.remove("web")
    simulation.settle()
    assert simulation.service("api").error == ""
    assert len(simulation.serving("api")) == 1


def test_a_full_docker_gwbridge_is_told_of() -> None:
    simulation = Simulation(nodes=1)
    assert simulation.state.cluster is not None
    simulation.commit(replace(simulation.state, cluster=replace(simulation.state.cluster, gwbridge_subnet=BRIDGE)))
    simulation.create(replace(WEB, replicas=5))
    assert [task.status.state.name for task in simulation.tasks()] == ["ASSIGNED"] * 4 + ["PENDING"]
    assert simulation.tasks()[4].status.error == (
        "no address: all of docker_gwbridge's 172.18.0.0/29 (4 addresses) on node1 are in use; scale a service down"
    )
