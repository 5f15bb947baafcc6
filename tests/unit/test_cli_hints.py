"""A line that says what a service without a health check means, once, unless nobody wants to know."""

from pathlib import Path

import pytest

from tests.unit.daemon import cluster, typist

LINE = "hint: web has no health check: tasks get connections as soon as they run"
CREATE = ("service", "create", "--name", "web", "-p", "8080:80", "--detach")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), True),
        (("--no-healthcheck",), False),
        (("--quiet",), False),
        (("--health-cmd", "true"), False),
        (("--label", "routemesh.health.tcp"), False),
    ],
)
def test_that_there_is_no_health_check_is_said_once(
    flags: tuple[str, ...], said: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROUTEMESH_HINTS")
    with cluster(tmp_path) as (daemon,):
        type_ = typist(daemon.socket, capfd, monkeypatch)
        status, out, err = type_(*CREATE, *flags, "host", "x")
        assert (status, len(out.splitlines()), err.count(LINE)) == (0, 1, int(said))
        again = () if "--label" in flags else flags
        status, _, err = type_("service", "update", "--detach", *again, "--replicas", "2", "web")
        assert (status, err.count(LINE)) == (0, int(said))
        monkeypatch.setenv("ROUTEMESH_HINTS", "off")
        assert type_("service", "update", "--detach", "--replicas", "3", "web")[2] == ""


def test_a_service_that_publishes_nothing_needs_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROUTEMESH_HINTS")
    with cluster(tmp_path) as (daemon,):
        assert typist(daemon.socket, capfd, monkeypatch)("service", "create", "--name", "job", "-d", "host", "x")[2] == ""
