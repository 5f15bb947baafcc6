"""Leases, by etcd's own: it judges when one has lapsed, by its leader's monotonic clock, and removes the key with it.

To keep one alive costs etcd's leader a note in memory, no write, and wakes nobody. A new leader gives every lease its whole time
again. A lease of etcd's goes with one key alone: as long as it lives, whoever holds it holds that.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from routemesh.model import Lease
from routemesh.store.etcd import messages
from routemesh.store.etcd.client import Client
from routemesh.store.etcd.faults import NoLease
from routemesh.store.etcd.keys import Held, Keys
from routemesh.store.etcd.messages import Answer, KeyValue, LeaseAnswer, LeasePart, RangeAnswer, TxnAnswer


@dataclass(frozen=True, slots=True)
class _Own:
    """A lease that this daemon has taken: etcd's number of it, and what its key holds."""

    number: int
    held: Held


class Leases:
    """The leases of one cluster, as one daemon takes them."""

    def __init__(self, client: Client, names: Keys) -> None:
        self._client = client
        self._names = names
        self._own: dict[str, _Own] = {}

    async def renew(self, name: str, wanted: Held) -> bool:
        """Take or prolong a lease; False while somebody else holds it."""
        own = self._own.get(name)
        if own is not None and (own.held.holder, own.held.ttl_s) == (wanted.holder, wanted.ttl_s):
            with suppress(NoLease):
                if await self._prolong(name, own, wanted):
                    self._own[name] = _Own(own.number, wanted)
                    return True
        self._own.pop(name, None)
        return await self._take(name, wanted)

    async def release(self, name: str, holder: str) -> None:
        """End a lease, if it is held by `holder`."""
        self._own.pop(name, None)
        present = await self._present(name)
        if present is not None and _held(present).holder == holder:
            await self._end(present.lease)

    async def all(self) -> Mapping[str, Lease]:
        """Those that have not lapsed, by name."""
        under = self._names.leases
        found = (await self._client.call("kv/range", messages.get_range(under, messages.after_prefix(under)), RangeAnswer)).kvs
        return {name: _lease(name, _held(each)) for each in found for name in (each.key.decode().removeprefix(under),)}

    async def _prolong(self, name: str, own: _Own, wanted: Held) -> bool:
        answer = await self._client.call("lease/keepalive", {"ID": own.number}, LeasePart)
        if answer.result.ttl == 0:
            return False
        if own.held == wanted:
            return True
        key = self._names.lease(name)
        write = messages.put(key, msgspec.json.encode(wanted), own.number)
        return (await self._commit([messages.is_of_lease(key, own.number)], write)).succeeded

    async def _take(self, name: str, wanted: Held) -> bool:
        key = self._names.lease(name)
        number = 0
        while True:
            present = await self._present(name)
            if present is not None and number and present.lease == number:  # the answer had been lost
                break
            if present is not None and _held(present).holder != wanted.holder:
                if number:
                    await self._end(number)
                return False
            with suppress(NoLease):  # it took so long
                number = number or (await self._client.call("lease/grant", {"TTL": math.ceil(wanted.ttl_s)}, LeaseAnswer)).id
                write = messages.put(key, msgspec.json.encode(wanted), number)
                free = messages.is_of_revision(key, 0 if present is None else present.mod_revision)
                if (await self._commit([free], write)).succeeded:
                    if present is not None:  # of this holder, before it was started anew
                        await self._end(present.lease)
                    break
                continue
            number = 0
        self._own[name] = _Own(number, wanted)
        return True

    async def _commit(self, compare: list[messages.Json], write: messages.Json) -> TxnAnswer:
        return await self._client.call("kv/txn", messages.transaction(compare, [write]), TxnAnswer)

    async def _present(self, name: str) -> KeyValue | None:
        answer = await self._client.call("kv/range", messages.get(self._names.lease(name)), RangeAnswer)
        return next(iter(answer.kvs), None)

    async def _end(self, number: int) -> None:
        with suppress(NoLease):
            await self._client.call("lease/revoke", {"ID": number}, Answer)


def _held(found: KeyValue) -> Held:
    return msgspec.json.decode(found.value, type=Held)


def _lease(name: str, held: Held) -> Lease:
    return Lease(name=name, holder=held.holder, ttl_s=held.ttl_s, value=held.value)
