"""Tasks in the lab: they enter the mesh when healthy, leave it before they stop, and nothing is lost meanwhile."""

import os
import re
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from routemesh import wire
from routemesh.agent.agent import HEARTBEAT_S, LEASE_TTL_S
from routemesh.values import replace
from tests.lab.cluster import ADDRESSES, Cluster
from tests.lab.load import load
from tests.support import wait_until

ASK_EVERY_S = 0.05
IGNORES_SIGTERM = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")


def _main_process(cluster: Cluster, task: dict[str, Any]) -> int:
    """The task's own program: the one child of its init, in the pid namespace of the task."""
    children = Path(f"/proc/{task['pid']}/task/{task['pid']}/children").read_text().split()
    return int(children[0])


def _hold(cluster: Cluster, address: str) -> list[str]:
    """The nodes whose sandbox still balances to `address`."""
    return [
        node for node in ADDRESSES
        if address in cluster.nft(f"{node}/ingress_sbox", "list", "map", "ip", "routemesh", "backends")
    ]  # fmt: skip


def test_a_crashed_task_leaves_every_map_and_is_replaced(mesh: Cluster) -> None:
    with mesh.service("crash", "--replicas", "2", "-p", "8100:80", "--restart-delay", "1s"):
        victim, other = mesh.serving("crash")
        assert _hold(mesh, victim["address"]) == list(ADDRESSES)
        os.kill(_main_process(mesh, victim), signal.SIGKILL)
        wait_until(lambda: not _hold(mesh, victim["address"]), 2, "the crashed task's way out of the maps")
        assert {answer.hostname for answer in mesh.ask(ADDRESSES["node3"], 8100, times=4)} == {other["container"]}
        wait_until(lambda: len(mesh.serving("crash")) == 2, 10, "the replacement")
        failed = next(task for task in mesh.tasks("crash") if task["id"] == victim["id"])
        assert (failed["state"], failed["exit_code"]) == ("failed", 137)


def test_a_task_that_ends_well_is_complete_and_stays_ended(mesh: Cluster) -> None:
    options = ("--restart-condition", "on-failure", "--detach")
    with mesh.service("job", *options, command=("sh", "-c", "echo worked")):
        done = wait_until(lambda: [task for task in mesh.tasks("job") if task["state"] == "complete"], 10, "the end of the job")
        assert done[0]["exit_code"] == 0
        assert "worked" in mesh.cli("service", "logs", "job")


def test_whoever_waits_for_a_job_is_told_its_end(mesh: Cluster) -> None:
    create = ("service", "create", "--restart-condition", "none", "--replicas", "2", "--timeout", "1h")
    try:
        assert "verify: service good converged: 2 tasks have finished" in mesh.cli(*create, "--name", "good", "host", "true")
        refusal = mesh.refused(*create, "--name", "bad", "host", "no-such-program")
        assert re.match(r"routemesh: bad\.[12]: no program 'no-such-program' in PATH .*; it is not started again; see ", refusal)
    finally:
        mesh.cli("service", "rm", *(each["name"] for each in mesh.json("service", "ls") if each["name"] in ("good", "bad")))


def test_exit_codes_and_history_are_kept(mesh: Cluster) -> None:
    options = ("--restart-delay", "50ms", "--detach")
    with mesh.service("fails", *options, command=("sh", "-c", "echo doomed; exit 3")):
        first = mesh.tasks("fails")[-1]["id"]
        wait_until(lambda: first not in {task["id"] for task in mesh.tasks("fails")}, 20, "the end of the oldest task's history")
        tasks = mesh.tasks("fails")
        assert len(tasks) == 5
        assert {task["exit_code"] for task in tasks if task["state"] == "failed"} == {3}
        assert "non-zero exit (3)" in mesh.cli("service", "ps", "fails")


def test_only_a_healthy_task_enters_the_mesh(mesh: Cluster, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    health = ("--health-cmd", f"test -e {ready}", "--health-interval", "200ms", "--health-retries", "500")
    with mesh.service("gated", "-p", "8101:80", "--detach", *health):
        task = wait_until(lambda: [t for t in mesh.tasks("gated") if t["state"] == "starting"], 10, "the start")[0]
        assert mesh.is_refused(ADDRESSES["node1"], 8101)
        assert _hold(mesh, task["address"]) == []
        ready.touch()
        wait_until(lambda: _hold(mesh, task["address"]) == list(ADDRESSES), 10, "its way into the maps")
        wait_until(lambda: not mesh.is_refused(ADDRESSES["node3"], 8101), 10, "its server, which the check does not ask")
        assert mesh.ask(ADDRESSES["node3"], 8101)[0].hostname == task["container"]


def test_an_unhealthy_task_leaves_the_maps_before_it_is_stopped(mesh: Cluster, tmp_path: Path) -> None:
    sick = tmp_path / "sick"
    health = ("--health-cmd", f"test ! -e {sick}", "--health-interval", "100ms", "--health-retries", "2")
    with mesh.service("ailing", "--replicas", "2", "-p", "8102:80", *health, "--restart-delay", "1s"):
        tasks = mesh.serving("ailing")
        with load(mesh, 8102) as witness:
            wait_until(lambda: witness.total > 20)
            sick.touch()
            wait_until(lambda: all(not _hold(mesh, task["address"]) for task in tasks), 10, "their way out")
            sick.unlink()
            wait_until(lambda: len(mesh.serving("ailing")) == 2, 20, "their replacements")
        unhealthy = [task for task in mesh.tasks("ailing") if task["state"] == "failed"]
        assert unhealthy and all("unhealthy" in task["error"] for task in unhealthy)
        # Refused, since at one moment no task was healthy; but never a connection that a stopped task had taken.
        assert all("ConnectionRefused" in failure for failure in witness.failures), witness.failures


@pytest.mark.parametrize("kind", ["http=/health", "tcp=80"])
def test_health_over_http_and_tcp(mesh: Cluster, kind: str) -> None:
    with mesh.service("probed", "-p", "8103:80", "--label", f"routemesh.health.{kind}", "--health-interval", "200ms"):
        assert mesh.ask(ADDRESSES["node2"], 8103)


def test_scaling_loses_nothing(mesh: Cluster) -> None:
    health = ("--label", "routemesh.health.tcp=80")
    with mesh.service("wave", "--replicas", "2", "-p", "8104:80", *health), load(mesh, 8104) as witness:
        for replicas in (5, 1, 3):
            mesh.cli("service", "scale", f"wave={replicas}")
            seen = witness.total
            wait_until(lambda seen=seen: witness.total > seen + 9)  # type: ignore[misc]
    assert witness.failures == []


@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_an_update_loses_nothing(mesh: Cluster, order: str) -> None:
    health = ("--label", "routemesh.health.tcp=80")
    with mesh.service("rolling", "--replicas", "3", "-p", "8105:80", *health, "--update-order", order):
        before = {task["container"] for task in mesh.serving("rolling")}
        with load(mesh, 8105) as witness:
            mesh.cli("service", "update", "--env-add", "VERSION=2", "rolling")
            after = {task["container"] for task in mesh.serving("rolling")}
            wait_until(lambda: all(witness.answers[host] for host in after), 10, "answers of every new task")
        assert not before & after and len(after) == 3
        assert witness.failures == []


def test_a_stubborn_task_is_killed_after_its_grace_time(mesh: Cluster) -> None:
    with mesh.service("stubborn", "--stop-grace-period", "500ms", command=IGNORES_SIGTERM):
        task = mesh.serving("stubborn")[0]
        mesh.cli("service", "update", "--env-add", "A=1", "stubborn")
        old = next(other for other in mesh.tasks("stubborn") if other["id"] == task["id"])
        assert (old["state"], old["exit_code"]) == ("shutdown", 137)


def test_a_drained_node_gives_its_tasks_away_and_still_answers(mesh: Cluster) -> None:
    with mesh.service("moving", "--replicas", "3", "-p", "8106:80", "--label", "routemesh.health.tcp=80"):
        try:
            with load(mesh, 8106) as witness:
                mesh.cli("node", "update", "--availability", "drain", "node2")
                wait_until(lambda: {task["node"] for task in mesh.serving("moving")} == {"node1", "node3"}, 20, "the move")
                wait_until(lambda: len(mesh.serving("moving")) == 3, 20, "all three")
            assert mesh.ask(ADDRESSES["node2"], 8106)
            # Drained tasks are replaced after they have stopped; the others serve meanwhile.
            assert witness.failures == []
        finally:
            mesh.cli("node", "update", "--availability", "active", "node2")


def test_constraints_choose_nodes_and_say_when_they_can_not(mesh: Cluster) -> None:
    mesh.cli("node", "update", "--label-add", "disk=ssd", "node3")
    with mesh.service("placed", "--replicas", "2", "--constraint", "node.labels.disk==ssd", "-p", "8107:80"):
        assert {task["node"] for task in mesh.serving("placed")} == {"node3"}
    with mesh.service("nowhere", "--constraint", "node.labels.disk==tape", "--detach"):
        reason = wait_until(lambda: mesh.tasks("nowhere")[0]["error"], 10, "the reason")
        assert "node.labels.disk==tape" in reason


def test_a_task_runs_on_until_every_live_node_has_let_go_of_it(own_mesh: Cluster) -> None:
    """Rule 10: a daemon is stopped, so that its node goes on sending to the task; the task must not be stopped before the cluster
    has given that node up. It is neither the leader, who decides, nor node1, which is asked."""
    mesh = own_mesh
    stopped = next(node["name"] for node in mesh.json("node", "ls") if not node["leader"] and node["name"] != "node1")
    with mesh.service("held", "--replicas", "2", "-p", "8108:80", "--constraint", f"node.hostname!={stopped}"):
        pid = next(int(node["pid"]) for node in mesh.json("lab", "status", "--name", mesh.name) if node["name"] == stopped)
        both, held = {task["container"] for task in mesh.serving("held")}, mesh.api.service("held")
        begun = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            mesh.api.update_service(held.id, wire.ServiceUpdate(version=held.version, spec=replace(held.spec, replicas=1)))
            wait_until(lambda: len(mesh.serving("held")) == 1, 3, "the manager's decision")
            asked = Counter[str]()
            while time.monotonic() < begun + LEASE_TTL_S - HEARTBEAT_S - ASK_EVERY_S:  # its last heartbeat may be that old
                asked.update(answer.hostname for answer in mesh.ask(ADDRESSES[stopped], 8108, times=2))
                time.sleep(ASK_EVERY_S)
            assert set(asked) == both, asked
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: len(mesh.tasks("held")) == 1, 20, "the end of the task")


def test_many_readers_of_much_output_hold_no_node_up(mesh: Cluster) -> None:
    """Sixty at a time: each gets every line, and the daemon answers others and keeps its lease meanwhile."""
    script = "seq 20000; exec sleep 1000"
    with mesh.service("talks", "--replicas", "3", command=("sh", "-c", script)), ThreadPoolExecutor(60) as readers:
        wait_until(lambda: mesh.cli("service", "logs", "--tail", "1", "talks").count("| 20000\n") == 3, 20, "all output")
        reading = [readers.submit(lambda: sum(1 for _ in mesh.api.logs("talks"))) for _ in range(60)]
        slowest, states = 0.0, set()
        while not all(each.done() for each in reading):
            asked = time.monotonic()
            states |= {node.state for node in mesh.api.nodes()}
            slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.1)
        assert [each.result() for each in reading] == [60_000] * 60
    assert (states, slowest < 4) == ({"ready"}, True), slowest
