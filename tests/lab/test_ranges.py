"""Ranges of one's own, and what is said when they turn out to be somebody else's."""

from tests.lab.cluster import ADDRESSES, CLIENT, Cluster, running
from tests.support import require, wait_until


def errors(cluster: Cluster) -> dict[str, str]:
    return {each["name"]: " ".join(each["failures"]) for each in cluster.json("node", "ls")}


def test_a_cluster_has_the_ranges_that_it_was_given_and_says_when_they_are_taken() -> None:
    require("root", "netns", "nf_tables")
    with running("ranges", "--nodes", "2", "--ingress-subnet", "10.77.0.0/24", "--gwbridge-subnet", "172.30.0.0/16") as cluster:
        with cluster.service("web", "--replicas", "2", "-p", "8080:80"):
            answers = cluster.ask(ADDRESSES["node1"], 8080, times=2)
            assert len({answer.hostname for answer in answers}) == 2 and {answer.peer for answer in answers} == {CLIENT}
            told = cluster.run("explain", "10.77.0.200", "node1:8080")
            said = (
                "10.77.0.200 is in the range 10.77.0.0/24 of ingress, which the mesh has for itself on every node, and the answer"
            )
            assert told.returncode == 3 and said in told.stdout, told.stdout
            assert "nobody on eth0 answers ARP for 10.77.0.200" in told.stdout
            told = cluster.run("explain", "172.30.9.9", "node1:8080")
            assert told.returncode == 3 and "172.30.9.9 is in the range 172.30.0.0/16 of docker_gwbridge" in told.stdout
            assert " is in the range " not in cluster.run("explain", CLIENT, "node1:8080").stdout
            assert all(task["address"].startswith("10.77.0.") for task in cluster.serving("web"))
        cluster.inside("node2", "ip", "route", "add", "10.77.0.0/16", "via", CLIENT)
        said = "the range 10.77.0.0/24 of ingress is somebody else's here (route to 10.77.0.0/16 through eth0)"
        wait_until(lambda: said in errors(cluster)["node2"], 30, "the node's word about it")
        assert said not in errors(cluster)["node1"]
        found = cluster.run("doctor")
        assert found.returncode == 3 and said in found.stdout and "--ingress-subnet" in found.stdout
        cluster.inside("node2", "ip", "route", "del", "10.77.0.0/16")
        wait_until(lambda: said not in errors(cluster)["node2"], 30, "the end of it")
        cluster.inside("node2", "ip", "address", "add", "172.30.9.1/24", "dev", "eth0")
        wait_until(lambda: "address 172.30.9.1/24 on eth0" in errors(cluster)["node2"], 30, "the node's word about an address")
