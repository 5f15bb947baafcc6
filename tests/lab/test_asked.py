"""Servers that do not answer: stopped, overwhelmed, bound elsewhere. What is said of them is what clients meet."""

import os
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
        assert "wrong    node2: task web.2: task" in found and "it accepts, but does not answer" in found, found
        traced = asked.cli("trace", "--task", "web.2", f"node1:{WEB}", status=3)
        assert "sent: the connection was accepted" in traced
        assert f"node1:{WEB}/tcp fails as predicted: it reaches node2: task web.2, which accepts, but does not answer: " in traced
        asked.inside("node2", *told.partition("mend on node2: ")[2].splitlines()[0].split())
        wait_until(lambda: "reaches web.1 and web.2\n" in asked.run("explain", f"node1:{WEB}").stdout, what="the mend's effect")


def test_a_server_with_a_full_backlog_is_no_healthy_way(asked: Cluster) -> None:
    """It accepts nobody, so that as many wait as may."""
    program = "import socket, time; s = socket.create_server(('', 80), backlog=1); time.sleep(1000)"
    with asked.service("full", "-p", "8401:80", "--constraint", "node.hostname==node2", command=("python3", "-c", program)):
        wait_until(lambda: "full.1" in asked.run("explain", "node1:8401").stdout, what="the server")
        with asked.connect(ADDRESSES["node1"], 8401), asked.connect(ADDRESSES["node1"], 8401):
            told = asked.cli("explain", "node1:8401", status=3)
        assert "it accepts, but does not answer: " in told and "as many as may: its backlog is 1" in told
