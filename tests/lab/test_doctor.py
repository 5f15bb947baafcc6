"""`routemesh doctor` on a running cluster: nothing where nothing is wrong; what no daemon can mend is told, and left by --fix."""

import json
from typing import Any

from tests.lab.cluster import Cluster
from tests.support import wait_until

ENEMY = "table inet firewalld { chain filter_INPUT { type filter hook input priority 10; udp dport 4789 drop; }; }"


def findings(mesh: Cluster, *options: str, status: int) -> list[dict[str, Any]]:
    """What is not fine, by the JSON that it prints."""
    report = json.loads(mesh.cli("doctor", "--format", "json", *options, status=status))
    assert (report["version"], report["outcome"]) == (2, "clean" if status == 0 else "findings")
    return [each for each in report["findings"] if each["state"] in ("wrong", "untold")]


def test_a_running_cluster_is_looked_at_as_a_whole(mesh: Cluster) -> None:
    with mesh.service("seen", "--replicas", "3", "-p", "8240:80", "-p", "8241:80"):
        assert findings(mesh, status=0) == []
        text = mesh.cli("doctor", host="node2")
        assert "ok       node1, node2 and node3: ways (predicted): all 6 ways of published ports reach every task" in text
        assert "packets of 1450 bytes get there and back through VXLAN between 6 of 6 pairs of nodes" in text
        with mesh.listening("node1/ingress_sbox", 9999):  # a process in the mesh is none on the node
            assert findings(mesh, status=0) == []


def test_what_is_not_ours_is_told_and_left(mesh: Cluster) -> None:
    with mesh.service("cutoff", "--replicas", "3", "-p", "8242:80"):
        mesh.nft("node2", ENEMY)
        try:
            (firewall,) = findings(mesh, "--fix", status=3)
            text = mesh.cli("doctor", status=3)
        finally:
            mesh.nft("node2", "delete table inet firewalld")
        assert (firewall["what"], firewall["where"], firewall["ours"]) == ("firewall", "node2", False)
        assert firewall["fix"].startswith("on node2: firewall-cmd --permanent --add-port=4789/udp")
        assert "cutoff 8242/tcp through node1, node2 and node3" in firewall["effect"]
        assert "get there and back through VXLAN between 2 of 6 pairs of nodes" in text


def test_repair_says_what_each_node_has_mended(mesh: Cluster) -> None:
    with mesh.service("mended", "--replicas", "1", "-p", "8244:80"):
        assert mesh.cli("doctor", "--fix").startswith("node1: as planned, nothing to mend\n")
        mesh.nft("node1/ingress_sbox", "flush map ip routemesh marks")
        wait_until(lambda: "nothing to mend" in mesh.cli("doctor", "--fix").splitlines()[0], 10, "node1 as planned")
        assert findings(mesh, status=0) == []


def test_beside_a_service_that_crashes_again_and_again_only_what_is_wrong_is_called_wrong(mesh: Cluster) -> None:
    crashing = ("--detach", "--replicas", "2", "--restart-delay", "100ms")
    with (
        mesh.service("steady", "--replicas", "3", "-p", "8245:80"),
        mesh.service("crashing", *crashing, "-p", "8246:80", command=CRASHES),
        mesh.service("silent", *crashing, command=CRASHES),
    ):
        for _ in range(2):
            assert findings(mesh, status=0) == []
            assert json.loads(mesh.cli("explain", "node1:8245", "--format", "json"))["outcome"] == "reaches"
        assert "service crashing: tasks (asked): they changed while they were looked at" in mesh.cli("doctor")
        mesh.nft("node1", "table ip enemy { chain f { type filter hook forward priority 0; tcp dport 8245 drop; }; }")
        try:
            (firewall,) = findings(mesh, status=3)
        finally:
            mesh.nft("node1", "delete table ip enemy")
        assert (firewall["what"], firewall["effect"]) == ("firewall", "every connection fails: steady 8245/tcp through node1")


CRASHES = ("sh", "-c", "sleep 0.3; exit 1")
