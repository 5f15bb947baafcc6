"""The gateway with the engine ipvs: a proxy gets requests through IPVS and calls tasks over the overlay, past their filters."""

from tests.lab.cluster import ADDRESSES, CLIENT, Cluster
from tests.lab.gate import get, labels
from tests.support import require, wait_until

NODE1, NODE2, _ = ADDRESSES.values()


def test_requests_reach_tasks_by_way_of_a_proxy_on_another_node(mesh: Cluster) -> None:
    require("haproxy")
    behind = labels("app.example", sticky="cookie")
    elsewhere = ("--replicas", "2", "--constraint", "node.hostname!=node1")
    mesh.cli("service", "create", "--detach", "--quiet", "--name", "app", *elsewhere, *behind, "host", "routemesh", "whoami")
    try:
        mesh.cli("gateway", "enable", "--publish", "80", "--constraint", "node.hostname==node1")
        wait_until(lambda: mesh.api.progress("app").converged, 20, "the tasks behind the gateway")
        containers = {task["container"] for task in mesh.serving("app")}
        first = get(mesh, "app.example", address=NODE2)
        assert first.answer.hostname in containers
        assert f"x-forwarded-for: {CLIENT}" in first.body.lower()
        assert get(mesh, "app.example", address=NODE1, Cookie=first.cookie).answer.hostname == first.answer.hostname
        assert get(mesh, "other.example").status == 404
        said = mesh.cli("explain", "node2:80", "--http", "app.example", "--cookie", first.cookie)
        assert said.splitlines()[-1].endswith(" by way of gateway.node1")
    finally:
        mesh.cli("service", "rm", "app", "gateway")
