"""A worker's store: what it is shown, what it may report, and what it does when managers go and come."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh import wire
from routemesh.api.server import serving_network
from routemesh.ask.checkups import own_facts
from routemesh.credentials import tls
from routemesh.credentials.files import Place
from routemesh.decide import admit
from routemesh.decide.liveness import LEADER, lease_name
from routemesh.errors import Forbidden, Unavailable
from routemesh.loops import EndsDaemon
from routemesh.model import (
    Gateway,
    Http,
    NodeId,
    Secret,
    SecretId,
    Service,
    ServiceId,
    ServiceSpec,
    State,
    Task,
    TaskId,
    TaskState,
    TaskStatus,
    Trust,
)
from routemesh.pem import DEFAULT_CERTIFICATE
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.store.changes import apply
from routemesh.store.stream.client import StreamStore
from routemesh.store.stream.managers import Managers
from routemesh.store.stream.shown import Feed
from routemesh.store.stream.talk import Written, read, written
from routemesh.values import replace
from tests.property.clusters import CAPABILITIES, states
from tests.unit.daemon import NOW
from tests.unit.test_door import LOOPBACK, Net, net

__all__ = ["net"]
NODE = NodeId("id-node2")
FAILED = TaskStatus(state=TaskState.FAILED, at=NOW, error="seen")


# --- what is shown -----------------------------------------------------------------------------------------------


def told(node: NodeId, *steps: State) -> State:
    """What a node knows that was told of each of these states in turn, as it travels."""
    feed, known = Feed(node), State()
    for state in steps:
        line = wire.encode(written(feed.next(state)))
        known = apply(known, read(wire.decode(tuple[Written, ...], line)), state.revision)
    return known


@given(st.lists(states(), min_size=1, max_size=4))
def test_what_a_node_knows_depends_on_the_last_state_alone(steps: list[State]) -> None:
    for node in steps[-1].nodes:
        assert told(node, *steps) == told(node, steps[-1])


@given(states())
def test_a_node_is_shown_all_that_its_plan_needs(state: State) -> None:
    for node in state.nodes:
        assert plan(view(told(node, state), node), CAPABILITIES) == plan(view(state, node), CAPABILITIES)


def test_keys_tokens_and_passwords_are_not_for_workers(net: Net) -> None:
    spec = ServiceSpec(name="db", command=("serve", "secret1"), environment=("PASSWORD=secret2",))
    net.daemon.client.create_service(spec)
    state = net.daemon.settle()
    (home,) = {task.node_id for task in state.tasks.values() if task.spec.name == "db"}
    assert home is not None
    for node in state.nodes:
        line = wire.encode(written(Feed(node).next(state))).decode()
        assert "PRIVATE KEY" not in line
        assert not any(secret in line for secret in (state.trust or Trust(cluster="", roots=())).tokens.values())
        assert ("secret1" in line, "secret2" in line) == ((True, True) if node == home else (False, False))
        assert "BEGIN CERTIFICATE" in line


def test_a_secret_is_for_the_nodes_whose_gateway_shows_it() -> None:
    secrets = {
        SecretId(name): Secret(id=SecretId(name), name=name, created_at=0.0, data=b"x")
        for name in ("used", "unused", DEFAULT_CERTIFICATE)
    }
    with_gateway, without = _with_gateway(secrets), _without_gateway(secrets)
    assert set(told(NODE, with_gateway).secrets) == {"used", DEFAULT_CERTIFICATE}
    assert set(told(NodeId("id-node3"), with_gateway).secrets) == set()
    assert set(told(NODE, with_gateway, without).secrets) == set()
    assert set(told(NODE, without, with_gateway).secrets) == {"used", DEFAULT_CERTIFICATE}


def _with_gateway(secrets: dict[SecretId, Secret]) -> State:
    state = _without_gateway(secrets)
    gate = _service(ServiceSpec(name="gate", gateway=Gateway()))
    task = Task(
        id=TaskId("t"),
        service_id=gate.id,
        service_version=1,
        spec=gate.spec,
        slot=1,
        desired=TaskState.RUNNING,
        status=TaskStatus(state=TaskState.RUNNING, at=NOW),
        created_at=NOW,
        node_id=NODE,
    )
    return replace(state, tasks={task.id: task}, services={**state.services, gate.id: gate}, revision=2)


def _without_gateway(secrets: dict[SecretId, Secret]) -> State:
    web = ServiceSpec(name="web", http=Http(hosts=("a.example",), port=80, certificate="used"))
    service = _service(web)
    return State(secrets=secrets, services={service.id: service}, revision=1)


def _service(spec: ServiceSpec) -> Service:
    return Service(id=ServiceId(spec.name), spec=spec, version=1, created_at=NOW, updated_at=NOW)


# --- what is reported --------------------------------------------------------------------------------------------


@asynccontextmanager
async def joined(net: Net, place: Place) -> AsyncIterator[StreamStore]:
    store = await StreamStore.open(NODE, Managers((f"127.0.0.1:{net.port}",), lambda: tls.connecting(place)))
    try:
        yield store
    finally:
        await store.close()


def own_task(state: State) -> TaskId:
    return next(task.id for task in state.tasks.values() if task.node_id == NODE)


@pytest.fixture
def tasks(net: Net) -> Iterator[State]:
    """The cluster with a task on each node."""
    net.daemon.client.create_service(ServiceSpec(name="all", command=("serve",), replicas=3))
    yield net.daemon.settle()


def test_a_worker_follows_and_reports_what_is_its_own(net: Net, tasks: State) -> None:
    manager = net.daemon.store

    async def story() -> None:
        async with joined(net, net.place("node2")) as store:
            known = await store.snapshot()
            assert (known.revision, known.tasks.keys()) == (tasks.revision, tasks.tasks.keys())
            watch = store.watch()
            await anext(watch)
            await manager.update(partial(admit.create_service, spec=ServiceSpec(name="late"), now=NOW))
            await anext(watch)
            assert "late" in [service.spec.name for service in (await store.snapshot()).services.values()]

            task = own_task(tasks)
            after = await store.update(partial(admit.task_report, task_id=task, status=FAILED))
            assert after.tasks[task].status.error == (await manager.snapshot()).tasks[task].status.error == "seen"
            after = await store.update(partial(admit.node_report, node_id=NODE, failures=("broken",), error="out"))
            assert ((await manager.snapshot()).nodes[NODE].failures, after.nodes[NODE].error) == (("broken",), "out")
            before = (await manager.snapshot()).revision
            assert await store.update(lambda state: state) is await store.snapshot()
            assert (await manager.snapshot()).revision == before

    net.daemon.run(story())


def test_a_worker_holds_its_own_lease_and_no_other(net: Net) -> None:
    async def story() -> None:
        manager = net.daemon.store
        await manager.release(lease_name(NODE), NODE)
        async with joined(net, net.place("node2")) as store:
            watch = store.watch()
            await anext(watch)
            assert await store.renew(lease_name(NODE), "identity", 5, 7)
            lease = (await manager.leases())[lease_name(NODE)]
            assert (lease.holder, lease.value) == ("identity", 7)
            while lease_name(NODE) not in await store.leases():
                await anext(watch)
            assert (await store.leases())[lease_name(NODE)] == lease
            assert not await store.renew(lease_name(NODE), "somebody else", 5)
            for name in (LEADER, lease_name(NodeId("id-node3"))):
                with pytest.raises(Forbidden, match="this node is a worker and can't hold the lease"):
                    await store.renew(name, "identity", 5)
            await store.release(lease_name(NODE), "identity")
            assert lease_name(NODE) not in await manager.leases()

    net.daemon.run(story())


def test_a_worker_changes_nothing_else(net: Net, tasks: State) -> None:
    theirs = next(task.id for task in tasks.tasks.values() if task.node_id == "id-node3")
    changes = (
        partial(admit.create_service, spec=ServiceSpec(name="x"), now=NOW),
        partial(admit.task_report, task_id=theirs, status=FAILED),
        partial(admit.node_report, node_id=NodeId("id-node3"), failures=("broken",)),
        partial(admit.update_node, node="node2", labels_add={"a": "b"}),
    )

    async def story() -> None:
        async with joined(net, net.place("node2")) as store:
            for change in changes:
                with pytest.raises(
                    Forbidden, match=r"^this node is a worker and can't change the cluster: ask on a manager \(node1"
                ):
                    await store.update(change)

    net.daemon.run(story())
    assert net.daemon.state == tasks


def test_a_manager_takes_no_report_of_another_nodes_task(net: Net, tasks: State) -> None:
    theirs = next(task.id for task in tasks.tasks.values() if task.node_id == "id-node3")
    body = {"tasks": {theirs: {"state": int(TaskState.FAILED), "at": NOW}}}
    status, said = net.ask("POST", "/dispatch/report", net.place("node2"), body)
    assert (status, said["message"]) == (403, f"task {theirs} is another node's")
    assert net.daemon.state == tasks


# --- managers that go and come -----------------------------------------------------------------------------------


def test_a_worker_keeps_what_it_knows_and_catches_up(net: Net) -> None:
    troubles: list[str] = []

    async def story() -> None:
        manager = net.daemon.store
        own = Place(net.directory / "own")
        async with joined(net, net.place("node2")) as store:
            store.on_trouble(troubles.append)
            before = await store.snapshot()
            away = lease_name(NodeId("id-node3"))
            assert away in await store.leases()
            await net.stack.aclose()
            await manager.release(away, "id-node3")
            with pytest.raises(Unavailable, match=r"^no manager answers \(127.0.0.1:\d+: "):
                await store.renew(lease_name(NODE), NODE, 5)
            assert await store.snapshot() == before
            await manager.update(partial(admit.create_service, spec=ServiceSpec(name="late"), now=NOW))
            await net.stack.enter_async_context(
                serving_network(net.daemon.context(), LOOPBACK, net.port, lambda: tls.listening(own))
            )
            async for _ in store.watch():
                if (await store.snapshot()).revision == (await manager.snapshot()).revision:
                    break
            assert "late" in [service.spec.name for service in (await store.snapshot()).services.values()]
            assert away not in await store.leases()

    net.daemon.run(story())
    assert any("what it knows of the cluster is as it was" in line for line in troubles)
    assert troubles[-1] == ""


def test_another_manager_is_asked_when_one_does_not_answer(net: Net) -> None:
    async def story() -> None:
        place = net.place("node2")
        managers = Managers(("127.0.0.1:1", f"127.0.0.1:{net.port}"), lambda: tls.connecting(place))
        store = await StreamStore.open(NODE, managers)
        try:
            assert managers.endpoints[0] == f"127.0.0.1:{net.port}"
            assert (await store.snapshot()).nodes
        finally:
            await store.close()

    net.daemon.run(story())


def test_a_removed_worker_ends_its_daemon(net: Net) -> None:
    async def story() -> None:
        async with joined(net, net.place("node2")) as store:
            await net.daemon.store.update(partial(admit.remove_node, ref="node2", now=NOW, force=True))
            with pytest.raises(EndsDaemon, match="is not of the cluster any more: 'routemesh cluster leave --force'"):
                await store.renew(lease_name(NODE), NODE, 5)
        with pytest.raises(Forbidden, match="is not of the cluster any more"):
            async with joined(net, net.place("node2")):
                raise AssertionError("it was let in")

    net.daemon.run(story())


def test_where_no_manager_answers_nothing_is_opened(net: Net) -> None:
    async def story() -> None:
        place = net.place("node2")
        with pytest.raises(Unavailable, match=r"^no manager answers \(127.0.0.1:1: .*\): is one running, and is port"):
            await StreamStore.open(NODE, Managers(("127.0.0.1:1",), lambda: tls.connecting(place)))

    net.daemon.run(story())


def test_a_worker_that_is_cut_off_says_how_old_is_what_it_knows(net: Net) -> None:
    lost = "managers: what it knows of the cluster is as it was 12 s ago: no manager answers"
    context = replace(net.daemon.context(), troubles=lambda: (lost, "reported"))
    net.daemon.fault("reported", "more")
    state = net.daemon.state
    own, other = state.nodes[net.daemon.node_id], state.nodes[NODE]
    assert context.with_troubles(own).failures == ("reported", "more", lost)
    assert context.with_troubles(other) is other
    facts = net.daemon.run(own_facts(context, net.daemon.settle(), own, passive=True))
    assert facts.failures == ("reported", "more", lost)
