"""The numbers of netlink's attributes, by the names that the kernel's headers give them.

A module binds those that it reads ten thousand times to names of its own: in Python 3.11 a member is looked up by a function.
"""

from enum import IntEnum


class Ifa(IntEnum):
    """Addresses (linux/if_addr.h)."""

    ADDRESS = 1
    LOCAL = 2
    BROADCAST = 4


class Rta(IntEnum):
    """Routes (linux/rtnetlink.h)."""

    DESTINATION = 1
    OUT = 4
    GATEWAY = 5
    METRIC = 6
    PREFSRC = 7
    TABLE = 15


class Nda(IntEnum):
    """Neighbours and FDB entries (linux/neighbour.h)."""

    DESTINATION = 1
    MAC = 2
    VLAN = 5
    MASTER = 9
    PROTOCOL = 12


class Fra(IntEnum):
    """Routing rules (linux/fib_rules.h)."""

    DESTINATION = 1
    SOURCE = 2
    IIF = 3
    PRIORITY = 6
    MARK = 10
    SUPPRESS_GROUP = 13
    SUPPRESS_LENGTH = 14
    TABLE = 15
    MASK = 16
    OIF = 17
    PADDING = 18
    PROTOCOL = 21


class Ifla(IntEnum):
    """Links (linux/if_link.h)."""

    ADDRESS = 1
    NAME = 3
    MTU = 4
    LINK = 5
    MASTER = 10
    PROTINFO = 12
    LINKINFO = 18
    ALIAS = 20
    AF_SPEC = 26
    GROUP = 27
    NETNS_FILE = 28
    EXTENSIONS = 29
    LINK_NETNS = 37
    TARGET_NETNS = 46


class IflaInfo(IntEnum):
    """Inside of a link's LINKINFO."""

    KIND = 1
    DATA = 2
    PORT_KIND = 4
    PORT_DATA = 5


class BridgePort(IntEnum):
    """Inside of a bridge port's data."""

    LEARNING = 8
    FLOOD = 9
    ISOLATED = 33


class VxlanData(IntEnum):
    """Inside of a VXLAN device's data."""

    ID = 1
    LOCAL = 4
    LEARNING = 7
    PROXY = 11
    PORT = 15


class Nsid(IntEnum):
    """Namespaces by number (linux/net_namespace.h)."""

    NSID = 1
    FILE = 3


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


class CtaIp(IntEnum):
    """Inside of a tuple's IP."""

    SOURCE = 1
    DESTINATION = 2


class CtaProtocol(IntEnum):
    """Inside of a tuple's PROTOCOL."""

    NUMBER = 1
    SOURCE_PORT = 2
    DESTINATION_PORT = 3


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
