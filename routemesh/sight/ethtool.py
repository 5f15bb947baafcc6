"""Which driver a network device has, and whether it writes checksums: as `ethtool -i` and `ethtool -k` show it.

Source: the kernel's include/uapi/linux/ethtool.h, net/ethtool/ioctl.c; netdevice(7).
"""

import fcntl
import socket
import struct
from array import array
from contextlib import closing

from routemesh.legible import decoded
from routemesh.sightings import Offload

_ETHTOOL = 0x8946
_DRIVER, _CHECKSUMS = 0x3, 0x16
_DRIVER_BYTES, _VALUE_BYTES = 196, 8
_NAME_BYTES = 32
_REQUEST = struct.Struct("16sP")


def offload(link: str) -> Offload | None:
    """Of a device of the namespace that the calling thread is in; None where there is none of that name, or it does not say."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        try:
            driver = _ask(asking, link, _DRIVER, _DRIVER_BYTES)[4 : 4 + _NAME_BYTES]
            on = struct.unpack_from("=I", _ask(asking, link, _CHECKSUMS, _VALUE_BYTES), 4)[0]
        except OSError:
            return None
    return Offload(link=link, driver=decoded(driver.split(b"\0")[0]), checksums=bool(on))


def _ask(asking: socket.socket, link: str, command: int, size: int) -> bytes:
    buffer = array("B", struct.pack("=I", command) + bytes(size - 4))
    fcntl.ioctl(asking, _ETHTOOL, _REQUEST.pack(link.encode(), buffer.buffer_info()[0]))
    return buffer.tobytes()
