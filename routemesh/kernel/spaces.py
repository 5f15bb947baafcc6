"""The namespaces of one kernel object: the node's own and those below its run directory, each with a memory.

A namespace costs no descriptor: sockets are opened in it when something is asked there, and a limited number stays open.

Namespaces know each other by numbers (nsid) that belong to the one that counts. Everything here counts as the node's own
namespace does: it gives each of ours a number, so that it can list their links with their peers and hear of their changes.
Source: Linux net/core/net_namespace.c, rtnetlink.c (IFLA_TARGET_NETNSID).
"""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from errno import EINVAL, ENODEV, ENOENT
from functools import cached_property
from pathlib import Path

from routemesh.kernel import netns
from routemesh.kernel.handed import Handed
from routemesh.kernel.memory import Memory
from routemesh.kernel.netlink import Message, Reply, Requests, SocketPool, entries, links, nsids
from routemesh.kernel.netlink.ipvs import Ipvs
from routemesh.kernel.netlink.links import Row
from routemesh.kernel.refusals import told_as
from routemesh.kernel.tables.nft import Nft
from routemesh.kernel.tables.xtables import Xtables
from routemesh.kernel.tables.xttools import Tools
from routemesh.language.commands import inside
from routemesh.nodeplan import HOST, Peer

_DOOMED_GROUP = 0x726D
"""The group into which links go to be deleted together; any number that nobody else uses."""
_OPEN_SOCKETS = 64
"""So many stay open in all namespaces together: the busy ones' at any rate."""


class Space:
    """One namespace, whose number `identity` (none: unchecked) tells it from a later one of the name.

    `nsid` is None for the node's own.
    """

    def __init__(self, spaces: "Spaces", name: str, nsid: int | None, identity: int | None = None) -> None:
        self.name = name
        self.path = spaces.path(name)
        self.requests = Requests(spaces.port, enter=self.enter, pool=spaces.pool)
        self.nsid = nsid
        self._identity = identity
        self.memory = Memory(self._told_links, self._told_link, self._told, spaces.protocol)
        self._spaces = spaces

    @cached_property
    def nft(self) -> Nft:
        """Its nftables, opened when first asked for."""
        return Nft(self.name, self.enter, self._spaces.path, self._spaces.pool)

    @cached_property
    def xtables(self) -> Xtables:
        """Its iptables, of which nothing is opened before something is to be known."""
        return Xtables(self.name, self.enter, self._spaces.tools, self._spaces.path, self._spaces.pool)

    @cached_property
    def ipvs(self) -> Ipvs:
        """Its IPVS; looking for it would make the kernel load ip_vs, so this is for where it is wanted or there anyway."""
        return Ipvs(self.enter)

    @property
    def has_ipvs(self) -> bool:
        """Whether its IPVS was of interest so far."""
        return "ipvs" in self.__dict__

    def told_as(self, command: str) -> AbstractContextManager[None]:
        """What is refused in the block is a KernelError of this command, run in this namespace."""
        return told_as(inside(self.name, command, self._spaces.path))

    def _told_links(self) -> list[Row]:
        with self.told_as("ip -details link show"):
            return self.links()

    def _told_link(self, index: int) -> Row | None:
        with self.told_as("ip -details link show"):
            return self.find(index)

    def _told(self, kind: int, body: bytes) -> Sequence[Reply]:
        with self.told_as(entries.command(kind, body)):
            return self.requests.dump(kind, body)

    def enter(self) -> AbstractContextManager[None]:
        """The calling thread is in this namespace. Raises OSError when it is gone, whatever has its name now."""
        return netns.entered(self.path, self._identity)

    def find(self, link: str | int) -> Row | None:
        """A link by name or index, asked of the kernel. Raises OSError."""
        try:
            (reply,) = self._spaces.home.requests.ask(links.lookup(link, self.nsid))
        except OSError as refusal:
            if refusal.errno == ENODEV:
                return None
            raise
        return links.read_row(reply.body)

    def links(self) -> list[Row]:
        """All links, asked of the kernel. Raises OSError."""
        return [links.read_row(reply.body) for reply in self._spaces.home.requests.dump(*links.dump(self.nsid))]

    def execute(self, *messages: Message) -> None:
        """Carry out requests here; raises OSError for the first that is refused."""
        for refusal in self.requests.execute(messages):
            if refusal is not None:
                raise refusal

    def delete(self, indices: Collection[int]) -> None:
        """Delete links, with their peers; several in one go. Fine when they are gone. Raises OSError."""
        if len(indices) > 1 and all(row.group != _DOOMED_GROUP for row in self.links()):
            messages = [*(links.put_in_group(index, _DOOMED_GROUP) for index in indices), links.delete_group(_DOOMED_GROUP)]
        else:
            messages = [links.delete(index) for index in indices]
        for refusal in self.requests.execute(messages):
            if refusal is not None and refusal.errno != ENODEV:
                raise refusal

    def delete_from_outside(self, indices: Collection[int]) -> None:
        """Delete links in a namespace that can't be entered any more; fine when they are gone. Raises OSError."""
        for refusal in self._spaces.home.requests.execute([links.delete(index, self.nsid) for index in indices]):
            if refusal is not None and refusal.errno not in (ENODEV, EINVAL):
                raise refusal

    def close(self) -> None:
        """Close all sockets."""
        self.requests.close()
        if "nft" in self.__dict__:
            self.nft.close()
        if "xtables" in self.__dict__:
            self.xtables.close()
        if self.has_ipvs:
            self.ipvs.close()


def _links_left(space: Space) -> list[Row]:
    """None where the namespace has ended, and its number with it."""
    try:
        return space.links()
    except OSError as refusal:
        if refusal.errno != EINVAL:
            raise
        return []


class Spaces:
    """All of them by name. `port` is the port id of every request socket: it marks the events that we cause ourselves.

    The node's own namespace is the one in which the calling thread is now.
    """

    def __init__(self, directory: Path, port: int, protocol: int) -> None:
        self.directory = directory
        self.port = port
        self.protocol = protocol
        self.pool = SocketPool(_OPEN_SOCKETS)
        self.tools = Tools()
        self._home_file = netns.open_current()
        self.home = Space(self, HOST, None)
        self._home_nsid = self._number(self.home.path)
        self._spaces: dict[str, Space] = {}
        self._handed = Handed(self._home_file)
        self._by_number: dict[int, Space] = {}
        self._identities: dict[str, int] = {}
        self._lost: list[Space] = []

    def __iter__(self) -> Iterator[Space]:
        yield self.home
        yield from self._spaces.values()

    def get(self, name: str) -> Space:
        """The namespace of that name; raises OSError when there is none."""
        if name == HOST:
            return self.home
        if name not in self._spaces:
            raise OSError(ENOENT, f"there is no namespace {name}")
        return self._spaces[name]

    def numbered(self, nsid: int | None) -> Space | None:
        """The namespace that the node's own knows as `nsid` (None: itself), if it is one of these."""
        if nsid is None or nsid == self._home_nsid:
            return self.home
        return self._by_number.get(nsid)

    def path(self, name: str) -> Path:
        """The file by which a namespace can be entered, there or not."""
        return Path(f"/proc/{os.getpid()}/fd/{self._home_file}") if name == HOST else self.directory / name

    def other_end(self, space: Space, row: Row) -> tuple[Space, int] | None:
        """A veth's other end: in which of these namespaces, and its index there."""
        if row.peer is None:
            return None
        where = space if row.peer.nsid is None else self.numbered(row.peer.nsid)
        return (where, row.peer.link) if where is not None else None

    def peer(self, space: Space, row: Row) -> Peer | None:
        """The name of a veth's other end, as remembered; None when it is in a namespace that is not ours."""
        end = self.other_end(space, row)
        if end is None:
            return None
        where, index = end
        name = where.memory.names.get(index)
        return Peer(where.name, name) if name is not None else None

    def are_current(self) -> bool:
        """Whether these are the namespaces that are there. Raises OSError."""
        return netns.identities(self.directory) == self._identities

    def refresh(self) -> bool:
        """Take notice of namespaces that others made, removed or replaced; whether there were any. Raises OSError."""
        found = netns.identities(self.directory)
        if found == self._identities:
            return False
        for name in list(self._spaces):
            if found.get(name) != self._identities[name]:
                self._lost.append(self._drop(name))
        self._identities = found
        for name in found.keys() - self._spaces.keys():
            with suppress(OSError):  # it may be gone again
                self._add(name, found[name])
        return True

    def clear_lost(self) -> None:
        """Let namespaces go that others removed, and with them what would be in the way of new ones. Raises OSError."""
        lost, self._lost = self._lost, []
        try:
            self._cut_off(lost)
        finally:
            for space in lost:
                space.close()

    def create(self, name: str) -> None:
        """Make a namespace, lo up and IPv6 off; fine when it is there. Raises OSError."""
        if name in self._spaces:
            return
        if not netns.is_valid_name(name):
            raise OSError(EINVAL, "a namespace's name is made of letters, digits, '_', '-' and '.'")
        path = self.path(name)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with netns.created(path, self._handed.file(name)):
            identity = os.stat(path).st_ino
            self._add(name, identity)
            self._spaces[name].requests.ask(links.loopback_up())
        self._identities[name] = identity
        self._handed.let_go(name)

    def hand_over(self, name: str, path: Path | None) -> None:
        """Keep the namespace at `path`, of others' making, to be taken when `name` is made; None: none. Raises OSError."""
        if path is None:
            self._handed.let_go(name)
        else:
            self._handed.keep(name, path, self._identities)

    def cut_off(self, names: Sequence[str]) -> None:
        """Remove what namespaces that are to go have elsewhere: the peers of their veths, the UDP ports of their tunnels.

        The kernel would do it some time after their end, one after the other. Raises OSError.
        """
        self._cut_off([self._spaces[name] for name in names if name in self._spaces])

    def remove(self, name: str) -> None:
        """Remove a namespace, with all that is in it; fine when it is gone. Raises OSError."""
        if name in self._spaces:
            self._drop(name).close()
        netns.remove(self.path(name))
        self._identities.pop(name, None)
        self._handed.let_go(name)

    def close(self) -> None:
        """Close all sockets and files."""
        for name in list(self._spaces):
            self._drop(name).close()
        for space in self._lost:
            space.close()
        self._handed.close()
        self.home.close()
        os.close(self._home_file)

    def _cut_off(self, doomed: Sequence[Space]) -> None:
        links_to_go: dict[Space, list[int]] = {}
        for space in doomed:
            for row in _links_left(space):
                end = self.other_end(space, row)
                if end is not None and end[0] not in doomed:
                    links_to_go.setdefault(end[0], []).append(end[1])
                elif row.kind == "vxlan" or (row.peer is not None and end is None):
                    links_to_go.setdefault(space, []).append(row.index)
        for space, indices in links_to_go.items():
            if space in doomed:
                space.delete_from_outside(indices)
            else:
                space.delete(indices)

    def _add(self, name: str, identity: int) -> None:
        number = self._number(self.path(name))
        self._spaces[name] = self._by_number[number] = Space(self, name, number, identity)

    def _drop(self, name: str) -> Space:
        space = self._spaces.pop(name)
        self._by_number = {number: other for number, other in self._by_number.items() if other is not space}
        return space

    def _number(self, path: Path) -> int:
        """The node's own namespace's number for the one at `path`, given now or before."""
        with netns.opened(path) as file:
            return nsids.given(self.home.requests, file)
