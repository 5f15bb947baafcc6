"""The data path, with real packets: every node answers, in turn, and the task sees the client."""

import socket
from collections import Counter
from contextlib import suppress

import pytest

from tests.lab.cluster import ADDRESSES, CLIENT, Cluster, ask_by
from tests.support import wait_until

WEB = ("--replicas", "2", "-p", "8080:80")


def test_every_node_answers_in_turn_and_shows_the_client(mesh: Cluster) -> None:
    with mesh.service("web", *WEB):
        hosts = {task["container"] for task in mesh.serving("web")}
        for address in ADDRESSES.values():
            answers = mesh.ask(address, 8080, times=4)
            assert Counter(answer.hostname for answer in answers) == dict.fromkeys(hosts, 2)
            assert {answer.peer for answer in answers} == {CLIENT}


@pytest.mark.parametrize(("replicas", "rounds"), [(1, 5), (3, 7), (7, 4)])
def test_round_robin_is_exact(mesh: Cluster, replicas: int, rounds: int) -> None:
    with mesh.service("even", "--replicas", str(replicas), "-p", "8081:80"):
        for address in ADDRESSES.values():
            counts = Counter(answer.hostname for answer in mesh.ask(address, 8081, times=replicas * rounds))
            assert sorted(counts.values()) == [rounds] * replicas


def test_other_services_do_not_disturb_the_turn(mesh: Cluster) -> None:
    with mesh.service("one", "--replicas", "2", "-p", "8082:80"), mesh.service("two", "--replicas", "2", "-p", "8083:80"):
        ones, twos = [], []
        for _ in range(6):
            ones += mesh.ask(ADDRESSES["node1"], 8082)
            twos += mesh.ask(ADDRESSES["node1"], 8083, times=2)
            twos += mesh.ask(ADDRESSES["node1"], 8083)
        assert sorted(Counter(answer.hostname for answer in ones).values()) == [3, 3]
        assert sorted(Counter(answer.hostname for answer in twos).values()) == [9, 9]


def test_udp_is_balanced_by_flow_and_shows_the_client(mesh: Cluster) -> None:
    with mesh.service("dns", "--replicas", "2", "-p", "5353:80/udp"):
        for address in ADDRESSES.values():
            answers = mesh.ask_udp(address, 5353, times=4)
            assert sorted(Counter(answer.hostname for answer in answers).values()) == [2, 2]
            assert {answer.peer for answer in answers} == {CLIENT}
        sender = mesh.at("client", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sender:
            assert len({ask_by(sender, ADDRESSES["node3"], 5353).hostname for _ in range(6)}) == 1


def test_one_number_in_tcp_and_udp_and_several_ports(mesh: Cluster) -> None:
    ports = ("-p", "8090:80", "-p", "8090:80/udp", "-p", "published=8091,target=80,protocol=tcp")
    with mesh.service("many", "--replicas", "2", *ports):
        for address in ADDRESSES.values():
            hosts = {answer.hostname for answer in mesh.ask(address, 8090, times=2)}
            assert len(hosts) == 2
            assert {answer.hostname for answer in mesh.ask_udp(address, 8090, times=2)} == hosts
            assert {answer.hostname for answer in mesh.ask(address, 8091, times=2)} == hosts


def test_a_port_published_under_its_own_number(mesh: Cluster) -> None:
    with mesh.service("same", "-p", "80:80", "-p", "80:80/udp"):
        for address in ADDRESSES.values():
            assert mesh.ask(address, 80)[0].peer == CLIENT
            assert mesh.ask_udp(address, 80)[0].peer == CLIENT


def test_every_address_of_the_node_and_the_node_itself(mesh: Cluster) -> None:
    with mesh.service("local", *WEB, "-p", "8080:80/udp"):
        for address in ("127.0.0.1", "192.168.200.10", "172.18.0.1"):
            for answers in (mesh.ask(address, 8080, 2, "node1"), mesh.ask_udp(address, 8080, 2, "node1")):
                assert len({answer.hostname for answer in answers}) == 2
                assert {answer.peer for answer in answers} == {ADDRESSES["node1"]}
        assert mesh.ask("192.168.200.12", 8080, place="node2")[0].peer == ADDRESSES["node2"]


def test_a_task_reaches_a_published_port_of_its_own_node(mesh: Cluster) -> None:
    with mesh.service("hairpin", *WEB):
        for task in mesh.serving("hairpin"):
            place = f"{task['node']}/{task['container']}"
            answers = mesh.ask(ADDRESSES[task["node"]], 8080, times=4, place=place)
            assert sorted(Counter(answer.hostname for answer in answers).values()) == [2, 2]


def test_snat_shows_the_node_as_swarm_does(mesh: Cluster) -> None:
    with mesh.service("plain", *WEB, "-p", "8080:80/udp", "--label", "routemesh.client-ip=snat"):
        seen = [mesh.ask(address, 8080, times=2) for address in ADDRESSES.values()]
        assert [len({answer.peer for answer in answers}) for answers in seen] == [1, 1, 1]
        peers = {answers[0].peer for answers in seen}
        assert len(peers) == 3 and all(peer.startswith("10.0.0.") for peer in peers)
        assert mesh.ask_udp(ADDRESSES["node2"], 8080)[0].peer in peers


def test_a_global_service_runs_on_every_node(mesh: Cluster) -> None:
    with mesh.service("everywhere", "--mode", "global", "-p", "8084:80"):
        assert {task["node"] for task in mesh.serving("everywhere")} == set(ADDRESSES)
        assert len({answer.hostname for answer in mesh.ask(ADDRESSES["node2"], 8084, times=3)}) == 3


def test_nothing_else_answers_on_a_tasks_overlay_address(mesh: Cluster) -> None:
    with mesh.service("fenced", "--replicas", "1", "-p", "8085:80"):
        address = mesh.serving("fenced")[0]["address"]
        place = "node3/ingress_sbox"
        assert mesh.is_refused(address, 80, place)
        assert mesh.is_refused(address, 22, place)
        with pytest.raises(ConnectionRefusedError):
            mesh.ask_udp_by_connection(address, 80, place)
        assert not mesh.is_refused(address, 8085, place)


def test_a_task_can_not_call_out_through_the_overlay(mesh: Cluster) -> None:
    with mesh.service("quiet", "--replicas", "2", "-p", "8086:80"):
        first, second = mesh.serving("quiet")
        assert mesh.is_refused(second["address"], 8086, f"{first['node']}/{first['container']}")


def test_tasks_of_a_node_do_not_reach_one_another_on_docker_gwbridge(mesh: Cluster) -> None:
    with mesh.service("apart", "--replicas", "2", "-p", "8096:80", "--constraint", "node.hostname==node2"):
        first, second = mesh.serving("apart")
        with pytest.raises(OSError, match=r"timed out|No route"):
            mesh.connect(second["gateway_address"], 80, f"node2/{first['container']}")
        mesh.connect(second["gateway_address"], 80, "node2").close()


def test_a_port_without_service_is_refused(mesh: Cluster) -> None:
    for address in ADDRESSES.values():
        assert mesh.is_refused(address, 8999)
    assert mesh.is_refused("127.0.0.1", 8999, "node1")


def test_a_service_without_tasks_refuses_instead_of_hanging(mesh: Cluster) -> None:
    with mesh.service("empty", "--replicas", "0", "-p", "8087:80", "-p", "8087:80/udp"):
        for address in ADDRESSES.values():
            assert mesh.is_refused(address, 8087)
            with pytest.raises(ConnectionRefusedError):
                mesh.ask_udp_by_connection(address, 8087, "client")


def test_large_transfers_pass_the_smaller_mtu(mesh: Cluster) -> None:
    command = ("python3", "-c", _PUMP)
    with mesh.service("pump", "--replicas", "1", "-p", "8088:80", "--label", "routemesh.health.tcp", command=command):
        for address in ADDRESSES.values():
            with mesh.connect(address, 8088) as connection:
                connection.settimeout(10)
                connection.sendall(b"x" * 1_000_000)
                connection.shutdown(socket.SHUT_WR)
                assert sum(map(len, iter(lambda: connection.recv(65536), b""))) == 1_000_000


def test_large_datagrams_pass_once_the_client_knows_the_smaller_mtu(mesh: Cluster) -> None:
    with mesh.service("jumbo", "--replicas", "2", "-p", "8089:80/udp"):
        for address in ADDRESSES.values():
            with suppress(TimeoutError):  # the sandbox answers the first one that is too long by `fragmentation needed`
                mesh.echo_udp(address, 8089, 1472)
            for size in (1400, 1472, 5000):
                assert mesh.echo_udp(address, 8089, size).endswith("x" * size)


def test_a_removed_tasks_udp_client_moves_to_another(mesh: Cluster) -> None:
    with mesh.service("glue", "--replicas", "2", "-p", "8092:80/udp"):
        sender = mesh.at("client", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sender:
            before = ask_by(sender, ADDRESSES["node1"], 8092).hostname
            mesh.cli("service", "scale", "glue=1")
            left = mesh.serving("glue")[0]["container"]
            wait_until(lambda: ask_by(sender, ADDRESSES["node1"], 8092).hostname == left, 5, f"the move from {before} to {left}")


def test_a_udp_server_that_is_bound_to_no_address_answers_too(mesh: Cluster) -> None:
    def echoed(address: str, place: str) -> bool:
        with suppress(OSError):  # a task is led to as soon as it runs; its server may still be starting
            return mesh.echo_udp(address, 8093, 100, place) == "x" * 100
        return False

    with mesh.service("plain-udp", "--replicas", "2", "-p", "8093:80/udp", command=("python3", "-c", _ECHO)):
        for place in ("client", "node1", "node2"):
            for address in ADDRESSES.values():
                wait_until(lambda: echoed(address, place), 5, f"an answer from {address} to {place}")  # noqa: B023
        assert mesh.echo_udp("127.0.0.1", 8093, 100, "node3") == "x" * 100


def test_one_client_port_through_several_nodes_to_one_task(mesh: Cluster) -> None:
    """In the task all these connections have the same addresses and ports; each answer must return by its own node."""
    with mesh.service("clash", "--replicas", "1", "-p", "8095:80", "-p", "8095:80/udp"):
        sender = mesh.at("client", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with sender:
            for address in (*ADDRESSES.values(), *ADDRESSES.values()):
                assert ask_by(sender, address, 8095).peer == CLIENT
        connections = [mesh.connect(address, 8095, source_port=45678) for address in ADDRESSES.values()]
        for connection in connections:
            with connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
                assert f"RemoteAddr: {CLIENT}:".encode() in connection.recv(65536)


def test_a_task_with_a_udp_port_still_calls_out(mesh: Cluster) -> None:
    with mesh.service("caller", "--replicas", "1", "-p", "8094:80/udp"), mesh.listening("client", 9999):
        task = mesh.serving("caller")[0]
        mesh.connect(CLIENT, 9999, f"{task['node']}/{task['container']}").close()


_ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 80))
while True:
    data, peer = server.recvfrom(65536)
    server.sendto(data, peer)
"""

_PUMP = """
import socketserver
class Pump(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 80), Pump).serve_forever()
"""
