"""A lab whose daemons know nothing but the network between them: their store is etcd, on the nodes, over TLS."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from routemesh.lab import daemons, etcd, find
from tests.lab.cluster import ADDRESSES, Cluster, running
from tests.support import patience, require, wait_until

PORT = 8095
WRITABLE_AGAIN_S = 5.0
REFUSED_WITHIN_S = 15.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes, each with a member of etcd."""
    require("root", "netns", "nf_tables", "etcd")
    with running("etcd", "--store", "etcd") as cluster:
        yield cluster


def members(cluster: Cluster) -> dict[str, int]:
    """The process of each member that runs, by node."""
    lab = find.load(cluster.name)
    found = {node: daemons.noted_pid(etcd.note(lab, node)) for node in lab.members}
    return {node: pid for node, pid in found.items() if pid is not None}


def leader(cluster: Cluster) -> str:
    """The node whose member leads."""
    keys = find.load(cluster.name).node("node1").keys
    names = {f"https://{address}:2379": node for node, address in ADDRESSES.items()}
    words = (
        "--cacert",
        f"{keys.ca}",
        "--cert",
        f"{keys.certificate}",
        "--key",
        f"{keys.key}",
        "-w",
        "json",
        "endpoint",
        "status",
    )
    out = cluster.inside("node1", "env", "ETCDCTL_API=3", "etcdctl", "--endpoints", ",".join(names), *words)
    return next(
        names[each["Endpoint"]] for each in json.loads(out) if each["Status"]["leader"] == each["Status"]["header"]["member_id"]
    )


def host(node: str, cluster: Cluster) -> str:
    return f"unix://{cluster.directory}/{node}/routemesh.sock"


def scale(cluster: Cluster, replicas: int, node: str) -> float:
    """Ask a node's daemon for so many tasks; the seconds until it had taken the change."""
    began = time.monotonic()
    cluster.cli("service", "scale", f"web={replicas}", "--detach", host=host(node, cluster))
    return time.monotonic() - began


def test_the_cluster_outlives_etcds_leader_and_serves_without_etcd(cluster: Cluster) -> None:
    with cluster.service("web", "--replicas", "2", "-p", f"{PORT}:80", "--health-cmd", "true", "--health-interval", "200ms"):
        for address in ADDRESSES.values():
            assert len({answer.hostname for answer in cluster.ask(address, PORT, 4)}) == 2
        task = cluster.tasks("web")[0]
        assert cluster.cli("lab", "exec", task["node"], "--task", task["name"], "--", "echo", "inside") == "inside\n"

        lost = leader(cluster)
        os.kill(members(cluster)[lost], signal.SIGKILL)
        for node in ADDRESSES:
            replicas = 2 + list(ADDRESSES).index(node) % 2
            assert scale(cluster, replicas, node) < WRITABLE_AGAIN_S * patience()
        wait_until(lambda: len(cluster.serving("web")) == 2, 20)

        serving = {task["container"] for task in cluster.serving("web")}
        connection = cluster.connect(ADDRESSES["node3"], PORT)
        for pid in members(cluster).values():
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        refused = cluster.run("service", "scale", "web=3", "--detach")
        assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
        assert "Connection refused): is it running, and can it be reached from here?" in refused.stderr
        assert time.monotonic() - began < REFUSED_WITHIN_S * patience()
        assert "can't be used" in cluster.refused("node", "ls")
        connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
        assert b"Hostname: " in connection.recv(4096), "a connection of before goes on"
        connection.close()
        for address in ADDRESSES.values():
            assert len({answer.hostname for answer in cluster.ask(address, PORT, 4)}) == 2, "and new ones are taken"

        for node in ADDRESSES:
            cluster.lab("start", node)
        wait_until(lambda: cluster.run("service", "scale", "web=3", "--detach").returncode == 0, 20)
        wait_until(lambda: len(cluster.serving("web")) == 3, 20)
        assert serving <= {task["container"] for task in cluster.serving("web")}, "nothing was started anew"
        wait_until(lambda: not any(node["failures"] for node in cluster.json("node", "ls")), 20, "the end of all troubles")


def test_a_node_that_loses_its_power_comes_back_with_what_its_member_knew(cluster: Cluster) -> None:
    lost = leader(cluster)
    asked = next(node for node in ADDRESSES if node != lost)
    cluster.lab("kill", lost)
    assert lost not in members(cluster)
    cluster.cli("node", "update", asked, "--label-add", "changed=meanwhile", host=host(asked, cluster))
    cluster.lab("start", lost)
    assert lost in members(cluster)
    (found,) = json.loads(cluster.cli("node", "inspect", asked, host=host(lost, cluster)))
    assert found["labels"] == {"changed": "meanwhile"}


def test_nothing_of_etcd_is_left_of_a_lab_that_is_gone() -> None:
    require("root", "netns", "nf_tables", "etcd")
    with running("etcd", "--store", "etcd", "--nodes", "1") as cluster:
        pids = members(cluster)
        assert list(pids) == ["node1"]
        secret = find.load(cluster.name).node("node1").keys.key
        assert secret is not None and secret.stat().st_mode & 0o077 == 0
    assert not any(
        Path(f"/proc/{pid}/cmdline").exists() and b"etcd" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids.values()
    )
    assert not cluster.directory.exists()
