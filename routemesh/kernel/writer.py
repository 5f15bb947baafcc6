"""Carrying out operations: sorted into runs, each run to the one who knows how, each refusal made a Failure (rule 9).

A run is a stretch of neighbouring operations that go well together: addresses, routes, neighbours and FDB entries of a namespace
travel in one datagram, so do IPVS's, links of a namespace are deleted together, nftables operations become one transaction per
namespace, and so do those of iptables.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Never

from routemesh.errors import RoutemeshError
from routemesh.kernel import sysctl
from routemesh.kernel.entrywriter import EntryWriter
from routemesh.kernel.linkwriter import LinkWriter
from routemesh.kernel.netlink import ipvs
from routemesh.kernel.owner import Owner
from routemesh.kernel.spaces import Space, Spaces
from routemesh.language import command
from routemesh.nodeplan import (
    Address,
    Chain,
    CtTimeouts,
    Delete,
    Element,
    Failure,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    IpvsTimeouts,
    Link,
    Map,
    Neighbour,
    Netns,
    Op,
    Route,
    RoutingRule,
    Sysctl,
    Table,
    XtChain,
    XtRule,
    item_of,
)

Run = Sequence[Op]

_NAMESPACES, _DOOMED_NAMESPACES, _LINKS, _DOOMED_LINKS, _SETTINGS, _ENTRIES, _IPVS, _NFTABLES, _IPTABLES, _UNKNOWN = range(10)
_BY_NAMESPACE = (_NFTABLES, _IPTABLES)


class Writer:
    """Carries out operations in the namespaces of `spaces` for `owner`."""

    def __init__(self, spaces: Spaces, owner: Owner) -> None:
        self._spaces = spaces
        self._owner = owner
        self._links = LinkWriter(spaces, owner.alias)
        self._handlers: Mapping[int, Callable[[Space, Run], Iterable[Failure]]] = {
            _NAMESPACES: self._make_namespaces,
            _DOOMED_NAMESPACES: self._remove_namespaces,
            _LINKS: self._put_links,
            _DOOMED_LINKS: self._remove_links,
            _SETTINGS: self._write_settings,
            _ENTRIES: self._write_entries,
            _IPVS: self._balance,
            _NFTABLES: self._apply_nftables,
            _IPTABLES: self._apply_iptables,
            _UNKNOWN: self._pass_over,
        }

    def carry_out(self, ops: Run) -> Iterator[Failure]:
        """Do all, in order; the refused ones."""
        for kind, run in _runs(ops):
            try:
                space = self._spaces.get(run[0].netns)
            except OSError as refusal:  # what was in it is gone with it
                yield from self._failures([op for op in run if not isinstance(op, Delete)], refusal)
                continue
            try:
                yield from list(self._handlers[kind](space, run))
            except (OSError, RoutemeshError) as refusal:
                yield from self._failures(run, refusal)

    def _make_namespaces(self, _: Space, run: Run) -> Iterator[Failure]:
        for op in run:
            try:
                self._spaces.create(_namespace(op))
            except OSError as refusal:
                yield self._failure(op, refusal)

    def _remove_namespaces(self, _: Space, run: Run) -> Iterator[Failure]:
        with suppress(OSError):  # then the kernel does it, later
            self._spaces.cut_off([_namespace(op) for op in run])
        for op in run:
            try:
                self._spaces.remove(_namespace(op))
            except OSError as refusal:
                yield self._failure(op, refusal)

    def _put_links(self, space: Space, run: Run) -> Iterator[Failure]:
        for op in run:
            link = item_of(op)
            assert isinstance(link, Link)
            try:
                self._links.put(space, link)
            except OSError as refusal:
                yield self._failure(op, refusal)

    def _remove_links(self, space: Space, run: Run) -> Iterable[Failure]:
        self._links.remove(space, [link.name for link in map(item_of, run) if isinstance(link, Link)])
        return ()

    def _write_settings(self, space: Space, run: Run) -> Iterator[Failure]:
        """A setting that is not wanted any more keeps its value: nobody knows what it was before. IPVS's come with IPVS."""
        if any(isinstance(item, Sysctl) and item.path.startswith(ipvs.SETTINGS) for item in map(item_of, run)):
            space.ipvs.load()
        with space.enter():
            for op in run:
                setting = item_of(op)
                assert isinstance(setting, Sysctl)
                try:
                    if not isinstance(op, Delete):
                        sysctl.write(setting.path, setting.value)
                except OSError as refusal:
                    yield self._failure(op, refusal)

    def _write_entries(self, space: Space, run: Run) -> Iterator[Failure]:
        for op, refusal in EntryWriter(space, self._owner).carry_out(run):
            yield self._failure(op, refusal)

    def _balance(self, space: Space, run: Run) -> Iterator[Failure]:
        for op, refusal in space.ipvs.carry_out(run):
            yield self._failure(op, refusal)

    def _apply_nftables(self, space: Space, run: Run) -> Iterable[Failure]:
        return space.nft.apply(run)

    def _apply_iptables(self, space: Space, run: Run) -> Iterable[Failure]:
        return space.xtables.apply(run)

    def _pass_over(self, _: Space, run: Run) -> Iterator[Failure]:
        return (Failure(op, "", f"this version can't make objects of kind {type(item_of(op)).__name__}") for op in run)

    def _failures(self, run: Iterable[Op], refusal: Exception) -> Iterator[Failure]:
        return (self._failure(op, refusal) for op in run)

    def _failure(self, op: Op, refusal: Exception) -> Failure:
        reason = refusal.strerror if isinstance(refusal, OSError) and refusal.strerror else str(refusal)
        return Failure(op, command(op, self._spaces.path), reason)


def _runs(ops: Run) -> Iterator[tuple[int, Run]]:
    """Operations in their order; but a stretch of operations on rules, which may go to and fro, is sorted by namespace."""
    for (kind, _), run in groupby(ops, _run_of):
        if kind not in _BY_NAMESPACE:
            yield kind, list(run)
            continue
        transactions: dict[str, list[Op]] = {}
        for op in run:
            transactions.setdefault(op.netns, []).append(op)
        for transaction in transactions.values():
            yield kind, transaction


def _run_of(op: Op) -> tuple[int, str]:
    match item_of(op):
        case Link():
            return (_DOOMED_LINKS if isinstance(op, Delete) else _LINKS), op.netns
        case Sysctl():
            return _SETTINGS, op.netns
        case IpvsTimeouts() | IpvsService() | IpvsDestination():
            return _IPVS, op.netns
        case Table() | CtTimeouts() | Map() | Chain() | Element():
            return _NFTABLES, ""
        case XtChain() | XtRule():
            return _IPTABLES, ""
        case Netns():
            return (_DOOMED_NAMESPACES if isinstance(op, Delete) else _NAMESPACES), ""
        case Address() | Route() | RoutingRule() | Neighbour() | FdbEntry():
            return _ENTRIES, op.netns
        case unknown:
            return _unheard_of(unknown), ""


def _unheard_of(_: Never) -> int:
    """What no handler is for: a failure of that operation, and the others go on (rule 9)."""
    return _UNKNOWN


def _namespace(op: Op) -> str:
    item = item_of(op)
    assert isinstance(item, Netns)
    return item.name
