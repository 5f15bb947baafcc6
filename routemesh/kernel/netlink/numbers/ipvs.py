"""Of IPVS, which speaks generic netlink."""

from enum import IntEnum


class GenericFamily(IntEnum):
    """Of a family of generic netlink (linux/genetlink.h)."""

    ID = 1
    NAME = 2


class IpvsCommand(IntEnum):
    """IPVS's attributes of a command (linux/ip_vs.h)."""

    SERVICE = 1
    DESTINATION = 2
    TCP_S = 4
    TCP_FIN_S = 5
    UDP_S = 6


class IpvsServiceData(IntEnum):
    """Of an IPVS service."""

    FAMILY = 1
    MARK = 5
    SCHEDULER = 6
    FLAGS = 7
    PERSISTENT_S = 8
    NETMASK = 9
    ENGINE = 11


class IpvsDestinationData(IntEnum):
    """Of an IPVS destination."""

    ADDRESS = 1
    PORT = 2
    METHOD = 3
    WEIGHT = 4
    UPPER_THRESHOLD = 5
    LOWER_THRESHOLD = 6
