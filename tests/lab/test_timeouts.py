"""How long each hop remembers a connection in which nothing is said: as long as the ends do, up to five days."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from routemesh.kernel.netlink import conntrack
from routemesh.model import Protocol
from routemesh.snapshot import Connections, ConntrackEntry
from tests.lab.cluster import ADDRESSES, Cluster
from tests.support import wait_until

DAYS_5_S, HOUR_S = 432_000, 3600
LATE_S = 2.5
CLOSE_WAIT = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait")
SERVER = f"""
import socket, socketserver, threading, time
class Late(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
        time.sleep({LATE_S})
        self.request.sendall(b"late")
class Datagrams(socketserver.BaseRequestHandler):
    def handle(self):
        data, replying = self.request
        if data != b"hush":
            replying.sendto(data, self.client_address)
socketserver.ThreadingTCPServer.allow_reuse_address = True
tcp, udp = socketserver.ThreadingTCPServer(("", 80), Late), socketserver.ThreadingUDPServer(("", 80), Datagrams)
threading.Thread(target=udp.serve_forever).start()
tcp.serve_forever()
"""


@contextmanager
def late_server(mesh: Cluster, port: int) -> Iterator[tuple[str, ...]]:
    """A service that answers late, and the namespaces on the way to it by node1."""
    options = ("-p", f"{port}:80", "-p", f"{port}:80/udp", "--label", "routemesh.health.tcp")
    with mesh.service("late", *options, command=("python3", "-c", SERVER)):
        (task,) = mesh.serving("late")
        yield "node1", "node1/ingress_sbox", f"{task['node']}/{task['container']}"


def entry(mesh: Cluster, place: str, protocol: Protocol, port: int, client: int) -> ConntrackEntry | None:
    """What a namespace tracks of the connection from a client's port."""
    found = mesh.at(place, lambda: tuple(conntrack.entries(Connections(ports={(protocol, port)}))))
    return next((each for each in found if each.original.source.port == client), None)


def remembered(mesh: Cluster, place: str, client: socket.socket, port: int, state: str, *, replied: bool = True) -> int:
    """For how many seconds the kernel will remember a connection, once it is in that state there."""
    protocol = Protocol.TCP if client.type == socket.SOCK_STREAM else Protocol.UDP
    number = client.getsockname()[1]

    def seen() -> ConntrackEntry | None:
        found = entry(mesh, place, protocol, port, number)
        return found if found is not None and (found.state, found.replied) == (state, replied) else None

    found = wait_until(seen, 5, f"{state or 'an entry'} in {place}")
    assert found is not None and found.timeout_s is not None
    return found.timeout_s


def test_every_hop_remembers_a_connection_as_long_as_its_ends_may_rest(mesh: Cluster) -> None:
    with late_server(mesh, 8110) as hops:
        with mesh.connect(ADDRESSES["node1"], 8110) as connection:
            connection.sendall(b"word")
            assert connection.recv(64) == b"word"
            idle = [remembered(mesh, hop, connection, 8110, "ESTABLISHED") for hop in hops]
            connection.shutdown(socket.SHUT_WR)
            half_closed = [remembered(mesh, hop, connection, 8110, "CLOSE_WAIT") for hop in hops]
            assert connection.recv(64) == b"late"
            closed = [remembered(mesh, hop, connection, 8110, "TIME_WAIT") for hop in hops]
        assert all(DAYS_5_S - HOUR_S < each <= DAYS_5_S for each in (*idle, *half_closed)), (idle, half_closed)
        assert all(each <= 120 for each in closed), closed
        with mesh.at("client", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
            asking.settimeout(5)
            asking.connect((ADDRESSES["node1"], 8110))
            asking.send(b"hush")
            one_way = [remembered(mesh, hop, asking, 8110, "", replied=False) for hop in hops]
            asking.send(b"word")
            assert asking.recv(64) == b"word"
            first = [remembered(mesh, hop, asking, 8110, "") for hop in hops]
        assert all(100 < each <= 120 for each in one_way), one_way
        assert all(each > 100 for each in first), first


def test_a_half_closed_connection_outlives_what_the_machine_itself_would_remember(mesh: Cluster) -> None:
    with late_server(mesh, 8111) as hops:
        usual = [mesh.at(hop, CLOSE_WAIT.read_text) for hop in hops]
        try:
            for hop in hops:
                mesh.at(hop, partial(CLOSE_WAIT.write_text, "1"))
            with mesh.connect(ADDRESSES["node1"], 8111) as connection:
                connection.settimeout(4 * LATE_S)
                connection.sendall(b"word")
                connection.shutdown(socket.SHUT_WR)
                assert b"".join(iter(lambda: connection.recv(64), b"")) == b"wordlate"
        finally:
            for hop, value in zip(hops, usual, strict=True):
                mesh.at(hop, partial(CLOSE_WAIT.write_text, value))
