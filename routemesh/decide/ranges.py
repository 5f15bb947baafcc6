"""The mesh's address ranges beside those that a node's machine has otherwise: choosing free ones, and finding clashes. PURE.

A host with an address of the ingress range gets no answer from tasks, whose filter takes it for one of theirs; an address of
docker_gwbridge's is a task of the node to each node.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from itertools import chain

from routemesh.errors import Conflict
from routemesh.model import State
from routemesh.nodeplan.ranges import Occupied

INGRESS_POOLS = (
    *(IPv4Network(f"10.{number}.0.0/24") for number in range(256)),
    *(IPv4Network(f"192.168.{number}.0/24") for number in range(255, -1, -1)),
)
"""Which of a new cluster's ranges is tried first, second …: the first is Swarm's."""
GWBRIDGE_POOLS = (
    *(IPv4Network(f"172.{number}.0.0/16") for number in range(18, 32)),
    *(IPv4Network(f"10.{number}.0.0/16") for number in range(200, 256)),
    *(IPv4Network(f"192.168.{number}.0/20") for number in range(0, 256, 16)),
)


def ranges_of(state: State) -> Mapping[str, IPv4Network]:
    """The mesh's address ranges, by what they are for; none before there is a cluster."""
    if state.cluster is None:
        return {}
    networks = {network.name: network.subnet for network in state.networks.values()}
    return {**networks, "docker_gwbridge": state.cluster.gwbridge_subnet}


def clashes(ranges: Mapping[str, IPv4Network], occupied: Iterable[Occupied]) -> tuple[str, ...]:
    """One sentence for each range of the mesh, by its network's name, that a machine has otherwise."""
    others = tuple(occupied)
    found = []
    for name, subnet in ranges.items():
        by = [str(other) for other in others if other.network.overlaps(subnet)]
        if by:
            what = f"{by[0]} and {len(by) - 1} more" if len(by) > 1 else by[0]
            flag = "--gwbridge-subnet" if name == "docker_gwbridge" else "--ingress-subnet"
            found.append(
                f"the range {subnet} of {name} is somebody else's here ({what}): its addresses get no answers; "
                f"give these another range, or make a new cluster with {flag}"
            )
    return tuple(found)


def free(
    what: str, pools: Iterable[IPv4Network], occupied: Iterable[Occupied], besides: Iterable[IPv4Network] = ()
) -> IPv4Network:
    """The first of the pools that nobody has. Raises Conflict where there is none, with the flag by which to give one."""
    others = tuple(chain((other.network for other in occupied), besides))
    for pool in pools:
        if not any(pool.overlaps(other) for other in others):
            return pool
    raise Conflict(f"no range is free for {what}; give one with --{'gwbridge' if what == 'docker_gwbridge' else what}-subnet")
