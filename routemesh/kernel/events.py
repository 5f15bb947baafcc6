"""What the kernel tells of itself: notifications from all namespaces of ours, and a thread that waits for them.

One socket in the node's own namespace hears of every namespace which that one has a number for (NETLINK_LISTEN_ALL_NSID).
Source: netlink(7), socket(7), proc_pid_mounts(5), include/uapi/linux/{rtnetlink,netfilter/nf_tables}.h.
"""

import ctypes
import logging
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from errno import ENOBUFS
from typing import NamedTuple

from routemesh.kernel.netlink import BUFFER_BYTES, SOL_NETLINK, Reply, parse, replies
from routemesh.kernel.netlink.netfilter import HEADER_BYTES, NETFILTER
from routemesh.kernel.netlink.numbers.nf_tables import NftaGeneration, NftMessage

_log = logging.getLogger(__name__)

_ADD_MEMBERSHIP, _LISTEN_ALL_NSID = 1, 8
_SO_RCVBUFFORCE, _SO_ATTACH_FILTER = 33, 26
_ROUTE_GROUPS = (1, 3, 5, 7, 8, 24)  # LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV4_NETCONF
NEW_SETTING = 80
"""RTM_NEWNETCONF: forwarding or rp_filter of a namespace or a link has changed; other sysctls are changed in silence."""
ANNOUNCED_SETTINGS = ("ip_forward", "forwarding", "rp_filter")
"""By the last part of their paths, those of ours that it tells of."""
_NFTABLES_GROUP = 7
_ROUTE_BUFFER_BYTES = 8 << 20
"""Holds what a bulk of some thousand operations causes."""
_NSID = struct.Struct("=i")

GLANCE_S = 1.0
PAUSE_S = 1.0
"""After a look that failed: what it could not read is still there to be read, so the next look comes at once."""

_ONLY_NEW_GENERATION = (
    (0x28, 0, 0, 4),  # ldh [4]: the message type, read as big-endian
    (0x15, 0, 1, socket.htons(NftMessage.NEW_GENERATION)),
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)
"""Classic BPF: of a transaction's messages, one per object, only the last reaches us."""


class Event(NamedTuple):
    """A notification, and the number of the namespace that it comes from; None for the node's own."""

    nsid: int | None
    message: Reply


class Pending(NamedTuple):
    """What came since the last look; `lost` when there was more than the socket could hold."""

    events: tuple[Event, ...]
    lost: bool


class EventSocket:
    """A socket in the calling thread's namespace that has joined multicast groups of a netlink protocol."""

    def __init__(self, protocol: int, groups: Sequence[int]) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, _LISTEN_ALL_NSID, 1)
        if protocol == socket.NETLINK_ROUTE:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROUTE_BUFFER_BYTES)
        else:
            attach_filter(self._socket, _ONLY_NEW_GENERATION)
        for group in groups:
            self._socket.setsockopt(SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        """The file descriptor to wait on."""
        return self._socket.fileno()

    def pending(self) -> Pending:
        """All notifications that wait, without waiting for more."""
        events: list[Event] = []
        lost = False
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(BUFFER_BYTES, socket.CMSG_SPACE(_NSID.size))
            except BlockingIOError:
                return Pending(tuple(events), lost)
            except OSError as refusal:
                if refusal.errno != ENOBUFS:
                    raise
                lost = True
                continue
            nsid = _NSID.unpack(ancillary[0][2])[0] if ancillary else None
            events += (Event(nsid, message) for message in replies(data))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def route_events() -> EventSocket:
    """Links, neighbours and FDB, IPv4 addresses, routes, rules and settings."""
    return EventSocket(socket.NETLINK_ROUTE, _ROUTE_GROUPS)


def nftables_events() -> EventSocket:
    """One event per nftables transaction."""
    return EventSocket(NETFILTER, [_NFTABLES_GROUP])


def transaction_is_ours(message: Reply, writes: Callable[[int], bool]) -> bool:
    """Whether we made an nftables transaction, as far as can be told; `writes` knows the ids of our threads and processes.

    The kernel names the thread by its id in the outermost pid namespace and the socket by its port, which is the process id as
    long as that is free: one of the two fits.
    """
    thread = parse(message.body, HEADER_BYTES).get(NftaGeneration.THREAD, b"")
    return message.port == os.getpid() or writes(message.port) or writes(int.from_bytes(thread, "big"))


class Watcher:
    """A thread that calls `on_change` when a source, looked at, has news. A source: file descriptor, epoll events, the look.

    `glance` is a look at what has no events, every GLANCE_S.
    """

    def __init__(
        self,
        sources: Sequence[tuple[int, int, Callable[[], bool]]],
        on_change: Callable[[], None],
        glance: Callable[[], bool] = lambda: False,
    ) -> None:
        self._on_change = on_change
        self._glance = glance
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._stop, select.EPOLLIN)
        self._looks: Mapping[int, Callable[[], bool]] = {file: look for file, _, look in sources}
        for file, mask, _ in sources:
            self._epoll.register(file, mask)
        self._thread = threading.Thread(target=self._run, name="routemesh-events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, also from within `on_change`."""
        os.eventfd_write(self._stop, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            due = time.monotonic() + GLANCE_S
            while True:
                ready = [file for file, _ in self._epoll.poll(max(0.0, due - time.monotonic()))]
                if self._stop in ready:
                    return
                looks = [self._looks[file] for file in ready]
                if time.monotonic() >= due:
                    looks.append(self._glance)
                    due = time.monotonic() + GLANCE_S
                self._look(looks)
        finally:
            self._epoll.close()
            os.close(self._stop)

    def _look(self, looks: Sequence[Callable[[], bool]]) -> None:
        """Whatever goes wrong, the watch goes on, after a pause; the next pass meets the error, too, where it can be reported."""
        try:
            changed = any([look() for look in looks])
        except Exception:
            _log.exception("watching the kernel failed")
            changed = True
            self._pause()
        if changed:
            self._on_change()

    def _pause(self) -> None:
        stop = select.poll()  # select(2) takes no descriptor above 1023
        stop.register(self._stop, select.POLLIN)
        stop.poll(PAUSE_S * 1000)


def attach_filter(on: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    """Pass on to the socket only what a program of classic BPF (code, jump if so, jump if not, operand) lets through."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    on.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(buffer)))
