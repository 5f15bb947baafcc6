"""Whatever a spec says, the daemon goes on, and a task that can't start is a rejected task with its reason.

Real decisions, a real agent and real processes; only the kernel's part of the network is in memory.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck as Check
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from routemesh import model
from routemesh.errors import UserError
from routemesh.kernel.fake.kernel import FakeKernel
from routemesh.model import HealthCheck, HealthKind, Publish, RestartPolicy, ServiceSpec, State, TaskState, UpdateConfig
from routemesh.values import replace
from tests.runtime.node import ProcessNode, process_node
from tests.support import patience, require
from tests.unit.daemons import Cluster, cluster

SPECS, BATCH = 500, 25
DEADLINE_S = 90.0

LONG = "x" * 300
HUGE = "huge"
"""Stands for 200 kB, which Hypothesis need not carry around."""
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
nobodys = texts.map(lambda text: f"\u2603{text}")
"""Names of programs that no machine has: whatever is drawn is executed."""
programs = st.one_of(
    st.just(("sleep", "1000")),
    st.sampled_from([("true",), ("false",), ("sleep", "1000"), ("sh", "-c", "exit 7"), ("sh", "-c", "kill -9 $$"), ("cat",)]),
    st.sampled_from([("/",), ("/etc/passwd",), ("/dev/null",), (LONG,), (f"/{LONG}",), ("/bin/true/x",), ("./x",), (".",)]),
    st.sampled_from([("echo", HUGE), ("true", *[HUGE] * 4), ("echo", "\u2603\n\x1b[31m")]),
    st.builds(lambda name, words: (name, *words), nobodys, st.lists(texts, max_size=3)),
)
variables = st.one_of(
    st.tuples(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), texts).map("=".join),
    st.sampled_from(["PATH=", "PATH=:", f"PATH=/{LONG}:/bin:/usr/bin", "PATH=/nowhere", "IFS=/", "HOME=\u2603", "PWD=x"]),
)
workdirs = st.one_of(
    st.just("/"),
    st.just("/tmp"),
    st.sampled_from(["/", "/tmp", "/usr/../bin", "/proc/self", "/no/such", f"/{LONG}", "/x/" * 1500, "/etc/passwd"]),
    texts.map(lambda text: f"/{text}"),
)
ports = st.integers(1, 65535)
seconds = st.sampled_from([0.001, 0.5, 3.0, 1e6])
health_checks = st.builds(
    HealthCheck,
    kind=st.sampled_from([HealthKind.CMD, HealthKind.HTTP, HealthKind.TCP]),
    command=st.builds(lambda name, words: (name, *words), nobodys, st.lists(texts, max_size=1)),
    path=texts.map(lambda text: f"/{text}"),
    port=ports,
    interval_s=seconds,
    timeout_s=seconds,
    retries=st.integers(1, 3),
    start_period_s=st.sampled_from([0.0, 1.0]),
)
shell_checks = st.builds(
    HealthCheck,
    kind=st.just(HealthKind.CMD_SHELL),
    command=st.sampled_from([("true",), ("exit 3",), ("echo \u2603; false",), ("(",)]),
    interval_s=seconds,
)
published = st.builds(Publish, published=ports, target=ports, protocol=st.sampled_from(model.Protocol))
constraints = st.sampled_from(["node.hostname==node1", "node.role!=worker", "node.labels.a!=b"])
specs = st.builds(
    ServiceSpec,
    name=st.just(""),
    command=programs,
    environment=st.lists(variables, max_size=3).map(tuple),
    workdir=workdirs,
    labels=st.dictionaries(texts, texts, max_size=2),
    mode=st.sampled_from(model.Mode),
    replicas=st.integers(0, 2),
    publish=st.lists(st.builds(Publish, published=ports, target=ports, protocol=st.sampled_from(model.Protocol)), max_size=2).map(
        tuple
    ),
    constraints=st.lists(st.sampled_from(["node.hostname==node1", "node.role!=worker", "node.labels.a!=b"]), max_size=2).map(
        tuple
    ),
    health=st.none() | health_checks | shell_checks,
    restart=st.builds(
        RestartPolicy,
        condition=st.sampled_from(model.RestartCondition),
        delay_s=seconds,
        max_attempts=st.integers(1, 2),
        window_s=st.sampled_from([0.0, 60.0]),
    ),
    update=st.builds(UpdateConfig, order=st.sampled_from(model.UpdateOrder), delay_s=seconds),
    stop_signal=st.sampled_from(["SIGTERM", "INT", "9", "RTMIN+3", "SIGUSR1", "64"]),
    stop_grace_s=st.sampled_from([0.0, 0.01, 0.5]),
    client_ip=st.sampled_from(model.ClientIp),
    force=st.integers(0, 5),
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ProcessNode]:
    require("root", "netns")
    with process_node(tmp_path) as node:
        yield node


@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_no_spec_ends_the_daemon(node: ProcessNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeKernel, "netns_path", lambda self, name: node.netns)
    seen: Counter[str] = Counter()

    @settings(
        max_examples=2 * SPECS // BATCH,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(Check),
    )
    @given(st.lists(specs, min_size=BATCH, max_size=BATCH))
    def batch(drawn: list[ServiceSpec]) -> None:
        if seen["valid"] < SPECS:
            asyncio.run(asyncio.wait_for(carried_out(node, drawn, seen), DEADLINE_S * patience()))

    batch()
    assert seen["valid"] >= SPECS, seen
    assert seen["REJECTED"] > 50 and seen["COMPLETE"] + seen["FAILED"] > 20 and seen["RUNNING"] > 5, seen


async def carried_out(node: ProcessNode, drawn: list[ServiceSpec], seen: Counter[str]) -> None:
    async with cluster(1) as running:
        (daemon,) = running.daemons
        await daemon.kill()
        daemon.runtime = node.daemon()  # type: ignore[assignment]
        await daemon.start()
        await running.until(lambda state: any(each.attachments for each in state.nodes.values()))
        for number, spec in enumerate(drawn):
            seen["valid"] += await is_valid(running, expanded(replace(spec, name=f"s{number}")))
        state = await running.until(is_settled)
        for task in state.tasks.values():
            seen[task.status.state.name] += 1
            if task.status.state is TaskState.REJECTED:
                assert task.status.error and task.status.error.isprintable()
        await running.store.update(without_services)
        await running.until(lambda state: not state.tasks)
        assert daemon.running
        assert not any("a bug in routemesh" in line for each in state.nodes.values() for line in each.failures)
        while await daemon.runtime.tasks():  # until the deadline of the batch
            await asyncio.sleep(0.02)


def expanded(spec: ServiceSpec) -> ServiceSpec:
    return replace(spec, command=tuple("x" * 200_000 if word == HUGE else word for word in spec.command))


async def is_valid(running: Cluster, spec: ServiceSpec) -> bool:
    """Create the service unless it is refused, as the API does."""
    try:
        running.daemons[0].runtime.check(spec)
        await running.create(spec)
    except UserError:
        return False
    return True


def is_settled(state: State) -> bool:
    """Every task has come to something: it runs, waits for its health check or for its turn, or has ended."""
    return all(
        task.status.state.ended or task.status.state >= TaskState.STARTING or task.desired is not TaskState.RUNNING
        for task in state.tasks.values()
    ) and all(any(task.service_id == key for task in state.tasks.values()) for key in _with_tasks(state))


def _with_tasks(state: State) -> list[model.ServiceId]:
    return [key for key, each in state.services.items() if each.spec.mode is model.Mode.GLOBAL or each.spec.replicas]


def without_services(state: State) -> State:
    return replace(state, services={})
