"""Who may ask what over the network: one row for every path of the API. Root, at the unix socket, may ask all.

Role and node are those of the certificate, and of the cluster's state as well: a node that was removed is nobody, one that was
made a worker is one at once. A path without a row is nobody's.
"""

from collections.abc import Mapping
from enum import Enum

from routemesh.model import NodeId, Role, State
from routemesh.pki.subject import Subject


class Right(Enum):
    """Whose a path is."""

    ANYONE = "anyone"
    """Who has no certificate yet; what is asked there is told to all, or checks a token itself."""
    NODES = "nodes"
    """Each node of the cluster: what a node has in its kernel, and what concerns nobody but the node that asks."""
    MANAGERS = "managers"
    """What changes the cluster, shows what tasks write or clients send, or has a node do something."""


_NODES = (
    "GET /_ping",
    "GET /dispatch/changes",
    "GET /nodes/{ref}/answers",
    "GET /nodes/{ref}/checkup",
    "GET /nodes/{ref}/diff",
    "GET /nodes/{ref}/plan",
    "GET /nodes/{ref}/proxies",
    "GET /nodes/{ref}/snapshot",
    "POST /cluster/renew",
    "POST /dispatch/hello",
    "POST /dispatch/lease",
    "POST /dispatch/report",
)
_ANYONE = (
    "GET /cluster/roots",
    "POST /cluster/join",
)
_MANAGERS = (
    "DELETE /nodes/{ref}",
    "DELETE /secrets/{name}",
    "DELETE /services/{ref}",
    "GET /cluster",
    "GET /cluster/tokens/{role}",
    "GET /doctor",
    "GET /explain",
    "GET /gateway",
    "GET /gateway/config",
    "GET /gateway/explain",
    "GET /networks",
    "GET /networks/{ref}",
    "GET /nodes",
    "GET /nodes/{ref}",
    "GET /nodes/{ref}/tasks",
    "GET /secrets",
    "GET /services",
    "GET /services/{ref}",
    "GET /services/{ref}/answers",
    "GET /services/{ref}/logs",
    "GET /services/{ref}/progress",
    "GET /services/{ref}/tasks",
    "GET /snapshot",
    "GET /tasks/{ref}/logs",
    "POST /cluster/root",
    "POST /cluster/tokens/{role}",
    "POST /doctor/repair",
    "POST /nodes/{ref}",
    "POST /nodes/{ref}/repair",
    "POST /nodes/{ref}/watch",
    "POST /secrets",
    "POST /services",
    "POST /services/{ref}",
    "POST /trace",
)
TABLE: Mapping[str, Right] = {
    **dict.fromkeys(_ANYONE, Right.ANYONE),
    **dict.fromkeys(_NODES, Right.NODES),
    **dict.fromkeys(_MANAGERS, Right.MANAGERS),
}
"""METHOD and path below wire.PREFIX → whose it is."""


def refusal(path: str, subject: Subject | None, state: State) -> str:
    """Why somebody may not ask a path (a key of TABLE, or none), "" if he may."""
    right = TABLE.get(path)
    if right is Right.ANYONE:
        return ""
    if subject is None:
        return "a certificate of the cluster is needed: 'routemesh cluster join' gets one"
    if state.trust is None or subject.cluster != state.trust.cluster:
        return f"the certificate is of cluster {subject.cluster}, which is not this one"
    node = state.nodes.get(NodeId(subject.node))
    if node is None:
        return f"node {subject.node} is not of the cluster any more: 'routemesh cluster leave --force' on it, then join again"
    if right is Right.NODES:
        return ""
    if right is Right.MANAGERS and subject.role is node.role is Role.MANAGER:
        return ""
    return f"{node.name} is a worker, and this is for managers: ask on a manager"
