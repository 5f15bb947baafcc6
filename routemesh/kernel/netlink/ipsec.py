"""IPsec policies as netlink tells them; those of single sockets are left out.

Source: ip-xfrm(8), include/uapi/linux/xfrm.h (struct xfrm_userpolicy_id, xfrm_userpolicy_info); the kernel's xfrm_user.c.
"""

import socket
import struct
from ipaddress import IPv4Address, IPv4Network

from routemesh.kernel.netlink import Attributes, parse, reader
from routemesh.kernel.netlink.numbers.xfrm import Xfrma
from routemesh.snapshot import IpsecDirection, IpsecPolicy

PROTOCOL = 6
"""NETLINK_XFRM."""
_GET_POLICY = 0x15

_SELECTOR = struct.Struct("=16s16s4s4sHBBB3xiI")
"""Destination, source, destination port and mask, source port and mask, family, prefix lengths, protocol, device, user."""
_ID = struct.Struct("=56sIB3x")
_POLICY = struct.Struct("=64x32xIIBBBB4x")
"""After the selector: limits and use, priority, index, direction, action, flags, share."""
_PORTS = struct.Struct("!HH")
_MARK = struct.Struct("=II")
_DIRECTIONS: tuple[IpsecDirection, ...] = ("in", "out", "fwd")
_BLOCK = 1


def dump() -> tuple[int, bytes]:
    """Message type and body that ask for all policies."""
    return _GET_POLICY, _ID.pack(bytes(_SELECTOR.size), 0, 0)


@reader
def policy(body: bytes) -> IpsecPolicy | None:
    """A policy; None for one of a socket or of IPv6."""
    destination, source, port, source_port, family, to_length, from_length, protocol, _, _ = _SELECTOR.unpack_from(body)
    priority, _, direction, action, _, _ = _POLICY.unpack_from(body, _SELECTOR.size)
    if direction >= len(_DIRECTIONS) or family not in (socket.AF_INET, socket.AF_UNSPEC):
        return None
    found: Attributes = parse(body, _SELECTOR.size + _POLICY.size)
    value, mask = _MARK.unpack(found[Xfrma.MARK]) if Xfrma.MARK in found else (0, 0)
    (to_port, to_mask), (from_port, from_mask) = _PORTS.unpack(port), _PORTS.unpack(source_port)
    return IpsecPolicy(
        direction=_DIRECTIONS[direction],
        source=IPv4Network((IPv4Address(source[:4]), from_length), strict=False),
        destination=IPv4Network((IPv4Address(destination[:4]), to_length), strict=False),
        protocol=protocol,
        port=to_port & to_mask,
        port_mask=to_mask,
        source_port=from_port & from_mask,
        source_port_mask=from_mask,
        mark=value & mask,
        mark_mask=mask,
        priority=priority,
        blocks=action == _BLOCK,
        transforms=bool(found.get(Xfrma.TEMPLATES)),
    )
