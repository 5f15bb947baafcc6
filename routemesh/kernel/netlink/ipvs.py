"""IPVS in one namespace: services by firewall mark, their destinations and the timeouts, by generic netlink.

Services by address and port are of others: they are neither read nor touched. No events exist, so everything is read at each
look, and a glance at a file tells whether it is time for one. To ask for IPVS's netlink family makes the kernel load ip_vs
(ctrl_getfamily in net/netlink/genetlink.c), hence `is_loaded`.
Source: include/uapi/linux/ip_vs.h, include/uapi/linux/genetlink.h, net/netfilter/ipvs/ip_vs_ctl.c.
"""

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from errno import EEXIST, ENOENT, ESRCH
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal, NamedTuple

from routemesh.kernel.netlink import Attributes, Message, Requests, as_text, as_u32, attribute, nest, parse, reader, text, u32
from routemesh.kernel.netlink.netfilter import GENERIC
from routemesh.kernel.netlink.numbers.ipvs import GenericFamily, IpvsCommand, IpvsDestinationData, IpvsServiceData
from routemesh.nodeplan import Change, Create, Delete, IpvsDestination, IpvsService, IpvsTimeouts, Op, item_of

IpvsItem = IpvsTimeouts | IpvsService | IpvsDestination

SETTINGS = "net/ipv4/vs/"
"""Where its sysctls are, once it is loaded."""

_CONTROLLER, _GET_FAMILY = 16, 3
_HEADER = struct.Struct("=BBH")
_VERSION = 1

_NEW_SERVICE, _SET_SERVICE, _DELETE_SERVICE, _GET_SERVICE = 1, 2, 3, 4
_NEW_DESTINATION, _SET_DESTINATION, _DELETE_DESTINATION, _GET_DESTINATION = 5, 6, 7, 8
_SET_CONFIG, _GET_CONFIG = 12, 13

_SERVICE, _DESTINATION, _TCP_S, _TCP_FIN_S, _UDP_S = (
    IpvsCommand.SERVICE,
    IpvsCommand.DESTINATION,
    IpvsCommand.TCP_S,
    IpvsCommand.TCP_FIN_S,
    IpvsCommand.UDP_S,
)
_FAMILY, _MARK, _SCHEDULER, _FLAGS, _PERSISTENT_S, _NETMASK, _ENGINE = (
    IpvsServiceData.FAMILY,
    IpvsServiceData.MARK,
    IpvsServiceData.SCHEDULER,
    IpvsServiceData.FLAGS,
    IpvsServiceData.PERSISTENT_S,
    IpvsServiceData.NETMASK,
    IpvsServiceData.ENGINE,
)
_ADDRESS, _PORT, _METHOD, _WEIGHT, _UPPER_THRESHOLD, _LOWER_THRESHOLD = (
    IpvsDestinationData.ADDRESS,
    IpvsDestinationData.PORT,
    IpvsDestinationData.METHOD,
    IpvsDestinationData.WEIGHT,
    IpvsDestinationData.UPPER_THRESHOLD,
    IpvsDestinationData.LOWER_THRESHOLD,
)

_IPV4 = struct.pack("=H", 2)
_ADDRESS_BYTES = 16
_ONE_CLIENT = b"\xff\xff\xff\xff"
"""Persistence is by client address: netmask /32."""

_PERSISTENT, _HASHED, _FALLBACK = 0x1, 0x2, 0x8
_OURS = _PERSISTENT | _HASHED | _FALLBACK
_FLAGS_AND_MASK = struct.Struct("=II")

Method = Literal["masq", "route", "tunnel"]
_METHODS: Mapping[Method, int] = {"masq": 0, "tunnel": 2, "route": 3}
_METHOD_NAMES = {number: name for name, number in _METHODS.items()}
_METHOD_MASK = 0x7

_COMMANDS: Mapping[type, tuple[int, int, int]] = {
    IpvsService: (_NEW_SERVICE, _SET_SERVICE, _DELETE_SERVICE),
    IpvsDestination: (_NEW_DESTINATION, _SET_DESTINATION, _DELETE_DESTINATION),
}
"""What creates, changes, deletes."""

_OTHERWISE: Mapping[tuple[int, int], int] = {
    (_NEW_SERVICE, EEXIST): _SET_SERVICE,
    (_SET_SERVICE, ESRCH): _NEW_SERVICE,
    (_NEW_DESTINATION, EEXIST): _SET_DESTINATION,
    (_SET_DESTINATION, ENOENT): _NEW_DESTINATION,
}
"""What is asked next after a refusal: others made or deleted the object meanwhile."""


_LISTING = Path("/proc/thread-self/net/ip_vs")
"""Services and destinations as text: in a moment, but without flags, thresholds and timeouts."""
_COUNTERS = re.compile(r" +\d+ +\d+ *$", re.MULTILINE)


def is_loaded() -> bool:
    """Whether this kernel has IPVS now, without loading anything."""
    return _LISTING.exists()


class _Request(NamedTuple):
    command: int
    attributes: bytes


class Ipvs:
    """IPVS of the namespace that `enter` leads into. The socket is opened when first needed, and kept."""

    def __init__(self, enter: Callable[[], AbstractContextManager[None]]) -> None:
        self._enter = enter
        self._socket: Requests | None = None
        self._family = 0
        self._seen = ""

    def load(self) -> bool:
        """Make the kernel load ip_vs unless it has it; whether it has it now."""
        if not self._family:
            name = text(GenericFamily.NAME, "IPVS")
            try:
                (reply,) = self._requests.ask(Message(_CONTROLLER, 0, _HEADER.pack(_GET_FAMILY, _VERSION, 0) + name))
            except OSError as refusal:
                if refusal.errno == ENOENT:
                    return False
                raise
            (self._family,) = struct.unpack("=H", parse(reply.body, _HEADER.size)[GenericFamily.ID])
        return True

    def read(self) -> Iterator[IpvsItem]:
        """Everything by firewall mark, and the timeouts; nothing where there is no IPVS. Raises OSError."""
        if not self.load():
            return
        self._seen = self._listing()
        try:
            for service in self._services():
                yield service
                yield from self._destinations(service.mark)
            yield self._timeouts()
        except OSError as refusal:
            self._family = 0
            if refusal.errno != ENOENT:  # unloaded meanwhile
                raise

    def carry_out(self, run: Sequence[Op]) -> Iterator[tuple[Op, OSError]]:
        """The operations that are refused, with the refusal. Raises OSError when the kernel does not answer."""
        if not self.load():
            missing = OSError(ENOENT, "this kernel has no ip_vs")
            yield from ((op, missing) for op in run if not isinstance(op, Delete))
            return
        again = []
        for op, request, refusal in self._refused([(op, _request(op)) for op in run if not _stays(op)]):
            other = _OTHERWISE.get((request.command, refusal.errno or 0))
            if other is None:
                yield from _told(op, refusal)
            else:
                again.append((op, _Request(other, request.attributes)))
        for op, _, refusal in self._refused(again):
            yield from _told(op, refusal)
        self._seen = self._listing()

    def has_changed(self) -> bool:
        """Whether it is not as it was when it was read, written or looked at last, as far as its listing tells."""
        before, self._seen = self._seen, self._listing()
        return before != self._seen

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def _listing(self) -> str:
        """Without the numbers of connections."""
        try:
            with self._enter():
                return _COUNTERS.sub("", _LISTING.read_text(errors="replace"))
        except OSError:
            return ""

    @property
    def _requests(self) -> Requests:
        if self._socket is None:
            with self._enter():
                self._socket = Requests(protocol=GENERIC)
        return self._socket

    def _refused(self, sent: Sequence[tuple[Op, _Request]]) -> Iterator[tuple[Op, _Request, OSError]]:
        outcome = self._requests.execute([Message(self._family, 0, _body(*request)) for _, request in sent])
        return ((op, request, refusal) for (op, request), refusal in zip(sent, outcome, strict=True) if refusal is not None)

    def _dump(self, command: int, kind: int, about: bytes = b"") -> Iterator[Attributes]:
        for reply in self._requests.dump(self._family, _body(command, about)):
            yield parse(parse(reply.body, _HEADER.size)[kind])

    def _services(self) -> Iterator[IpvsService]:
        for found in self._dump(_GET_SERVICE, _SERVICE):
            if _MARK in found and found[_FAMILY] == _IPV4:
                yield _service(found)

    def _destinations(self, mark: int) -> Iterator[IpvsDestination]:
        return (_destination(mark, found) for found in self._dump(_GET_DESTINATION, _DESTINATION, nest(_SERVICE, _named(mark))))

    def _timeouts(self) -> IpvsTimeouts:
        (reply,) = self._requests.ask(Message(self._family, 0, _body(_GET_CONFIG)))
        found = parse(reply.body, _HEADER.size)
        tcp_s, tcp_fin_s, udp_s = (as_u32(found[kind]) for kind in (_TCP_S, _TCP_FIN_S, _UDP_S))
        return IpvsTimeouts(tcp_s=tcp_s, tcp_fin_s=tcp_fin_s, udp_s=udp_s)


# --- from the kernel ---------------------------------------------------------------------------------------------


@reader
def _service(found: Attributes) -> IpvsService:
    """With a scheduler that nobody plans where something is set that is not ours, so that it differs from every plan."""
    flags = _FLAGS_AND_MASK.unpack(found[_FLAGS])[0]
    scheduler = as_text(found[_SCHEDULER]) if _SCHEDULER in found else "none"
    if flags & ~_OURS:
        scheduler += f" flags {flags & ~_OURS:#x}"
    if flags & _PERSISTENT and found[_NETMASK] != _ONE_CLIENT:
        scheduler += f" netmask {IPv4Address(found[_NETMASK])}"
    if _ENGINE in found:
        scheduler += f" pe {as_text(found[_ENGINE])}"
    persistent_s = as_u32(found[_PERSISTENT_S]) if flags & _PERSISTENT else 0
    return IpvsService(
        mark=as_u32(found[_MARK]), scheduler=scheduler, persistent_s=persistent_s, fallback=bool(flags & _FALLBACK)
    )


@reader
def _destination(mark: int, found: Attributes) -> IpvsDestination:
    """With a method that nobody plans where it has another, or a limit of connections."""
    method = _METHOD_NAMES.get(as_u32(found[_METHOD]) & _METHOD_MASK)
    limited = as_u32(found[_UPPER_THRESHOLD]) or as_u32(found[_LOWER_THRESHOLD])
    return IpvsDestination(
        mark=mark,
        address=IPv4Address(found[_ADDRESS][:4]),
        port=int.from_bytes(found[_PORT], "big"),
        weight=as_u32(found[_WEIGHT]),
        method="other" if method is None or limited else method,
    )


# --- to the kernel -----------------------------------------------------------------------------------------------


def _stays(op: Op) -> bool:
    """Timeouts that are not wanted any more keep their values, as sysctls do: nobody knows what they were before."""
    return isinstance(op, Delete) and isinstance(op.item, IpvsTimeouts)


def _request(op: Op) -> _Request:
    item = item_of(op)
    if isinstance(item, IpvsTimeouts):
        return _Request(_SET_CONFIG, u32(_TCP_S, item.tcp_s) + u32(_TCP_FIN_S, item.tcp_fin_s) + u32(_UDP_S, item.udp_s))
    create, change, delete = _COMMANDS[type(item)]
    command = create if isinstance(op, Create) else change if isinstance(op, Change) else delete
    if isinstance(item, IpvsService):
        settings = () if command == delete else _settings(item)
        return _Request(command, nest(_SERVICE, _named(item.mark), *settings))
    assert isinstance(item, IpvsDestination)
    how = () if command == delete else _how_reached(item)
    return _Request(command, nest(_SERVICE, _named(item.mark)) + nest(_DESTINATION, *_where(item), *how))


def _named(mark: int) -> bytes:
    return attribute(_FAMILY, _IPV4) + u32(_MARK, mark)


def _settings(service: IpvsService) -> Iterator[bytes]:
    flags = (_PERSISTENT if service.persistent_s else 0) | (_FALLBACK if service.fallback else 0)
    yield text(_SCHEDULER, service.scheduler)
    yield attribute(_FLAGS, _FLAGS_AND_MASK.pack(flags, 0xFFFFFFFF))
    yield u32(_PERSISTENT_S, service.persistent_s)
    yield attribute(_NETMASK, _ONE_CLIENT)


def _where(destination: IpvsDestination) -> Iterator[bytes]:
    yield attribute(_ADDRESS, destination.address.packed.ljust(_ADDRESS_BYTES, b"\0"))
    yield attribute(_PORT, destination.port.to_bytes(2, "big"))


def _how_reached(destination: IpvsDestination) -> Iterator[bytes]:
    assert destination.method != "other", "it is only read"
    yield u32(_METHOD, _METHODS[destination.method])
    yield u32(_WEIGHT, destination.weight)
    yield u32(_UPPER_THRESHOLD, 0)
    yield u32(_LOWER_THRESHOLD, 0)


def _body(command: int, attributes: bytes = b"") -> bytes:
    return _HEADER.pack(command, _VERSION, 0) + attributes


def _told(op: Op, refusal: OSError) -> Iterator[tuple[Op, OSError]]:
    """A refusal in words that help; none of what is gone already."""
    item = item_of(op)
    if isinstance(op, Delete) and refusal.errno in (ENOENT, ESRCH):
        return
    if isinstance(item, IpvsService) and refusal.errno == ENOENT:
        refusal = OSError(ENOENT, f"this kernel has no scheduler {item.scheduler} (module ip_vs_{item.scheduler})")
    elif isinstance(item, IpvsDestination) and refusal.errno == ESRCH:
        refusal = OSError(ESRCH, f"there is no service by mark {item.mark}")
    yield op, refusal
