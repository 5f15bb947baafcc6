"""Many published ports and many tasks: the daemons stay up, and neither costs them descriptors as it once did."""

import os

from tests.lab.cluster import ADDRESSES, Cluster
from tests.support import wait_until

FIRST, PORTS, TASKS = 12_000, 1_100, 24


def _daemons(mesh: Cluster) -> dict[str, int]:
    return {node["name"]: node["pid"] for node in mesh.json("lab", "status", "--name", mesh.name)}


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_a_service_of_1100_ports_and_24_tasks_stays_up_on_three_nodes(mesh: Cluster) -> None:
    before = _daemons(mesh)
    idle = {node: _open_files(pid) for node, pid in before.items()}
    ports = [option for port in range(FIRST, FIRST + PORTS) for option in ("-p", f"{port}:80")]
    with mesh.service("many", "--replicas", "3", *ports):
        for address in ADDRESSES.values():
            for port in (FIRST, FIRST + PORTS // 2, FIRST + PORTS - 1):
                assert len({answer.hostname for answer in mesh.ask(address, port, 3)}) == 3
        with mesh.service("crowd", "--replicas", str(TASKS)):
            assert _daemons(mesh) == before
            for node, pid in before.items():
                tasks = sum(task["node"] == node for name in ("many", "crowd") for task in mesh.serving(name))
                assert tasks >= TASKS // 3
                assert _open_files(pid) <= idle[node] + tasks + 64 + 8, "a task costs its pidfd, namespaces a pool of 64"
        for node in mesh.json("node", "inspect", *ADDRESSES):
            assert not node["failures"]
            assert not [held for held in node["listeners"] if held["process"]], "held ports are not listeners"
    assert _daemons(mesh) == before
    wait_until(lambda: mesh.is_refused(ADDRESSES["node1"], FIRST), 10, "the end of the port")
