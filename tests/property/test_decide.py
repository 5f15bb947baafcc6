"""Laws of the manager's decisions, whatever people, nodes and tasks do, in whatever order."""

from collections import Counter
from collections.abc import Mapping
from ipaddress import IPv4Network
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from routemesh.decide import admit, next_deadline, step
from routemesh.decide.clock import TOLERANCE_S
from routemesh.decide.slots import Scope
from routemesh.model import (
    TASK_HISTORY_PER_SLOT,
    Availability,
    Mode,
    NodeState,
    Publish,
    RestartPolicy,
    Service,
    ServiceSpec,
    State,
    Task,
    TaskState,
    UpdateConfig,
    UpdateOrder,
)
from routemesh.values import replace
from tests.addresses import on_ingress
from tests.simulation import Simulation

NAMES = ("a", "b")
NODES = ("node1", "node2", "node3")
CONSTRAINTS: tuple[tuple[str, ...], ...] = ((), ("node.labels.disk==ssd",), ("node.hostname!=node1",))
K = TypeVar("K")
V = TypeVar("V")

modes = st.sampled_from(Mode)
replicas = st.integers(min_value=0, max_value=4)
constraint_lists = st.sampled_from(CONSTRAINTS)
nodes = st.sampled_from(NODES)
numbers = st.integers(min_value=0, max_value=50)


def reversed_order(mapping: Mapping[K, V]) -> dict[K, V]:
    return dict(reversed(list(mapping.items())))


def is_alive(task: Task) -> bool:
    return not task.status.state.ended


def has_services(machine: "Cluster") -> bool:
    return bool(machine.state.services)


class Cluster(RuleBasedStateMachine):
    """Three nodes and up to two services; the manager steps after every change, as in life."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation(nodes=len(NODES), ingress=IPv4Network("10.0.0.0/27"))
        self.simulation.now += 1e6  # room for clocks to be set back
        self.before = self.simulation.state

    @initialize(order=st.sampled_from(UpdateOrder), delay_s=st.sampled_from((0.0, 7.0)), mode=modes, replicas=replicas)
    def begin(self, order: UpdateOrder, delay_s: float, mode: Mode, replicas: int) -> None:
        self.update_config = UpdateConfig(order=order, delay_s=delay_s)
        self.create(mode, replicas, ())
        self.simulation.settle()

    def pick_service(self, number: int) -> str:
        names = sorted(service.spec.name for service in self.state.services.values())
        return names[number % len(names)]

    def pick_task(self, number: int) -> Task | None:
        tasks = [task for task in self.state.tasks.values() if is_alive(task) and task.status.state >= TaskState.ASSIGNED]
        tasks.sort(key=lambda task: (task.spec.name, task.slot, task.created_at, task.id))
        return tasks[number % len(tasks)] if tasks else None

    # What people do.

    @precondition(lambda self: len(self.state.services) < len(NAMES))
    @rule(mode=modes, replicas=replicas, constraints=constraint_lists)
    def create(self, mode: Mode, replicas: int, constraints: tuple[str, ...]) -> None:
        name = next(name for name in NAMES if name not in {service.spec.name for service in self.state.services.values()})
        spec = ServiceSpec(
            name=name,
            mode=mode,
            replicas=replicas,
            constraints=constraints,
            publish=(Publish(published=8000 + ord(name), target=80),),
            restart=RestartPolicy(delay_s=3.0),
            update=self.update_config,
        )
        self.simulation.create(spec)

    @precondition(has_services)
    @rule(number=numbers, replicas=replicas)
    def scale(self, number: int, replicas: int) -> None:
        self.simulation.update(self.pick_service(number), replicas=replicas)

    @precondition(has_services)
    @rule(number=numbers, version=st.integers(1, 3))
    def update(self, number: int, version: int) -> None:
        self.simulation.update(self.pick_service(number), environment=(f"V={version}",))

    @precondition(has_services)
    @rule(number=numbers, constraints=constraint_lists)
    def constrain(self, number: int, constraints: tuple[str, ...]) -> None:
        self.simulation.update(self.pick_service(number), constraints=constraints)

    @precondition(has_services)
    @rule(number=numbers)
    def remove(self, number: int) -> None:
        self.simulation.remove(self.pick_service(number))

    @rule(name=nodes, availability=st.sampled_from(Availability))
    def set_availability(self, name: str, availability: Availability) -> None:
        self.simulation.commit(admit.update_node(self.simulation.state, name, availability=availability))
        self.simulation.step()

    @rule(name=nodes, disk=st.sampled_from(("ssd", "hdd")))
    def label(self, name: str, disk: str) -> None:
        self.simulation.commit(admit.update_node(self.simulation.state, name, labels_add={"disk": disk}))
        self.simulation.step()

    # What nodes and tasks do.

    @rule(name=nodes)
    def toggle(self, name: str) -> None:
        self.simulation.live ^= {admit.find_node(self.simulation.state, name).id}
        self.simulation.step()

    @rule(number=numbers, end=st.sampled_from((TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED)))
    def end(self, number: int, end: TaskState) -> None:
        if (task := self.pick_task(number)) is not None:
            self.simulation.report(task, end)
            self.simulation.step()

    @rule(number=numbers, healthy=st.booleans())
    def run(self, number: int, healthy: bool) -> None:
        task = self.pick_task(number)
        if task is not None and task.desired is TaskState.RUNNING:
            self.simulation.report(task, TaskState.RUNNING, healthy=healthy)
            self.simulation.step()

    @rule()
    def obey(self) -> None:
        self.simulation.agents()
        self.simulation.step()

    @rule(seconds=st.sampled_from((0.5, 3.0, 10.0)))
    def wait(self, seconds: float) -> None:
        self.simulation.now += seconds
        self.simulation.step()

    @rule(seconds=st.sampled_from((-3600.0, -4.0, 3600.0)))
    def leap(self, seconds: float) -> None:
        """The leader's clock is set, or the next leader's is another."""
        self.simulation.now += seconds
        self.simulation.step()

    # What holds all the time.

    @property
    def state(self) -> State:
        return self.simulation.state

    def step(self, state: State, now: float) -> State:
        return step(state, now, frozenset(self.simulation.live))

    def scopes(self) -> list[Scope]:
        return [Scope.of(self.state, service, self.simulation.now) for service in self.state.services.values()]

    def wanted(self, service: Service) -> list[Task]:
        tasks = [task for task in self.state.tasks.values() if task.service_id == service.id]
        return [task for task in tasks if is_alive(task) and task.desired <= TaskState.RUNNING]

    @invariant()
    def a_second_step_does_nothing(self) -> None:
        assert self.step(self.state, self.simulation.now) is self.state

    @invariant()
    def nothing_happens_before_the_deadline_and_something_then(self) -> None:
        deadline = next_deadline(self.state, self.simulation.now)
        if deadline is None:
            assert self.step(self.state, self.simulation.now + 1e6) is self.state
        else:
            assert deadline > self.simulation.now
            assert self.step(self.state, (self.simulation.now + deadline) / 2) is self.state
            assert self.step(self.state, deadline) is not self.state

    @invariant()
    def nothing_waits_longer_than_its_delay(self) -> None:
        for task in filter(is_alive, self.state.tasks.values()):
            if task.desired is TaskState.READY:
                assert task.start_after <= self.simulation.now + task.spec.restart.delay_s
        deadline = next_deadline(self.state, self.simulation.now)
        assert deadline is None or deadline <= self.simulation.now + max(3.0, self.update_config.delay_s + TOLERANCE_S)

    @invariant()
    def the_order_of_mappings_does_not_matter(self) -> None:
        state = self.simulation.stepped_from
        mirrored = replace(
            state,
            nodes=reversed_order(state.nodes),
            services=reversed_order(state.services),
            tasks=reversed_order(state.tasks),
        )
        for now in (self.simulation.now, self.simulation.now + 5):
            assert self.step(mirrored, now) == self.step(state, now)

    @invariant()
    def states_never_go_backwards(self) -> None:
        for task_id, old in self.before.tasks.items():
            new = self.state.tasks.get(task_id)
            if new is None:
                continue
            was, now = old.status.state, new.status.state
            # What was given up with its node is an orphan until its end was seen after all.
            assert now >= was or (was is TaskState.ORPHANED and now.ended)
            assert new.desired >= old.desired
            assert old.node_id in (None, new.node_id)
            assert on_ingress(old) in (None, on_ingress(new))
        self.before = self.state

    @invariant()
    def every_address_has_one_holder(self) -> None:
        network = self.state.ingress
        assert network is not None
        alive = list(filter(is_alive, self.state.tasks.values()))
        vips = [on_ingress(service) for service in self.state.services.values() if on_ingress(service) is not None]
        holders = Counter(
            [on_ingress(node) for node in self.state.nodes.values()]
            + vips
            + [on_ingress(task) for task in alive if on_ingress(task) is not None]
        )
        assert holders.total() == len(holders)
        assert set(holders) <= set(list(network.subnet.hosts())[1:])
        local = Counter((task.node_id, task.gateway_address) for task in alive if task.gateway_address is not None)
        assert local.total() == len(local)
        marks = {service.fwmark for service in self.state.services.values() if service.fwmark is not None}
        assert len(marks) == len(vips)
        assert all(service.error for service in self.state.services.values() if on_ingress(service) is None)

    @invariant()
    def no_slot_has_more_tasks_than_an_update_needs(self) -> None:
        for service in self.state.services.values():
            wanted = self.wanted(service)
            slots = Counter((task.slot, task.node_id if service.spec.mode is Mode.GLOBAL else None) for task in wanted)
            number = service.spec.replicas if service.spec.mode is Mode.REPLICATED else len(NODES)
            start_first = service.spec.update.order is UpdateOrder.START_FIRST
            assert len(slots) <= number
            assert len(wanted) <= number + start_first
            assert all(count <= 1 + start_first for count in slots.values())

    @invariant()
    def nobody_is_wanted_where_nobody_may_be(self) -> None:
        for service in self.state.services.values():
            for task in self.wanted(service):
                if task.node_id is not None:
                    node = self.state.nodes[task.node_id]
                    assert node.state is NodeState.READY
                    assert node.availability is not Availability.DRAIN

    @invariant()
    def the_history_is_short(self) -> None:
        tasks = Counter((task.service_id, task.slot, task.node_id if not task.slot else "") for task in self.state.tasks.values())
        alive = Counter(
            (task.service_id, task.slot, task.node_id if not task.slot else "")
            for task in filter(is_alive, self.state.tasks.values())
        )
        assert all(number <= max(TASK_HISTORY_PER_SLOT, alive[slot]) + alive[slot] for slot, number in tasks.items())

    # What comes of it when everything is well again.

    def teardown(self) -> None:
        if hasattr(self, "update_config"):
            self.converge()

    def converge(self) -> None:
        simulation = self.simulation
        simulation.live = set(self.state.nodes)
        for name in NODES:
            simulation.commit(admit.update_node(self.state, name, availability=Availability.ACTIVE, labels_add={"disk": "ssd"}))
        for task in list(self.state.tasks.values()):
            if is_alive(task) and task.status.state is TaskState.RUNNING:
                simulation.report(task, TaskState.RUNNING)
        for _ in range(20):
            simulation.wait(10)
        for scope in self.scopes():
            spec = scope.service.spec
            serving = simulation.serving(spec.name)
            allowed = [name for name in NODES if "node.hostname!=node1" not in spec.constraints or name != "node1"]
            if spec.mode is Mode.GLOBAL:
                assert sorted(simulation.node_names(serving)) == allowed
            else:
                assert len({task.slot for task in serving}) == len(serving) == spec.replicas
                assert set(simulation.node_names(serving)) <= set(allowed)
            assert all(map(scope.current, serving))
        assert all(task.serving for task in self.state.tasks.values() if is_alive(task))


Cluster.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestCluster = Cluster.TestCase
