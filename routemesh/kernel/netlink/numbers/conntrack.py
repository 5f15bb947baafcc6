"""Of ctnetlink."""

from enum import IntEnum


class Cta(IntEnum):
    """Connections (linux/netfilter/nfnetlink_conntrack.h)."""

    ORIGINAL = 1
    REPLY = 2
    STATUS = 3
    STATE = 4
    TIMEOUT = 7
    MARK = 8
    ID = 12
    ZONE = 18
    FILTER = 25


class CtaTuple(IntEnum):
    """Inside of a connection's ORIGINAL and REPLY."""

    IP = 1
    PROTOCOL = 2
    ZONE = 3


class CtaIp(IntEnum):
    """Inside of a tuple's IP."""

    SOURCE = 1
    DESTINATION = 2


class CtaProtocol(IntEnum):
    """Inside of a tuple's PROTOCOL."""

    NUMBER = 1
    SOURCE_PORT = 2
    DESTINATION_PORT = 3


class CtaFilter(IntEnum):
    """Inside of a dump's FILTER: which fields of the tuples count."""

    ORIGINAL = 1
    REPLY = 2


class CtaState(IntEnum):
    """Inside of a connection's STATE, by protocol."""

    TCP = 1


class CtaTcp(IntEnum):
    """Inside of a TCP connection's STATE."""

    STATE = 1
