"""Of rtnetlink."""

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

    STATE = 1
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


class VethData(IntEnum):
    """Inside of a veth's data (linux/veth.h)."""

    PEER = 1


class BridgeData(IntEnum):
    """Inside of a bridge's data."""

    VLAN_FILTERING = 7
    DEFAULT_VLAN = 39


class InetData(IntEnum):
    """Inside of what a link has for IPv4."""

    CONF = 1


class Nsid(IntEnum):
    """Namespaces by number (linux/net_namespace.h)."""

    NSID = 1
    FILE = 3
