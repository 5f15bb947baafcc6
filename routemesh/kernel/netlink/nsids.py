"""The numbers (nsid) by which one network namespace knows others.

Source: the kernel's net/core/net_namespace.c (RTM_GETNSID, RTM_NEWNSID).
"""

from errno import EEXIST

from routemesh.kernel.netlink import Message, Requests, as_u32, attribute, parse, u32
from routemesh.kernel.netlink.numbers.rtnetlink import Nsid

UNKNOWN = 0xFFFFFFFF
_NEW_NSID, _GET_NSID = 88, 90
_ANY_NUMBER = b"\xff\xff\xff\xff"
_HEADER = bytes(4)


def known(requests: Requests, file: int) -> int:
    """By which number the namespace of `requests` knows the one that `file` is of, UNKNOWN if by none. Raises OSError."""
    (reply,) = requests.ask(Message(_GET_NSID, 0, _of(file)))
    return as_u32(parse(reply.body, len(_HEADER)).get(Nsid.NSID, _ANY_NUMBER))


def given(requests: Requests, file: int) -> int:
    """The same; a number is given to one that had none. Raises OSError."""
    (refusal,) = requests.execute([Message(_NEW_NSID, 0, _of(file) + attribute(Nsid.NSID, _ANY_NUMBER))])
    if refusal is not None and refusal.errno != EEXIST:
        raise refusal
    return known(requests, file)


def _of(file: int) -> bytes:
    return _HEADER + u32(Nsid.FILE, file)
