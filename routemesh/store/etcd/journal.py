"""Changes of any size as one step, out of transactions of which each may hold little (docs/adr/0026).

A small change is one transaction of etcd's: its objects, its log entry, the head. Of a large one the parts are staged first,
where nobody looks; then one transaction moves the head, and it has happened: the log leads to the parts, and who reads all
objects takes the parts over them. `pending` says so until the objects are written as well, by its writer or, should that die, by
the next one. Every write demands the head, or the `pending`, that it was made for.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from routemesh.errors import Unavailable
from routemesh.store.etcd import keys, messages
from routemesh.store.etcd.client import Client
from routemesh.store.etcd.faults import Compacted, OutOfReach
from routemesh.store.etcd.keys import KEPT_REVISIONS, Entry, Head, Keys, RawEdit
from routemesh.store.etcd.messages import Json, KeyValue, RangeAnswer, TxnAnswer
from routemesh.store.format import FORMAT

_PAGE = 1000
_TXN, _RANGE = "kv/txn", "kv/range"


@dataclass(frozen=True, slots=True)
class Reading:
    """What has changed since a revision, or all there is where `is_whole`. `at`: etcd's revision at which it was so."""

    head: Head
    edits: Sequence[RawEdit]
    is_whole: bool
    at: int


NOTHING = Head(FORMAT, 0, "")
"""The head where there is none yet."""


class Journal:
    """Reads and writes the state of one cluster."""

    def __init__(self, client: Client, names: Keys, where: str) -> None:
        """`where`: what to call the place in messages."""
        self._client = client
        self._names = names
        self._where = where

    async def read(self, known: Head) -> Reading:
        """What is newer than `known`. Raises Unavailable where it is a newer routemesh's, or not what `known` has led to."""
        while True:
            with suppress(Compacted):  # while it was read: begin again
                if known.revision:
                    return await self._newer(known)
                return await self._whole()

    async def commit(self, base: Head, edits: Sequence[RawEdit], removes_secrets: bool) -> Head | None:
        """Make the revision after `base`; None where somebody else has made it, and nothing of this was written.

        Raises Unavailable; it may have been written then only where the message says so.
        """
        entry = Entry(base.revision + 1, keys.new_change(), tuple(edits))
        kept_from = entry.revision if removes_secrets else entry.revision - KEPT_REVISIONS
        if keys.is_small(edits):
            return await self._flip(base, entry, self._object_writes(edits), kept_from)
        pieces = keys.parts(edits)
        large = Entry(entry.revision, entry.change, parts=len(pieces))
        done = await self._stage(base, large, pieces)
        if not done or (made := await self._flip(base, large, [self._put_pending(large)], kept_from)) is None:
            await self._drop(large)
            return None
        with suppress(Unavailable):  # it has happened; the next who writes carries it out
            await self._carry_out(large, edits)
        return made

    async def settle(self) -> None:
        """Carry out what a writer that has died has left pending."""
        answer = await self._client.call(_RANGE, messages.get(self._names.pending), RangeAnswer)
        for pending in answer.kvs:
            entry = msgspec.json.decode(pending.value, type=Entry)
            with suppress(Compacted):
                await self._carry_out(entry, await self._edits_of(entry, answer.header.revision))

    # Reading.

    async def _newer(self, known: Head) -> Reading:
        log = messages.get_range(
            self._names.log(known.revision + 1), messages.after_prefix(self._names.logs), limit=KEPT_REVISIONS + 1
        )
        answer = await self._client.call(_TXN, self._look(messages.get(self._names.head), log), TxnAnswer)
        found, entries = (each.response_range for each in answer.responses)
        head = self._head(found.kvs)
        if head.revision < known.revision or (head.revision == known.revision and head.change != known.change):
            raise Unavailable(
                f"{self._where} holds revision {head.revision}, but not of the history that led to {known.revision} here: "
                "if a backup was restored, restart the daemons"
            )
        chain = [msgspec.json.decode(each.value, type=Entry) for each in entries.kvs]
        if [entry.revision for entry in chain] != list(range(known.revision + 1, head.revision + 1)):
            return await self._whole()
        edits: list[RawEdit] = []
        for entry in chain:
            edits += await self._edits_of(entry, answer.header.revision)
        return Reading(head, edits, is_whole=False, at=answer.header.revision)

    async def _whole(self) -> Reading:
        objects, end = self._names.objects, messages.after_prefix(self._names.objects)
        wanted = (
            messages.get(self._names.head),
            messages.get(self._names.pending),
            messages.get_range(objects, end, limit=_PAGE),
        )
        answer = await self._client.call(_TXN, self._look(*wanted), TxnAnswer)
        found, pending, page = (each.response_range for each in answer.responses)
        head, at = self._head(found.kvs), answer.header.revision
        edits = [self._object(each) for each in page.kvs]
        while page.more:
            request = messages.get_range(f"{page.kvs[-1].key.decode()}\0", end, limit=_PAGE, revision=at)
            page = await self._client.call(_RANGE, request, RangeAnswer)
            edits += [self._object(each) for each in page.kvs]
        for each in pending.kvs:
            edits += await self._edits_of(msgspec.json.decode(each.value, type=Entry), at)
        return Reading(head, edits, is_whole=True, at=at)

    def _head(self, found: Iterable[KeyValue]) -> Head:
        head = next((msgspec.json.decode(each.value, type=Head) for each in found), NOTHING)
        if head.format > FORMAT:
            raise Unavailable(
                f"{self._where} holds a newer routemesh's state (format {head.format}; known is {FORMAT}): upgrade this one"
            )
        return head

    def _object(self, found: KeyValue) -> RawEdit:
        kind, _, key = found.key.decode().removeprefix(self._names.objects).partition("/")
        return RawEdit(kind, key, msgspec.Raw(found.value))

    async def _edits_of(self, entry: Entry, at: int) -> Sequence[RawEdit]:
        if not entry.parts:
            return entry.edits
        under = self._names.staged(entry.revision, entry.change)
        answer = await self._client.call(
            _RANGE, messages.get_range(under, messages.after_prefix(under), revision=at), RangeAnswer
        )
        if len(answer.kvs) != entry.parts:
            raise Unavailable(f"{self._where} is damaged: {under} has {len(answer.kvs)} of {entry.parts} parts: restore a backup")
        return keys.from_parts(each.value for each in answer.kvs)

    # Writing.

    async def _stage(self, base: Head, entry: Entry, pieces: Sequence[bytes]) -> bool:
        for number, piece in enumerate(pieces):
            write = messages.put(self._names.staged(entry.revision, entry.change, number), piece)
            answer = await self._client.call(_TXN, messages.transaction([self._is_head(base)], [write]), TxnAnswer)
            if not answer.succeeded:
                return False
        return True

    async def _flip(self, base: Head, entry: Entry, writes: Iterable[Json], kept_from: int) -> Head | None:
        """The step itself. Sent twice, it fails the second time, and the log says that the first was ours."""
        made, log = Head(FORMAT, entry.revision, entry.change), self._names.log(entry.revision)
        body = messages.transaction(
            [self._is_head(base), messages.is_value(self._names.pending, b"")],
            [
                messages.put(self._names.head, msgspec.json.encode(made)),
                messages.put(log, msgspec.json.encode(entry)),
                *writes,
                *self._forget(kept_from),
            ],
            [messages.read(messages.get(log))],
        )
        try:
            answer = await self._client.call(_TXN, body, TxnAnswer)
        except OutOfReach as exc:
            raise Unavailable(f"{exc} Look whether the change was made before you repeat it") from exc
        if answer.succeeded:
            return made
        (found,) = (each.response_range.kvs for each in answer.responses)
        is_ours = any(msgspec.json.decode(each.value, type=Entry).change == entry.change for each in found)
        return made if is_ours else None

    async def _carry_out(self, entry: Entry, edits: Sequence[RawEdit]) -> None:
        is_pending = messages.is_value(self._names.pending, msgspec.json.encode(entry))
        for portion in keys.portions(edits):
            body = messages.transaction([is_pending], self._object_writes(portion))
            if not (await self._client.call(_TXN, body, TxnAnswer)).succeeded:
                return  # somebody else has
        await self._client.call(_TXN, messages.transaction([is_pending], [messages.delete(self._names.pending)]), TxnAnswer)

    async def _drop(self, entry: Entry) -> None:
        """Remove what was staged in vain. What a writer that died has staged goes with the log of its time."""
        under = self._names.staged(entry.revision, entry.change)
        await self._client.call(_TXN, messages.transaction([], [messages.delete(under, messages.after_prefix(under))]), TxnAnswer)

    def _object_writes(self, edits: Iterable[RawEdit]) -> list[Json]:
        return [
            messages.delete(name) if each.is_removal else messages.put(name, bytes(each.body))
            for each, name in ((each, self._names.object(each.kind, each.id)) for each in edits)
        ]

    def _forget(self, kept_from: int) -> list[Json]:
        if kept_from <= 0:
            return []
        return [
            messages.delete(self._names.log(0), self._names.log(kept_from)),
            messages.delete(self._names.staged(0), self._names.staged(kept_from)),
        ]

    def _put_pending(self, entry: Entry) -> Json:
        return messages.put(self._names.pending, msgspec.json.encode(entry))

    def _is_head(self, base: Head) -> Json:
        return messages.is_value(self._names.head, msgspec.json.encode(base) if base.revision else b"")

    def _look(self, *wanted: Json) -> Json:
        return messages.transaction([], [messages.read(each) for each in wanted])
