"""`routemesh service …` from the words typed to the cluster's state and the lines printed."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from routemesh.cli.main import main
from routemesh.model import (
    ClientIp,
    HealthCheck,
    HealthKind,
    LogConfig,
    LogDriver,
    Mode,
    Protocol,
    Publish,
    RestartCondition,
    RestartPolicy,
    ServiceSpec,
    TaskId,
    TaskState,
    TaskStatus,
    UpdateConfig,
    UpdateOrder,
)
from routemesh.values import replace
from tests.support import wait_until
from tests.unit.daemon import NOW, Daemon, Type, cluster, typist


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Daemon]]:
    with cluster(tmp_path, ("node1", "node2", "node3"), busy=True) as daemons:
        yield daemons


@pytest.fixture
def daemon(nodes: list[Daemon]) -> Daemon:
    return nodes[0]


@pytest.fixture
def type_(daemon: Daemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    return typist(daemon.socket, capfd, monkeypatch)


def spec_of(daemon: Daemon, name: str = "web") -> ServiceSpec:
    return daemon.client.service(name).spec


# --- create ------------------------------------------------------------------------------------------------------


def test_create_waits_until_every_node_answers(type_: Type, daemon: Daemon) -> None:
    status, out, err = type_(
        "service", "create", "--name", "web", "--replicas", "2", "-p", "8080:80", "host", "routemesh", "whoami", "--port", "80"
    )
    assert (status, err) == (0, "")
    first, *progress, last = out.splitlines()
    assert first == daemon.client.service("web").id
    assert progress[-1] == "overall progress: 2 out of 2 tasks"
    assert last == "verify: service web converged: every node answers on 8080/tcp"
    assert spec_of(daemon) == ServiceSpec(
        name="web",
        command=("routemesh", "whoami", "--port", "80"),
        replicas=2,
        publish=(Publish(published=8080, target=80),),
    )


@pytest.mark.parametrize("flag", ["-d", "--detach", "-q", "--quiet"])
def test_create_prints_the_id_alone_when_it_is_not_to_tell_more(type_: Type, daemon: Daemon, flag: str) -> None:
    status, out, err = type_("service", "create", "--name", "web", flag, "host", "x")
    assert (status, out, err) == (0, f"{daemon.client.service('web').id}\n", "")


WEB = ServiceSpec(name="web", command=("x",))
HEALTH = HealthCheck(kind=HealthKind.CMD_SHELL, command=("check me",))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", WEB),
        ("--mode global", replace(WEB, mode=Mode.GLOBAL)),
        ("--mode replicated --replicas 0", replace(WEB, replicas=0)),
        (
            "-p 8080:80 --publish published=53,target=53,protocol=udp",
            replace(WEB, publish=(Publish(published=8080, target=80), Publish(published=53, target=53, protocol=Protocol.UDP))),
        ),
        ("-e A=1 --env B=2 --env A=3", replace(WEB, environment=("A=3", "B=2"))),
        ("-l a=b --label c", replace(WEB, labels={"a": "b", "c": ""})),
        (
            "--constraint node.role==manager --constraint node.hostname!=node2",
            replace(WEB, constraints=("node.role==manager", "node.hostname!=node2")),
        ),
        ("-w /srv", replace(WEB, workdir="/srv")),
        ("--stop-signal INT --stop-grace-period 1m30s", replace(WEB, stop_signal="SIGINT", stop_grace_s=90.0)),
        (
            "--log-driver json-file --log-opt max-size=10m --log-opt max-file=3",
            replace(WEB, logs=LogConfig(driver=LogDriver.JSON_FILE, max_bytes=10_000_000, max_files=3)),
        ),
        ("--log-driver none --log-opt max-size=64KB", replace(WEB, logs=LogConfig(driver=LogDriver.NONE, max_bytes=64_000))),
        (
            "--restart-condition on-failure --restart-delay 500ms --restart-max-attempts 3 --restart-window 1h",
            replace(
                WEB, restart=RestartPolicy(condition=RestartCondition.ON_FAILURE, delay_s=0.5, max_attempts=3, window_s=3600.0)
            ),
        ),
        (
            "--update-order start-first --update-delay 2s",
            replace(WEB, update=UpdateConfig(order=UpdateOrder.START_FIRST, delay_s=2.0)),
        ),
        ("--health-cmd CHECK", replace(WEB, health=HEALTH)),
        (
            "--health-cmd CHECK --health-interval 1s --health-timeout 2s --health-retries 4 --health-start-period 5s",
            replace(WEB, health=replace(HEALTH, interval_s=1.0, timeout_s=2.0, retries=4, start_period_s=5.0)),
        ),
        (
            "-p 8080:80 --health-interval 1s --label routemesh.health.http=/ok",
            replace(
                WEB,
                publish=(Publish(published=8080, target=80),),
                labels={"routemesh.health.http": "/ok"},
                health=HealthCheck(kind=HealthKind.HTTP, path="/ok", port=80, interval_s=1.0),
            ),
        ),
        (
            "--label routemesh.client-ip=snat",
            replace(WEB, labels={"routemesh.client-ip": "snat"}, client_ip=ClientIp.SNAT),
        ),
    ],
)
def test_flags_of_create(type_: Type, daemon: Daemon, flags: str, expected: ServiceSpec) -> None:
    words = ["check me" if word == "CHECK" else word for word in flags.split()]
    status, _, err = type_("service", "create", "--name", "web", "-d", *words, "host", "x")
    assert (status, err) == (0, "")
    assert spec_of(daemon) == expected


# --- update ------------------------------------------------------------------------------------------------------

FULL = (
    *("-e", "A=1", "-e", "B=2", "-l", "a=1", "-l", "b=2"),
    *("-p", "80:8080", "-p", "81:8081", "-p", "53:8080/udp"),
    *("--constraint", "node.role==manager", "--health-cmd", "true", "--health-interval", "3s"),
)


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("--replicas 3", {"replicas": 3}),
        ("--args 'y z'", {"command": ("y", "z")}),
        ("--env-add C=3 --env-add A=9 --env-rm B", {"environment": ("A=9", "C=3")}),
        ("--label-add c=3 --label-rm a --label-rm nix", {"labels": {"b": "2", "c": "3"}}),
        ("--constraint-add node.labels.a==b --constraint-rm node.role==manager", {"constraints": ("node.labels.a==b",)}),
        (
            "--publish-rm 8080 --publish-rm 81:8081",
            {"publish": (Publish(published=53, target=8080, protocol=Protocol.UDP),)},
        ),
        (
            "--publish-rm 8080/udp --publish-add 82:8082",
            {
                "publish": (
                    Publish(published=80, target=8080),
                    Publish(published=81, target=8081),
                    Publish(published=82, target=8082),
                )
            },
        ),
        (
            "--publish-rm 8080 --publish-rm 8080/udp --publish-rm 8081 --publish-add 80:9090",
            {"publish": (Publish(published=80, target=9090),)},
        ),
        ("--no-healthcheck", {"health": None}),
        (
            "--health-retries 9",
            {"health": HealthCheck(kind=HealthKind.CMD_SHELL, command=("true",), interval_s=3.0, retries=9)},
        ),
        (
            "--no-healthcheck --label-add routemesh.health.tcp=99",
            {
                "health": HealthCheck(kind=HealthKind.TCP, port=99),
                "labels": {"a": "1", "b": "2", "routemesh.health.tcp": "99"},
            },
        ),
        ("--workdir /srv", {"workdir": "/srv"}),
        ("--restart-max-attempts 4", {"restart": RestartPolicy(max_attempts=4)}),
    ],
)
def test_flags_of_update(type_: Type, daemon: Daemon, flags: str, changes: dict[str, object]) -> None:
    type_("service", "create", "--name", "web", "-d", *FULL, "host", "x")
    before = spec_of(daemon)
    words = flags.replace("'y z'", "y_z").split()
    status, out, err = type_("service", "update", "-d", *(word.replace("_", " ") for word in words), "web")
    assert (status, out, err) == (0, "web\n", "")
    assert spec_of(daemon) == replace(before, **changes)  # type: ignore[arg-type]


def test_an_update_without_a_change_changes_nothing(type_: Type, daemon: Daemon) -> None:
    type_("service", "create", "--name", "web", "host", "x")
    assert type_("service", "update", "-d", "web")[0] == 0
    assert daemon.client.service("web").version == 1


def test_force_replaces_the_tasks_each_time(type_: Type, daemon: Daemon) -> None:
    type_("service", "create", "--name", "web", "host", "x")
    seen = {task.id for task in daemon.client.tasks("web") if task.serving}
    for _ in range(2):
        assert type_("service", "update", "--force", "web")[0] == 0
        now = {task.id for task in daemon.client.tasks("web") if task.serving}
        assert len(now) == 1
        assert not now & seen
        seen |= now


def test_an_update_that_meets_another_is_put_anew(type_: Type, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading the service and writing it, somebody else writes."""
    type_("service", "create", "--name", "web", "host", "x")
    real = type(daemon.client).update_service
    others = iter(["--replicas=2"])

    def meanwhile(client: object, ref: str, update: object) -> object:
        for flag in others:
            main(["service", "update", "-d", flag, "web"])
        return real(client, ref, update)  # type: ignore[arg-type]

    monkeypatch.setattr(type(daemon.client), "update_service", meanwhile)
    assert type_("service", "update", "-d", "--env-add", "A=1", "web")[0] == 0
    assert (spec_of(daemon).replicas, spec_of(daemon).environment) == (2, ("A=1",))


def test_scale_sets_several_services_and_waits(type_: Type, daemon: Daemon) -> None:
    for name in ("web", "api"):
        type_("service", "create", "--name", name, "host", "x")
    status, out, err = type_("service", "scale", "web=3", "api=0")
    assert (status, err) == (0, "")
    assert out.splitlines()[:2] == ["web scaled to 3", "api scaled to 0"]
    assert out.splitlines()[-1] == "verify: service api converged"
    assert (spec_of(daemon, "web").replicas, spec_of(daemon, "api").replicas) == (3, 0)


def test_the_defaults_of_a_new_service_are_in_the_help_of_create_alone(type_: Type) -> None:
    def defaults(command: str) -> set[str]:
        return set(re.findall(r"\(default\s+([^)]*)\)", type_("service", command, "--help")[1]))

    of_waiting = {"1m", "500ms", "10s"}
    assert defaults("create") == of_waiting | {"1", "local", "SIGTERM", "10s", "any", "5s", "stop-first", "30s", "3"}
    assert defaults("update") == of_waiting


# --- looking -----------------------------------------------------------------------------------------------------


def test_ls(type_: Type, daemon: Daemon) -> None:
    assert type_("service", "ls") == (0, "ID   NAME   MODE   REPLICAS   IMAGE   PORTS\n", "")
    type_("service", "create", "--name", "web", "--replicas", "2", "-p", "8080:80", "-p", "53:53/udp", "host", "x")
    type_("service", "create", "--name", "agent", "--mode", "global", "host", "x")
    web, agent = daemon.client.service("web").id, daemon.client.service("agent").id
    assert type_("service", "ls")[1] == (
        "ID             NAME    MODE         REPLICAS   IMAGE   PORTS\n"
        f"{agent[:12]}   agent   global       3/3        host\n"
        f"{web[:12]}   web     replicated   2/2        host    *:8080->80/tcp, *:53->53/udp\n"
    )
    assert type_("service", "ls", "-q")[1] == f"{agent}\n{web}\n"
    found = json.loads(type_("service", "ls", "--format", "json")[1])
    assert [(each["name"], each["running"], each["wanted"]) for each in found] == [("agent", 3, 3), ("web", 2, 2)]


def test_ps_shows_the_past_of_each_slot(type_: Type, daemon: Daemon) -> None:
    type_("service", "create", "--name", "web", "-p", "8080:80", "--restart-delay", "0", "host", "x")
    (first,) = daemon.client.tasks("web")
    failed = TaskStatus(state=TaskState.FAILED, at=NOW, error="non-zero exit (3)", exit_code=3)
    daemon.report(TaskId(first.id), failed)
    wait_until(lambda: len(daemon.client.tasks("web")) == 2 and daemon.client.service("web").running == 1)
    second = daemon.client.tasks("web")[0]
    status, out, err = type_("service", "ps", "web")
    assert (status, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "ID NAME IMAGE NODE DESIRED STATE CURRENT STATE ERROR EXIT PORTS"
    assert lines[1].startswith(f"{second.id[:12]} web.1 host {second.node} Running Running ")
    assert lines[1].endswith(f" ago {second.address}:8080->80/tcp")
    assert lines[2].startswith(f"{first.id[:12]} \\_ web.1 host {first.node} Shutdown Failed ")
    assert lines[2].endswith(" ago non-zero exit (3) 3")
    assert type_("service", "ps", "-q", "web")[1] == f"{second.id}\n{first.id}\n"
    assert second.id in type_("service", "ps", "--no-trunc", "web")[1]
    assert [each["exit_code"] for each in json.loads(type_("service", "ps", "--format", "json", "web")[1])] == [None, 3]


def test_inspect(type_: Type, daemon: Daemon) -> None:
    type_("service", "create", "--name", "web", "-p", "8080:80", "-e", "A=1", "host", "x", "y")
    status, out, err = type_("service", "inspect", "web")
    (found,) = json.loads(out)
    assert (status, err, found["name"], found["spec"]["command"], found["vip"]) == (0, "", "web", ["x", "y"], "10.0.0.5")
    for flags in (["--pretty"], ["--format", "table"]):
        pretty = type_("service", "inspect", *flags, "web")[1]
        assert "name: web\n" in pretty
        assert "  command: x y\n" in pretty
        assert "    - published=8080, target=80, protocol=tcp\n" in pretty
    status, out, err = type_("service", "inspect", "nix", "web", "nought")
    assert (status, len(json.loads(out)), len(err.splitlines())) == (1, 1, 2)


def test_rm_removes_what_it_can(type_: Type, daemon: Daemon) -> None:
    type_("service", "create", "--name", "web", "host", "x")
    type_("service", "create", "--name", "api", "host", "x")
    assert type_("service", "rm", "web", "nix", "api") == (
        1,
        "web\napi\n",
        "routemesh: no service named 'nix'; services are: api\n",
    )
    assert daemon.client.services() == []


def test_logs(type_: Type, nodes: list[Daemon]) -> None:
    type_("service", "create", "--name", "web", "--replicas", "2", "host", "x")
    tasks = nodes[0].client.tasks("web")
    for node, task in zip(nodes, tasks, strict=False):
        node.lines[TaskId(task.id)] = [b"one\n", b"two\n"]
    first, second = (f"web.{task.slot}.{task.id[:12]}@{task.node}    | " for task in tasks)
    assert type_("service", "logs", "web")[1].splitlines() == [
        f"{first}one",
        f"{first}two",
        f"{second}one",
        f"{second}two",
    ]
    assert type_("service", "logs", "--tail", "1", "web")[1].splitlines() == [f"{first}two", f"{second}two"]
