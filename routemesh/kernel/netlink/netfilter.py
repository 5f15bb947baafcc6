"""Numbers of the netlink protocols other than rtnetlink: netfilter's subsystems, sock_diag, generic netlink.

Source: include/uapi/linux/netlink.h, include/uapi/linux/netfilter/nfnetlink.h.
"""

NETFILTER, SOCK_DIAG, GENERIC = 12, 4, 16
ANY_FAMILY, IPV4, NETDEV, BRIDGE = (bytes((family, 0, 0, 0)) for family in (0, 2, 5, 7))
"""struct nfgenmsg, which begins every message of netfilter: the family that it is about."""
HEADER_BYTES = 4
"""Its size."""

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
"""What nft calls the families of its tables."""
