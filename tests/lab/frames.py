"""Frames as an attacker makes them, byte by byte, and what arrives of them."""

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address

from routemesh import names
from tests.lab.cluster import Cluster

IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
_EVERY_KIND = 0x0003
BROADCAST = "ff:ff:ff:ff:ff:ff"
HEARD_S = 0.4
"""How long something that is to be dropped is waited for; what passes is there within some milliseconds."""


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ethernet(source: str, destination: str, kind: int, payload: bytes) -> bytes:
    return mac(destination) + mac(source) + struct.pack("!H", kind) + payload


def udp(source: str, destination: str, port: int, payload: bytes, source_port: int = 40000) -> bytes:
    """An IPv4 packet; without a checksum of UDP, which is optional."""
    body = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + body


def arp_reply(sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    """What says that `sender` is at `sender_mac`."""
    ends = mac(sender_mac) + IPv4Address(sender).packed + mac(target_mac) + IPv4Address(target).packed
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, 2) + ends


def router_advertisement(sender_mac: str) -> bytes:
    """An IPv6 packet that offers its sender as default router for half an hour (RFC 4861)."""
    sender, everybody = IPv6Address("fe80::66").packed, IPv6Address("ff02::1").packed
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\x01\x01" + mac(sender_mac)
    covered = sender + everybody + struct.pack("!II", len(body), 58) + body
    body = body[:2] + struct.pack("!H", _checksum(covered)) + body[4:]
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + sender + everybody + body


def mac_of(address: str) -> str:
    """What the mesh gives the endpoint with this address."""
    return names.mac(IPv4Address(address))


def vxlan(vni: int, frame: bytes) -> bytes:
    """The payload of a VXLAN datagram (RFC 7348)."""
    return struct.pack("!II", 0x08000000, vni << 8) + frame


def send(cluster: Cluster, place: str, device: str, *frames: bytes) -> None:
    """Put frames on the wire of a device."""

    def put() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((device, 0))
            for frame in frames:
                raw.send(frame)

    cluster.at(place, put)


@contextmanager
def sniffer(cluster: Cluster, place: str, device: str) -> Iterator[socket.socket]:
    """A socket that gets every frame of a device."""

    def bound() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_KIND))
        raw.bind((device, _EVERY_KIND))
        return raw

    with cluster.at(place, bound) as raw:
        yield raw


@contextmanager
def udp_server(cluster: Cluster, place: str, address: str, port: int) -> Iterator[socket.socket]:
    """A datagram socket, bound in a namespace."""

    def bound() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((address, port))
        return server

    with cluster.at(place, bound) as server:
        yield server


def hears(server: socket.socket, what: bytes, timeout_s: float) -> bool:
    """Whether a socket gets a datagram with this payload in time."""
    server.settimeout(timeout_s)
    try:
        while True:
            if what in server.recv(65536):
                return True
    except TimeoutError:
        return False


def heard_before(sniffer: socket.socket, what: bytes, timeout_s: float) -> list[bytes]:
    """The frames that come before one with this payload, which must come in time."""
    found: list[bytes] = []
    deadline = time.monotonic() + timeout_s
    while not found or what not in found[-1]:
        sniffer.settimeout(max(0.001, deadline - time.monotonic()))
        found.append(sniffer.recv(65536))
    return found[:-1]


def _checksum(head: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
