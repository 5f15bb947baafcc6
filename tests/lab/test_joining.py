"""Machines that share nothing but a network: init on one, join on the others, by what a person types."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from routemesh.api.client import Client
from routemesh.lab import daemons
from routemesh.lab.find import load
from routemesh.trace.talk import Ready
from tests.lab.cluster import ADDRESSES, CLIENT, Cluster, running
from tests.support import patience, require, wait_until

MANAGER = ADDRESSES["node1"]


@pytest.fixture(scope="module")
def joined() -> Iterator[Cluster]:
    require("root", "netns", "nf_tables")
    with running("joined", "--join") as cluster:
        cluster.cli("service", "create", "--name", "web", "--replicas", "3", "-p", "8080:80", "host", "routemesh", "whoami")
        yield cluster


def token(cluster: Cluster, *words: str) -> str:
    return cluster.cli("cluster", "token", "-q", *words, "worker").strip()


def on(cluster: Cluster, machine: str, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `routemesh cluster …` on a machine, with directories of its own."""
    command, *rest = words
    places = ("--run-dir", str(directory / "run"), "--data-dir", str(directory / "data"))
    argv = [
        "nsenter",
        f"--net={cluster.netns(machine)}",
        "--",
        sys.executable,
        "-m",
        "routemesh",
        "cluster",
        command,
        *places,
        *rest,
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60 * patience(), check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (1, 1), done.stderr
    return lines[0].removeprefix("routemesh: ")


def members(cluster: Cluster) -> dict[str, dict[str, object]]:
    return {each["name"]: each for each in cluster.json("cluster", "status")["members"]}


# --- it works ----------------------------------------------------------------------------------------------------


def test_a_published_port_answers_on_every_machine(joined: Cluster) -> None:
    seen = {answer.hostname for address in ADDRESSES.values() for answer in joined.ask(address, 8080, times=3)}
    assert len(seen) == 3
    found = members(joined)
    assert {name: (each["role"], each["state"]) for name, each in found.items()} == {
        "node1": ("manager", "ready"),
        "node2": ("worker", "ready"),
        "node3": ("worker", "ready"),
    }
    assert all(each["renewed"] and float(str(each["certified_until"])) > 89 * 86400 for each in found.values())


def test_the_machines_share_no_file(joined: Cluster) -> None:
    assert [path.relative_to(joined.directory) for path in sorted(joined.directory.rglob("cluster.db"))] == [
        Path("disk/node1/cluster.db")
    ]
    assert not list(joined.directory.glob("state.db*"))
    assert {each["api"] for each in joined.json("node", "ls")} == {f"https://{address}:2377" for address in ADDRESSES.values()}
    secret = token(joined).rsplit("-", 1)[1]
    for name in ("node2", "node3"):
        kept = [path for path in (joined.directory / "disk" / name).rglob("*") if path.is_file()]
        assert not [path for path in kept if secret in path.read_text(errors="replace")]


def test_what_other_machines_know_is_asked_of_them(joined: Cluster) -> None:
    lines = joined.cli("service", "logs", "web").splitlines()
    assert {f"node{number}" for number in (1, 2, 3)} == {line.split("@")[1].split()[0] for line in lines}
    wait_until(lambda: joined.run("diff", "node3").returncode == 0, what="no difference on node3")
    wait_until(lambda: joined.run("diff", "node3", host="node2").returncode == 0, what="none that a worker sees there")
    assert "node3" in joined.cli("explain", CLIENT, "node3:8080")
    assert joined.run("trace", "node3:8080").returncode == 0
    with Client(joined.directory / "node1" / "routemesh.sock").trace("node3:8080", outside=CLIENT) as talk:
        assert talk.hear(Ready).unwatched == {}, "all are watched through their daemons"
    wait_until(lambda: joined.run("doctor").returncode == 0, 30, "doctor to find nothing")


def test_a_worker_shows_the_cluster_but_changes_nothing(joined: Cluster) -> None:
    assert [each["name"] for each in joined.json("service", "ls", host="node2")] == ["web"]
    done = joined.run("service", "create", "--name", "x", "host", "true", host="node2")
    assert refused(done) == "this node is a worker and can't change the cluster: ask on a manager (node1)"
    done = joined.run("cluster", "token", "worker", host="node2")
    assert refused(done) == f"this node is a worker: ask a manager ({MANAGER}:2377)"


# --- bad input ---------------------------------------------------------------------------------------------------


def test_bad_joins_are_one_line_and_change_nothing(joined: Cluster, tmp_path: Path) -> None:
    good = token(joined)
    before = joined.json("node", "ls")
    wrong = good[:-1] + ("0" if good[-1] != "0" else "1")
    other = "RMTKN-1-" + "0" * 50 + "-" + good.rsplit("-", 1)[1]

    def join(*words: str) -> str:
        return refused(on(joined, "client", tmp_path / "x", "join", "--name", "node9", *words))

    assert "is not right any more; 'routemesh cluster token worker'" in join("--token", wrong, MANAGER)
    assert f"the token is not of the cluster of {MANAGER}:2377: it is another cluster's" in join("--token", other, MANAGER)
    assert "the token is not a join token" in join("--token", "x", MANAGER)
    assert f"{CLIENT}:2377 is this machine itself" in join("--token", good, "--advertise-addr", CLIENT, CLIENT)
    assert f"no manager answers at {MANAGER}:2999: Connection refused" in join("--token", good, f"{MANAGER}:2999")
    assert "no IPv4 route leads to 10.99.0.1:2377: Network is unreachable" in join("--token", good, "10.99.0.1")
    assert f"can't listen on {MANAGER}:2377: Cannot assign" in join(
        "--token", good, "--advertise-addr", MANAGER, ADDRESSES["node2"]
    )
    with joined.listening("client", 2377):
        assert f"can't listen on {CLIENT}:2377: Address already in use" in join("--token", good, MANAGER)
    taken = refused(on(joined, "client", tmp_path / "x", "join", "--name", "node2", "--token", good, MANAGER))
    assert taken.startswith(f"node name node2 is taken by the node at {ADDRESSES['node2']}: choose another with --name")
    assert joined.json("node", "ls") == before
    assert not (tmp_path / "x").exists()


def test_a_worker_is_not_joined_through_nor_made_a_manager(joined: Cluster, tmp_path: Path) -> None:
    through = refused(
        on(joined, "client", tmp_path / "x", "join", "--name", "node9", "--token", token(joined), ADDRESSES["node2"])
    )
    assert "is no manager of the cluster: its certificate is not believed" in through
    assert "node2 can't be a manager: this cluster's store is a file of its only manager" in joined.refused(
        "node", "promote", "node2"
    )
    assert "others can join as workers only" in joined.refused("cluster", "token", "manager")
    assert "node node2 is up: stop its daemon first, or use --force" in joined.refused("node", "rm", "node2")
    assert "node1 is the node that is asked" in joined.refused("node", "rm", "node1")


def test_a_machine_joins_once_and_a_token_that_was_changed_counts_no_more(joined: Cluster, tmp_path: Path) -> None:
    old = token(joined)
    new = token(joined, "--rotate")
    assert old != new
    words = ("join", "--name", "node9", MANAGER, "--token")
    assert "is not right any more" in refused(on(joined, "client", tmp_path, *words, old))
    done = on(joined, "client", tmp_path, *words, new)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"node9 ({CLIENT}) has joined the cluster as a worker" in done.stdout
    assert members(joined)["node9"]["state"] == "down"
    assert "this machine is node9 of cluster" in refused(on(joined, "client", tmp_path, *words, new))
    assert "node9 has left" in on(joined, "client", tmp_path, "leave").stdout
    assert "nothing to leave" in refused(on(joined, "client", tmp_path, "leave"))
    joined.cli("node", "rm", "node9")
    assert "node9" not in members(joined)


# --- certificates ------------------------------------------------------------------------------------------------


def test_a_new_root_reaches_all_and_nobody_notices(joined: Cluster) -> None:
    (old,) = joined.json("cluster", "status")["roots"]
    joined.cli("cluster", "ca", "rotate")
    roots = wait_until(
        lambda: found if len(found := joined.json("cluster", "status")["roots"]) == 1 else None, 20, "the old root to be dropped"
    )
    assert roots != [old]
    assert all(each["renewed"] for each in members(joined).values())
    assert {answer.hostname for address in ADDRESSES.values() for answer in joined.ask(address, 8080, times=3)}
    wait_until(lambda: joined.run("diff", "node3").returncode == 0, what="node3 to be asked with the new certificate")


def test_workers_go_on_without_their_manager_and_say_so(joined: Cluster) -> None:
    pid = daemons.daemon_pid(load(joined.name).node("node1"))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    lost = "what it knows of the cluster is as it was"
    wait_until(lambda: lost in joined.cli("node", "ls", host="node2"), what="node2 to miss its manager")
    assert joined.ask(ADDRESSES["node2"], 8080) and joined.ask(ADDRESSES["node3"], 8080)
    joined.lab("start", "node1")
    wait_until(lambda: lost not in joined.cli("node", "ls", host="node2"), what="node2 to hear its manager again")
    wait_until(lambda: {each["state"] for each in members(joined).values()} == {"ready"}, what="all to be ready")


def test_a_removed_node_is_out_and_may_join_again(joined: Cluster) -> None:
    joined.cli("node", "rm", "--force", "node3")
    log = joined.directory / "disk" / "node3" / "daemon.log"
    wait_until(
        lambda: "is not of the cluster any more: 'routemesh cluster leave --force'" in log.read_text(), 5, "node3 to be refused"
    )
    assert list(members(joined)) == ["node1", "node2"]
    assert joined.ask(MANAGER, 8080)
