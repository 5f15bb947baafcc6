"""The store of a cluster of machines, in etcd 3.4 or later.

The watch of etcd is but a bell: it tells of the head and of leases, and a woken daemon reads what is newer. So nothing depends on
what a watch may have missed. Every read is linearizable: it is answered with the agreement of most members.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from typing import Any

import msgspec

from routemesh.errors import Unavailable
from routemesh.model import Lease, State
from routemesh.options import EtcdCluster
from routemesh.store import Change
from routemesh.store.bell import Wakeups
from routemesh.store.changes import apply, committed
from routemesh.store.etcd import keys, messages
from routemesh.store.etcd.client import Client
from routemesh.store.etcd.faults import Missed
from routemesh.store.etcd.journal import NOTHING, Journal, Reading
from routemesh.store.etcd.keys import Head, Held, Keys, RawEdit
from routemesh.store.etcd.leases import Leases
from routemesh.store.format import FORMAT, upgraded
from routemesh.threads import in_thread

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.05, 1.0


class EtcdStore:
    """A Store in etcd; `open` makes one. What takes long in the processor is done in a thread."""

    def __init__(self, place: EtcdCluster) -> None:
        self._place = place
        self._names = Keys(place.prefix)
        self._client = Client(place)
        self._journal = Journal(self._client, self._names, f"{place}")
        self._leases = Leases(self._client, self._names)
        self._wakeups = Wakeups()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._taking, self._writing = asyncio.Lock(), asyncio.Lock()
        self._state = State()
        self._head = NOTHING
        self._at = 0
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, place: EtcdCluster) -> "EtcdStore":
        """Read the state, bring it to the present format if need be, and begin to watch. Raises Unavailable."""
        store = cls(place)
        try:
            await store.snapshot()
        except BaseException:
            await store.close()
            raise
        store._listening = asyncio.ensure_future(store._listen(store._at))
        return store

    async def snapshot(self) -> State:
        """See Store. The same object as before when nothing was written."""
        return (await self._load())[0]

    async def update(self, change: Change) -> State:
        """See Store. Unavailable says so where the change may have been made all the same: no answer came."""
        async with self._writing:
            while True:
                before, head = await self._load()
                state, edits, removes_secrets = await in_thread(self._thread, _change, change, before)
                if not edits:
                    return before
                made = await self._journal.commit(head, edits, removes_secrets)
                if made is not None:
                    return await self._take(head, made, state)
                await self._journal.settle()

    def watch(self) -> AsyncIterator[None]:
        """See Store; `close` ends it."""
        return self._wakeups.watch()

    async def renew(self, name: str, holder: str, ttl_s: float, value: int = 0) -> bool:
        """See Store. etcd gives whole seconds, and at least one and a half times what it takes to choose a leader."""
        return await self._leases.renew(name, Held(holder, ttl_s, value))

    async def release(self, name: str, holder: str) -> None:
        """See Store."""
        await self._leases.release(name, holder)

    async def leases(self) -> Mapping[str, Lease]:
        """See Store."""
        return await self._leases.all()

    async def close(self) -> None:
        """See Store. A second call does nothing."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})
        self._wakeups.close()
        await self._client.close()
        self._thread.shutdown(wait=False)

    async def _load(self) -> tuple[State, Head]:
        """The newest state. Many may ask at once: each asks etcd for itself, or it would see what was read before it asked."""
        while True:
            known = self._head
            reading = await self._journal.read(known)
            while reading.head.format < FORMAT:
                reading = await self._upgrade(reading)
            async with self._taking:
                if reading.head.revision > self._head.revision and (reading.is_whole or self._head == known):
                    base = State() if reading.is_whole else self._state
                    self._state = await in_thread(self._thread, self._applied, base, reading)
                    self._head = reading.head
                if reading.head.revision <= self._head.revision:
                    self._at = max(self._at, reading.at)
                    return self._state, self._head

    def _applied(self, base: State, reading: Reading) -> State:
        return apply(base, keys.edits(reading.edits, self._place), reading.head.revision)

    async def _take(self, before: Head, made: Head, state: State) -> State:
        """What was committed becomes the present state, unless that was read meanwhile."""
        async with self._taking:
            if self._head == before:
                self._state, self._head = state, made
            return self._state if self._head == made else state

    async def _upgrade(self, reading: Reading) -> Reading:
        """Write what is of an older format anew, in one step; daemons of that format refuse to go on from then on."""
        await self._journal.settle()
        edits = await in_thread(self._thread, _upgraded, reading, self._place)
        await self._journal.commit(reading.head, edits, removes_secrets=True)
        return await self._journal.read(NOTHING)

    async def _listen(self, revision: int) -> None:
        """Ring when the head or a lease is written; from where it broke off, by another member perhaps."""
        end = messages.after_prefix(self._names.leases)
        pause_s = _FIRST_PAUSE_S
        while True:
            with suppress(Missed, Unavailable):
                async with aclosing(self._client.follow(self._names.head, end, revision + 1)) as answers:
                    async for answer in answers:
                        if answer.compact_revision:
                            revision = answer.compact_revision - 1
                            self._wakeups.ring()
                        if answer.canceled:
                            break
                        if answer.events:
                            revision = answer.events[-1].kv.mod_revision
                            self._wakeups.ring()
                        pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)


def _change(change: Callable[[State], State], before: State) -> tuple[State, Sequence[RawEdit], bool]:
    state, edits = committed(before, change(before))
    return state, keys.raw(edits), any(edit.kind == "trust" or (edit.kind == "secret" and edit.value is None) for edit in edits)


def _upgraded(reading: Reading, place: EtcdCluster) -> Sequence[RawEdit]:
    old: dict[str, dict[str, Any]] = {}
    for each in reading.edits:
        try:
            old.setdefault(each.kind, {})[each.id] = json.loads(bytes(each.body))
        except ValueError as exc:
            raise Unavailable(f"{place} is damaged in {each.kind} {each.id} ({exc}): restore a backup") from exc
    new = upgraded(old, reading.head.format)
    revision = reading.head.revision + 1
    edits = []
    for kind in {*old, *new}:
        before, after = old.get(kind, {}), new.get(kind, {})
        for key in {*before, *after}:
            if before.get(key) != after.get(key):
                body = msgspec.json.encode({**after[key], "revision": revision}) if key in after else b"null"
                edits.append(RawEdit(kind, key, msgspec.Raw(body)))
    return edits
