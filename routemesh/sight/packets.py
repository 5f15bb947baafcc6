"""Packets of one connection on all links of a namespace, as they come in and go out, with the kernel's time of each.

A packet socket sees what comes in before any rule does, and what goes out after all of them. A filter in the kernel passes on
only what may be wanted, also what a VXLAN packet carries and what an ICMP error is about, and of that just the headers.
Source: packet(7), socket(7) (SO_TIMESTAMPNS), bpf(4)'s classic instructions, Linux's filter.txt; RFC 791, 792, 768, 9293, 7348.
"""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

from routemesh.kernel.events import attach_filter
from routemesh.model import VXLAN_PORT
from routemesh.sightings import Headers, How, SeenPacket, Wanted
from routemesh.values import replace

_ALL_PROTOCOLS, _IPV4 = 0x0003, 0x0800
_TIMESTAMP, _RECEIVE_BUFFER_FORCE = 35, 33
_OTHER_HOST, _OUTGOING = 3, 4
_SNAP_BYTES = 128
_BUFFER_BYTES = 4 << 20
_TIME = struct.Struct("=qq")
_NUMBERS = {"tcp": 6, "udp": 17}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_ICMP = 1
_ERRORS = frozenset({3, 11, 12})
_IP_BYTES, _UDP_BYTES, _VXLAN_BYTES, _ETHERNET_BYTES, _ICMP_BYTES = 20, 8, 8, 14, 8
_FLAGS = ((0x02, "syn"), (0x10, "ack"), (0x04, "rst"), (0x01, "fin"), (0x08, "psh"))

# Classic BPF: load (byte, half at a constant or at X), jump where equal or where bits are set, return.
_LOAD_BYTE, _LOAD_HALF, _LOAD_WORD, _LOAD_HALF_X, _LOAD_BYTE_X, _HEADER_TO_X = 0x30, 0x28, 0x20, 0x48, 0x50, 0xB1
_IF_EQUAL, _IF_SET, _RETURN = 0x15, 0x45, 0x06
_PROTOCOL_OF_FRAME = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL
_FRAGMENT_OFFSET = 0x1FFF


class Parsed(NamedTuple):
    """A packet's headers, and which of the connection's packets it is."""

    headers: Headers
    flags: str
    back: bool
    first: bool
    identity: str
    port: int

    def seen(self, namespace: str, device: str, how: How, at: float = 0.0, *, elsewhere: bool = False) -> SeenPacket:
        """It, where it was seen."""
        return SeenPacket(
            namespace=namespace,
            device=device,
            at=at,
            how=how,
            headers=self.headers,
            flags=self.flags,
            back=self.back,
            first=self.first,
            identity=self.identity,
            port=self.port,
            elsewhere=elsewhere,
        )


class PacketSocket:
    """A socket in the calling thread's namespace that sees what is `wanted` on all its links."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        protocol = socket.htons(_ALL_PROTOCOLS)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _RECEIVE_BUFFER_FORCE, _BUFFER_BYTES)
        attach_filter(self._socket, _program(wanted))  # what came before it is sorted out by parse

    def fileno(self) -> int:
        """The file descriptor to wait on."""
        return self._socket.fileno()

    def pending(self, namespace: str) -> Iterator[SeenPacket]:
        """What came since the last look."""
        while True:
            try:
                data, ancillary, _, source = self._socket.recvmsg(_SNAP_BYTES, socket.CMSG_SPACE(_TIME.size))
            except BlockingIOError:
                return
            except UnicodeDecodeError:  # on a link whose name is not UTF-8, which is not ours
                continue
            found = parse(data, self._wanted)
            if found is None:
                continue
            seconds, nanoseconds = _TIME.unpack(ancillary[0][2][: _TIME.size])
            how: How = "out" if source[2] == _OUTGOING else "in"
            at = seconds + nanoseconds / 1e9
            yield found.seen(namespace, source[0], how, at, elsewhere=source[2] == _OTHER_HOST)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


# --- reading a packet ---------------------------------------------------------------------------------------------


def parse(data: bytes, wanted: Wanted) -> Parsed | None:
    """The packet that begins with this IPv4 header; None for one that is not wanted."""
    if len(data) < _IP_BYTES or data[0] >> 4 != 4:
        return None
    start, number = (data[0] & 0xF) * 4, data[9]
    source, destination = IPv4Address(data[12:16]), IPv4Address(data[16:20])
    if number == _ICMP:
        return _error(data[start:], wanted)
    if number not in _NAMES or len(data) < start + 4:
        return None
    source_port, destination_port = struct.unpack_from(">HH", data, start)
    headers = Headers(protocol=_NAMES[number], source=f"{source}:{source_port}", destination=f"{destination}:{destination_port}")
    if number == _NUMBERS["udp"] and destination_port == VXLAN_PORT:
        return _carried(data, start, headers, wanted)
    name = _NAMES[number]
    back = _direction(wanted, (str(source), source_port), (str(destination), destination_port))
    if name != wanted.protocol or back is None:
        return None
    bits, sequence = 0, 0
    if name == "tcp" and len(data) >= start + 14:
        bits, sequence = data[start + 13], struct.unpack_from(">I", data, start + 4)[0]
    flags = " ".join(text for bit, text in _FLAGS if bits & bit)
    first = name == "udp" or flags == ("syn ack" if back else "syn") or (back and "rst" in flags)
    identity = f"{int.from_bytes(data[4:6], 'big'):x}.{sequence:x}.{bits:x}.{int(back)}"
    return Parsed(headers, flags, back, first, identity, destination_port if back else source_port)


def _direction(wanted: Wanted, source: tuple[str, int], destination: tuple[str, int]) -> bool | None:
    """Whether it is an answer; None where it is of another connection."""
    for back, (client, port), (_, asked) in ((False, source, destination), (True, destination, source)):
        known = not wanted.sources or client in wanted.sources
        if asked in wanted.ports and known and wanted.port in (0, port):
            return back
    return None


def _carried(data: bytes, start: int, outer: Headers, wanted: Wanted) -> Parsed | None:
    """A tunnel's packet, which counts as what it carries. Where that is cut off, no more is known of it."""
    vxlan = start + _UDP_BYTES
    vni = int.from_bytes(data[vxlan + 4 : vxlan + 7], "big")
    headers, identity = replace(outer, vni=vni), f"{int.from_bytes(data[4:6], 'big'):x}.{outer.source}.{outer.destination}"
    inner = data[vxlan + _VXLAN_BYTES + _ETHERNET_BYTES :]
    if not inner:
        return Parsed(headers, "", False, False, identity, 0)
    found = parse(inner, wanted)
    return None if found is None else found._replace(headers=headers, identity=identity)


def _error(data: bytes, wanted: Wanted) -> Parsed | None:
    """An ICMP error, which counts as an answer to the packet that it is about; its ends are those of that answer."""
    if len(data) < _ICMP_BYTES or data[0] not in _ERRORS:
        return None
    about = parse(data[_ICMP_BYTES:], wanted)
    if about is None:
        return None
    headers = replace(about.headers, source=about.headers.destination, destination=about.headers.source)
    return about._replace(headers=headers, back=not about.back, first=True, flags="icmp", identity=f"icmp.{about.identity}")


# --- the kernel's filter ------------------------------------------------------------------------------------------

_Line = tuple[str, int, int, str, str]
"""Label, instruction, operand, label to go to if it is so, and if not; "": the next line."""


def _program(wanted: Wanted) -> list[tuple[int, int, int, int]]:
    """IPv4 with one of the ports that matter, at the packet's own, a carried packet's, or a complained-of packet's place."""
    ports = (wanted.port,) if wanted.port else wanted.ports
    lines: list[_Line] = [
        ("", _LOAD_HALF, _PROTOCOL_OF_FRAME, "", ""),
        ("", _IF_EQUAL, _IPV4, "", "no"),
        ("", _LOAD_HALF, 6, "", ""),
        ("", _IF_SET, _FRAGMENT_OFFSET, "no", ""),
        ("", _HEADER_TO_X, 0, "", ""),
        ("", _LOAD_BYTE, 9, "", ""),
        ("", _IF_EQUAL, _ICMP, "icmp", ""),
        ("", _IF_EQUAL, _NUMBERS[wanted.protocol], "own", "tunnel"),
    ]
    lines += _ports("own", 0, ports, "flags" if wanted.protocol == "tcp" and not wanted.port else "yes", "tunnel")
    lines += [("flags", _LOAD_BYTE_X, 13, "", ""), ("", _IF_SET, 0x02, "yes", "no")]
    lines += [
        ("tunnel", _LOAD_BYTE, 9, "", ""),
        ("", _IF_EQUAL, _NUMBERS["udp"], "", "no"),
        ("", _LOAD_HALF_X, 2, "", ""),
        ("", _IF_EQUAL, VXLAN_PORT, "", "no"),
    ]
    inside = _UDP_BYTES + _VXLAN_BYTES + _ETHERNET_BYTES
    lines += [
        ("", _LOAD_BYTE_X, inside + 9, "", ""),
        ("", _IF_EQUAL, _ICMP, "yes", ""),
        ("", _IF_EQUAL, _NUMBERS[wanted.protocol], "", "no"),
    ]
    lines += _ports("", inside + _IP_BYTES, ports, "yes", "no")
    lines += _ports("icmp", _ICMP_BYTES + _IP_BYTES, ports, "yes", "no")
    lines += [("no", _RETURN, 0, "", ""), ("yes", _RETURN, _SNAP_BYTES, "", "")]
    return _assembled(lines)


def _ports(label: str, offset: int, ports: tuple[int, ...], found: str, otherwise: str) -> list[_Line]:
    """Go to `found` if the port at X + offset or the one after it is one of these."""
    lines: list[_Line] = []
    for at in (offset, offset + 2):
        lines.append((label if at == offset else "", _LOAD_HALF_X, at, "", ""))
        lines += [("", _IF_EQUAL, port, found, "") for port in ports]
    code, operand = lines[-1][1:3]
    lines[-1] = ("", code, operand, found, otherwise)
    return lines


def _assembled(lines: list[_Line]) -> list[tuple[int, int, int, int]]:
    places = {label: number for number, (label, *_) in enumerate(lines) if label}
    program = []
    for number, (_, code, operand, yes, no) in enumerate(lines):
        jumps = [places[to] - number - 1 if to else 0 for to in (yes, no)]
        program.append((code, jumps[0], jumps[1], operand))
    return program
