"""The names and addresses that things bear, each derived by one formula. Pure; standard library only.

Kernel objects bear Swarm's names; what Swarm makes random is derived from ids here, so that a
daemon with no memory plans the same names again (rule 5).
"""

import hashlib
import re
from functools import lru_cache
from ipaddress import IPv4Address
from typing import assert_never

from routemesh.model import Network, NetworkKind, State, Task, TaskId

SANDBOX = "ingress_sbox"
SANDBOX_CONTAINER = "ingress-sbox"
GWBRIDGE = "docker_gwbridge"
INGRESS_CHAIN = "DOCKER-INGRESS"
OWN_CHAINS = "ROUTEMESH-"
"""What the names of iptables chains begin with that are ours alone."""
STRAY_CHAIN = f"{OWN_CHAINS}STRAYS"
FORWARD_CHAIN = f"{OWN_CHAINS}FORWARD"
PEER_CHAIN = f"{OWN_CHAINS}PEERS"
TABLE = "routemesh"
TRACE_TABLE = "routemesh-trace-"
"""How the names of tables begin that are there while a trace watches; what follows is the trace's own."""
ALIAS = "routemesh"
OVERLAY_BRIDGE = "br0"
VXLAN = "vxlan0"
OVERLAY_LINK = "eth0"
GWBRIDGE_LINK = "eth1"

NODE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""What a node may be called: a host name."""

_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 25
_MOST_KNOWN = 4096
"""Names that are remembered, of each formula: a pass asks for those of a task about ten times."""


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """What to sort names by, so that web.2 comes before web.10."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name) if part)


def derive_id(*parts: object) -> str:
    """A Swarm-like id (25 characters of base 36) that depends on `parts` alone."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    number = int.from_bytes(digest, "big")
    digits = []
    for _ in range(_ID_LENGTH):
        number, remainder = divmod(number, 36)
        digits.append(_BASE36[remainder])
    return "".join(digits)


@lru_cache(_MOST_KNOWN)
def container_id(task_id: TaskId) -> str:
    """12 hex digits: the task's namespace, hostname and `gateway_…` name in `network inspect`."""
    return hashlib.sha256(task_id.encode()).hexdigest()[:12]


def sandbox(network: Network) -> str:
    """The namespace in which a node balances a network's virtual addresses."""
    match network.kind:
        case NetworkKind.INGRESS:
            return SANDBOX
        case _:
            assert_never(network.kind)


def overlay_netns(network_id: str) -> str:
    """The namespace of an overlay's bridge and tunnel, as libnetwork names it: 1-<10 of the network's id>."""
    return f"1-{network_id[:10]}"


def mac(address: IPv4Address) -> str:
    """The MAC that libnetwork gives an endpoint: 02:42 and the four octets of its address."""
    return f"02:42:{address.packed.hex(':')}"


@lru_cache(_MOST_KNOWN)
def overlay_port(endpoint: str) -> str:
    """The end of an endpoint's veth in the overlay's namespace; 11 characters of at most 15 (IFNAMSIZ)."""
    return "veth" + hashlib.sha256(f"overlay {endpoint}".encode()).hexdigest()[:7]


@lru_cache(_MOST_KNOWN)
def gwbridge_port(endpoint: str) -> str:
    """The end of an endpoint's veth on docker_gwbridge, in the node's namespace."""
    return "veth" + hashlib.sha256(f"gateway {endpoint}".encode()).hexdigest()[:7]


def more_gwbridge(number: int) -> str:
    """The namespace of a bridge for when docker_gwbridge has no port left, and the port of docker_gwbridge before it."""
    return f"gwbridge{number}"


def more_bridge(number: int) -> str:
    """A bridge beside an overlay's br0."""
    return f"br{number}"


def task_name(service: str, slot: int, node_name: str) -> str:
    """What `service ps` calls a task: web.1, or web.node1 for a global service (slot 0)."""
    return f"{service}.{slot or node_name}"


def name_of(state: State, task: Task) -> str:
    """web.1, or web.node1 in a global service."""
    node = None if task.node_id is None else state.nodes.get(task.node_id)
    return task_name(task.spec.name, task.slot, node.name if node else task.node_id or "?")
