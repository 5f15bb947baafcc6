"""A driver of an image that takes its time and brings its own network namespaces: real daemons, real packets."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from routemesh.lab import daemons
from routemesh.lab.find import Lab, load
from tests.lab.cluster import ADDRESSES, Cluster, running
from tests.support import require, wait_until


@dataclass(frozen=True)
class Teahouse:
    """A lab whose only node has a driver for the image `tea` besides."""

    mesh: Cluster
    lab: Lab

    def restart(self) -> None:
        """Kill its daemon and start the next."""
        node = self.lab.node("node1")
        pid = daemons.daemon_pid(node)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: daemons.daemon_pid(node) is None)
        daemons.spawn(self.lab, "node1")
        daemons.wait_ready([node])


@pytest.fixture
def teahouse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Teahouse]:
    require("root", "netns", "nf_tables")
    usual = daemons._command
    monkeypatch.setattr(daemons, "_command", lambda lab, node: (sys.executable, "-m", "tests.lab.brewing", *usual(lab, node)[3:]))
    with running("tea", "--nodes", "1") as mesh:
        made = Teahouse(mesh, load(mesh.name))
        made.restart()
        yield made


def test_an_image_is_prepared_while_daemons_come_and_go_and_answers_in_its_own_namespace(teahouse: Teahouse) -> None:
    mesh, made = teahouse.mesh, teahouse.mesh.directory / "node1"
    mesh.cli(
        "service",
        "create",
        "--name",
        "pot",
        "-p",
        "8300:80",
        "--label",
        "routemesh.health.tcp",
        "--detach",
        "tea",
        "routemesh",
        "whoami",
    )
    wait_until(lambda: "pot.1 has drawn" in mesh.cli("service", "ps", "pot"), 20, "the progress in service ps")
    (task,) = mesh.tasks("pot")
    assert task["state"] == "preparing"
    assert not mesh.netns(f"node1/{task['container']}").exists()
    assert mesh.json("diff", "node1")["ops"] == []
    assert (
        "none of its tasks takes connections (pot.1 on node1: it is being prepared: pot.1 has drawn" in mesh.run("doctor").stdout
    )

    teahouse.restart()
    wait_until(lambda: "Preparing" in mesh.cli("service", "ps", "pot"))
    (made / "served").touch()
    wait_until(lambda: mesh.serving("pot"), 20, "the task")
    wait_until(lambda: not mesh.is_refused(ADDRESSES["node1"], 8300), 20, "its node to lead to it")
    (task,) = mesh.serving("pot")
    theirs = made / "teas" / task["id"]
    assert mesh.netns(f"node1/{task['container']}").stat().st_ino == theirs.stat().st_ino
    assert [answer.hostname for answer in mesh.ask(ADDRESSES["node1"], 8300, times=2)] == [task["container"]] * 2
    assert mesh.json("diff", "node1")["ops"] == []

    teahouse.restart()
    assert [task["pid"] for task in mesh.serving("pot")] == [task["pid"]]
    assert mesh.ask(ADDRESSES["node1"], 8300)[0].hostname == task["container"]
    mesh.cli("service", "rm", "pot")
    wait_until(lambda: not theirs.exists(), 20, "the removal of what was prepared")
    assert not mesh.netns(f"node1/{task['container']}").exists()


def test_other_images_are_refused_by_what_the_node_runs(teahouse: Teahouse) -> None:
    line = teahouse.mesh.refused("service", "create", "--name", "milk", "milk", "routemesh", "whoami")
    assert line.endswith(
        "image 'milk' can't be run on this node: its drivers run image 'host' (commands of the node itself); teas"
    )
