"""The Linux kernel: the contract of `routemesh.kernel` on real namespaces, links, routes and tables.

To read is to remember: every namespace has a Memory of what the kernel said, which events keep true (rule 4). Two threads use it,
the writer (rule 3) and the watcher's; `_turn` lets one in at a time.
"""

import os
import select
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from secrets import randbelow

from routemesh import names
from routemesh.errors import KernelError
from routemesh.kernel import foreign, hangup, sysctl
from routemesh.kernel.capabilities import has_bridge_tables, has_ip_vs, has_nf_tables, takes_timeouts
from routemesh.kernel.events import (
    ANNOUNCED_SETTINGS,
    NEW_SETTING,
    EventSocket,
    Watcher,
    nftables_events,
    route_events,
    transaction_is_ours,
)
from routemesh.kernel.glances import Glances
from routemesh.kernel.listeners import listeners
from routemesh.kernel.netlink import conntrack, entries, entryreader, ipvs, links
from routemesh.kernel.netlink.links import LOOPBACK_INDEX, Row
from routemesh.kernel.owner import Owner
from routemesh.kernel.refusals import told_as
from routemesh.kernel.spaces import Space, Spaces
from routemesh.kernel.tables import libnftables
from routemesh.kernel.writer import Writer
from routemesh.model import Listener
from routemesh.model import Protocol as L4
from routemesh.nodeplan import (
    HOST,
    LOOPBACK,
    Address,
    Capabilities,
    Element,
    Failure,
    IpvsTimeouts,
    Item,
    ItemKey,
    Namespace,
    Netns,
    NodePlan,
    Op,
    Sysctl,
    comes_along,
    item_of,
    key,
    of_kind,
)
from routemesh.nodeplan.ranges import Occupied, occupied_by
from routemesh.values import replace

_FIRST_PORT, _PORTS = 1 << 24, 1 << 30
"""Netlink port ids that the kernel gives to nobody by itself: it takes process ids, then numbers above 2^31."""

_FORWARDING = "net/ipv4/conf/{}/forwarding"
_IP_FORWARD = "net/ipv4/ip_forward"
_NOTHING: Namespace = {}
_USUAL_MTU_BYTES = 1500


class LinuxKernel:
    """The kernel as seen from the network namespace in which this object is made; our namespaces are files in run_dir/netns.

    `underlay` is the node's address, whose link's MTU `capabilities` tells. `owner` says by what we know our objects.
    """

    def __init__(self, run_dir: Path, underlay: IPv4Address | None = None, *, owner: Owner | None = None) -> None:
        self._underlay = underlay
        self._owner = owner or Owner()
        self._port = _FIRST_PORT + randbelow(_PORTS)
        self._turn = threading.Lock()
        self._writing_thread = threading.get_native_id()
        self._on_change: Callable[[], None] | None = None
        self._glances = Glances()
        with ExitStack() as opened:
            opened.callback(self._glances.close)
            self._events = route_events()
            opened.callback(self._events.close)
            self._spaces = Spaces(run_dir / "netns", self._port, self._owner.protocol)
            opened.callback(self._spaces.close)
            self._opened = opened.pop_all()
        self._writer = Writer(self._spaces, self._owner)
        self._has_tables = self._owner.has_tables and (has_nf_tables() or has_bridge_tables())
        if self._has_tables:
            with suppress(OSError):  # the first question meets the reason
                libnftables.PROCESS.start()

    # --- the contract ------------------------------------------------------------------------------------------------

    def capabilities(self) -> Capabilities:
        """Probed anew; the MTU is 1500 where no underlay was given."""
        home = self._spaces.home
        with self._turn, home.told_as("ip address show"), home.enter():
            mtu_bytes = self._underlay_mtu()
            return Capabilities(
                nf_tables=has_nf_tables(),
                bridge_tables=has_bridge_tables(),
                ip_vs=has_ip_vs(),
                kernel=os.uname().release,
                mtu_bytes=mtu_bytes,
                iptables=self._spaces.tools.probe() or "",
                ct_timeouts=takes_timeouts(),
            )

    def renewed(self, caps: Capabilities) -> Capabilities:
        """See Kernel.renewed. Raises KernelError."""
        home = self._spaces.home
        with self._turn:
            self._renew()
            with home.told_as(f"sysctl {_IP_FORWARD}"), home.enter():
                forwards = sysctl.read(_IP_FORWARD) == "1"
                # Of a device whose name is not UTF-8 there is no setting by the name that we know.
                links = [
                    link for link in _ways_in(home.memory.rows, self._owner.alias) if sysctl.exists(_FORWARDING.format(link))
                ]
            return replace(caps, links=tuple(links), forwards=forwards)

    def underlay_mtu(self) -> int:
        """See Kernel.underlay_mtu."""
        with self._turn, self._spaces.home.told_as("ip address show"):
            return self._underlay_mtu()

    def read(self, want: NodePlan) -> NodePlan:
        """See Kernel.read; a veth whose peer is in a namespace of others has no peer here. Raises KernelError."""
        with self._turn:
            self._renew()
            found = {space.name: self._read(space, want.namespaces.get(space.name, _NOTHING)) for space in self._spaces}
        return NodePlan({name: items for name, items in found.items() if items})

    def apply(self, ops: Sequence[Op]) -> tuple[Failure, ...]:
        """See Kernel.apply; never raises for what the kernel refuses."""
        self._writing_thread = threading.get_native_id()
        with self._turn:
            others_changed = self._refresh()
            others_changed |= self._take_in_events()
            failures = tuple(self._writer.carry_out(ops))
            for failure in failures:
                self._forget(failure.op.netns)
            for name in {op.netns for op in ops if isinstance(item_of(op), Sysctl)}:
                self._glances.take_as_known(name)
            others_changed |= self._take_in_events(own=True)
            self._look_again()
        if others_changed and self._on_change is not None:
            self._on_change()
        return failures

    def flush_flows(self, netns: str, protocol: L4, pool: IPv4Network, keep: Collection[IPv4Address]) -> int:
        """See Kernel.flush_flows; 0 where there is no such namespace. Raises KernelError."""
        return self._inside(netns, lambda: conntrack.flush_flows(protocol, pool, keep))

    def flush_untranslated(self, netns: str, protocol: L4, ports: Collection[int]) -> int:
        """See Kernel.flush_untranslated; 0 where there is no such namespace. Raises KernelError."""
        return self._inside(netns, lambda: conntrack.flush_untranslated(protocol, ports))

    def unfinished(self, netns: str) -> int:
        """See Kernel.unfinished. Raises KernelError."""
        return self._inside(netns, hangup.unfinished)

    def reset(self, netns: str) -> int:
        """See Kernel.reset. Raises KernelError."""
        return self._inside(netns, hangup.reset)

    def learned(self, netns: str) -> tuple[Element, ...]:
        """See Kernel.learned. Raises KernelError."""
        with self._turn, suppress(OSError):
            return self._spaces.get(netns).nft.learned() if self._has_tables else ()
        return ()

    def hand_over(self, name: str, namespace: Path | None) -> None:
        """See Kernel.hand_over."""
        with self._turn, told_as(f"nsenter --net={namespace}"):
            self._refresh()
            self._spaces.hand_over(name, namespace)

    def unlearn(self, netns: str, elements: Sequence[Element]) -> None:
        """See Kernel.unlearn. Raises KernelError."""
        self._writing_thread = threading.get_native_id()
        with self._turn, suppress(OSError):
            self._spaces.get(netns).nft.unlearn(elements)

    def occupied(self) -> tuple[Occupied, ...]:
        """See Kernel.occupied. Raises KernelError."""
        with self._turn, told_as("ip route show table all"):
            self._renew()
            home = self._spaces.home
            ours = {row.name for row in home.memory.rows.values() if row.alias == self._owner.alias}
            routes = entries.dump_routes(entries.ANY_PROTOCOL)
            questions = ((entries.dump_addresses(), entryreader.address), (routes, entryreader.route))
            found = (read(reply.body, home.memory.names) for asked, read in questions for reply in home.requests.dump(*asked))
            return tuple(occupied_by((each.entry for each in found if each is not None), ours))

    def listeners(self) -> tuple[Listener, ...]:
        """See Kernel.listeners. Raises KernelError."""
        home = self._spaces.home
        with home.told_as("ss -lntup"), home.enter():
            return listeners()

    def foreign(self, want: NodePlan) -> tuple[str, ...]:
        """See Kernel.foreign. Raises KernelError."""
        with self._turn:
            others_changed = self._renew()
            found = tuple(self._in_the_way(want))
        if others_changed and self._on_change is not None:
            self._on_change()
        return found

    def netns_path(self, name: str) -> Path:
        """See Kernel.netns_path; for the node's own namespace, a file that lasts as long as this object."""
        return self._spaces.path(name)

    def watch(self, on_change: Callable[[], None]) -> None:
        """See Kernel.watch; once per object. `on_change` may be called from the thread that applies, too."""
        self._on_change = on_change
        sources: list[tuple[int, int, Callable[[], bool]]] = [(self._events.fileno(), select.EPOLLIN, self._see_events)]
        mounts = os.open("/proc/self/mounts", os.O_RDONLY | os.O_CLOEXEC)
        self._opened.callback(os.close, mounts)
        sources.append((mounts, select.EPOLLPRI, self._see_mounts))
        if self._has_tables:
            with self._spaces.home.enter():
                tables = nftables_events()
            self._opened.callback(tables.close)
            sources.append((tables.fileno(), select.EPOLLIN, lambda: self._see_transactions(tables)))
        self._opened.callback(Watcher(sources, on_change, self._glance).close)

    def close(self) -> None:
        """See Kernel.close."""
        self._opened.close()

    # --- reading -----------------------------------------------------------------------------------------------------

    def _renew(self) -> bool:
        """Bring all memories up to date; whether there was news from others."""
        with told_as(f"ls -l {self._spaces.directory}"):
            news = self._spaces.refresh()
        with told_as("ip monitor all-nsid"):
            news |= self._take_in_events()
        for space in self._spaces:
            space.memory.renew()
        return news

    def _read(self, space: Space, want: Namespace) -> Namespace:
        memory = space.memory
        ours = [row for row in memory.rows.values() if self._is_ours(space, row)]
        found: dict[ItemKey, Item] = {}
        for row in ours:
            link = links.as_link(row, memory.names, self._spaces.peer(space, row))
            if link is not None:
                found[key(link)] = link
        for table in memory.hanging([row.index for row in ours]):
            found.update(table)
        for name in [name for name in found if name not in want and comes_along(found[name])]:
            del found[name]
        items = [*_balancing(space, want), *self._settings(space, want), *self._rules(space, want)]
        if space.name == HOST:
            items += (Netns(other.name) for other in self._spaces if other.name != HOST)
        found.update((key(item), item) for item in items)
        return found

    def _is_ours(self, space: Space, row: Row) -> bool:
        return row.alias == self._owner.alias or (row.name == LOOPBACK and space.name != HOST)

    def _settings(self, space: Space, want: Namespace) -> list[Sysctl]:
        paths = [setting.path for setting in of_kind(want, Sysctl)]
        if not paths:
            return []
        with space.told_as(f"sysctl {' '.join(paths)}"), space.enter():
            self._glances.hold(space.name, space, [path for path in paths if not path.endswith(ANNOUNCED_SETTINGS)])
            found = [Sysctl(path, value) for path in paths if (value := sysctl.read(path)) is not None]
        return found

    def _rules(self, space: Space, want: Namespace) -> Iterator[Item]:
        if self._has_tables:
            yield from space.nft.read()
        if self._owner.has_tables:
            yield from space.xtables.read(want)

    def _underlay_mtu(self) -> int:
        if self._underlay is None:
            return _USUAL_MTU_BYTES
        memory = self._spaces.home.memory
        memory.renew()
        for row in memory.rows.values():
            addresses = (address for table in memory.hanging([row.index]) for address in of_kind(table, Address))
            if row.on and any(address.address.ip == self._underlay for address in addresses):
                return row.mtu
        return 0

    def _in_the_way(self, want: NodePlan) -> Iterator[str]:
        for space in self._spaces:
            wanted = want.namespaces.get(space.name, _NOTHING).values()
            yield from foreign.links_in_the_way(space.name, wanted, space.memory.rows.values(), self._owner.alias)
        everything = [item for items in want.namespaces.values() for item in items.values()]
        yield from foreign.tunnels_in_the_way(everything, self._spaces.home.memory.rows.values(), self._owner.alias)

    def _inside(self, netns: str, flush: Callable[[], int]) -> int:
        try:
            space = self._spaces.get(netns)
        except OSError:
            return 0
        with space.told_as("conntrack -L"), space.enter():
            return flush()

    # --- events ------------------------------------------------------------------------------------------------------

    def _take_in_events(self, *, own: bool = False) -> bool:
        """Bring the memories up to date; whether there is news from others.

        `own`: these are events of our own writing, in which what the kernel did by itself followed from what we did.
        """
        events, lost = self._events.pending()
        if lost:
            for space in self._spaces:
                space.memory.forget()
        ours = {0, self._port} if own else {self._port}
        news = lost
        for nsid, message in events:
            origin = self._spaces.numbered(nsid)
            try:
                is_new = origin is not None and (message.kind == NEW_SETTING or origin.memory.fold(message))
            except OSError:  # it is not understood: ask instead
                assert origin is not None
                origin.memory.forget()
                is_new = True
            news |= is_new and message.port not in ours
        return news

    def _look_again(self) -> None:
        """Read what was just made, so that what the kernel adds to it later (a carrier) is not news."""
        for space in self._spaces:
            try:
                space.memory.renew()
            except (OSError, KernelError):
                space.memory.forget()

    def _refresh(self) -> bool:
        """Before writing. Where something fails here, the operations meet the reason."""
        changed = False
        with suppress(OSError):
            changed = self._spaces.refresh()
            self._spaces.clear_lost()
        return changed

    def _forget(self, netns: str) -> None:
        with suppress(OSError):
            self._spaces.get(netns).memory.forget()

    def _see_events(self) -> bool:
        with self._turn:
            return self._take_in_events()

    def _see_balancing(self) -> bool:
        with self._turn:
            return any(space.has_ipvs and space.ipvs.has_changed() for space in self._spaces)

    def _glance(self) -> bool:
        """At what changes without an event."""
        balancing = self._see_balancing()
        with self._turn:
            return self._glances.look() or balancing

    def _see_mounts(self) -> bool:
        with self._turn:
            return not self._spaces.are_current()

    def _see_transactions(self, tables: EventSocket) -> bool:
        events, lost = tables.pending()
        return lost or any(
            self._spaces.numbered(nsid) is not None and not transaction_is_ours(message, self._is_writing)
            for nsid, message in events
        )

    def _is_writing(self, number: int) -> bool:
        """Whether it is the id of the thread that writes, of libnftables' process, or of an iptables that it started."""
        return number == self._writing_thread or libnftables.PROCESS.is_one_of_its(number) or self._spaces.tools.is_ours(number)


def _ways_in(rows: Mapping[int, Row], alias: str) -> Iterator[str]:
    """The devices of others by which packets may come: not lo, and of a bridge not its ports."""
    for row in rows.values():
        master = rows.get(row.master)
        if row.alias != alias and row.index != LOOPBACK_INDEX and (master is None or master.kind != "bridge"):
            yield row.name


def _balancing(space: Space, want: Namespace) -> Iterator[Item]:
    """What IPVS has in the sandbox; in other namespaces it is not ours. What is not loaded has nothing."""
    if space.name != names.SANDBOX or not ipvs.is_loaded():
        return
    with space.told_as("ipvsadm -Ln"):
        found = list(space.ipvs.read())
    yield from (item for item in found if not isinstance(item, IpvsTimeouts) or key(item) in want)
