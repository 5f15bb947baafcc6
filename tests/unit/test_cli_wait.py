"""What a person sees who waits for a service: progress, what stands in the way, and an end in every case."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from routemesh.api.client import Client
from routemesh.cli.output import ago
from routemesh.model import TaskId, TaskState, TaskStatus
from tests.unit.daemon import NOW, Daemon, Type, cluster, typist

CREATE = ("service", "create", "--name", "web", "--replicas", "2", "-p", "8080:80", "--timeout", "300ms", "--stable", "10ms")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon for which nothing happens unless a test makes it."""
    with cluster(tmp_path) as (only,):
        yield only


@pytest.fixture
def type_(daemon: Daemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    return typist(daemon.socket, capfd, monkeypatch)


@pytest.fixture
def while_waiting(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Things to do, one before each question after the first one; an exception is raised."""
    todo: list[object] = [lambda: None]
    real = Client.progress

    def progress(client: Client, ref: str, seen: str = "", wait_s: float = 0.0) -> object:
        if todo:
            step = todo.pop(0)
            if isinstance(step, BaseException):
                raise step
            assert callable(step)
            step()
        return real(client, ref, seen, wait_s)

    monkeypatch.setattr(Client, "progress", progress)
    return todo


def test_too_long_is_one_line_and_exit_status_1(type_: Type) -> None:
    status, out, err = type_(*CREATE, "host", "x")
    assert status == 1
    assert out.splitlines()[1:] == ["overall progress: 0 out of 2 tasks"]
    assert err == (
        "routemesh: service web has not converged within 0.3 s (0 of 2 tasks running); "
        "it goes on in the background, see routemesh service ps web\n"
    )


def test_what_stands_in_the_way_is_said_once(type_: Type, daemon: Daemon, while_waiting: list[object]) -> None:
    while_waiting += [daemon.settle, daemon.settle]
    status, _, err = type_(*CREATE, "--constraint", "node.labels.disk==fast", "host", "x")
    assert status == 1
    *errors, late = err.splitlines()
    assert sorted(errors) == [
        f"routemesh: web.{slot}: no suitable node (constraint node.labels.disk==fast not met on 1 node)" for slot in (1, 2)
    ]
    assert "has not converged within" in late


def test_a_task_that_fails_is_told_and_waiting_goes_on(type_: Type, daemon: Daemon, while_waiting: list[object]) -> None:
    def fail_one() -> None:
        daemon.step()
        first = daemon.client.tasks("web")[0]
        daemon.report(TaskId(first.id), TaskStatus(state=TaskState.FAILED, at=NOW, error="non-zero exit (1)", exit_code=1))

    while_waiting += [fail_one, daemon.settle]
    status, out, err = type_(*CREATE, "--restart-delay", "0", "host", "x")
    assert (status, err) == (0, "routemesh: web.1: non-zero exit (1)\n")
    assert out.splitlines()[-1] == "verify: service web converged: every node answers on 8080/tcp"


def test_a_task_that_does_not_stay_up_is_no_convergence(type_: Type, daemon: Daemon, while_waiting: list[object]) -> None:
    def settle_then_fail() -> None:
        daemon.settle()
        first = daemon.client.tasks("web")[0]
        daemon.report(TaskId(first.id), TaskStatus(state=TaskState.FAILED, at=NOW, error="non-zero exit (7)", exit_code=7))

    while_waiting += [daemon.settle, settle_then_fail]
    status, out, err = type_(*CREATE, "host", "x")
    assert status == 1
    assert "overall progress: 2 out of 2 tasks" in out.splitlines()
    assert "verify" not in out
    assert err.splitlines()[0] == "routemesh: web.1: non-zero exit (7)"


def end_all(daemon: Daemon, state: TaskState, error: str = "") -> None:
    """Let every task of web run and end."""
    daemon.settle()
    for task in daemon.client.tasks("web"):
        daemon.report(TaskId(task.id), TaskStatus(state=state, at=NOW, error=error))
    daemon.settle()


@pytest.mark.parametrize("condition", ["none", "on-failure"])
def test_a_job_that_has_finished_is_done(type_: Type, daemon: Daemon, while_waiting: list[object], condition: str) -> None:
    while_waiting.append(lambda: end_all(daemon, TaskState.COMPLETE))
    status, out, err = type_(*CREATE, "--restart-condition", condition, "host", "x")
    assert (status, err) == (0, "")
    assert out.splitlines()[-2:] == ["overall progress: 2 out of 2 tasks", "verify: service web converged: 2 tasks have finished"]


def test_a_job_that_has_failed_ends_the_waiting_at_once(type_: Type, daemon: Daemon, while_waiting: list[object]) -> None:
    while_waiting.append(lambda: end_all(daemon, TaskState.FAILED, "non-zero exit (3)"))
    status, out, err = type_(*CREATE, "--timeout", "1h", "--restart-condition", "none", "host", "x")
    assert status == 1
    assert err == "routemesh: web.1: non-zero exit (3); it is not started again; see routemesh service ps web\n"
    assert "verify" not in out


def test_a_global_service_tells_that_every_node_answers(type_: Type, daemon: Daemon, while_waiting: list[object]) -> None:
    while_waiting.append(daemon.settle)
    words = ["--name", "dns", "--mode", "global", "-p", "5353:53/udp", "--stable", "10ms", "host", "x"]
    status, out, _ = type_("service", "create", *words)
    assert status == 0
    assert out.splitlines()[-1] == "verify: service dns converged: every task is bound to 5353/udp"


@pytest.mark.parametrize(
    ("label", "outcome"),
    [
        ("locality=local-only", "every node answers on 8080/tcp"),
        (
            "weight=0",
            "no node answers on 8080/tcp",
        ),
    ],
)
def test_where_not_every_node_answers_that_is_said(
    type_: Type, daemon: Daemon, while_waiting: list[object], label: str, outcome: str
) -> None:
    while_waiting += [daemon.settle]
    status, out, _ = type_(*CREATE, "--label", f"routemesh.{label}", "host", "x")
    assert status == 0
    assert out.splitlines()[-1].startswith(f"verify: service web converged: {outcome}")


def test_an_interrupt_leaves_the_service_to_itself(type_: Type, daemon: Daemon, while_waiting: list[object]) -> None:
    while_waiting.append(KeyboardInterrupt())
    status, out, err = type_(*CREATE, "host", "x")
    assert (status, err.strip()) == (130, "")
    assert out.splitlines()[-1] == "the service goes on in the background; to look at it: routemesh service ps web"
    assert daemon.client.service("web").wanted == 2


def test_a_service_that_is_removed_meanwhile_ends_the_waiting(type_: Type, daemon: Daemon, while_waiting: list[object]) -> None:
    while_waiting.append(lambda: daemon.client.remove_service("web"))
    status, _, err = type_(*CREATE, "host", "x")
    assert status == 1
    assert err.startswith("routemesh: no service named ")


def test_a_daemon_that_goes_ends_the_waiting(type_: Type, daemon: Daemon, while_waiting: list[object]) -> None:
    while_waiting.append(daemon.socket.unlink)
    status, _, err = type_(*CREATE, "host", "x")
    assert status == 1
    assert err.startswith(f"routemesh: no daemon answers at {daemon.socket}: ")
    assert len(err.splitlines()) == 1


def test_a_terminal_gets_one_line_redrawn(
    type_: Type, daemon: Daemon, while_waiting: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routemesh.cli.progress.is_terminal", lambda: True)
    while_waiting += [daemon.settle]
    status, out, _ = type_(*CREATE, "host", "x")
    assert status == 0
    _, bar, *rest = out.split("\n")
    frames = bar.split("\r\x1b[K")
    assert frames[1] == f"overall progress: 0 out of 2 tasks [{' ' * 40}]"
    assert frames[-1] == f"overall progress: 2 out of 2 tasks [{'=' * 40}]"
    assert rest == ["verify: service web converged: every node answers on 8080/tcp", ""]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "less than a second"),
        (0.9, "less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "about a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "about an hour"),
        (7200, "2 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_times_in_dockers_words(seconds: float, words: str) -> None:
    assert ago(seconds) == words
