"""What etcd's v3 JSON gateway is sent and answers. PURE.

Bytes travel as base64, 64-bit numbers as text, and a field that has its default is left out. Only fields that are looked at are
named here. Source: etcd's api/etcdserverpb/rpc.proto and api/mvccpb/kv.proto, the same from 3.4 to 3.6.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

Json = Mapping[str, Any]
T = TypeVar("T")


class Header(msgspec.Struct, frozen=True):
    """Which cluster answered, and the revision of its key space."""

    cluster_id: int = 0
    revision: int = 0


class KeyValue(msgspec.Struct, frozen=True):
    """One key. `lease`: the lease that it goes with, 0 for none."""

    key: bytes = b""
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0


class Answer(msgspec.Struct, frozen=True):
    """What every answer begins with."""

    header: Header = Header()


class RangeAnswer(Answer, frozen=True):
    """The keys of a range in their order; `more`: there are others behind the last."""

    kvs: tuple[KeyValue, ...] = ()
    more: bool = False


class Done(msgspec.Struct, frozen=True):
    """What one operation of a transaction came to; of a write nothing is looked at."""

    response_range: RangeAnswer = RangeAnswer()


class TxnAnswer(Answer, frozen=True):
    """Whether the comparisons held, and what the operations of that side came to."""

    succeeded: bool = False
    responses: tuple[Done, ...] = ()


class LeaseAnswer(Answer, frozen=True):
    """A lease: granted, or kept alive; it has ended where `ttl` is 0 then."""

    id: int = msgspec.field(name="ID", default=0)
    ttl: int = msgspec.field(name="TTL", default=0)


class LeasePart(Answer, frozen=True):
    """A lease that is kept alive, which is answered by a stream of one."""

    result: LeaseAnswer = LeaseAnswer()


class StatusAnswer(Answer, frozen=True):
    """One member. `leader`: 0 where it knows of none."""

    leader: int = 0


class TokenAnswer(Answer, frozen=True):
    """What proves who a user is for a while."""

    token: str = ""


class Event(msgspec.Struct, frozen=True):
    """Something that was written, or removed."""

    kv: KeyValue


class WatchAnswer(Answer, frozen=True):
    """A part of a watch. `compact_revision`: not 0 where what was asked for is forgotten, and the first that is not."""

    canceled: bool = False
    compact_revision: int = 0
    events: tuple[Event, ...] = ()


class Refusal(msgspec.Struct, frozen=True):
    """An error. `code`: gRPC's. The first field has the text in 3.4 and 3.5, the second in all."""

    code: int
    error: str = ""
    message: str = ""

    @property
    def text(self) -> str:
        """etcd's words."""
        return self.message or self.error


class WatchPart(msgspec.Struct, frozen=True):
    """A line of a watch; without a `result` it says why it ends."""

    result: WatchAnswer | None = None


def encode(body: Json) -> bytes:
    """A request's body."""
    return msgspec.json.encode(body)


def decode(body: bytes | msgspec.Raw, answer: type[T]) -> T:
    """An answer of that type. Raises msgspec.MsgspecError for what is none."""
    return msgspec.json.decode(body, type=answer, strict=False)


def after_prefix(prefix: str) -> str:
    """The end of the range of all keys that begin with `prefix`, which ends with an ASCII character."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def get(key: str) -> Json:
    """Read one key."""
    return {"key": key.encode()}


def get_range(first: str, end: str, *, limit: int = 0, revision: int = 0) -> Json:
    """Read the keys from `first` to before `end`, at most `limit`, as they were at `revision`; 0: no limit, the newest."""
    return {"key": first.encode(), "range_end": end.encode(), "limit": limit, "revision": revision}


def put(key: str, value: bytes, lease: int = 0) -> Json:
    """Write a key, as an operation of a transaction."""
    return {"request_put": {"key": key.encode(), "value": value, "lease": lease}}


def delete(key: str, end: str = "") -> Json:
    """Remove a key, or all from it to before `end`, as an operation of a transaction."""
    return {"request_delete_range": {"key": key.encode(), **({"range_end": end.encode()} if end else {})}}


def read(request: Json) -> Json:
    """A read as an operation of a transaction."""
    return {"request_range": request}


def is_value(key: str, value: bytes) -> Json:
    """The comparison that a key has this value; b"": that it is not there."""
    if not value:
        return {"key": key.encode(), "target": "VERSION", "result": "EQUAL", "version": 0}
    return {"key": key.encode(), "target": "VALUE", "result": "EQUAL", "value": value}


def is_of_revision(key: str, revision: int) -> Json:
    """The comparison that a key was last written at that revision; 0: that it is not there."""
    return {"key": key.encode(), "target": "MOD", "result": "EQUAL", "mod_revision": revision}


def is_of_lease(key: str, lease: int) -> Json:
    """The comparison that a key goes with that lease."""
    return {"key": key.encode(), "target": "LEASE", "result": "EQUAL", "lease": lease}


def transaction(compare: Iterable[Json], success: Iterable[Json], failure: Iterable[Json] = ()) -> Json:
    """Carry out `success` where all comparisons hold, else `failure`; all or nothing."""
    return {"compare": list(compare), "success": list(success), "failure": list(failure)}


def watch(first: str, end: str, revision: int) -> Json:
    """Follow the keys from `first` to before `end`, from `revision` on."""
    return {"create_request": {"key": first.encode(), "range_end": end.encode(), "start_revision": revision}}
