"""Objects by name or id, as people type them. PURE."""

from collections.abc import Mapping
from typing import TypeVar

from routemesh.errors import NotFound, UserError
from routemesh.model import Node, Service, State

T = TypeVar("T")


def find_service(state: State, name_or_id_prefix: str) -> Service:
    """Raises NotFound with the services that exist, UserError for an ambiguous prefix."""
    names = {service.spec.name: service for service in state.services.values()}
    return _find("service", name_or_id_prefix, names, {service.id: service for service in names.values()})


def find_node(state: State, name_or_id_prefix: str) -> Node:
    """Raises NotFound with the nodes that exist, UserError for an ambiguous prefix."""
    names = {node.name: node for node in state.nodes.values()}
    return _find("node", name_or_id_prefix, names, {node.id: node for node in names.values()})


def _find(kind: str, wanted: str, names: Mapping[str, T], ids: Mapping[str, T]) -> T:
    """By name, then by id, then by the beginning of an id."""
    if exact := names.get(wanted) or ids.get(wanted):
        return exact
    found = [key for key in ids if wanted and key.startswith(wanted)]
    if len(found) == 1:
        return ids[found[0]]
    if found:
        raise UserError(f"{kind} id {wanted!r} is ambiguous: {', '.join(sorted(found))}; give more of it, or the name")
    known = f"{kind}s are: {', '.join(sorted(names))}" if names else f"there are no {kind}s"
    raise NotFound(f"no {kind} named {wanted!r}; {known}")
