"""Which server a proxy's consistent hash leads to, computed as HAProxy and nginx do. PURE.

Sources: HAProxy's lb_chash.c, hash.c and tools.h (`hash-type consistent sdbm avalanche`, servers of weight 1); nginx's
ngx_http_upstream_hash_module.c (`hash … consistent`).
"""

from bisect import bisect_left
from collections.abc import Sequence
from ipaddress import IPv4Address
from zlib import crc32

_32_BITS = 0xFFFFFFFF
_HAPROXY_PLACES, _HAPROXY_RANGE = 16, 4096
"""How many places on the ring a server has; how far the numbers of two servers' places are apart."""
_NGINX_PLACES = 160


def haproxy(numbers: Sequence[int], key: bytes | IPv4Address) -> int:
    """The `id` of the server that gets a header's value, or a client's address (`balance source`); `numbers`: all of them."""
    place = _avalanche(int(key) if isinstance(key, IPv4Address) else _sdbm(key))
    ring = sorted((_avalanche(number * _HAPROXY_RANGE + turn), number) for number in numbers for turn in range(_HAPROXY_PLACES))
    next_ = bisect_left(ring, (place, 0)) % len(ring)
    (after, then), (before, earlier) = ring[next_], ring[next_ - 1]
    return earlier if (place - before) & _32_BITS <= (after - place) & _32_BITS else then


def nginx(servers: Sequence[tuple[IPv4Address, int]], key: str) -> int:
    """The index of the server (address, port) that gets a key."""
    ring: dict[int, int] = {}
    for index, (address, port) in enumerate(servers):
        start, place = crc32(f"{address}\0{port}".encode()), 0
        for _ in range(_NGINX_PLACES):
            place = crc32(place.to_bytes(4, "little"), start)
            ring.setdefault(place, index)
    places = sorted(ring)
    return ring[places[bisect_left(places, crc32(key.encode())) % len(places)]]


def _sdbm(text: bytes) -> int:
    value = 0
    for byte in text:
        value = (byte + (value << 6) + (value << 16) - value) & _32_BITS
    return value


def _avalanche(value: int) -> int:
    """Bob Jenkins' integer hash, times a prime: HAProxy's full_hash."""
    value = (value + 0x7ED55D16 + (value << 12)) & _32_BITS
    value = (value ^ 0xC761C23C ^ (value >> 19)) & _32_BITS
    value = (value + 0x165667B1 + (value << 5)) & _32_BITS
    value = ((value + 0xD3A2646C) ^ (value << 9)) & _32_BITS
    value = (value + 0xFD7046C5 + (value << 3)) & _32_BITS
    value = (value ^ 0xB55A4F09 ^ (value >> 16)) & _32_BITS
    return value * 3221225473 & _32_BITS
