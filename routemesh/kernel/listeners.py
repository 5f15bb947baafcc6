"""Who listens on the ports of a network namespace, as `ss -lntup` shows it. Call in a thread that is in that namespace.

Made to be called every second: sockets come straight from the kernel (0.1 ms, and none but the listening ones are looked at),
and /proc is searched for a socket's process only once. A socket that no process has is the kernel's own (a VXLAN tunnel's).
Source: sock_diag(7), include/uapi/linux/inet_diag.h; proc(5) /proc/pid/fd.
"""

import os
import struct
from collections.abc import Iterator, Mapping, Set
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from routemesh.errors import KernelError
from routemesh.kernel.netfilter import SOCK_DIAG
from routemesh.kernel.netlink import Requests
from routemesh.model import Listener, Protocol

_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBBI48x")
_ANSWER = struct.Struct("=4x2s2x16s44xI")
"""Port, address, inode of a struct inet_diag_msg."""

_IPV4, _IPV6 = 2, 10
_ANY_ADDRESS = bytes(16)
_WAITING = ((Protocol.TCP, 6, 1 << 10), (Protocol.UDP, 17, 1 << 7))
"""Protocol, its number, and the state (a bit) of a socket that waits for anybody: TCP_LISTEN, for UDP TCP_CLOSE."""

_SOCKET_LINK = "socket:["


class _Socket(NamedTuple):
    protocol: Protocol
    port: int
    inode: int


class _Processes:
    """The names of sockets' processes, remembered for as long as the sockets are seen."""

    def __init__(self) -> None:
        self._names: dict[int, str | None] = {}

    def of(self, inodes: Set[int]) -> Mapping[int, str | None]:
        """By inode: the process's name, "" when there is none to be seen, None for this process itself."""
        self._names = {inode: name for inode, name in self._names.items() if inode in inodes}
        if unseen := inodes - self._names.keys():
            self._names |= dict.fromkeys(unseen, "") | _search(unseen)
        return self._names


_processes = _Processes()


def listeners() -> tuple[Listener, ...]:
    """TCP and UDP ports on which others than this process wait, sorted. Raises KernelError.

    IPv6 sockets count when they are bound to no address, since then they take the port for IPv4, too.
    """
    try:
        with closing(Requests(protocol=SOCK_DIAG)) as requests:
            found = list(_sockets(requests))
    except OSError as exc:
        raise KernelError("ss -lntup", str(exc.strerror), exc.errno or 0) from exc
    names = _processes.of({socket.inode for socket in found})
    seen = {(socket.protocol, socket.port, name) for socket in found if (name := names[socket.inode]) is not None}
    return tuple(Listener(protocol=protocol, port=port, process=name) for protocol, port, name in sorted(seen))


def _sockets(requests: Requests) -> Iterator[_Socket]:
    for family in (_IPV4, _IPV6):
        for protocol, number, state in _WAITING:
            for reply in requests.dump(_BY_FAMILY, _REQUEST.pack(family, number, 0, 0, state)):
                port, address, inode = _ANSWER.unpack_from(reply.body)
                if family == _IPV4 or address == _ANY_ADDRESS:
                    yield _Socket(protocol, int.from_bytes(port, "big"), inode)


def _search(inodes: Set[int]) -> dict[int, str | None]:
    """The processes that have these sockets open; of several this one, else any."""
    found: dict[int, str | None] = {}
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended meanwhile
            for inode in _open_sockets(process) & inodes:
                found[inode] = Path(f"/proc/{process}/comm").read_text().strip()
    return found | dict.fromkeys(_open_sockets("self") & inodes)


def _open_sockets(process: str) -> set[int]:
    links = []
    for descriptor in os.listdir(f"/proc/{process}/fd"):
        with suppress(OSError):
            links.append(os.readlink(f"/proc/{process}/fd/{descriptor}"))
    return {int(link[len(_SOCKET_LINK) : -1]) for link in links if link.startswith(_SOCKET_LINK)}
