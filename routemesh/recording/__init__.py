"""Recordings of nodes: the outputs of everyday commands, in a directory for each node → the snapshot of a cluster.

    read       a directory of the disk → its texts              docker     the shapes of Docker's engine
    node       a node's texts → NodeSnapshot                    engine     what one node's engine knows
    namespace  one namespace's texts → NamespaceSnapshot        naming     all engines together → Names
    links, routes, entries, tables, connections, nftables: the formats of ip, bridge, ipvsadm, sysctl, conntrack, ss, nft
    source     a file, and what was not understood of it

All but `read` is PURE. A line that is not understood is told with its file and number (snapshot.Unread), never passed over.
"""

from collections.abc import Mapping

from routemesh.recording.engine import read_engine
from routemesh.recording.naming import names
from routemesh.recording.node import read_node
from routemesh.snapshot import ClusterSnapshot, Unread

__all__ = ["cluster"]


def cluster(recorded: Mapping[str, Mapping[str, str]]) -> ClusterSnapshot:
    """The cluster whose nodes were recorded: the name of each node's directory → its files by path below it."""
    unread: list[Unread] = []
    nodes = {place: read_node(place, texts) for place, texts in recorded.items()}
    engines = {nodes[place].name: read_engine(place, texts, unread) for place, texts in recorded.items()}
    snapshots = {node.name: node for node in nodes.values()}
    return ClusterSnapshot(nodes=snapshots, names=names(engines, snapshots, unread), unread=tuple(unread))
