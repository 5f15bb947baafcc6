"""Recordings of nodes: the outputs of everyday commands, in a directory for each node → the snapshot of a cluster.

    read       a directory of the disk → its texts              docker     the shapes of Docker's engine
    node       a node's texts → NodeSnapshot                    engine     what one node's engine knows
    namespace  one namespace's texts → NamespaceSnapshot        naming     all engines together → Names
    write      this machine → a directory of the disk           known      the Names of a routemesh cluster, in a file
    swarm      this Docker Swarm node, as it is
    links, routes, entries, tables, connections, nftables: formats of ip, bridge, ipvsadm, sysctl, conntrack, ss, nft
    source     a file, and what was not understood of it

All but `read`, `write` and `swarm` is PURE. A line that is not understood is told with its file and number (snapshot.Unread), and
never passed over.
"""

from collections.abc import Mapping

from routemesh.recording import known
from routemesh.recording.docker import LOSES
from routemesh.recording.engine import read_engine
from routemesh.recording.naming import names
from routemesh.recording.node import read_node
from routemesh.recording.source import Source
from routemesh.snapshot import ClusterSnapshot, Names, NodeSnapshot, Unread

__all__ = ["cluster"]


def cluster(recorded: Mapping[str, Mapping[str, str]]) -> ClusterSnapshot:
    """The cluster whose nodes were recorded: the name of each node's directory → its files by path below it."""
    unread: list[Unread] = []
    nodes = {place: read_node(place, texts) for place, texts in recorded.items()}
    snapshots = {node.name: node for node in nodes.values()}
    return ClusterSnapshot(nodes=snapshots, names=_names(recorded, nodes, unread), unread=tuple(unread))


def _names(recorded: Mapping[str, Mapping[str, str]], nodes: Mapping[str, NodeSnapshot], unread: list[Unread]) -> Names:
    """Of a routemesh cluster each recording has them all; the latest counts."""
    snapshots = {node.name: node for node in nodes.values()}
    written = sorted((nodes[place].at, place) for place, texts in recorded.items() if known.FILE in texts)
    for _, place in reversed(written):
        found = known.read(Source(f"{place}/{known.FILE}", recorded[place][known.FILE], LOSES, unread))
        if found is not None:
            return known.among(found, snapshots)
    if all(node.kind == "routemesh" for node in nodes.values()):
        unread.extend(Unread(f"{place}/{known.FILE}", "missing", LOSES) for place in recorded if not written)
        return Names()
    engines = {nodes[place].name: read_engine(place, texts, unread) for place, texts in recorded.items()}
    return names(engines, snapshots, unread)
