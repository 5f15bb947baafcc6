"""A recording of a lab tells the way that its packets take."""

from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import Path

from routemesh.model import Protocol
from routemesh.recording.read import read
from routemesh.snapshot import ClusterSnapshot, Endpoint
from routemesh.walk import Delivered, Packet, ReplyArrives, every_way, observed
from tests.lab.cluster import ADDRESSES, CLIENT, Cluster


def recorded(mesh: Cluster, directory: Path) -> ClusterSnapshot:
    for node in ADDRESSES:
        mesh.cli("record", str(directory / node), host=node)
    return read([directory])


def reached(cluster: ClusterSnapshot, node: str, port: int, protocol: Protocol) -> dict[tuple[str, str], Fraction]:
    """The tasks that a client's connection may reach: node and namespace, with the share of each."""
    ends = Endpoint(IPv4Address(CLIENT), 40000), Endpoint(IPv4Address(ADDRESSES[node]), port)
    packet = Packet(protocol=protocol, source=ends[0], destination=ends[1])
    found: dict[tuple[str, str], Fraction] = {}
    for branch in every_way(observed(cluster), packet):
        match branch.outcome:
            case Delivered(place=place, peer=Endpoint(address), reply=ReplyArrives()) if str(address) == CLIENT:
                found[place] = found.get(place, Fraction(0)) + branch.share
            case other:
                raise AssertionError(other)
    return found


def test_a_recording_of_all_nodes_leads_to_the_tasks_and_back(mesh: Cluster, tmp_path: Path) -> None:
    with mesh.service("web", "--replicas", "2", "-p", "8080:80"), mesh.service("dns", "--replicas", "2", "-p", "5353:80/udp"):
        cluster = recorded(mesh, tmp_path)
        for service, port, protocol in (("web", 8080, Protocol.TCP), ("dns", 5353, Protocol.UDP)):
            tasks = {(task["node"], task["container"]): Fraction(1, 2) for task in mesh.serving(service)}
            assert {(task.node, task.netns) for task in cluster.names.tasks if task.service == service} == set(tasks)
            for node in ADDRESSES:
                assert reached(cluster, node, port, protocol) == tasks
        for node in ADDRESSES:
            told = mesh.cli("explain", "--from", str(tmp_path), f"{node}:8080")
            assert told.splitlines()[-1] == f"{node}:8080/tcp reaches web.1 and web.2"
        assert "wrong" not in mesh.cli("doctor", "--from", str(tmp_path))
        assert_differences_are_told(mesh, tmp_path)
    assert cluster.unread == ()
    assert [unread for node in cluster.nodes.values() for space in node.namespaces.values() for unread in space.unread] == []


def assert_differences_are_told(mesh: Cluster, directory: Path) -> None:
    """Against its plan a recording is held item by item: here an element is taken out of it, and one is put in."""
    file = directory / "node2" / "netns" / "ingress_sbox" / "nft-ruleset.json"
    file.write_text(file.read_text().replace("8080", "8081"))
    told = mesh.cli("doctor", "--from", str(directory), status=3)
    assert "wrong    node2: ingress_sbox: plan (recorded): element tcp . 8080 of " in told
    assert "element tcp . 8081 of marks is not planned" in told
    (directory / "node2" / "plan.json").write_text("{}")
    assert "plan.json is not a plan of a node" in mesh.refused("doctor", "--from", str(directory))


def test_a_node_that_was_not_recorded_is_named(mesh: Cluster, tmp_path: Path) -> None:
    mesh.cli("record", str(tmp_path / "node2"), host="node2")
    cluster = read([tmp_path / "node2"])
    assert set(cluster.nodes) == {"node2"}
    assert {node.name for node in cluster.names.nodes if node.absent} == {"node1", "node3"}


def test_a_directory_that_holds_something_is_refused(mesh: Cluster, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    assert "is not empty" in mesh.refused("record", str(tmp_path))
