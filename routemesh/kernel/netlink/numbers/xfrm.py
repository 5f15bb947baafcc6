"""Of IPsec."""

from enum import IntEnum


class Xfrma(IntEnum):
    """Policies (linux/xfrm.h)."""

    TEMPLATES = 5
    MARK = 21
