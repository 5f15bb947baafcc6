"""The keys of a cluster's state in etcd, and what they hold. PURE.

    PREFIX/head                     the newest revision, its change and the format of all that is here; to write it is to commit
    PREFIX/lease/NAME               who holds it and with what value; it goes with a lease of etcd's
    PREFIX/log/REVISION             what a revision changed; of the last KEPT_REVISIONS
    PREFIX/object/KIND/ID           an object's JSON
    PREFIX/pending                  there while objects are not yet what `head` and `log` say
    PREFIX/staged/REVISION/CHANGE/  the parts of a change that was too large for one transaction of etcd's

Revisions are written with leading zeros, so that the order of keys is theirs.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from routemesh.errors import Unavailable
from routemesh.store import codec
from routemesh.store.changes import KINDS, Edit
from routemesh.store.format import FORMAT

KEPT_REVISIONS = 200
"""A daemon that is further behind reads everything."""
MAX_OPERATIONS = 100
"""Of one transaction; etcd's own limit is 128 as it is delivered."""
MAX_BYTES = 1 << 20
"""Of one transaction; etcd's own limit is 1.5 MiB as it is delivered."""
_MAX_OBJECT_BYTES = 1_400_000
_PART_BYTES = 1 << 19
_CHANGE_BYTES = 16
_REVISION_DIGITS = 16
_NULL = b"null"


class RawEdit(msgspec.Struct, frozen=True, array_like=True):
    """The new JSON of one object; null when it was removed."""

    kind: str
    id: str
    body: msgspec.Raw

    @property
    def is_removal(self) -> bool:
        """Whether the object is gone."""
        return bytes(self.body) == _NULL


class Head(msgspec.Struct, frozen=True):
    """The newest revision. `change`: a number of its own that no other change has."""

    format: int
    revision: int
    change: str


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a revision changed: `edits`, or so many `parts` that are staged under `change`."""

    revision: int
    change: str
    edits: tuple[RawEdit, ...] = ()
    parts: int = 0


class Held(msgspec.Struct, frozen=True):
    """A lease as it is stored."""

    holder: str
    ttl_s: float
    value: int


class Keys(NamedTuple):
    """The names of the keys below one prefix."""

    prefix: str

    @property
    def head(self) -> str:
        """Of Head."""
        return f"{self.prefix}/head"

    @property
    def pending(self) -> str:
        """Of the Entry that is being carried out."""
        return f"{self.prefix}/pending"

    @property
    def leases(self) -> str:
        """What the names of all leases begin with."""
        return f"{self.prefix}/lease/"

    @property
    def objects(self) -> str:
        """What the names of all objects begin with."""
        return f"{self.prefix}/object/"

    @property
    def logs(self) -> str:
        """What the log of every revision begins with."""
        return f"{self.prefix}/log/"

    def lease(self, name: str) -> str:
        """Of Held."""
        return f"{self.leases}{name}"

    def object(self, kind: str, key: str) -> str:
        """Of an object."""
        return f"{self.objects}{kind}/{key}"

    def log(self, revision: int) -> str:
        """Of an Entry."""
        return f"{self.logs}{revision:0{_REVISION_DIGITS}}"

    def staged(self, revision: int, change: str = "", part: int | None = None) -> str:
        """Of a part; or what those of a change, or of all changes that were to be a revision, begin with."""
        under = f"{self.prefix}/staged/{revision:0{_REVISION_DIGITS}}/"
        return under + (f"{change}/" if change else "") + ("" if part is None else f"{part:06}")


def new_change() -> str:
    """A number for a change."""
    return secrets.token_hex(_CHANGE_BYTES)


def head(revision: int, change: str) -> bytes:
    """What `head` holds after a change."""
    return msgspec.json.encode(Head(FORMAT, revision, change))


def raw(edits: Iterable[Edit]) -> tuple[RawEdit, ...]:
    """Edits as they are written. Raises codec.CodecError for an object that can't be, or is larger than etcd takes."""
    return tuple(RawEdit(kind, key, msgspec.Raw(_body(kind, key, value))) for kind, key, value in edits)


def _body(kind: str, key: str, value: object) -> bytes:
    if value is None:
        return _NULL
    body = codec.encode(kind, value)  # type: ignore[arg-type]
    if len(body) > _MAX_OBJECT_BYTES:
        raise codec.CodecError(f"{kind} {key} has {len(body)} bytes as JSON; etcd takes {_MAX_OBJECT_BYTES}: make it smaller")
    return body


def edits(found: Iterable[RawEdit], where: object) -> Iterator[Edit]:
    """Written edits as the model has them, but for kinds that are not known yet. Raises Unavailable for damage."""
    for kind, key, value in ((each.kind, each.id, each) for each in found if each.kind in KINDS):
        try:
            yield Edit(kind, key, None if value.is_removal else codec.decode(kind, bytes(value.body)))
        except codec.CodecError as exc:
            raise Unavailable(f"{where} is damaged in {kind} {key} ({exc}): restore a backup") from exc


def is_small(found: Sequence[RawEdit]) -> bool:
    """Whether they fit into one transaction, in which each is written twice: as an object and in the log."""
    return len(found) <= MAX_OPERATIONS and 2 * sum(len(bytes(each.body)) for each in found) <= MAX_BYTES


def parts(found: Sequence[RawEdit]) -> list[bytes]:
    """Edits in pieces of which each fits into one request."""
    text = msgspec.json.encode(found)
    return [text[start : start + _PART_BYTES] for start in range(0, len(text), _PART_BYTES)]


def from_parts(pieces: Iterable[bytes]) -> tuple[RawEdit, ...]:
    """What `parts` made pieces of."""
    return msgspec.json.decode(b"".join(pieces), type=tuple[RawEdit, ...])


def portions(found: Iterable[RawEdit]) -> Iterator[list[RawEdit]]:
    """Edits in groups of which each fits into one transaction."""
    group: list[RawEdit] = []
    size = 0
    for each in found:
        if group and (len(group) == MAX_OPERATIONS or size + len(bytes(each.body)) > MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(each)
        size += len(bytes(each.body))
    if group:
        yield group
