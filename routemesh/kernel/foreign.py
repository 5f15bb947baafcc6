"""What of others stands in the way of a plan (rule 5), one sentence each."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from routemesh import names
from routemesh.kernel.netlink.links import Row
from routemesh.nodeplan import HOST, Item, Link

SWARM_SANDBOX = Path("/run/docker/netns/ingress_sbox")


def links_in_the_way(netns: str, wanted: Iterable[Item], rows: Iterable[Row], alias: str) -> Iterator[str]:
    """Links without our alias that bear a wanted link's name; `rows` are all links of the namespace.

    docker_gwbridge and the sandbox's file together mean that the engine of this machine is in a swarm, on this very namespace.
    """
    strangers = {row.name for row in rows if row.alias != alias}
    where = "on this node" if netns == HOST else f"in namespace {netns}"
    for item in wanted:
        if not isinstance(item, Link) or item.name not in strangers:
            continue
        if item.name == names.GWBRIDGE and netns == HOST and SWARM_SANDBOX.exists():
            found = f"it has {item.name} and {SWARM_SANDBOX}"
            yield f"Docker Swarm is active here ({found}); leave it (docker swarm leave) or use another machine"
        else:
            yield _link_in_the_way(item, where, host=netns == HOST)


def tunnels_in_the_way(wanted: Iterable[Item], rows: Iterable[Row], alias: str) -> Iterator[str]:
    """VXLAN devices of others that have the UDP port or the VNI of a wanted one; `rows` are all links of the node's namespace."""
    others = [(row.name, row.vxlan) for row in rows if row.alias != alias and row.vxlan is not None]
    tunnels = [item.vxlan for item in wanted if isinstance(item, Link) and item.vxlan is not None]
    for tunnel in tunnels:
        for name, other in others:
            if tunnel.port == other.port:
                yield _tunnel_in_the_way(name, f"UDP port {other.port}")
            elif tunnel.vni == other.vni:
                yield _tunnel_in_the_way(name, f"VNI {other.vni}")


def _link_in_the_way(link: Link, where: str, *, host: bool) -> str:
    """Whose it may be, and who must act: what hangs on it may be in use."""
    if link.name == names.GWBRIDGE and host:
        return (
            f"link {link.name} {where} is not routemesh's, which needs that name: Docker keeps one for its containers "
            f"(docker network inspect {link.name} tells which); let them leave that network and Docker its swarm, "
            "or use another machine"
        )
    return (
        f"link {link.name} {where} is not routemesh's, which needs that name; its owner must give it another one "
        f"(ip -details link show {link.name} tells more), or use another machine"
    )


def _tunnel_in_the_way(name: str, what: str) -> str:
    return (
        f"VXLAN device {name} on this node has {what}, which the overlay needs; if it is Docker's, let Docker leave its swarm, "
        f"else its owner must choose another (ip -details link show {name} tells more)"
    )
