"""Bob Jenkins' hash as the kernel computes it for an nftables rule. PURE.

Source: include/linux/jhash.h, net/netfilter/nft_hash.c (nft_jhash_eval), include/linux/math.h (reciprocal_scale).
"""

_U32 = 0xFFFFFFFF
_INITIAL = 0xDEADBEEF
_BLOCK_BYTES = 12


def index(data: bytes, modulus: int, seed: int) -> int:
    """What `jhash DATA mod MODULUS seed SEED` is, for `data` as it stands in the packet."""
    return (_jhash(data, seed) * modulus) >> 32


def _jhash(data: bytes, seed: int) -> int:
    a = b = c = (_INITIAL + len(data) + seed) & _U32
    while len(data) > _BLOCK_BYTES:
        a, b, c = _mixed(*_added(a, b, c, data[:_BLOCK_BYTES]))
        data = data[_BLOCK_BYTES:]
    return _final(*_added(a, b, c, data)) if data else c


def _added(a: int, b: int, c: int, block: bytes) -> tuple[int, int, int]:
    words = [int.from_bytes(block[start : start + 4], "little") for start in (0, 4, 8)]
    return (a + words[0]) & _U32, (b + words[1]) & _U32, (c + words[2]) & _U32


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = ((a - c) & _U32) ^ _rotated(c, 4)
    c = (c + b) & _U32
    b = ((b - a) & _U32) ^ _rotated(a, 6)
    a = (a + c) & _U32
    c = ((c - b) & _U32) ^ _rotated(b, 8)
    b = (b + a) & _U32
    a = ((a - c) & _U32) ^ _rotated(c, 16)
    c = (c + b) & _U32
    b = ((b - a) & _U32) ^ _rotated(a, 19)
    a = (a + c) & _U32
    c = ((c - b) & _U32) ^ _rotated(b, 4)
    return a, (b + a) & _U32, c


def _final(a: int, b: int, c: int) -> int:
    for by in ((14, 11, 25), (16, 4, 14)):
        c = ((c ^ b) - _rotated(b, by[0])) & _U32
        a = ((a ^ c) - _rotated(c, by[1])) & _U32
        b = ((b ^ a) - _rotated(a, by[2])) & _U32
    return ((c ^ b) - _rotated(b, 24)) & _U32


def _rotated(word: int, by: int) -> int:
    return ((word << by) | (word >> (32 - by))) & _U32
