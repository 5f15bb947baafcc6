"""What only resembles a connection's packets does not end the connection, whichever hop it reaches."""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest

from tests.lab import strays
from tests.lab.cluster import ADDRESSES, Cluster

ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 80), Echo).serve_forever()
"""
PLACES = ("client", *ADDRESSES)


@pytest.mark.parametrize(("client_ip", "port"), [("keep", 8097), ("snat", 8098)])
def test_six_of_six_connections_survive_what_resembles_them(mesh: Cluster, client_ip: str, port: int) -> None:
    """Three of another machine, three of the nodes' own processes, by way of every node."""
    options = ("--label", "routemesh.health.tcp", "--label", f"routemesh.client-ip={client_ip}")
    with mesh.service("held", "-p", f"{port}:80", *options, command=("python3", "-c", ECHO)), ExitStack() as opened:
        (task,) = mesh.serving("held")
        ways = [(place, address) for node, address in ADDRESSES.items() for place in ("client", node)]
        held = [opened.enter_context(mesh.connect(address, port, place)) for place, address in ways]
        assert _surviving(held) == 6
        at = {connection.getsockname()[1]: strays.numbers(connection) for connection in held}
        for node in mesh.api.nodes():
            sandbox = IPv4Address(str(node.ingress_address))
            assert strays.at_every_hop(mesh, port, node.name, task, sandbox, at) == 10, node.name
        assert _surviving(held) == 6


def _surviving(connections: Sequence[socket.socket]) -> int:
    """How many carry a word there and back."""
    found = 0
    for number, connection in enumerate(connections):
        said = f"word {number}".encode()
        try:
            connection.sendall(said)
            found += connection.recv(64) == said
        except OSError:
            continue
    return found
