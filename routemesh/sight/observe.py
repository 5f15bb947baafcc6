"""Reading everything that can decide about a packet, whatever made it: namespaces as snapshots. Nothing is written.

Unlike LinuxKernel.read, which knows ours alone and remembers, this asks for all and keeps nothing. Call in a thread of its own:
it goes from namespace to namespace. A namespace, or a part of one, that can't be read is told in its `unread`.

Source: rtnetlink(7), namespaces(7); the kernel's net_namespace.c (RTM_GETNSID), rtnetlink.c (IFLA_LINK_NETNSID).
"""

import errno
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from routemesh.errors import RoutemeshError
from routemesh.kernel import netns, sysctl
from routemesh.kernel.capabilities import has_nf_tables
from routemesh.kernel.listeners import PROCESSES, Process, Waiting, is_stopped, sockets
from routemesh.kernel.netlink import Requests, conntrack, entries, entryreader, ipsec, links, nsids
from routemesh.kernel.netlink.conntrack import ALL
from routemesh.kernel.netlink.links import Row
from routemesh.names import SANDBOX
from routemesh.nodeplan import HOST, LOOPBACK, Address, Capabilities, Item, Link, LinkKind, Peer, Sysctl
from routemesh.sight import rulesets
from routemesh.snapshot import (
    LINK_SYSCTLS,
    SYSCTLS,
    Bound,
    Connections,
    ConntrackEntry,
    IpsecPolicy,
    Led,
    NamespaceSnapshot,
    NodeSnapshot,
    Part,
    Socket,
    Unread,
    led,
)
from routemesh.values import replace

_MOST_CONNECTIONS = 100_000

T = TypeVar("T")


@dataclass(slots=True)
class _Space:
    """A namespace while it is read: what was found, still in the kernel's numbers."""

    name: str
    path: Path
    file: int
    requests: Requests
    unread: list[Unread] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    settings: dict[str, dict[str, int]] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    connections: tuple[ConntrackEntry, ...] | None = None
    led: tuple[Led, ...] | None = None
    count: int | None = None
    limit: int | None = None
    waiting: list[Waiting] | None = None
    ipsec: tuple[IpsecPolicy, ...] = ()

    def attempt(self, what: str, loses: str, part: Part, read: Callable[[], T]) -> T | None:
        """What `read` gives; None, and a note of it, where it fails."""
        try:
            return read()
        except (OSError, RoutemeshError) as refusal:
            reason = refusal.strerror if isinstance(refusal, OSError) else str(refusal)
            self.unread.append(Unread(what, str(reason), loses, part))
            return None


def observe(paths: Mapping[str, Path], which: Connections = ALL) -> dict[str, NamespaceSnapshot]:
    """Read the namespaces at `paths`, by name; HOST is the node's own. `which`: of connections only these.

    A veth's peer is named where it is in one of these namespaces.
    """
    found: dict[str, NamespaceSnapshot] = {}
    spaces: list[_Space] = []
    with ExitStack() as opened:
        for name, path in paths.items():
            try:
                spaces.append(_open(opened, name, path))
            except OSError as refusal:
                what = Unread(str(path), str(refusal.strerror), f"what is in the namespace {name}")
                found[name] = NamespaceSnapshot(path=str(path), unread=(what,))
        nf_tables = has_nf_tables()
        for space in spaces:
            with netns.entered(Path(f"/proc/self/fd/{space.file}")):  # its name may be gone by now
                _read(space, which, nf_tables=nf_tables)
        peers = _Peers(spaces)
        for space in spaces:
            space.items = [*_links(space, peers), *space.items]
    inodes = {waiting.inode for space in spaces for waiting in space.waiting or ()}
    processes = PROCESSES.of(inodes)
    for space in spaces:
        waiting = None if space.waiting is None else told(space.waiting, processes)
        found[space.name] = NamespaceSnapshot(
            path="" if space.name == HOST else str(space.path),
            items=tuple(space.items),
            conntrack=space.connections,
            led=space.led,
            conntrack_count=space.count,
            conntrack_max=space.limit,
            sockets=None if waiting is None else waiting[0],
            only_ipv6=() if waiting is None else waiting[1],
            ipsec=space.ipsec,
            unread=tuple(space.unread),
        )
    return found


def _open(opened: ExitStack, name: str, path: Path) -> _Space:
    file = opened.enter_context(netns.opened(path))
    with netns.entered(path):
        return _Space(name, path, file, opened.enter_context(closing(Requests())))


def told(waiting: Sequence[Waiting], processes: Mapping[int, Process]) -> tuple[tuple[Socket, ...], tuple[Bound, ...]]:
    """Sockets with their processes, and those of IPv6 alone."""
    ipv4 = tuple(_socket(each, *processes[each.inode]) for each in waiting if not each.only_ipv6)
    ipv6 = (each for each in waiting if each.only_ipv6)
    return ipv4, tuple(
        Bound(protocol=each.protocol, address=each.only_ipv6, port=each.port, process=processes[each.inode].name) for each in ipv6
    )


def _socket(waiting: Waiting, pid: int, name: str) -> Socket:
    return Socket(
        protocol=waiting.protocol,
        address=waiting.address,
        port=waiting.port,
        process=name,
        pid=pid,
        queued=waiting.queued,
        backlog=waiting.backlog,
        stopped=is_stopped(pid),
    )


# --- one namespace -----------------------------------------------------------------------------------------------


def _read(space: _Space, which: Connections, *, nf_tables: bool) -> None:
    """Everything of the namespace that the calling thread is in, without the names of peers."""
    space.attempt("ip -details link show", "which way a packet takes", "links", lambda: _read_links(space))
    names = {index: row.name for index, row in space.rows.items()}
    parts: tuple[tuple[str, str, Part, Callable[[], Iterator[Item]]], ...] = (
        ("ip address show", "which addresses are local", "links", lambda: _addresses(space, names)),
        ("ip route show table all", "which way a packet takes", "routes", lambda: _routes(space, names)),
        ("ip rule show", "which routing table is asked", "rules", lambda: _rules(space)),
        ("ip neighbour show", "to which MAC a packet is sent", "neighbours", lambda: _neighbours(space, names)),
        ("bridge fdb show", "behind which port or node a MAC is", "fdb", lambda: _fdb(space, names)),
    )
    for what, loses, part, read in parts:
        space.items += space.attempt(what, loses, part, lambda read=read: list(read())) or []  # type: ignore[misc]  # bound now
    space.items += _sysctls(space)
    rules = rulesets.everything(nf_tables=nf_tables)
    space.items += rules.items
    space.unread += rules.unread
    space.ipsec = space.attempt("ip xfrm policy", "what IPsec blocks or encrypts", "routes", _ipsec) or ()
    _read_connections(space, which)
    space.waiting = space.attempt("ss -lntu", "who listens", "sockets", sockets)


def _read_links(space: _Space) -> None:
    for reply in space.requests.dump(*links.dump(None)):
        row = links.read_row(reply.body)
        space.rows[row.index] = row
        space.settings[row.name] = links.read_settings(reply.body)


def _addresses(space: _Space, names: Mapping[int, str]) -> Iterator[Item]:
    for reply in space.requests.dump(*entries.dump_addresses()):
        if (found := entryreader.address(reply.body, names)) is not None:
            yield found.entry


def _routes(space: _Space, names: Mapping[int, str]) -> Iterator[Item]:
    for reply in space.requests.dump(*entries.dump_routes(entries.ANY_PROTOCOL)):
        if (found := entryreader.route(reply.body, names)) is not None:
            yield found.entry


def _rules(space: _Space) -> Iterator[Item]:
    for reply in space.requests.dump(*entries.dump_rules()):
        if (found := entryreader.rule(reply.body)) is not None:
            yield found


def _ipsec() -> tuple[IpsecPolicy, ...]:
    """No policies where the kernel has no IPsec."""
    try:
        with closing(Requests(protocol=ipsec.PROTOCOL)) as requests:
            answers = requests.dump(*ipsec.dump())
    except OSError as refusal:
        if refusal.errno in (errno.EPROTONOSUPPORT, errno.ECONNREFUSED):
            return ()
        raise
    return tuple(found for each in answers if (found := ipsec.policy(each.body)) is not None)


def _neighbours(space: _Space, names: Mapping[int, str]) -> Iterator[Item]:
    for reply in space.requests.dump(*entries.dump_neighbours()):
        if (found := entryreader.neighbour(reply.body, names)) is not None:
            yield found.entry


def _fdb(space: _Space, names: Mapping[int, str]) -> Iterator[Item]:
    """Each once: a bridge with VLANs has an entry of each."""
    found = (entryreader.neighbour(reply.body, names) for reply in space.requests.dump(*entries.dump_fdb()))
    yield from dict.fromkeys(each.entry for each in found if each is not None)


def _sysctls(space: _Space) -> Iterator[Sysctl]:
    shared = (f"net/ipv4/conf/{which}/{name}" for which in ("all", "default") for name in LINK_SYSCTLS)
    yield from (Sysctl(path, value) for path, value in sysctl.read_all((*SYSCTLS, *shared)).items())
    for link, settings in space.settings.items():
        yield from (Sysctl(f"net/ipv4/conf/{link}/{name}", str(value)) for name, value in settings.items())


def _read_connections(space: _Space, which: Connections) -> None:
    set_to = {item.path: item.value for item in space.items if isinstance(item, Sysctl)}
    space.count, space.limit = (_number(set_to.get(f"net/netfilter/nf_conntrack_{which}")) for which in ("count", "max"))
    is_counted = which.client_port is not None and space.name == SANDBOX
    if (is_counted or which == ALL) and (space.count or 0) > _MOST_CONNECTIONS:
        reason = f"it has {space.count} entries, of which at most {_MOST_CONNECTIONS} are read"
        space.unread.append(Unread("conntrack -L", reason, "what becomes of connections that there are", "connections"))
        return
    if space.count == 0:
        space.connections, space.led = (), () if is_counted else None
        return
    loses = "what becomes of connections that there are"
    space.connections = space.attempt("conntrack -L", loses, "connections", lambda: tuple(conntrack.entries(which)))
    if is_counted:
        space.led = space.attempt("conntrack -L", loses, "connections", lambda: led(conntrack.entries()))


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.isdigit() else None


# --- links and their peers ---------------------------------------------------------------------------------------


class _Peers:
    """Which of these namespaces a number means, as each of them counts. It is asked of the kernel, one by one, and kept."""

    def __init__(self, spaces: Collection[_Space]) -> None:
        self._spaces = sorted(spaces, key=lambda space: -len(space.rows))  # of 2,000 tasks, all hang on a few bridges
        self._known: dict[tuple[str, int], _Space] = {}
        self._asked: set[tuple[str, str]] = set()

    def of(self, space: _Space, row: Row) -> Peer | None:
        """A veth's other end, where it is in one of these namespaces."""
        if row.peer is None:
            return None
        where = space if row.peer.nsid is None else self._numbered(space, row.peer.nsid)
        other = None if where is None else where.rows.get(row.peer.link)
        return None if where is None or other is None else Peer(where.name, other.name)

    def _numbered(self, space: _Space, number: int) -> _Space | None:
        for other in self._spaces:
            if (space.name, number) in self._known:
                break
            if (space.name, other.name) not in self._asked:
                self._asked.add((space.name, other.name))
                self._known[space.name, self._number(space, other)] = other
        return self._known.get((space.name, number))

    def _number(self, space: _Space, other: _Space) -> int:
        return _number_of(space.requests, other.file)


def _number_of(requests: Requests, file: int) -> int:
    try:
        return nsids.known(requests, file)
    except OSError:
        return nsids.UNKNOWN


def numbers(paths: Mapping[str, Path]) -> Mapping[int, str]:
    """By which numbers the namespace that the calling thread is in knows those at `paths`; as `ip netns list-id` tells it."""
    found: dict[int, str] = {}
    with closing(Requests()) as requests:
        for name, path in paths.items():
            with suppress(OSError), netns.opened(path) as file:
                found[_number_of(requests, file)] = name
    found.pop(nsids.UNKNOWN, None)
    return found


def _links(space: _Space, peers: _Peers) -> Iterator[Link]:
    names = {index: row.name for index, row in space.rows.items()}
    for row in space.rows.values():
        kind: LinkKind = "loopback" if row.name == LOOPBACK else "other"
        ours = links.as_link(row, names, peers.of(space, row))
        link = ours or Link(name=row.name, kind=kind, mtu=row.mtu, mac=row.mac, master=names.get(row.master))
        yield replace(link, up=row.on, carrier=row.carrier, odd=row.odd)


def observe_node(
    name: str,
    engine: str,
    addresses: tuple[IPv4Address, ...],
    directory: Path,
    caps: Capabilities,
    which: Connections = ALL,
    namespaces: Collection[str] | None = None,
    own: Path | None = None,
) -> NodeSnapshot:
    """The node whose `own` namespace is the process's unless said otherwise, and whose others are files in `directory`; of those
    only `namespaces`, if given. Of its `addresses` on the underlay the advertised one is the first."""
    paths = {HOST: own or Path(f"/proc/{os.getpid()}/ns/net")}
    there = sorted(netns.identities(directory))
    paths |= {found: directory / found for found in there if namespaces is None or found in namespaces}
    spaces = observe(paths, which)
    devices = (item.link for item in spaces[HOST].of(Address) if item.address.ip in addresses)
    return NodeSnapshot(
        name=name,
        kind="routemesh",
        engine=engine,
        addresses=addresses,
        device=next(devices, ""),
        namespaces=spaces,
        kernel=caps.kernel,
        iptables=caps.iptables,
        at=time.time(),
    )
