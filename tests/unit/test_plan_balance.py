"""Which tasks a node balances over: weights, locality, names, and how the nftables engine chooses among them."""

from ipaddress import IPv4Address

import pytest

from routemesh import names
from routemesh.labels.balance import balancing
from routemesh.language.nft import rule_text
from routemesh.model import (
    Balancing,
    Locality,
    Node,
    NodeId,
    NodeState,
    Protocol,
    Publish,
    Scheduler,
    Service,
    ServiceId,
    ServiceSpec,
    State,
    Task,
    TaskId,
    TaskState,
    TaskStatus,
    Weights,
)
from routemesh.nodeplan import HOST, Chain, Element, Item, Map
from routemesh.plan import plan
from routemesh.plan.engines import nftbalance
from routemesh.plan.pools import Pool, pools
from routemesh.plan.view import view
from routemesh.values import replace
from tests.property.clusters import CAPABILITIES, CLUSTER, FIRST_NODE, INGRESS, attached

HTTP, HTTPS = Publish(published=80, target=80), Publish(published=443, target=443)
ADDRESSES = [IPv4Address("10.0.0.10") + number for number in range(10)]
RUNNING = TaskStatus(state=TaskState.RUNNING, at=0)


def a_state(how: Balancing, homes: str, **changes: object) -> State:
    """A service whose task i + 1 is on the node that `homes` has at i: a, b …; `changes` are of its newest task."""
    service = Service(
        id=ServiceId("web"),
        spec=ServiceSpec(name="web", publish=(HTTP,), balancing=how),
        version=1, created_at=0, updated_at=0, vips=attached(ADDRESSES[-1]), fwmark=256, mark_port=(Protocol.TCP, 80),
    )  # fmt: skip
    node_ids = [NodeId(name) for name in "abc"]
    nodes = {
        name: Node(id=name, name=f"node-{name}", address=FIRST_NODE + number, attachments=attached(ADDRESSES[-2 - number]))
        for number, name in enumerate(node_ids)
    }
    tasks = [
        Task(
            id=TaskId(f"id{slot}"), service_id=service.id, service_version=1, spec=service.spec, slot=slot,
            desired=TaskState.RUNNING, status=RUNNING, created_at=0, node_id=NodeId(home), attachments=attached(ADDRESSES[slot]),
            gateway_address=IPv4Address("172.18.0.10") + slot,
        )
        for slot, home in enumerate(homes, start=1)
    ]  # fmt: skip
    tasks[-1:] = [replace(task, **changes) for task in tasks[-1:]]  # type: ignore[arg-type]
    return State(
        cluster=CLUSTER,
        nodes=nodes,
        services={service.id: service},
        tasks={task.id: task for task in tasks},
        networks={INGRESS.id: INGRESS},
    )


def pools_of(state: State, node: str = "a") -> list[Pool]:
    return list(pools(view(state, NodeId(node)), INGRESS))


def slots(pool: Pool) -> dict[int, int]:
    """The weight of each member, by slot."""
    return {ADDRESSES.index(member.address): member.weight for member in pool.members}


# --- weights and locality ----------------------------------------------------------------------------------------


def test_weights_are_of_a_slot_of_a_node_of_all() -> None:
    how = balancing({"routemesh.weight": "2,node-b=5,.3=0"})
    (pool,) = pools_of(a_state(how, "abba"))
    assert slots(pool) == {1: 2, 2: 5, 3: 0, 4: 2}


@pytest.mark.parametrize(
    ("locality", "node", "reached", "draining"),
    [
        (Locality.ANY, "a", {1, 2, 3}, set()),
        (Locality.PREFER_LOCAL, "a", {1, 3}, {2}),
        (Locality.PREFER_LOCAL, "c", {1, 2, 3}, set()),
        (Locality.LOCAL_ONLY, "b", {2}, {1, 3}),
        (Locality.LOCAL_ONLY, "c", set(), {1, 2, 3}),
    ],
)
def test_what_is_not_reached_keeps_its_connections(locality: Locality, node: str, reached: set[int], draining: set[int]) -> None:
    (pool,) = pools_of(a_state(Balancing(locality=locality), "aba"), node)
    assert slots(pool).keys() == reached
    assert set(map(ADDRESSES.index, pool.draining)) == draining
    assert pool.open == bool(reached)


def test_local_tasks_without_weight_are_no_reason_to_stay() -> None:
    how = balancing({"routemesh.weight": "1,node-a=0", "routemesh.locality": "prefer-local"})
    (pool,) = pools_of(a_state(how, "ab"))
    assert slots(pool) == {1: 0, 2: 1}


def test_a_port_that_no_local_task_has_yet_is_led_to_one_elsewhere() -> None:
    state = a_state(Balancing(locality=Locality.PREFER_LOCAL), "ab")
    newer = replace(state.tasks[TaskId("id2")].spec, publish=(HTTP, HTTPS))
    tasks = dict(state.tasks) | {TaskId("id2"): replace(state.tasks[TaskId("id2")], spec=newer)}
    found = {pool.ports: set(slots(pool)) for pool in pools_of(replace(state, tasks=tasks))}
    assert found == {((Protocol.TCP, 80),): {1}, ((Protocol.TCP, 443),): {2}}


def test_without_any_weight_the_port_is_closed() -> None:
    state = a_state(balancing({"routemesh.weight": "0"}), "ab")
    assert [pool.open for pool in pools_of(state)] == [False]
    host = plan(view(state, NodeId("a")), CAPABILITIES).namespaces[HOST]
    assert not any(isinstance(item, Element) and item.map == "published" for item in host.values())


def test_a_slots_new_task_has_the_name_of_the_old_one() -> None:
    state = a_state(Balancing(), "ab")
    (pool,) = pools_of(state)
    assert [member.name for member in pool.members] == ["1", "2"]
    second = replace(state.tasks[TaskId("id2")], id=TaskId("id3"), attachments=attached(ADDRESSES[3]))
    (pool,) = pools_of(replace(state, tasks=dict(state.tasks) | {second.id: second}))
    assert [member.name for member in pool.members] == ["1", "2", "id3"]


def test_in_a_global_service_the_node_is_the_name() -> None:
    state = a_state(Balancing(), "ab")
    tasks = {key: replace(task, slot=0) for key, task in state.tasks.items()}
    (pool,) = pools_of(replace(state, tasks=tasks))
    assert [member.name for member in pool.members] == ["a", "b"]


def test_the_tasks_of_a_node_that_is_down_are_none() -> None:
    state = a_state(Balancing(locality=Locality.PREFER_LOCAL), "ab")
    nodes = dict(state.nodes) | {NodeId("b"): replace(state.nodes[NodeId("b")], state=NodeState.DOWN)}
    (pool,) = pools_of(replace(state, nodes=nodes), "c")
    assert set(slots(pool)) == {1}


# --- how nftables chooses ----------------------------------------------------------------------------------------


def sandbox(how: Balancing, homes: str = "abc") -> list[Item]:
    return list(plan(view(a_state(how, homes), NodeId("a")), CAPABILITIES).namespaces[names.SANDBOX].values())


def rules(how: Balancing) -> list[str]:
    (chain,) = (item for item in sandbox(how) if isinstance(item, Chain) and item.name == "FWM-256")
    return [rule_text(rule) for rule in chain.rules]


def turns(how: Balancing) -> list[object]:
    found = {item.key[1]: item.value for item in sandbox(how) if isinstance(item, Element) and item.map == "backends"}
    return [ADDRESSES.index(found[place]) for place in range(len(found))]  # type: ignore[arg-type]


WEIGHTED = Weights(slots={1: 4, 2: 2, 3: 0})


@pytest.mark.parametrize(
    ("how", "number", "order"),
    [
        (Balancing(), "numgen inc mod 3", [1, 2, 3]),
        (Balancing(weights=WEIGHTED), "numgen inc mod 2", [1, 2]),
        (Balancing(scheduler=Scheduler.WRR, weights=WEIGHTED), "numgen inc mod 3", [1, 2, 1]),
        (Balancing(scheduler=Scheduler.RANDOM, weights=WEIGHTED), "numgen random mod 3", [1, 2, 1]),
        (Balancing(scheduler=Scheduler.SH, weights=WEIGHTED), "jhash ip saddr mod 3 seed 0x100", [1, 2, 1]),
    ],
)
def test_schedulers(how: Balancing, number: str, order: list[int]) -> None:
    assert rules(how) == [f"counter dnat to meta mark . {number} map @backends"]
    assert turns(how) == order
    assert not nftbalance.learns(sandbox(how))


def test_maglev_has_its_table() -> None:
    how = Balancing(scheduler=Scheduler.MH)
    assert rules(how) == ["counter dnat to meta mark . jhash ip saddr mod 1021 seed 0x100 map @backends"]
    assert sorted({turns(how).count(slot) for slot in (1, 2, 3)}) == [340, 341]


@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.WRR, Scheduler.RANDOM, Scheduler.MH, Scheduler.SH])
def test_with_affinity_the_hash_decides_and_memory_overrules_it(scheduler: Scheduler) -> None:
    how = Balancing(scheduler=scheduler, affinity_s=10_800)
    number = f"jhash ip saddr mod {3 if scheduler is Scheduler.SH else 1021} seed 0x100"
    assert rules(how) == [
        f"counter ct mark set meta mark . {number} map @choices",
        "update @clients { ip saddr . meta mark timeout 10800s : ct mark }",
        "ct mark set ip saddr . meta mark map @clients",
        "dnat to meta mark . ct mark map @tasks",
        f"ct mark set meta mark . {number} map @choices",
        "dnat to meta mark . ct mark map @tasks",
    ]
    items = sandbox(how)
    assert Map("ip", "clients", ("ip", "mark"), "mark", learns=65536) in items
    assert nftbalance.learns(items)
    assert nftbalance.remembered(items) == {(256, int(ADDRESSES[slot])) for slot in (1, 2, 3)}
    assert not turns(how)


def test_what_was_learned_of_a_task_that_takes_no_connections_is_outdated() -> None:
    items = sandbox(Balancing(affinity_s=60, scheduler=Scheduler.WRR, weights=Weights(slots={2: 0})))
    client = IPv4Address("198.51.100.7")
    learned = [Element("ip", "clients", (client + slot, 256), int(ADDRESSES[slot])) for slot in (1, 2, 3, 4)]
    other = Element("ip", "clients", (client, 257), int(ADDRESSES[1]))
    assert nftbalance.outdated(items, [*learned, other]) == (learned[1], learned[3], other)
