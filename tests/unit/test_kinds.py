"""Kinds of items, operations and statements: who tells them apart must know all, and what a later version made can't be told."""

import ast
from collections.abc import Iterator, Set
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import cast, get_args

import pytest

import routemesh
from routemesh.kernel.owner import Owner
from routemesh.kernel.spaces import Spaces
from routemesh.kernel.writer import Writer
from routemesh.nodeplan import HOST, Address, Create, Item, Link, Op, Statement
from routemesh.reasons.unclear import ItemUnknown
from routemesh.walk import Place
from routemesh.walk.nouns import Unclear, UnknownRule
from routemesh.walk.stack import Stack

KINDS = {kind.__name__ for kind in (*get_args(Item), *get_args(Op))}
STATEMENTS = {kind.__name__ for kind in get_args(Statement)}
LANGUAGE = "language"
"""A language that can't say a statement refuses it, or writes it as it is."""


@dataclass(frozen=True, slots=True)
class OfTomorrow:
    """A kind of item that this version does not have."""

    name: str = "new"


def _classes(pattern: ast.pattern) -> Iterator[str]:
    return (each.cls.id for each in ast.walk(pattern) if isinstance(each, ast.MatchClass) and isinstance(each.cls, ast.Name))


def _catches_all(case: ast.match_case) -> bool:
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None


def _first_annotation(node: ast.FunctionDef) -> str:
    first = node.args.args[0].annotation if node.args.args else None
    return "" if first is None else ast.unparse(first)


def _takes_never(case: ast.match_case, tree: ast.Module) -> bool:
    """Whether the case hands what it caught to a function that takes Never: then a new kind is a type error."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    takers = {"assert_never", *(node.name for node in functions if _first_annotation(node) == "Never")}
    called = (node.func for each in case.body for node in ast.walk(each) if isinstance(node, ast.Call))
    return any(isinstance(name, ast.Name) and name.id in takers for name in called)


def test_no_match_over_items_and_operations_passes_a_kind_over() -> None:
    """mypy's exhaustive-match demands a case for every kind; here, that no `case _` takes what has none."""
    matches, found = _passed_over(KINDS)
    assert matches > 10
    assert found == []


def test_no_match_over_statements_passes_a_kind_over() -> None:
    """A statement that names a map, and that nobody asks for its name, is made before the map is there."""
    matches, found = _passed_over(STATEMENTS)
    assert matches > 5
    assert [place for place in found if not place.startswith(f"{LANGUAGE}/")] == []


def _passed_over(kinds: Set[str]) -> tuple[int, list[str]]:
    """How many matches tell these kinds apart, and the places of those that have no case for another."""
    root, found, matches = Path(routemesh.__file__).parent, [], 0
    for path in root.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if not isinstance(node, ast.Match):
                continue
            named = [kinds & set(_classes(case.pattern)) for case in node.cases]
            if len(set().union(*named)) < 2 or sum(map(bool, named)) < 2:  # it looks for one thing
                continue
            matches += 1
            last = node.cases[-1]
            if not (_catches_all(last) and _takes_never(last, tree)):
                found.append(f"{path.relative_to(root)}:{node.lineno}")
    return matches, found


def test_a_packet_that_meets_a_kind_of_tomorrow_can_not_be_told() -> None:
    items = (Link(name="eth0", kind="other"), Address("eth0", IPv4Interface("192.0.2.1/24")))
    stack = Stack(Place("node1", HOST), items, {}, observed=True)
    assert stack.is_local(IPv4Address("192.0.2.1"))
    stack = Stack(Place("node1", HOST), (*items, cast(Item, OfTomorrow())), {}, observed=True)
    with pytest.raises(UnknownRule) as doubt:
        stack.is_local(IPv4Address("192.0.2.1"))
    assert doubt.value.unclear == Unclear(Place("node1", HOST), ItemUnknown("OfTomorrow"))


class OneSpace:
    """Spaces of a kernel that is never asked."""

    def get(self, netns: str) -> None:
        """As Spaces.get."""


def test_a_kind_that_can_not_be_made_is_one_failure() -> None:
    writer = Writer(cast(Spaces, OneSpace()), Owner())
    (failure,) = writer.carry_out([Create(HOST, cast(Item, OfTomorrow()))])
    assert failure.reason == "this version can't make objects of kind OfTomorrow"
