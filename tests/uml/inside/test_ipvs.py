"""What is the ipvs engine's own: whom tasks see, the filter, schedulers, persistence, draining, repair."""

import os
import re
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab.cluster import ADDRESSES, CLIENT, Cluster
from tests.support import wait_until

REPAIRED_S = 90.0
"""Nothing tells that IPVS or the older iptables was changed; the agent looks every 30 s, and this machine is slow."""


def sandbox(mesh: Cluster, node: str, *command: str) -> str:
    return mesh.inside(f"{node}/ingress_sbox", *command)


def weights(mesh: Cluster, node: str) -> dict[str, int]:
    """The destinations of all services of a node, with their weights."""
    return {
        found[1]: int(found[2]) for found in re.finditer(r"-> ([\d.]+):0 +Masq +(\d+)", sandbox(mesh, node, "ipvsadm", "-Ln"))
    }


def own_address(mesh: Cluster, node: str) -> str:
    return str(mesh.json("node", "inspect", node)[0]["ingress_address"])


# --- the path ----------------------------------------------------------------------------------------------------


def test_the_node_and_its_tasks_are_seen_as_the_nodes_overlay_address(mesh: Cluster) -> None:
    """As in Swarm: their addresses on docker_gwbridge are those of every node."""
    with mesh.service("local", "--replicas", "3", "-p", "8103:80"):
        task = next(task for task in mesh.serving("local") if task["node"] == "node1")
        for place, address in (
            ("node1", "127.0.0.1"),
            ("node1", ADDRESSES["node1"]),
            ("node1", "172.18.0.1"),
            (f"node1/{task['container']}", ADDRESSES["node1"]),
        ):
            answers = mesh.ask(address, 8103, 3, place)
            assert {answer.peer for answer in answers} == {own_address(mesh, "node1")}, (place, address)
            assert len({answer.hostname for answer in answers}) == 3


def test_snat_is_each_services_own_choice(mesh: Cluster) -> None:
    snat = ("--label", "routemesh.client-ip=snat")
    with mesh.service("kept", "-p", "8101:80"), mesh.service("snat", "-p", "8102:80", *snat):
        for node, address in ADDRESSES.items():
            assert mesh.ask(address, 8101)[0].peer == CLIENT
            assert mesh.ask(address, 8102)[0].peer == own_address(mesh, node)


def test_the_fence_drops_what_is_not_published(mesh: Cluster) -> None:
    with mesh.service("fenced", "-p", "8105:80"):
        (task,) = mesh.serving("fenced")
        other = next(node for node in ADDRESSES if node != task["node"])
        with pytest.raises(TimeoutError):
            mesh.connect(task["address"], 8106, f"{other}/ingress_sbox")


# --- sharing out -------------------------------------------------------------------------------------------------


def test_weights_share_out_exactly(mesh: Cluster) -> None:
    with mesh.service("heavy", "--replicas", "2", "-p", "8110:80", "--label", "routemesh.weight=1,.2=3"):
        answers = Counter(answer.hostname for answer in mesh.ask(ADDRESSES["node1"], 8110, 16))
        by_slot = {task["slot"]: task["container"] for task in mesh.serving("heavy")}
        assert answers == {by_slot[1]: 4, by_slot[2]: 12}


def test_a_client_keeps_its_task_and_moves_once_when_that_is_gone(mesh: Cluster) -> None:
    def answering() -> set[str]:
        return {answer.hostname for answer in mesh.ask(ADDRESSES["node1"], 8111, 4)}

    labels = ("--label", "routemesh.affinity=client-ip;timeout=1h", "--label", "routemesh.health.tcp=80")
    with mesh.service("sticky", "--replicas", "2", "-p", "8111:80", *labels):
        (kept,) = answering()
        assert "persistent 3600" in sandbox(mesh, "node1", "ipvsadm", "-Ln")
        mesh.cli("service", "scale", "sticky=3")
        assert answering() == {kept}
        home = next(task["node"] for task in mesh.serving("sticky") if task["container"] == kept)
        mesh.cli("node", "update", "--availability", "drain", home)
        try:
            said: list[str] = []

            def has_moved() -> bool:
                """The manager has decided long before node1's kernel has heard of it."""
                said.append(mesh.ask(ADDRESSES["node1"], 8111)[0].hostname)
                return said[-1] != kept

            wait_until(has_moved, 30, "the client's move")
            assert answering() == {said[-1]}
            assert kept not in {task["container"] for task in mesh.serving("sticky")}
        finally:
            mesh.cli("node", "update", "--availability", "active", home)


@pytest.mark.parametrize("scheduler", ["wlc", "mh"])
def test_a_service_has_the_scheduler_that_it_asks_for(mesh: Cluster, scheduler: str) -> None:
    with mesh.service("any", "--replicas", "2", "-p", "8112:80", "--label", f"routemesh.lb={scheduler}"):
        assert re.search(rf"^FWM +\d+ {scheduler}\b", sandbox(mesh, "node1", "ipvsadm", "-Ln"), re.MULTILINE)
        assert len(mesh.ask(ADDRESSES["node1"], 8112, 4)) == 4


def test_idle_connections_are_kept_as_long_as_conntrack_keeps_them(mesh: Cluster) -> None:
    tcp, tcp_fin, udp = map(int, re.findall(r"\d+", sandbox(mesh, "node1", "ipvsadm", "-L", "--timeout")))
    conntrack = Path("/proc/sys/net/netfilter")
    established, stream = (
        mesh.at("node1/ingress_sbox", lambda name=name: int((conntrack / name).read_text()))  # type: ignore[misc]
        for name in ("nf_conntrack_tcp_timeout_established", "nf_conntrack_udp_timeout_stream")
    )
    assert (tcp >= established, tcp_fin >= 120, udp >= stream) == (True, True, True)


def test_what_this_engine_can_not_do_is_refused(mesh: Cluster) -> None:
    create = ("service", "create", "--name", "dice", "-p", "8113:80", "--label", "routemesh.lb=random", "host", "true")
    refusal = mesh.refused(*create)
    assert all(word in refusal for word in ("'random'", "engine ipvs", "rr, sed, sh"))


# --- going and coming back ---------------------------------------------------------------------------------------


def test_a_task_that_must_stop_gets_weight_0_and_keeps_its_connections(mesh: Cluster) -> None:
    """The signal that its tasks are sent to stop is one that they do not mind, so they live through the grace period."""
    stubborn = ("--stop-signal", "WINCH", "--stop-grace-period", "10s")
    with mesh.service("leaving", "--replicas", "2", "-p", "8120:80", *stubborn):
        before = {task["container"]: task for task in mesh.serving("leaving")}
        with ExitStack() as stack:
            kept = [stack.enter_context(mesh.connect(ADDRESSES["node1"], 8120)) for _ in range(2)]
            mesh.cli("service", "scale", "--detach", "leaving=1")
            (left,) = wait_until(lambda: mesh.serving("leaving") if len(mesh.serving("leaving")) == 1 else [])
            (leaving,) = (task for name, task in before.items() if name != left["container"])
            for node in ADDRESSES:
                wait_until(lambda node=node: weights(mesh, node).get(leaving["address"]) == 0, what="weight 0")  # type: ignore[misc]
            assert {answer.hostname for answer in mesh.ask(ADDRESSES["node1"], 8120, 4)} == {left["container"]}
            hosts = set()
            for connection in kept:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                hosts.update(re.findall(r"Hostname: (\S+)", connection.recv(65536).decode()))
            assert hosts == set(before)
        wait_until(lambda: leaving["address"] not in weights(mesh, "node1"), 20, "the destination's removal")


def test_what_a_person_breaks_is_mended(mesh: Cluster) -> None:
    with mesh.service("mended", "-p", "8130:80"):
        mesh.inside("node1", "iptables", "-t", "nat", "-F", "DOCKER-INGRESS")
        mesh.inside("node1", "iptables", "-t", "nat", "-D", "OUTPUT", "1")
        mesh.inside("node1/ingress_sbox", "iptables", "-t", "mangle", "-F", "PREROUTING")
        mesh.inside("node1/ingress_sbox", "ipvsadm", "-C")
        wait_until(lambda: mesh.run("diff", "node1").returncode == 0, REPAIRED_S, "the repair")
        assert mesh.ask(ADDRESSES["node1"], 8130)[0].peer == CLIENT
        assert mesh.ask("127.0.0.1", 8130, place="node1")


def test_a_second_pass_and_a_new_daemon_change_nothing(mesh: Cluster) -> None:
    def rules() -> str:
        saved = (
            mesh.inside(place, "iptables-save", "-t", table)
            for place, table in (("node1", "nat"), ("node1/ingress_sbox", "mangle"))
        )
        return re.sub(r"^#.*|\[\d+:\d+\]", "", "".join(saved), flags=re.MULTILINE)

    # Not on node1: here a daemon may take longer to come back than a manager waits before it gives its tasks to other nodes.
    elsewhere = ("--constraint", "node.hostname!=node1")
    with mesh.service("still", "--replicas", "2", "-p", "8131:80", "-p", "8131:80/udp", *elsewhere):
        for node in ADDRESSES:
            assert "no difference" in mesh.cli("diff", node)
        before = rules()
        with mesh.connect(ADDRESSES["node1"], 8131) as connection:
            status = next(node for node in mesh.json("lab", "status", "--name", mesh.name) if node["name"] == "node1")
            os.kill(status["pid"], signal.SIGKILL)
            mesh.lab("start", "node1")
            assert "no difference" in wait_until(lambda: mesh.run("diff", "node1").stdout, 20, "the daemon")
            assert rules() == before
            connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)
