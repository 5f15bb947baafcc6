"""A lab's nodes whose daemons do not answer: their kernels are on this machine, and can be read without them."""

from routemesh.lab.find import Lab
from routemesh.nodeplan import HOST, Capabilities
from routemesh.plan.engines import meant
from routemesh.sight.observe import observe_node
from routemesh.snapshot import ClusterSnapshot, NodeSnapshot
from routemesh.values import replace


def with_silent_nodes(cluster: ClusterSnapshot, lab: Lab) -> ClusterSnapshot:
    """The snapshot, in which nodes of the lab whose daemons did not answer are read directly, where they are switched on."""
    nodes = dict(cluster.nodes)
    known = []
    for node in cluster.names.nodes:
        found = _read(lab, node.name) if node.absent and node.name in lab.node_names else None
        if found is not None:
            nodes[node.name] = found
        known.append(node if found is None else replace(node, absent=""))
    return replace(cluster, nodes=nodes, names=replace(cluster.names, nodes=tuple(known)))


def _read(lab: Lab, name: str) -> NodeSnapshot | None:
    options = lab.node(name)
    own = lab.netns(name)
    if not own.exists():
        return None
    caps = Capabilities(nf_tables=True, ip_vs=False, kernel="")
    found = observe_node(name, meant(options.engine), (options.advertise,), options.run_dir / "netns", caps, own=own)
    return found if found.namespaces[HOST].items else None
