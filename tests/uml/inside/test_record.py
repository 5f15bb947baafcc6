"""A recording of a lab with the engine ipvs tells the way that its packets take, there and back."""

from pathlib import Path

from routemesh.model import Protocol
from routemesh.recording.read import read
from tests.lab.cluster import Cluster
from tests.lab.test_record import reached

NODES = ("node1", "node2")


def test_a_recording_of_ipvs_leads_to_the_tasks_and_back(swarm: Cluster, tmp_path: Path) -> None:
    for node in NODES:
        swarm.cli("record", str(tmp_path / node), host=node)
    cluster = read([tmp_path])
    tasks = {(task["node"], task["container"]) for task in swarm.serving("web")}
    for node in NODES:
        assert set(reached(cluster, node, 8080, Protocol.TCP)) == tasks
        told = swarm.cli("explain", "--from", str(tmp_path), f"{node}:8080")
        assert told.splitlines()[-1] == f"{node}:8080/tcp reaches web.1 and web.2"
    assert {len(swarm.ask(address, 8080, times=2)) for address in ("192.168.200.10", "192.168.200.11")} == {2}
    assert cluster.unread == ()
    assert [unread for node in cluster.nodes.values() for space in node.namespaces.values() for unread in space.unread] == []
