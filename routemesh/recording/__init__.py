"""Recordings of nodes: the outputs of everyday commands, in a directory for each node → the snapshot of a cluster.

    read       a directory of the disk → its texts              docker     the shapes of Docker's engine
    node       a node's texts → NodeSnapshot                    engine     what one node's engine knows
    namespace  one namespace's texts → NamespaceSnapshot        naming     all engines together → Names
    write      this machine → a directory of the disk           known      the Names of a routemesh cluster, in a file
    swarm      this Docker Swarm node, as it is
    links, routes, entries, tables, connections, nftables: formats of ip, bridge, ipvsadm, sysctl, conntrack, ss, nft
    source     a file, and what was not understood of it         state, expected  what a Swarm should have by its names

All but `read`, `write` and `swarm` is PURE. A line that is not understood is told with its file and number (snapshot.Unread), and
never passed over.
"""

from collections.abc import Iterable, Mapping

from routemesh.recording import known
from routemesh.recording.docker import LOSES
from routemesh.recording.engine import Engine, read_engine
from routemesh.recording.naming import names
from routemesh.recording.node import read_node
from routemesh.recording.source import Source
from routemesh.snapshot import ClusterSnapshot, Names, NodeSnapshot, Unread
from routemesh.values import replace

__all__ = ["cluster"]


def cluster(recorded: Mapping[str, Mapping[str, str]]) -> ClusterSnapshot:
    """The cluster whose nodes were recorded: the name of each node's directory → its files by path below it."""
    unread: list[Unread] = []
    nodes = {place: read_node(place, texts) for place, texts in recorded.items()}
    if all(node.kind == "routemesh" for node in nodes.values()):
        snapshots = {node.name: node for node in nodes.values()}
        found = _latest(recorded, nodes, unread)
    else:
        engines = {place: read_engine(place, texts, unread) for place, texts in recorded.items()}
        called = {place: _called(node, place, engines.values()) for place, node in nodes.items()}
        snapshots = {node.name: node for node in called.values()}
        found = names({called[place].name: engine for place, engine in engines.items()}, snapshots, unread)
    return ClusterSnapshot(nodes=snapshots, names=found, unread=tuple(unread))


def _latest(recorded: Mapping[str, Mapping[str, str]], nodes: Mapping[str, NodeSnapshot], unread: list[Unread]) -> Names:
    """The names of a routemesh cluster: each recording has them all, the latest counts."""
    for place in sorted(recorded, key=lambda place: nodes[place].at, reverse=True):
        if (text := recorded[place].get(known.FILE)) is None:
            unread.append(Unread(f"{place}/{known.FILE}", "missing", LOSES))
        elif (found := known.read(Source(f"{place}/{known.FILE}", text, LOSES, unread))) is not None:
            return known.among(found, {node.name for node in nodes.values()})
    return Names()


def _called(node: NodeSnapshot, place: str, engines: Iterable[Engine]) -> NodeSnapshot:
    """A node that no file of its own tells the name of is called as a manager calls the node with its address."""
    if node.name != place:
        return node
    listed = (each for engine in engines if engine.known is not None for each in engine.known.nodes)
    name = next((each.name for each in listed if each.address in node.addresses), None)
    told = tuple(unread for unread in node.unread if unread.part != "name")
    return node if name is None else replace(node, name=name, unread=told)
