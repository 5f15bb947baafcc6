"""Many clients: addresses of a network behind the lab's client machine, to which the nodes know the way."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network

from tests.lab.cluster import ADDRESSES, CLIENT, Cluster, answer_s, parse

NETWORK = IPv4Network("198.18.0.0/20")
"""Set aside for measurements by RFC 2544."""


@contextmanager
def crowd(cluster: Cluster) -> Iterator[None]:
    """The client machine has every address of NETWORK."""
    ways = {"client": ("local", str(NETWORK), "dev", "lo")} | {node: (str(NETWORK), "via", CLIENT) for node in ADDRESSES}
    with ExitStack() as undo:
        for place, way in ways.items():
            cluster.inside(place, "ip", "route", "add", *way)
            undo.callback(cluster.inside, place, "ip", "route", "del", *way)
        yield


def clients(count: int) -> list[IPv4Address]:
    """So many of the crowd, spread over its network."""
    step = NETWORK.num_addresses // count
    return [NETWORK[1 + number * step] for number in range(count)]


def ask_as(cluster: Cluster, who: Sequence[IPv4Address], address: str, port: int) -> dict[IPv4Address, str]:
    """Which task answers each of these clients, over a connection of its own; the task must see that client."""

    def ask() -> dict[IPv4Address, str]:
        return {client: _ask(client, address, port) for client in who}

    return cluster.at("client", ask)


def connect_as(cluster: Cluster, client: IPv4Address, address: str, port: int) -> socket.socket:
    """A connection that a test keeps."""
    return cluster.at("client", lambda: socket.create_connection((address, port), answer_s(), (str(client), 0)))


def name_over(connection: socket.socket) -> str:
    """Which task answers over a connection that stays open."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
    return parse(connection.recv(65536).decode()).hostname


def _ask(client: IPv4Address, address: str, port: int) -> str:
    with socket.create_connection((address, port), answer_s(), (str(client), 0)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        answer = parse(b"".join(iter(lambda: connection.recv(65536), b"")).decode())
    assert answer.peer == str(client)
    return answer.hostname
