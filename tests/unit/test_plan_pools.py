"""Which tasks a port is balanced over, and that a pool's mark lasts as long as its connections."""

from ipaddress import IPv4Address

import pytest

from routemesh.model import Balancing, Locality, NodeId, Protocol, Publish, Task, TaskState, UpdateConfig, UpdateOrder, Weights
from routemesh.plan.pools import Pool, pools
from routemesh.plan.view import view
from routemesh.values import replace
from tests.addresses import ingress_address
from tests.simulation import WEB, Simulation


def seen(simulation: Simulation, node: str = "node1") -> list[Pool]:
    at = view(simulation.state, NodeId(f"id-{node}"))
    return list(pools(at, at.ingress))


def addresses(pool: Pool) -> list[IPv4Address]:
    return [member.address for member in pool.members]


def of(*tasks: Task) -> list[IPv4Address]:
    return [ingress_address(task) for task in tasks if task.attachments]


@pytest.fixture
def simulation() -> Simulation:
    made = Simulation()
    made.create(WEB)
    made.settle()
    return made


def test_a_service_is_one_pool_with_its_mark(simulation: Simulation) -> None:
    (pool,) = seen(simulation)
    assert (pool.mark, pool.ports) == (0x100, ((Protocol.TCP, 8080),))
    assert addresses(pool) == of(*simulation.tasks())
    assert not pool.draining


def test_the_oldest_service_comes_first(simulation: Simulation) -> None:
    simulation.create(replace(WEB, name="a", publish=(Publish(published=1, target=1),)))
    simulation.settle()
    assert [pool.mark for pool in seen(simulation)] == [0x100, 0x101]


def test_a_task_that_must_stop_drains_until_it_has_ended(simulation: Simulation) -> None:
    first, second = simulation.tasks()
    simulation.update(replicas=1)
    (pool,) = seen(simulation)
    kept, leaving = (first, second) if simulation.wanted()[0].id == first.id else (second, first)
    assert (addresses(pool), list(pool.draining)) == (of(kept), of(leaving))
    simulation.settle()
    (pool,) = seen(simulation)
    assert (addresses(pool), pool.draining) == (of(kept), ())


def test_an_unhealthy_task_drains(simulation: Simulation) -> None:
    first, second = simulation.tasks()
    simulation.report(first, TaskState.RUNNING, healthy=False)
    (pool,) = seen(simulation)
    assert (addresses(pool), list(pool.draining)) == (of(second), of(first))


def test_a_task_that_does_not_run_yet_is_in_no_pool() -> None:
    simulation = Simulation()
    simulation.create(WEB)
    simulation.step()
    assert seen(simulation) == []


def test_the_last_tasks_drain_in_a_pool_without_backends(simulation: Simulation) -> None:
    tasks = simulation.tasks()
    simulation.update(replicas=0)
    (pool,) = seen(simulation)
    assert (pool.mark, pool.members, list(pool.draining)) == (0x100, (), of(*tasks))


@pytest.mark.parametrize("new", [80, 9090], ids=["a lower port", "a higher port"])
def test_a_pool_keeps_its_mark_while_an_update_changes_the_ports(simulation: Simulation, new: int) -> None:
    """IPVS knows connections by the mark: were it to change, they would be lost."""
    marks: dict[tuple[Protocol, int], set[int]] = {}
    publish = (*WEB.publish, Publish(published=new, target=80), Publish(published=new, target=80, protocol=Protocol.UDP))
    simulation.update(publish=publish, update=UpdateConfig(order=UpdateOrder.START_FIRST))
    for _ in range(20):
        for pool in seen(simulation):
            for port in pool.ports:
                marks.setdefault(port, set()).add(pool.mark)
        simulation.step()
        simulation.agents()
    assert marks[Protocol.TCP, 8080] == {0x100}
    (last,) = seen(simulation)
    assert last.mark == 0x100
    assert len(last.ports) == 3


def test_a_port_that_takes_the_place_of_another_has_a_mark_that_lasts(simulation: Simulation) -> None:
    simulation.update(publish=(Publish(published=80, target=80),), update=UpdateConfig(order=UpdateOrder.START_FIRST))
    marks: dict[tuple[Protocol, int], set[int]] = {}
    for _ in range(20):
        for pool in seen(simulation):
            for port in pool.ports:
                marks.setdefault(port, set()).add(pool.mark)
        simulation.step()
        simulation.agents()
    assert marks == {(Protocol.TCP, 8080): {0x100}, (Protocol.TCP, 80): {80 << 16 | 0x100}}


def test_one_number_of_two_protocols_has_two_marks(simulation: Simulation) -> None:
    both = tuple(Publish(published=53, target=53, protocol=protocol) for protocol in Protocol)
    first, second = simulation.tasks()
    older, newer = replace(first.spec, publish=both), replace(first.spec, publish=both[:1])
    tasks = {first.id: replace(first, spec=older), second.id: replace(second, spec=newer)}
    simulation.state = replace(simulation.state, tasks=tasks)
    marks = {pool.ports: pool.mark for pool in seen(simulation)}
    assert marks == {((Protocol.TCP, 53),): 53 << 16 | 0x100, ((Protocol.UDP, 53),): 53 << 16 | 0x8000 | 0x100}


@pytest.mark.parametrize(
    ("locality", "expected"),
    [
        (Locality.ANY, {"node1": 2, "node2": 2, "node3": 2}),
        (Locality.PREFER_LOCAL, {"node1": 1, "node2": 1, "node3": 2}),
        (Locality.LOCAL_ONLY, {"node1": 1, "node2": 1, "node3": 0}),
    ],
)
def test_locality_says_which_tasks_a_node_uses(simulation: Simulation, locality: Locality, expected: dict[str, int]) -> None:
    assert sorted(simulation.node_names(simulation.tasks())) == ["node1", "node2"]
    service = simulation.service()
    spec = replace(service.spec, balancing=Balancing(locality=locality))
    simulation.state = replace(simulation.state, services={service.id: replace(service, spec=spec)})
    assert {node: sum(len(pool.members) for pool in seen(simulation, node)) for node in expected} == expected


def test_weights_are_those_of_slot_then_node_then_service(simulation: Simulation) -> None:
    simulation.update(replicas=3)
    simulation.settle()
    service = simulation.service()
    weights = Weights(default=2, nodes={"node1": 5}, slots={3: 7})
    spec = replace(service.spec, balancing=Balancing(weights=weights))
    simulation.state = replace(simulation.state, services={service.id: replace(service, spec=spec)})
    nodes = simulation.node_names(simulation.tasks())
    expected = [7 if slot == 3 else 5 if node == "node1" else 2 for slot, node in enumerate(nodes, start=1)]
    (pool,) = seen(simulation)
    assert [member.weight for member in pool.members] == expected
