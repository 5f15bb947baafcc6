"""Who a certificate says that one is: a node, its role, its cluster. Standard library only.

Whoever connects to a node asks for its id as the name in its certificate; whoever connects to any manager, for the role's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from routemesh.model import Role

_SUFFIX = "routemesh"


@dataclass(frozen=True, slots=True)
class Subject:
    """A node of a cluster, by their ids, and its role."""

    node: str
    role: Role
    cluster: str


def role_name(role: Role) -> str:
    """The name that every certificate of a role bears."""
    return f"{role.value}.{_SUFFIX}"


def of_peer(certificate: Mapping[str, Any] | None) -> Subject | None:
    """Of a verified certificate in the form of ssl.SSLSocket.getpeercert; None where there is none or it is not a node's."""
    if not certificate:
        return None
    parts = dict(pair for group in certificate.get("subject", ()) for pair in group)
    try:
        return Subject(node=parts["commonName"], role=Role(parts["organizationalUnitName"]), cluster=parts["organizationName"])
    except (KeyError, ValueError):
        return None
