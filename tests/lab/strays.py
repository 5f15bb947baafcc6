"""Packets that resemble a connection's and are none of it, put on the wire before each hop of the mesh.

Source: RFC 9293 (TCP), RFC 792 (ICMP), RFC 1071 (the checksum), packet(7), raw(7).
"""

import socket
import struct
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

from routemesh import names
from routemesh.kernel.netlink import conntrack
from routemesh.model import Protocol
from routemesh.snapshot import Connections, ConntrackEntry, Flow
from tests.lab.cluster import CLIENT, Cluster

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
FLAGS = (PSH | ACK, RST, RST | ACK, FIN | ACK, SYN | ACK, ACK, FIN, FIN | PSH | URG, SYN | FIN, 0)
"""Those of a stray segment, senseless ones too. (A lone SYN is none: connection tracking lets the end judge it.)"""
AWAY = (-(1 << 30), 1 << 30, -(1 << 20), 1 << 28)
"""How far a stray's sequence number is from the one that the other end expects: farther than its window."""

_IPV4 = 0x0800
_TCP, _ICMP = 6, 1
_UNREACHABLE, _PORT = 3, 3
_BRIDGE, _GATEWAY = IPv4Address("172.18.0.1"), IPv4Address("172.18.0.2")
_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQUENCE = 19, 20, 21
_REPAIR_OFF_SILENTLY, _RECEIVED, _SENT = -1, 1, 2
"""Source: include/uapi/linux/tcp.h."""


class Numbers(NamedTuple):
    """Which octets a connection's two ends expect next: of what the client sends, and of what it is sent."""

    sent: int
    received: int

    def reversed(self) -> "Numbers":
        """The same as the other end would say."""
        return Numbers(self.received, self.sent)


def numbers(connection: socket.socket) -> Numbers:
    """Those of a connection that rests. Root alone may ask."""
    connection.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
    try:
        found = []
        for queue in (_SENT, _RECEIVED):
            connection.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
            found.append(connection.getsockopt(socket.IPPROTO_TCP, _QUEUE_SEQUENCE) & 0xFFFFFFFF)
    finally:
        connection.setsockopt(socket.IPPROTO_TCP, _REPAIR, _REPAIR_OFF_SILENTLY)
    return Numbers(*found)


def entries(mesh: Cluster, place: str, port: int) -> tuple[ConntrackEntry, ...]:
    """The TCP connections to a port that a namespace tracks."""
    return mesh.at(place, lambda: tuple(conntrack.entries(Connections(ports={(Protocol.TCP, port)}))))


def segments(flow: Flow, at: Numbers) -> Iterator[bytes]:
    """IP packets with the ends of `flow` that are none of its connection's: segments out of window, an error about nothing.

    What they acknowledge is right: an answer to them, a reset, is believed.
    """
    for away in AWAY:
        for flags in FLAGS:
            yield _ip(_TCP, flow, _segment(flow, (at.sent + away) % (1 << 32), at.received, flags, b"stray"))
    other = flow._replace(source=flow.source._replace(port=flow.source.port ^ 1))
    about = _ip(_TCP, other.reversed(), _segment(other.reversed(), 1, 1, ACK))[:28]
    yield _ip(_ICMP, flow, _checked(struct.pack(">BBHI", _UNREACHABLE, _PORT, 0, 0) + about, 2))


def by_wire(mesh: Cluster, place: str, packets: Iterator[bytes], device: str, source: str, destination: str) -> None:
    """Send packets as frames by a device of a namespace: no rule and no connection tracking there sees them leave."""
    header = bytes.fromhex((destination + source).replace(":", "")) + struct.pack(">H", _IPV4)

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind((device, _IPV4))
            for packet in packets:
                wire.send(header + packet)

    mesh.at(place, send)


def by_stack(mesh: Cluster, place: str, packets: Iterator[bytes], to: IPv4Address) -> None:
    """Send packets of a namespace's own, headers and all."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for packet in packets:
                raw.sendto(packet, (str(to), 0))

    mesh.at(place, send)


def at_every_hop(
    mesh: Cluster, port: int, node: str, task: dict[str, str], sandbox: IPv4Address, at: Mapping[int, Numbers]
) -> int:
    """Strays of every connection to `port` by way of a node, before each hop and in both directions; how many flows that were.

    `sandbox`: the overlay address of the node's sandbox. `at`: by the client's port.
    """
    bridge, gateway = names.mac(_BRIDGE), names.mac(_GATEWAY)
    container, task_mac = f"{task['node']}/{task['container']}", names.mac(IPv4Address(task["address"]))
    here = f"{node}/ingress_sbox"
    done = 0
    for entry in (entry for entry in entries(mesh, node, port) if entry.original.source.port in at):
        there = at[entry.original.source.port]
        sender = "client" if entry.original.source.address == IPv4Address(CLIENT) else node
        by_stack(mesh, sender, segments(entry.original, there), entry.original.destination.address)
        by_wire(mesh, here, segments(entry.reply, there.reversed()), names.GWBRIDGE_LINK, gateway, bridge)
        done += 2
    for entry in (entry for entry in entries(mesh, here, port) if entry.original.source.port in at):
        there = at[entry.original.source.port]
        onward = entry.reply.reversed()
        by_wire(mesh, node, segments(entry.original, there), names.GWBRIDGE, bridge, gateway)
        by_wire(mesh, container, segments(entry.reply, there.reversed()), names.OVERLAY_LINK, task_mac, names.mac(sandbox))
        by_wire(mesh, here, segments(onward, there), names.OVERLAY_LINK, names.mac(sandbox), task_mac)
        done += 3
    return done


def _segment(flow: Flow, sequence: int, acknowledged: int, flags: int, data: bytes = b"") -> bytes:
    """A TCP segment with a right checksum."""
    ports = flow.source.port, flow.destination.port
    segment = struct.pack(">HHIIBBHHH", *ports, sequence, acknowledged, 5 << 4, flags, 512, 0, 0) + data
    pseudo = flow.source.address.packed + flow.destination.address.packed + struct.pack(">HH", _TCP, len(segment))
    return segment[:16] + _sum(pseudo + segment) + segment[18:]


def _ip(protocol: int, flow: Flow, payload: bytes) -> bytes:
    ends = flow.source.address.packed + flow.destination.address.packed
    return _checked(struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + ends, 10) + payload


def _checked(header: bytes, at: int) -> bytes:
    return header[:at] + _sum(header) + header[at + 2 :]


def _sum(data: bytes) -> bytes:
    words = struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)
