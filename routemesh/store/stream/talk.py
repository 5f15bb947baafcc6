"""What a worker and a manager say to one another, in JSON. PURE."""

from collections.abc import Iterable, Mapping

import msgspec

from routemesh.model import Lease, Listener, TaskStatus
from routemesh.nodeplan.ranges import Occupied
from routemesh.store import codec
from routemesh.store.changes import KINDS, Edit

CHANGES, HELLO, REPORT, LEASE = "/dispatch/changes", "/dispatch/hello", "/dispatch/report", "/dispatch/lease"
"""The paths below wire.PREFIX."""
BEAT_S = 1.0
"""A manager says something so often, though nothing has changed."""


_GONE = msgspec.Raw(b"null")


class Written(msgspec.Struct, frozen=True):
    """An edit; `body` null: the object is gone, or not to be seen any more."""

    kind: str
    id: str
    body: msgspec.Raw = _GONE


class News(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has changed. `whole`: it is everything, and what one knew before counts no more. A lease that is None has ended."""

    revision: int
    whole: bool = False
    edits: tuple[Written, ...] = ()
    leases: Mapping[str, Lease | None] = {}


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """A node whose daemon has started. `occupied`: the ranges that its machine has besides the mesh's."""

    address: str
    engine: str
    mtu_bytes: int
    api: str
    identity: str
    occupied: tuple[Occupied, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node saw of itself and of its tasks; None: nothing new."""

    listeners: tuple[Listener, ...] | None = None
    failures: tuple[str, ...] | None = None
    error: str | None = None
    tasks: Mapping[str, TaskStatus] = {}


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """A node's lease: prolonged with the revision that it has applied, or given up."""

    holder: str
    ttl_s: float
    value: int = 0
    release: bool = False


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: the revision in which it is taken down; for a lease, whether the node holds it."""

    revision: int = 0
    held: bool = True


def written(edits: Iterable[Edit]) -> tuple[Written, ...]:
    """Edits as they are sent."""
    return tuple(Written(kind, key, _GONE if value is None else msgspec.Raw(codec.spelled(value))) for kind, key, value in edits)


def read(edits: Iterable[Written]) -> tuple[Edit, ...]:
    """Edits as they were meant; those of a kind that this version does not know are passed over. Raises CodecError."""
    return tuple(
        Edit(each.kind, each.id, None if bytes(each.body) == b"null" else codec.decode(each.kind, bytes(each.body)))
        for each in edits
        if each.kind in KINDS
    )
