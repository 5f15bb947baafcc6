"""nftables of one network namespace, through libnftables: reading what is ours, and transactions.

READ BACK (rule 4) without reading: what was read is kept together with the kernel's attestation, which is the number of
the ruleset's generation (one up with every transaction of anybody) and the netdev chains (a device that goes may take its chain
along without a transaction). While the attestation holds, so does what was read. Our own transaction is folded in if the
generation moved by exactly one; in every other case everything is read again (docs/adr/0003).

Nothing is kept open for a namespace but by the pool of sockets: a node may have thousands.
Source: libnftables(3); include/uapi/linux/netfilter/nf_tables.h; net/netfilter/nf_tables_api.c.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple, TypeVar

from routemesh import names
from routemesh.errors import KernelError
from routemesh.kernel.netlink import Message, Requests, SocketPool, as_text, parse, reader
from routemesh.kernel.netlink.netfilter import ANY_FAMILY, BRIDGE, HEADER_BYTES, IPV4, NETDEV, NETFILTER
from routemesh.kernel.netlink.numbers.nf_tables import NftaChain, NftaGeneration, NftaHook, NftaTable, NftMessage
from routemesh.kernel.tables import learned, libnftables
from routemesh.kernel.tables.transactions import Search, fold
from routemesh.language import command, nftjson, transaction
from routemesh.language.commands import PathOf, default_path, inside
from routemesh.nodeplan import Delete, Element, Failure, Family, Item, ItemKey, Map, Op, item_of, key

_FAMILIES: Mapping[Family, bytes] = {"ip": IPV4, "netdev": NETDEV, "bridge": BRIDGE}

T = TypeVar("T")

_READ_ATTEMPTS = 5
_APPLY_ATTEMPTS = 3


class Attestation(NamedTuple):
    """What the kernel says of its ruleset's state; equal attestations mean an unchanged ruleset."""

    generation: int
    devices: tuple[tuple[tuple[str, str], str], ...]


class Nft:
    """The tables of ours in the namespace `netns`, to which `enter` switches the calling thread; use from one thread.

    `path_of` gives the files of namespaces, for the commands in failures; `pool` limits the sockets. Its methods raise
    Unavailable where there is no libnftables, KernelError where the kernel has no nf_tables or libnftables can't be asked.
    """

    def __init__(
        self,
        netns: str,
        enter: Callable[[], AbstractContextManager[None]],
        path_of: PathOf = default_path,
        pool: SocketPool | None = None,
    ) -> None:
        self._netns = netns
        self._enter = enter
        self._path_of = path_of
        self._requests = Requests(protocol=NETFILTER, enter=enter, pool=pool)
        self._attestation: Attestation | None = None
        self._items: dict[ItemKey, Item] = {}
        self._read: tuple[Item, ...] = ()

    def read(self) -> tuple[Item, ...]:
        """Everything in tables of ours. The same tuple as before when nothing has changed; raises KernelError."""
        self._renew()
        return self._read

    def apply(self, ops: Sequence[Op]) -> tuple[Failure, ...]:
        """Carry out operations in their order, in one transaction; what is already so is left alone.

        When the transaction is refused, the operations at fault are found and reported, and the others carried out.
        """
        for _ in range(_APPLY_ATTEMPTS):
            self._renew()
            after = dict(self._items)
            needed = [op for wanted in ops if (op := fold(after, wanted)) is not None]
            if not needed:
                return ()
            if self._execute(needed) is None:
                self._keep_if_alone(after)
                return ()
            if self._attest() == self._attestation:
                break  # it was nobody's change meanwhile that made it fail
        return tuple(Search(self._execute, self._failure).apply(needed))

    def learned(self) -> tuple[Element, ...]:
        """What packets have added to maps of ours by now, which `read` leaves out. Raises KernelError."""
        self._renew()
        return tuple(self._learned())

    def unlearn(self, elements: Sequence[Element]) -> None:
        """Delete such entries; fine when they are gone. Raises KernelError."""
        self._renew()
        items, ops = dict(self._items), [Delete(self._netns, element) for element in elements]
        if not ops:
            return
        if self._execute(ops) is None:
            self._keep_if_alone(items)
            return
        refused = Search(self._execute, self._failure).apply(ops)  # some may have expired meanwhile
        still = set(self.learned()) if refused else set()
        for failure in refused:
            if item_of(failure.op) in still:
                raise KernelError(failure.command, failure.reason)

    def forget(self) -> None:
        """Read everything anew next time, whatever the kernel attests."""
        self._attestation = None

    def close(self) -> None:
        """Let go of the sockets; what is in the kernel stays."""
        self._requests.close()

    # --- reading ---------------------------------------------------------------------------------------------------

    def _renew(self) -> None:
        """Read everything unless the kernel attests that nothing happened. If it never rests, the last reading counts."""
        before = self._attest()
        for _ in range(_READ_ATTEMPTS):
            if before == self._attestation:
                return
            self._read = self._list(before)
            self._items = {key(item): item for item in self._read}
            self._attestation, before = before, self._attest()
        self._attestation = None

    def _attest(self) -> Attestation:
        (reply,) = self._asked(partial(self._requests.ask, Message(NftMessage.GET_GENERATION, 0, ANY_FAMILY)))
        number = parse(reply.body, HEADER_BYTES)[NftaGeneration.ID]
        chains = self._asked(partial(self._requests.dump, NftMessage.GET_CHAIN, NETDEV))
        devices = (device for chain in chains for device in chain_device(chain.body))
        return Attestation(int.from_bytes(number, "big"), tuple(devices))

    def _list(self, attestation: Attestation) -> tuple[Item, ...]:
        """Which tables there are is asked of the kernel itself: for `list tables`, nft 1.0.6 loads all that is in any table."""
        devices = dict(attestation.devices)
        found: list[Item] = []
        for family, header in _FAMILIES.items():
            tables = self._asked(partial(self._requests.dump, NftMessage.GET_TABLE, header))
            if any(as_text(parse(table.body, HEADER_BYTES)[NftaTable.NAME]) == names.TABLE for table in tables):
                found += self._understood(family, self._list_table(family), devices)
        return tuple(found)

    def _understood(self, family: Family, listed: nftjson.Json, devices: nftjson.Devices) -> tuple[Item, ...]:
        try:
            return nftjson.parse(listed, devices)
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            listing = self._command(f"-j list table {family} {names.TABLE}")
            raise KernelError(listing, f"what it printed is not understood: {exc!r}") from exc

    def _list_table(self, family: Family) -> nftjson.Json:
        """A table, but without what packets have added to its maps: 65,536 elements would be 7 MB of JSON."""
        learning = self._asked(partial(learned.maps, self._requests)) if family == "ip" else frozenset()
        if not learning:
            return self._query(f"list table {family} {names.TABLE}")
        listed = self._query(f"list table {family} {names.TABLE}", "terse")
        return {"nftables": [entry for bare in listed["nftables"] for entry in self._filled(family, bare, learning)]}

    def _filled(self, family: Family, bare: nftjson.Json, learning: frozenset[str]) -> Iterator[nftjson.Json]:
        """An entry of such a listing, with elements if it is a map that has any."""
        for kind in bare.keys() & {"map", "set"}:
            name = bare[kind]["name"]
            if name not in learning:
                yield from self._query(f"list {kind} {family} {names.TABLE} {name}")["nftables"]
                return
        yield bare

    def _learned(self) -> Iterator[Element]:
        for item in self._read:
            if isinstance(item, Map) and item.learns:
                yield from self._asked(partial(self._elements, item))

    def _elements(self, of: Map) -> list[Element]:
        return list(learned.elements(self._requests, of))

    def _asked(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except OSError as exc:
            raise KernelError(self._command("list tables"), str(exc.strerror), exc.errno or 0) from exc

    def _query(self, text: str, *flags: str) -> nftjson.Json:
        """Only here is the output JSON: with it, libnftables first tries to read its input as JSON too."""
        code, printed, error = self._run(text, "json", "stateless", "numeric_proto", *flags)
        if code != 0:
            raise KernelError(self._command(text), _reason(error))
        try:
            return json.loads(printed)
        except ValueError as exc:
            raise KernelError(self._command(text), f"what it printed is not JSON: {exc}") from exc

    def _run(self, text: str, *flags: str) -> libnftables.Answer:
        try:
            with self._enter():
                return libnftables.run(text, *flags)
        except OSError as exc:
            raise KernelError(self._command(text.partition("\n")[0]), str(exc.strerror), exc.errno or 0) from exc

    def _command(self, text: str) -> str:
        return inside(self._netns, f"nft {text}", self._path_of)

    # --- writing ---------------------------------------------------------------------------------------------------

    def _execute(self, ops: Sequence[Op]) -> str | None:
        """Carry out all or nothing; why it was refused, or None."""
        try:
            text = transaction(ops)
        except ValueError as exc:  # somebody else's object that bears a name which nft's language can't express
            return str(exc)
        code, _, error = self._run(text)
        return None if code == 0 else _reason(error)

    def _keep_if_alone(self, items: dict[ItemKey, Item]) -> None:
        """After a transaction of ours that led to `items`."""
        before, now = self._attestation, self._attest()
        if before is None or now.generation != before.generation + 1:
            return
        self._attestation = now
        self._items = items
        self._read = tuple(items.values())

    def _failure(self, op: Op, reason: str) -> Failure:
        try:
            return Failure(op, command(op, self._path_of), reason)
        except ValueError:
            return Failure(op, self._command("list ruleset"), reason)


@reader
def chain_device(chain: bytes) -> list[tuple[tuple[str, str], str]]:
    """The table, name and device of a netdev chain that the kernel tells of."""
    attributes = parse(chain, HEADER_BYTES)
    device = parse(attributes.get(NftaChain.HOOK, b"")).get(NftaHook.DEVICE)
    if device is None:
        return []
    place = as_text(attributes[NftaChain.TABLE]), as_text(attributes[NftaChain.NAME])
    return [(place, as_text(device))]


def _reason(error: str) -> str:
    """The kernel's or the parser's own words in what libnftables said over several lines."""
    lines = [line.partition("Error: ")[2] for line in error.splitlines() if "Error: " in line]
    return lines[0].removeprefix("Could not process rule: ") if lines else error.strip() or "libnftables gave no reason"
