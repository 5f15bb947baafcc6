"""Real packets through the tunnel: from this node's sandbox to those of other nodes, small and as large as may be, never cut.

They are ICMP echo requests, which the other sandbox's kernel answers whether or not anybody probes there; a node that probes at
the same time also hears the requests of the others, which tells in which direction packets get lost. Call in a thread that is in
the sandbox.

Source: ip(7) (IP_MTU_DISCOVER), raw(7), icmp(7); RFC 792.
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from errno import EMSGSIZE
from ipaddress import IPv4Address

from routemesh.sightings import SMALL_BYTES, Echoes

WITHIN_S = 1.0
"""How long is waited for answers, where not all come; long enough for nodes that begin a little later."""

_AGAIN_S = 0.1
_MTU_DISCOVER, _NEVER_CUT = 10, 3
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_IP_HEADER_BYTES = 20
_HEADER = struct.Struct("!BBHHH")
_WORDS = b"routemesh doctor "
_LARGEST_BYTES = 65536

Sent = tuple[IPv4Address, int]
"""To whom, and how many bytes."""


def probe(peers: Mapping[str, tuple[IPv4Address, int]], within_s: float = WITHIN_S) -> tuple[Echoes, ...]:
    """Probe the sandboxes of other nodes: name → overlay address, and the bytes that the overlay takes. Raises OSError."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)) as wire:
        wire.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _NEVER_CUT)
        prober = _Prober(wire, {address: (SMALL_BYTES, size) for address, size in peers.values()})
        prober.run(within_s)
    return tuple(
        Echoes(
            peer=name,
            sizes=(SMALL_BYTES, size),
            answered=prober.of(prober.answered, address),
            heard=prober.of(prober.heard, address),
            refused=prober.refused.get(address, ""),
        )
        for name, (address, size) in peers.items()
    )


class _Prober:
    def __init__(self, wire: socket.socket, sizes: Mapping[IPv4Address, tuple[int, ...]]) -> None:
        self._wire = wire
        self._identity = int.from_bytes(os.urandom(2), "big")
        self._waiting: set[Sent] = {(address, size) for address, each in sizes.items() for size in each}
        self._peers = sizes.keys()
        self.answered: set[Sent] = set()
        self.heard: set[Sent] = set()
        self.refused: dict[IPv4Address, str] = {}

    def of(self, found: set[Sent], address: IPv4Address) -> tuple[int, ...]:
        """The sizes that belong to one address."""
        return tuple(sorted(size for other, size in found if other == address))

    def run(self, within_s: float) -> None:
        """Send what was not answered yet again and again, until all is or the time is over."""
        deadline = time.monotonic() + within_s
        while self._waiting and time.monotonic() < deadline:
            for address, size in sorted(self._waiting):
                self._send(address, size)
            self._listen(min(deadline, time.monotonic() + _AGAIN_S))
        self._hear_what_is_there()

    def _hear_what_is_there(self) -> None:
        """On a busy machine this thread may have slept while the answers came."""
        self._wire.setblocking(False)
        with suppress(OSError):
            while True:
                packet, (source, _) = self._wire.recvfrom(_LARGEST_BYTES)
                self._take(packet, IPv4Address(source))

    def _send(self, address: IPv4Address, size: int) -> None:
        data = (_WORDS * (size // len(_WORDS) + 1))[: size - _IP_HEADER_BYTES - _HEADER.size]
        unsigned = _HEADER.pack(_ECHO_REQUEST, 0, 0, self._identity, size) + data
        header = _HEADER.pack(_ECHO_REQUEST, 0, _checksum(unsigned), self._identity, size)
        try:
            self._wire.sendto(header + data, (str(address), 0))
        except OSError as refusal:
            # ENETUNREACH, EPERM and the like may pass; what is too large stays so.
            self.refused[address] = f"{size} bytes: {refusal.strerror}"
            if refusal.errno == EMSGSIZE:
                self._waiting.discard((address, size))
        else:
            self.refused.pop(address, None)

    def _listen(self, until: float) -> None:
        while self._waiting and (left := until - time.monotonic()) > 0:
            self._wire.settimeout(left)
            try:
                packet, (source, _) = self._wire.recvfrom(_LARGEST_BYTES)
            except OSError:  # also what an ICMP error says of an earlier one
                continue
            self._take(packet, IPv4Address(source))

    def _take(self, packet: bytes, source: IPv4Address) -> None:
        start = (packet[0] & 0xF) * 4
        if (
            len(packet) < start + _HEADER.size
            or source not in self._peers
            or _WORDS[:9] not in packet[start + _HEADER.size :][:9]
        ):
            return
        kind, _, _, identity, size = _HEADER.unpack_from(packet, start)
        if kind == _ECHO_REQUEST and len(packet) == size:
            self.heard.add((source, size))
        elif kind == _ECHO_REPLY and identity == self._identity and len(packet) == size:
            self.answered.add((source, size))
            self._waiting.discard((source, size))


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
