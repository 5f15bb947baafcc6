"""Making links what the plan says: whatever is there already is kept, corrected or, if that can't be, replaced."""

from collections.abc import Sequence
from errno import EEXIST, EINVAL, ENODEV

from routemesh.kernel import netns
from routemesh.kernel.netlink import links
from routemesh.kernel.netlink.links import Row
from routemesh.kernel.spaces import Space, Spaces
from routemesh.nodeplan import HOST, Link, Peer


class LinkWriter:
    """Puts and removes links that bear `alias`. All methods raise OSError when the kernel refuses."""

    def __init__(self, spaces: Spaces, alias: str) -> None:
        self._spaces = spaces
        self._alias = alias

    def put(self, space: Space, link: Link) -> None:
        """Create a link, or make the one there what `link` says. Of a veth both ends come into being, down, with the first."""
        if link.kind == "loopback":
            self._put_loopback(space, link)
            return
        master = self._index_of_master(space, link)
        row = space.find(link.name)
        if row is not None and not self._is_as_made(space, row, link):
            space.delete([row.index])
            row = None
        if row is None:
            self._create(space, link)
            row = space.find(link.name)
        if row is None:
            raise OSError(ENODEV, f"link {link.name} has vanished again")
        space.execute(*links.adjust(row, link, master, self._alias))

    def _put_loopback(self, space: Space, link: Link) -> None:
        """It is there as long as its namespace, and bears no alias."""
        row = space.find(link.name)
        if row is None or space.name == HOST:
            raise OSError(ENODEV, f"there is no link {link.name} of a namespace of ours")
        space.execute(*links.adjust(row, link, 0, row.alias))

    def remove(self, space: Space, names: Sequence[str]) -> None:
        """Delete links, with their peers and all that hangs on them; one that is gone or not ours is left alone."""
        rows = [space.find(name) for name in names]
        space.delete([row.index for row in rows if row is not None and row.alias == self._alias])

    def _create(self, space: Space, link: Link) -> None:
        """Make a link, which is not marked as ours until it is adjusted: the kernel takes no alias at creation."""
        match link:
            case Link(kind="veth", peer=Peer() as peer):
                self._create_veth(space, link, peer)
            case Link(kind="vxlan", vxlan=vxlan) if vxlan is not None:
                with netns.opened(space.path) as file:
                    self._spaces.home.execute(links.create_vxlan(link, vxlan, file))
            case Link(kind="bridge"):
                space.execute(links.create_bridge(link))
            case _:
                raise OSError(EINVAL, f"a {link.kind} needs its parameters")

    def _create_veth(self, space: Space, link: Link, peer: Peer) -> None:
        """An end of ours under the peer's name is left over from another pair: it goes."""
        elsewhere = self._spaces.get(peer.netns)
        in_the_way = elsewhere.find(peer.link)
        if in_the_way is not None:
            if in_the_way.alias != self._alias:
                raise _not_ours(peer.link)
            elsewhere.delete([in_the_way.index])
        with netns.opened(elsewhere.path) as file:
            space.execute(links.create_veth(link, peer, file))

    def _index_of_master(self, space: Space, link: Link) -> int:
        if link.master is None:
            return 0
        master = space.find(link.master)
        if master is None:
            raise OSError(ENODEV, f"there is no link {link.master} to be its master")
        return master.index

    def _is_as_made(self, space: Space, row: Row, link: Link) -> bool:
        """Whether the link there has what can't be changed later. Raises OSError when it is not ours.

        An end of a veth that bears no alias yet is ours if its mate is: then the making of the pair was interrupted.
        """
        end = self._spaces.other_end(space, row)
        mate = end[0].find(end[1]) if end is not None else None
        if self._alias not in (row.alias, mate.alias if mate is not None else ""):
            raise _not_ours(link.name)
        peer = Peer(end[0].name, mate.name) if end is not None and mate is not None else None
        return (row.kind, row.vxlan, peer) == (link.kind, link.vxlan, link.peer)


def _not_ours(name: str) -> OSError:
    return OSError(EEXIST, f"there is a link {name} that is not routemesh's; its owner must give it another name")
