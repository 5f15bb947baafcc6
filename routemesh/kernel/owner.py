"""Whose objects these are (rule 5)."""

from dataclasses import dataclass

from routemesh import names
from routemesh.nodeplan import ROUTE_PROTOCOL


@dataclass(frozen=True, slots=True)
class Owner:
    """By what an owner knows its objects: the alias of links, the protocol of routes and rules, the name of tables (or none).

    The default is a node's daemon. A lab is another: what it puts into a node's namespace is not for that node's daemon to judge.
    """

    alias: str = names.ALIAS
    protocol: int = ROUTE_PROTOCOL
    has_tables: bool = True


LAB = Owner(alias="routemesh-lab", protocol=83, has_tables=False)
