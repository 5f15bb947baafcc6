"""The machines of a lab and their addresses. PURE.

Apart from the wires between them: every command asks for these, and is not to wait for a node plan's vocabulary.
"""

from ipaddress import IPv4Address

UNDERLAY = "underlay"
CLIENT = "client"
MAX_NODES = 80
"""As many as fit between .10 and the client."""

_FIRST_NODE = IPv4Address("192.168.200.10")
_CLIENT_ADDRESS = IPv4Address("192.168.200.100")


def node_names(count: int) -> tuple[str, ...]:
    """node1 … node<count>."""
    return tuple(f"node{number}" for number in range(1, count + 1))


def address(machine: str) -> IPv4Address:
    """The underlay address of the client or of a node."""
    return _CLIENT_ADDRESS if machine == CLIENT else _FIRST_NODE + int(machine.removeprefix("node")) - 1
