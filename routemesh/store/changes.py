"""What tells two states apart, object by object: what a store writes and what it applies. PURE.

Law: `apply(before, edits, revision) == state` for `state, edits = committed(before, after)`. Objects that did not change keep
their identity, and so do mappings in which nothing changed: a caller that compares two states may compare with `is` first.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from routemesh.model import Cluster, Network, Node, Secret, Service, State, Task, Trust
from routemesh.values import replace

Object = Cluster | Network | Node | Service | Task | Secret | Trust

KINDS: Mapping[str, type[Object]] = {
    "cluster": Cluster,
    "network": Network,
    "node": Node,
    "service": Service,
    "task": Task,
    "secret": Secret,
    "trust": Trust,
}
_FIELDS = {
    "cluster": "cluster",
    "network": "networks",
    "node": "nodes",
    "service": "services",
    "task": "tasks",
    "secret": "secrets",
    "trust": "trust",
}
SECRET = {"secret", "trust"}
"""Objects of these kinds are not to be left on a disk once they are gone."""
_SINGLE = {"cluster", "trust"}
"""A state has one at most."""


class Edit(NamedTuple):
    """The new value of one object; None when it was removed."""

    kind: str
    id: str
    value: Object | None


def committed(before: State, after: State) -> tuple[State, tuple[Edit, ...]]:
    """`after` as it will stand under the next revision, and what is to be written; `before` itself and () when they are equal.

    The revisions in `after` are ignored: they are the store's to give.
    """
    edits = tuple(_edits(before, after))
    if not edits:
        return before, ()
    return apply(before, edits, before.revision + 1), edits


def apply(state: State, edits: Iterable[Edit], revision: int) -> State:
    """`state` with `edits` made, at `revision`."""
    tables: dict[str, dict[str, Object]] = {}
    for kind, key, value in edits:
        if kind not in tables:
            tables[kind] = dict(table(state, kind))
        if value is None:
            tables[kind].pop(key, None)
        else:
            tables[kind][key] = value
    fields: dict[str, Any] = {_FIELDS[kind]: rows for kind, rows in tables.items()}
    fields |= {kind: next(iter(tables[kind].values()), None) for kind in _SINGLE & tables.keys()}
    return replace(state, revision=revision, **fields)


def _edits(before: State, after: State) -> Iterator[Edit]:
    revision = before.revision + 1
    for kind in KINDS:
        old, new = table(before, kind), table(after, kind)
        if old is new:
            continue
        for key in old:
            if key not in new:
                yield Edit(kind, key, None)
        for key, value in new.items():
            present = old.get(key)
            if present is not value and _differs(present, value):
                yield Edit(kind, key, replace(value, revision=revision))


def _differs(old: Object | None, new: Object) -> bool:
    return old is None or replace(new, revision=old.revision) != old


def table(state: State, kind: str) -> Mapping[str, Object]:
    """A state's objects of a kind, by id."""
    if kind == "cluster":
        return {} if state.cluster is None else {state.cluster.id: state.cluster}
    if kind == "trust":
        return {} if state.trust is None else {state.trust.cluster: state.trust}
    found: Mapping[str, Object] = getattr(state, _FIELDS[kind])
    return found
