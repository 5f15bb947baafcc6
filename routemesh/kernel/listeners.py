"""Who listens on the ports of a network namespace, as `ss -lntup` shows it. Call in a thread that is in that namespace.

Made to be called every second: sockets come straight from the kernel (0.1 ms, and none but the listening ones are looked at),
and /proc is searched for a socket's process only once. A socket that no process has is the kernel's own (a VXLAN tunnel's).
Source: sock_diag(7), include/uapi/linux/inet_diag.h; proc(5) /proc/pid/fd.
"""

import os
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import closing, suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from routemesh.coprocess import client as coprocess
from routemesh.errors import KernelError
from routemesh.kernel.netlink import Requests, parse, reader
from routemesh.kernel.netlink.netfilter import SOCK_DIAG
from routemesh.legible import decoded
from routemesh.model import Listener, Protocol
from routemesh.snapshot import ANY_ADDRESS

_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBBI48x")
_ANSWER = struct.Struct("=4x2s2x16s32xII4xI")
"""Port, address, of a listening socket how many wait to be accepted and how many may, inode of a struct inet_diag_msg."""
_ANSWER_BYTES = 72
_V6_ONLY = 11

_IPV4, _IPV6 = 2, 10
_NO_ADDRESS = bytes(16)
_WAITING = ((Protocol.TCP, 6, 1 << 10), (Protocol.UDP, 17, 1 << 7))
"""Protocol, its number, and the state (a bit) of a socket that waits for anybody: TCP_LISTEN, for UDP TCP_CLOSE."""

_MAPPED = bytes(10) + b"\xff\xff"
_SOCKET_LINK = "socket:["


class Waiting(NamedTuple):
    """A socket that waits for anybody, and the number by which its process can be found.

    `queued` and `backlog` as in snapshot.Socket. `only_ipv6`: the address of one that IPv4 does not reach, "" for others.
    """

    protocol: Protocol
    address: IPv4Address
    port: int
    inode: int
    queued: int = 0
    backlog: int = 0
    only_ipv6: str = ""


class Process(NamedTuple):
    """A process; of a socket that none is seen to have, pid 0 and no name."""

    pid: int
    name: str


_NOBODY = Process(0, "")
_KNOWN_S = 60.0
"""The number of a socket that is gone is another's after four thousand million more."""


class Processes:
    """Sockets' processes, remembered while the sockets are asked about: all that a machine has are searched for an unknown one.

    For several threads: who asks meanwhile waits, and finds what was found.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Process, float]] = {}
        self._turn = threading.Lock()

    def of(self, inodes: Set[int]) -> Mapping[int, Process]:
        """By inode; of several that have a socket this one, else any."""
        with self._turn:
            now = time.monotonic()
            if unseen := inodes - self._known.keys():
                found = dict.fromkeys(unseen, _NOBODY) | _search(unseen)
                self._known |= {inode: (process, now) for inode, process in found.items()}
            asked = {inode: self._known[inode][0] for inode in inodes}
            self._known |= {inode: (process, now) for inode, process in asked.items()}
            self._known = {inode: known for inode, known in self._known.items() if now - known[1] < _KNOWN_S}
        return asked


PROCESSES = Processes()
"""One for all who ask: the daemon's loops, the doctor's two looks, those who explain."""


def listeners() -> tuple[Listener, ...]:
    """TCP and UDP ports on which others than this process and its coprocesses wait, sorted. Raises KernelError."""
    try:
        found = [socket for socket in sockets() if not socket.only_ipv6]
    except OSError as exc:
        raise KernelError("ss -lntup", str(exc.strerror), exc.errno or 0) from exc
    processes = PROCESSES.of({socket.inode for socket in found})
    owners = ((socket, processes[socket.inode]) for socket in found)
    seen = {(socket.protocol, socket.port, process.name) for socket, process in owners if not _is_ours(process.pid)}
    return tuple(Listener(protocol=protocol, port=port, process=name) for protocol, port, name in sorted(seen))


def sockets() -> list[Waiting]:
    """The sockets that wait for anybody, those of IPv6 too. Raises OSError."""
    with closing(Requests(protocol=SOCK_DIAG)) as requests:
        return list(_sockets(requests))


def _sockets(requests: Requests) -> Iterator[Waiting]:
    for family in (_IPV4, _IPV6):
        for protocol, number, state in _WAITING:
            for reply in requests.dump(_BY_FAMILY, _REQUEST.pack(family, number, 0, 0, state)):
                yield _waiting(protocol, family, reply.body)


@reader
def _waiting(protocol: Protocol, family: int, answer: bytes) -> Waiting:
    port, raw, queued, backlog, inode = _ANSWER.unpack_from(answer)
    address = _ipv4(raw[:4] if family == _IPV4 else raw, answer)
    if protocol is Protocol.UDP:
        queued = backlog = 0  # bytes, there
    alone = "" if address is not None else str(IPv6Address(raw))
    return Waiting(protocol, address or ANY_ADDRESS, int.from_bytes(port, "big"), inode, queued, backlog, alone)


_CONNECTED = struct.Struct("=4x2s2s60xI")
"""Own port, the other's, inode of a struct inet_diag_msg."""
_ESTABLISHED = 1 << 1
_TCP = 6


def unaccepted() -> set[tuple[int, int]]:
    """TCP connections that the kernel has made and no process has accepted: own port and the client's. Raises OSError.

    Such a connection belongs to no file yet (inode 0). Source: net/ipv4/inet_diag.c, tcp_diag_dump.
    """
    found: set[tuple[int, int]] = set()
    with closing(Requests(protocol=SOCK_DIAG)) as requests:
        for family in (_IPV4, _IPV6):
            for reply in requests.dump(_BY_FAMILY, _REQUEST.pack(family, _TCP, 0, 0, _ESTABLISHED)):
                own, client, inode = _CONNECTED.unpack_from(reply.body)
                if inode == 0:
                    found.add((int.from_bytes(own, "big"), int.from_bytes(client, "big")))
    return found


def _ipv4(raw: bytes, answer: bytes) -> IPv4Address | None:
    if len(raw) == 4:
        return IPv4Address(raw)
    if raw.startswith(_MAPPED):
        return IPv4Address(raw[-4:])
    alone = parse(answer, _ANSWER_BYTES).get(_V6_ONLY, b"\0") != b"\0"
    return ANY_ADDRESS if raw == _NO_ADDRESS and not alone else None


def _is_ours(pid: int) -> bool:
    return pid == os.getpid() or coprocess.lives(pid)


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by a signal or a debugger; no for one that has ended, or is not known (0)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[:1] in ([b"T"], [b"t"])


def _search(inodes: Set[int]) -> dict[int, Process]:
    """A coprocess is looked at only for what nobody else has: one of them has a socket for every published port."""
    processes = list(map(int, filter(str.isdigit, os.listdir("/proc"))))
    found: dict[int, Process] = {}
    for process in (*(each for each in processes if not coprocess.lives(each)), os.getpid()):
        found |= _of(process, inodes)
    for process in filter(coprocess.lives, processes):
        if not inodes <= found.keys():
            found |= _of(process, inodes)
    return found


def _of(process: int, inodes: Set[int]) -> dict[int, Process]:
    with suppress(OSError):  # it has ended meanwhile
        if mine := _open_sockets(process) & inodes:
            name = decoded(Path(f"/proc/{process}/comm").read_bytes().removesuffix(b"\n"))
            return dict.fromkeys(mine, Process(process, name))
    return {}


def _open_sockets(process: int) -> set[int]:
    links = []
    for descriptor in os.listdir(f"/proc/{process}/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/{process}/fd/{descriptor}"))
    return {int(link[len(_SOCKET_LINK) : -1]) for link in links if link.startswith(_SOCKET_LINK)}
