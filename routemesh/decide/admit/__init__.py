"""What people and nodes may change: each request checked, then applied to the state. PURE.

Every function returns the new state, the same one when nothing changes, or raises UserError, NotFound or Conflict with one line
that says what, where, why and what to do.
"""

from routemesh.decide.admit.find import find_node, find_service
from routemesh.decide.admit.nodes import Taken, check_past, join, node_lost, node_report, task_report, update_node
from routemesh.decide.admit.secrets import create_secret, find_secret, remove_secret
from routemesh.decide.admit.services import create_service, remove_service, update_service
from routemesh.decide.admit.trust import begin_trust, certified, register, remove_node, rotate_root, rotate_token, trust_of

__all__ = [
    "Taken",
    "begin_trust",
    "certified",
    "check_past",
    "create_secret",
    "create_service",
    "find_node",
    "find_secret",
    "find_service",
    "join",
    "node_lost",
    "node_report",
    "register",
    "remove_node",
    "remove_secret",
    "remove_service",
    "rotate_root",
    "rotate_token",
    "task_report",
    "trust_of",
    "update_node",
    "update_service",
]
