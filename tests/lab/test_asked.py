"""Servers that do not answer: stopped, overwhelmed, bound elsewhere. What is said of them is what clients meet."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.cluster import ADDRESSES, Cluster, running
from tests.support import require, wait_until

WEB = 8400


@pytest.fixture(scope="module")
def asked() -> Iterator[Cluster]:
    """Two nodes with a task of web on each, which has no health check."""
    require("root", "netns", "nf_tables")
    with running("asked", "--nodes", "2") as cluster:
        cluster.cli("service", "create", "--name", "web", "--replicas", "2", "-p", f"{WEB}:80", "host", "routemesh", "whoami")
        yield cluster


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process is stopped."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def server(cluster: Cluster, name: str) -> int:
    """The process of a task that listens."""
    task = next(each for each in cluster.tasks(name.partition(".")[0]) if each["name"] == name)
    told = cluster.inside(f"{task['node']}/{task['container']}", "ss", "-Hlntp")
    return int(told.partition("pid=")[2].partition(",")[0])


def test_a_stopped_server_is_no_healthy_way(asked: Cluster) -> None:
    pid = server(asked, "web.2")
    with stopped(pid):
        told = asked.cli("explain", f"node1:{WEB}", status=3)
        assert f"node1:{WEB}/tcp reaches web.1, but node2: task web.2: it accepts, but does not answer: " in told
        assert f"({pid}), which listens on tcp/80, is stopped" in told and f"mend on node2: kill -CONT {pid}" in told
        assert "note: web has no health check: tasks get connections as soon as they run" in told
        found = asked.cli("doctor", status=3)
        assert "wrong    node2: task web.2: task (asked): " in found and "it accepts, but does not answer" in found, found
        traced = asked.cli("trace", "--task", "web.2", f"node1:{WEB}", status=3)
        assert "sent: the connection was accepted" in traced
        assert f"node1:{WEB}/tcp fails as predicted: it reaches node2: task web.2, which accepts, but does not answer: " in traced
        asked.inside("node2", *told.partition("mend on node2: ")[2].splitlines()[0].split())
        wait_until(lambda: "reaches web.1 and web.2\n" in asked.run("explain", f"node1:{WEB}").stdout, what="the mend's effect")


def test_a_server_with_a_full_backlog_is_no_healthy_way(asked: Cluster) -> None:
    """It accepts nobody, so that as many wait as may."""
    program = "import socket, time; s = socket.create_server(('', 80), backlog=1); time.sleep(1000)"
    options = ("-p", "8401:80", "--constraint", "node.hostname==node2", "--answer-timeout", "0s")
    with asked.service("full", *options, command=("python3", "-c", program)):
        wait_until(lambda: asked.run("explain", "node1:8401").returncode == 0, what="the server")
        with asked.connect(ADDRESSES["node1"], 8401):
            told = asked.cli("explain", "node1:8401")
            assert "full.1 accepts, but may not answer: one connection waits on tcp/80, not accepted by python3" in told
            found = asked.cli("doctor", status=3)
            assert "may not answer" in asked.cli("explain", "node1:8401"), "nothing was put into a queue that nobody empties"
            assert "wrong    node2: task full.1: task (asked): full.1 does not answer on 10.0.0." in found, found
            assert ":80: python3 takes no connections" in found
            with asked.connect(ADDRESSES["node1"], 8401):
                told = asked.cli("explain", "node1:8401", status=3)
        assert "it accepts, but does not answer: " in told and "as many as may: its backlog is 1" in told


SERVER = (
    "import socket, sys, time;"
    "socket.has_dualstack_ipv6 = lambda: False;"
    "s = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET);"
    "time.sleep(1000)"
)


@pytest.mark.parametrize(
    ("number", "bound", "said"),
    [
        (1, ("127.0.0.1", "8000"), r"bad.1 listens on 127\.0\.0\.1:8000, not on 10\.0\.0\.\d+:8000 \(python3\)"),
        (2, ("::", "8000"), r"bad.1 listens on \[::\]:8000 for IPv6 alone, not on 10\.0\.0\.\d+:8000 \(python3\)"),
        (3, ("0.0.0.0", "80"), r"no process of bad.1 listens on 8000; it listens on 80 \(python3\)"),
    ],
)
def test_a_server_that_listens_elsewhere_is_named_at_once(asked: Cluster, number: int, bound: tuple[str, str], said: str) -> None:
    create = ("service", "create", "--name", "bad", "-p", f"841{number}:8000", "host", "python3", "-c", SERVER, *bound)
    done = asked.run(*create)
    try:
        assert done.returncode == 3 and "converged" not in done.stdout, done.stdout + done.stderr
        first, last = done.stderr.splitlines()
        assert re.fullmatch(f"routemesh: {said}", first), first
        assert last.startswith("routemesh: service bad runs, but its ports do not answer everywhere")
        assert "(asked): nothing listens on tcp/8000; python3 listens on " in asked.cli("doctor", status=3)
    finally:
        asked.cli("service", "rm", "bad")


def test_what_is_said_of_answers_was_asked_or_says_that_it_was_not(asked: Cluster) -> None:
    def all_well() -> bool:
        return asked.run("doctor").returncode == 0

    wait_until(all_well, 30, "a cluster without findings")
    found = asked.cli("doctor").splitlines()
    assert all(re.search(r" \((asked|predicted)\): ", line) for line in found if not line.startswith(" ")), found
    answered = "answers (asked): all 2 tasks' ports took a connection from the sandbox of their node"
    assert f"ok       node1 and node2: {answered}" in found
    passive = asked.cli("doctor", "--passive")
    assert "answers (asked)" not in passive and "ways (predicted)" in passive
