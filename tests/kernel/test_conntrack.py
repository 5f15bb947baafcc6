"""Forgetting connections, with real packets: what a client sends next goes where the rules lead it now."""

import errno
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from typing import NoReturn

import pytest

from routemesh.errors import KernelError
from routemesh.kernel.netlink import Requests
from routemesh.kernel.netlink.conntrack import flush_flows, flush_untranslated
from routemesh.model import Protocol
from tests.kernel.private import Private, private_netns

POOL = IPv4Network("10.0.0.0/24")
OLD, NEW, OUTSIDE = IPv4Address("10.0.0.8"), IPv4Address("10.0.0.9"), IPv4Address("10.1.0.8")
FRONT = "172.18.0.2"
PORT = 8080
MANY = 3000


class Network:
    """Addresses on lo, a UDP and a TCP server on each, and a DNAT rule from FRONT:PORT to one of them."""

    def __init__(self, space: Private, stack: ExitStack) -> None:
        self._space = space
        self._stack = stack
        self._udp: dict[socket.socket, IPv4Address] = {}
        for address in (OLD, NEW, OUTSIDE, IPv4Address(FRONT)):
            space.run("ip", "address", "add", f"{address}/32", "dev", "lo")
            self._udp[self.server(socket.SOCK_DGRAM, str(address))] = address
            self.server(socket.SOCK_STREAM, str(address)).listen()

    def server(self, kind: socket.SocketKind, address: str) -> socket.socket:
        made = self._stack.enter_context(socket.socket(socket.AF_INET, kind))
        made.settimeout(5)
        made.bind((address, PORT))
        return made

    def client(self, kind: socket.SocketKind, address: str = FRONT) -> socket.socket:
        made = self._stack.enter_context(socket.socket(socket.AF_INET, kind))
        made.settimeout(5)
        made.connect((address, PORT))
        return made

    def lead_to(self, address: IPv4Address) -> None:
        self._space.nft(
            f"""add table ip test
            add chain ip test out {{ type nat hook output priority -100; }}
            flush chain ip test out
            add rule ip test out ip daddr {FRONT} meta l4proto {{ tcp, udp }} dnat to {address}
            """
        )

    def who_hears(self, client: socket.socket) -> IPv4Address:
        client.send(b"x")
        (heard, *_), _, _ = select.select(self._udp, (), (), 5)
        heard.recv(10)
        return self._udp[heard]


@pytest.fixture
def space() -> Iterator[Private]:
    with private_netns() as made:
        yield made


@pytest.fixture
def network(space: Private) -> Iterator[Network]:
    with ExitStack() as stack, space.enter():
        yield Network(space, stack)


def test_a_client_of_a_task_that_is_gone_moves_to_another(network: Network) -> None:
    network.lead_to(OLD)
    client = network.client(socket.SOCK_DGRAM)
    assert network.who_hears(client) == OLD
    network.lead_to(NEW)
    assert network.who_hears(client) == OLD, "the kernel keeps to its decision, which is why this module exists"
    assert flush_flows(Protocol.UDP, POOL, {OLD}) == 0
    assert network.who_hears(client) == OLD
    assert flush_flows(Protocol.UDP, POOL, {NEW}) == 1
    assert network.who_hears(client) == NEW
    assert flush_flows(Protocol.UDP, POOL, {NEW}) == 0


def test_flows_to_addresses_outside_the_pool_are_left_alone(network: Network) -> None:
    network.lead_to(OUTSIDE)
    client = network.client(socket.SOCK_DGRAM)
    assert network.who_hears(client) == OUTSIDE
    assert flush_flows(Protocol.UDP, POOL, ()) == 0


def test_only_the_protocol_meant_is_flushed(network: Network) -> None:
    network.lead_to(OLD)
    network.client(socket.SOCK_STREAM)
    assert flush_flows(Protocol.UDP, POOL, ()) == 0
    assert flush_flows(Protocol.TCP, POOL, {OLD}) == 0
    assert flush_flows(Protocol.TCP, POOL, ()) == 1


def test_a_client_from_before_the_port_was_published_gets_through(network: Network) -> None:
    network.lead_to(OUTSIDE)
    translated = network.client(socket.SOCK_DGRAM)
    network.who_hears(translated)
    direct = network.client(socket.SOCK_DGRAM, str(NEW))
    assert network.who_hears(direct) == NEW
    assert flush_untranslated(Protocol.UDP, {PORT + 1}) == 0
    assert flush_untranslated(Protocol.TCP, {PORT}) == 0
    assert flush_untranslated(Protocol.UDP, {PORT, PORT + 1}) == 1
    assert flush_flows(Protocol.UDP, IPv4Network("10.0.0.0/8"), ()) == 1, "the translated one is still there"


def test_thousands_of_flows(network: Network) -> None:
    network.lead_to(OLD)
    for port in range(10_000, 10_000 + MANY):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((FRONT, port))
            client.sendto(b"x", (FRONT, PORT))
    assert flush_flows(Protocol.UDP, POOL, ()) == MANY
    assert flush_flows(Protocol.UDP, POOL, ()) == 0


def test_a_refusal_is_a_kernel_error(space: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Requests, "dump", refuse)
    with space.enter(), pytest.raises(KernelError, match="conntrack -L -p udp: Operation not permitted"):
        flush_flows(Protocol.UDP, POOL, ())


def test_an_entry_that_ends_meanwhile_is_not_counted(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    network.lead_to(OLD)
    network.who_hears(network.client(socket.SOCK_DGRAM))
    execute = Requests.execute
    refusals: list[OSError | None] = [OSError(errno.ENOENT, "No such file or directory")]
    monkeypatch.setattr(Requests, "execute", lambda requests, messages: execute(requests, messages) and refusals)
    assert flush_flows(Protocol.UDP, POOL, ()) == 0
    network.who_hears(network.client(socket.SOCK_DGRAM))
    refusals[0] = OSError(errno.EBUSY, "Device or resource busy")
    with pytest.raises(KernelError, match="conntrack -D -p udp: Device or resource busy"):
        flush_flows(Protocol.UDP, POOL, ())
