"""Ending the TCP connections of a namespace that is about to go, so that their other ends hear of it.

Call in a thread that is in the namespace meant. What a process has left to be sent goes on its way without it; with the namespace
it would vanish without a word. Source: sock_diag(7), include/uapi/linux/inet_diag.h; the kernel's tcp_diag_destroy, tcp_abort.
"""

import socket
import struct
from contextlib import closing
from errno import ENOENT, EOPNOTSUPP

from routemesh.errors import KernelError
from routemesh.kernel.netlink import Message, Requests
from routemesh.kernel.netlink.netfilter import SOCK_DIAG

_BY_FAMILY, _DESTROY = 20, 21
_REQUEST = struct.Struct("=BBBBI48s")
"""Family, protocol, extensions, padding, states (a bit each), struct inet_diag_sockid."""
_ID = slice(4, 52)
"""The struct inet_diag_sockid in an answer."""
_NO_ID = bytes(48)
_TCP = 6
_UNTOLD = sum(1 << state for state in (1, 2, 3, 4, 8, 9, 11))
"""States in which the other end waits for more: ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING."""
_ANY_STATE = 0xFFFFFFFF


def unfinished() -> int:
    """How many TCP connections there are whose other end has not been told all. Raises KernelError."""
    try:
        with closing(Requests(protocol=SOCK_DIAG)) as requests:
            return len(_ids(requests))
    except OSError as exc:
        raise KernelError("ss -tn", str(exc.strerror), exc.errno or 0) from exc


def reset() -> int:
    """Reset them; how many. A kernel without CONFIG_INET_DIAG_DESTROY resets none. Raises KernelError."""
    try:
        with closing(Requests(protocol=SOCK_DIAG)) as requests:
            ends = [Message(_DESTROY, 0, _REQUEST.pack(family, _TCP, 0, 0, _ANY_STATE, of)) for family, of in _ids(requests)]
            refusals = requests.execute(ends)
    except OSError as exc:
        raise KernelError("ss -K", str(exc.strerror), exc.errno or 0) from exc
    for refusal in refusals:
        if refusal is not None and refusal.errno not in (ENOENT, EOPNOTSUPP):  # one may end by itself meanwhile
            raise KernelError("ss -K", str(refusal.strerror), refusal.errno or 0)
    return refusals.count(None)


def _ids(requests: Requests) -> list[tuple[int, bytes]]:
    """Family and name of each."""
    return [
        (family, reply.body[_ID])
        for family in (socket.AF_INET, socket.AF_INET6)
        for reply in requests.dump(_BY_FAMILY, _REQUEST.pack(family, _TCP, 0, 0, _UNTOLD, _NO_ID))
    ]
