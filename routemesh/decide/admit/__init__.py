"""What people and nodes may change: each request checked, then applied to the state. PURE.

Every function returns the new state, the same one when nothing changes, or raises UserError, NotFound or Conflict with one line
that says what, where, why and what to do.
"""

from routemesh.decide.admit.find import find_node, find_service
from routemesh.decide.admit.nodes import Taken, check_past, join, node_lost, node_report, task_report, update_node
from routemesh.decide.admit.secrets import create_secret, find_secret, remove_secret
from routemesh.decide.admit.services import create_service, remove_service, update_service

__all__ = [
    "Taken",
    "check_past",
    "create_secret",
    "create_service",
    "find_node",
    "find_secret",
    "find_service",
    "join",
    "node_lost",
    "node_report",
    "remove_secret",
    "remove_service",
    "task_report",
    "update_node",
    "update_service",
]
