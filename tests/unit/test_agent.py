"""Agents and managers together, on kernels and processes in memory: order, adoption, failure."""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

from routemesh import names
from routemesh.agent.tasks import LOST
from routemesh.decide.liveness import lease_name, liveness
from routemesh.model import (
    HealthCheck,
    HealthKind,
    Publish,
    RestartPolicy,
    ServiceSpec,
    State,
    Task,
    TaskId,
    TaskState,
)
from routemesh.nodeplan import Create, Delete, Element, FdbEntry, NodePlan, Op, of_kind
from routemesh.runtime import Exit
from routemesh.values import replace
from tests.addresses import ingress_address, on_ingress
from tests.unit.daemons import Cluster, Daemon, cluster

WEB = ServiceSpec(name="web", command=("serve",), replicas=2, publish=(Publish(published=8080, target=80),))


def play(scenario: Callable[[Cluster], Awaitable[None]], nodes: int = 3) -> None:
    """Run a scenario on a cluster."""

    async def main() -> None:
        async with cluster(nodes) as running:
            await scenario(running)

    asyncio.run(main())


def serving(state: State) -> list[Task]:
    """Tasks that new connections may go to."""
    return [task for task in state.tasks.values() if task.serving]


def everywhere(running: Cluster, addresses: set[IPv4Address]) -> Callable[[State], bool]:
    """Whether every sandbox balances over exactly these addresses."""
    return lambda _: all(daemon.backends() == addresses for daemon in running.daemons)


def host_of(running: Cluster, task: Task) -> Daemon:
    """The daemon of a task's node."""
    return next(daemon for daemon in running.daemons if daemon.id == task.node_id)


async def two_tasks(running: Cluster, spec: ServiceSpec = WEB) -> list[Task]:
    """Create the service and wait until every node balances over both tasks."""
    await running.create(spec)
    tasks = serving(await running.until(lambda state: len(serving(state)) == 2))
    await running.until(everywhere(running, {ingress_address(task) for task in tasks if task.attachments}))
    return tasks


def test_a_crash_is_seen_by_all_nodes_and_the_slot_filled_again() -> None:
    async def scenario(running: Cluster) -> None:
        spec = replace(WEB, restart=RestartPolicy(delay_s=0.05))
        victim, _ = await two_tasks(running, spec)
        await host_of(running, victim).runtime.end(victim.id, 1)
        state = await running.until(lambda state: state.tasks[victim.id].status.state is TaskState.FAILED)
        assert state.tasks[victim.id].status.exit_code == 1
        state = await running.until(lambda state: len(serving(state)) == 2)
        await running.until(everywhere(running, {ingress_address(task) for task in serving(state) if task.attachments}))

    play(scenario)


def test_a_task_is_stopped_only_when_every_live_node_has_let_go_of_it() -> None:
    async def scenario(running: Cluster) -> None:
        tasks = await two_tasks(running)
        stubborn = running.daemons[2]
        # Its kernel refuses to take a backend out, so the node does not acknowledge.
        stubborn.kernel.refuse = lambda op: "busy" if _takes_out(op) else None
        await running.store.update(lambda state: _scaled(state, 1))
        state = await running.until(lambda state: len(serving(state)) == 1)
        leaving = next(task for task in tasks if task.id not in {task.id for task in serving(state)})
        await running.until(lambda _: all(on_ingress(leaving) not in one.backends() for one in running.daemons[:2]))
        runtime = host_of(running, leaving).runtime
        assert leaving.id not in runtime.stopped
        stubborn.kernel.refuse = lambda op: None
        await running.until(lambda _: leaving.id in runtime.stopped)
        assert on_ingress(leaving) not in stubborn.backends()

    play(scenario)


def test_a_new_daemon_adopts_what_runs_and_changes_nothing_in_the_kernel() -> None:
    async def scenario(running: Cluster) -> None:
        task, _ = await two_tasks(running)
        daemon = host_of(running, task)
        await daemon.kill()
        before, passes = len(daemon.kernel.applied), len(daemon.kernel.flushed)
        await daemon.start()
        await running.until(lambda _: len(daemon.kernel.flushed) > passes)
        assert daemon.kernel.applied[before:] == []
        await daemon.runtime.end(task.id, 7)
        await running.until(lambda state: state.tasks[task.id].status.exit_code == 7)

    play(scenario)


def test_what_was_given_up_while_its_daemon_was_away_keeps_its_connections_and_is_drained() -> None:
    async def scenario(running: Cluster) -> None:
        task, _ = await two_tasks(running)
        daemon = host_of(running, task)
        others = [other for other in running.daemons if other is not daemon]
        stubborn = others[-1]
        stubborn.kernel.refuse = lambda op: "busy" if _takes_out(op) else None
        await daemon.kill()
        await running.store.update(lambda state: liveness(state, 1.0, state.nodes.keys() - {daemon.id}))
        await running.until(lambda _: on_ingress(task) not in others[0].backends())
        assert _tunnel_to(task, others[0])  # what is connected through another node stays so
        await daemon.start()
        state = await running.until(lambda state: len(serving(state)) == 2 and on_ingress(task) not in daemon.backends())
        assert state.tasks[task.id].status.state is TaskState.ORPHANED
        assert task.id not in daemon.runtime.stopped
        assert names.container_id(task.id) in daemon.kernel.read(NodePlan()).namespaces
        stubborn.kernel.refuse = lambda op: None
        state = await running.until(lambda state: state.tasks[task.id].status.state is TaskState.SHUTDOWN)
        assert task.id in daemon.runtime.stopped
        assert on_ingress(task) not in stubborn.backends()
        await running.until(lambda _: names.container_id(task.id) not in daemon.kernel.read(NodePlan()).namespaces)
        await running.until(lambda _: not _tunnel_to(task, others[0]))

    play(scenario)


def test_connections_to_what_was_given_up_are_let_go_when_its_machine_does_not_answer_either() -> None:
    async def scenario(running: Cluster) -> None:
        task, _ = await two_tasks(running)
        daemon = host_of(running, task)
        others = [other for other in running.daemons if other is not daemon]
        await daemon.kill()
        await running.store.release(lease_name(daemon.id), daemon.id)
        await running.until(lambda _: on_ingress(task) not in others[0].backends())
        assert _tunnel_to(task, others[0])
        running.deaf.add(daemon.node.name)
        await running.until(lambda state: state.nodes[daemon.id].lost)
        await running.until(lambda _: not any(_tunnel_to(task, other) for other in others))
        running.deaf.clear()
        await daemon.start()
        await running.until(lambda state: not state.nodes[daemon.id].lost)

    play(scenario)


def test_a_task_that_went_with_its_machine_is_replaced() -> None:
    async def scenario(running: Cluster) -> None:
        task, _ = await two_tasks(running, replace(WEB, restart=RestartPolicy(delay_s=0.05)))
        daemon = host_of(running, task)
        await daemon.kill()
        daemon.runtime.known.clear()
        await daemon.start()
        state = await running.until(lambda state: state.tasks[task.id].status.state is TaskState.FAILED)
        assert "restarted" in state.tasks[task.id].status.error
        await running.until(lambda state: len(serving(state)) == 2)

    play(scenario)


def test_a_task_of_which_a_log_is_left_is_lost_and_its_log_stays() -> None:
    async def scenario(running: Cluster) -> None:
        task, _ = await two_tasks(running, replace(WEB, restart=RestartPolicy(delay_s=60)))
        daemon = host_of(running, task)
        await daemon.kill()
        daemon.runtime.known[task.id] = Exit(None)
        passes = len(daemon.kernel.flushed)
        await daemon.start()
        state = await running.until(lambda state: state.tasks[task.id].status.state is TaskState.FAILED)
        assert state.tasks[task.id].status.error == LOST
        await running.until(lambda _: len(daemon.kernel.flushed) > passes + 1)
        assert daemon.runtime.known[task.id] == Exit(None)

    play(scenario)


def test_a_daemon_without_tasks_removes_what_is_left_of_forgotten_ones() -> None:
    async def scenario(running: Cluster) -> None:
        (daemon,) = running.daemons
        await daemon.kill()
        daemon.runtime.known[TaskId("gone")] = Exit(None)
        await daemon.start()
        await running.until(lambda _: not daemon.runtime.known)

    play(scenario, nodes=1)


def test_what_the_cluster_has_forgotten_is_removed_from_the_node() -> None:
    async def scenario(running: Cluster) -> None:
        task, _ = await two_tasks(running)
        daemon = host_of(running, task)
        await daemon.kill()
        await running.store.update(
            lambda state: replace(state, tasks={key: other for key, other in state.tasks.items() if key != task.id})
        )
        await daemon.start()
        await running.until(lambda _: task.id not in daemon.runtime.known)

    play(scenario)


def test_an_unhealthy_task_leaves_the_maps_and_is_then_stopped() -> None:
    async def scenario(running: Cluster) -> None:
        check = HealthCheck(kind=HealthKind.CMD, command=("check",), interval_s=0.02, retries=2)
        task, _ = await two_tasks(running, replace(WEB, health=check, restart=RestartPolicy(delay_s=60)))
        daemon = host_of(running, task)
        daemon.runtime.healthy = False
        state = await running.until(lambda state: state.tasks[task.id].status.state is TaskState.FAILED)
        assert "unhealthy: health command: exit code 1: sick" in state.tasks[task.id].status.error
        assert task.id in daemon.runtime.stopped
        assert all(on_ingress(task) not in other.backends() for other in running.daemons)

    play(scenario)


def test_a_program_that_can_not_start_is_rejected_with_the_reason() -> None:
    async def scenario(running: Cluster) -> None:
        await running.create(replace(WEB, command=("missing",), replicas=1, restart=RestartPolicy(delay_s=60)))
        state = await running.until(lambda state: any(task.status.state is TaskState.REJECTED for task in state.tasks.values()))
        assert any("no program 'missing'" in task.status.error for task in state.tasks.values())

    play(scenario)


def test_what_the_kernel_refuses_is_told_and_tried_again() -> None:
    async def scenario(running: Cluster) -> None:
        daemon = running.daemons[0]
        daemon.kernel.refuse = lambda op: "no room" if isinstance(op, Create) and isinstance(op.item, Element) else None
        await running.create(WEB)
        state = await running.until(lambda state: bool(state.nodes[daemon.id].failures))
        assert "no room" in state.nodes[daemon.id].failures[0]
        daemon.kernel.refuse = lambda op: None
        await running.until(lambda state: not state.nodes[daemon.id].failures and len(daemon.backends()) == 2)

    play(scenario)


def test_a_leader_that_ends_is_followed_by_another() -> None:
    async def scenario(running: Cluster) -> None:
        leases = await _leader(running)
        leader = next(daemon for daemon in running.daemons if daemon.id == leases)
        await leader.kill()
        await running.create(replace(WEB, replicas=1))
        await running.until(lambda state: any(task.node_id is not None for task in state.tasks.values()))

    play(scenario)


async def _leader(running: Cluster) -> str:
    while "leader" not in (leases := await running.store.leases()):
        await asyncio.sleep(0.005)
    return leases["leader"].holder


def _tunnel_to(task: Task, daemon: Daemon) -> bool:
    """Whether packets from another node's overlay find the task."""
    spaces = daemon.kernel.read(NodePlan()).namespaces.values()
    return any(entry.mac == names.mac(ingress_address(task)) for space in spaces for entry in of_kind(space, FdbEntry))


def _takes_out(op: Op) -> bool:
    return isinstance(op, Delete) and isinstance(op.item, Element) and op.item.map == "backends"


def _scaled(state: State, replicas: int) -> State:
    services = {key: replace(one, spec=replace(one.spec, replicas=replicas)) for key, one in state.services.items()}
    return replace(state, services=services)
