"""A daemon's first act: the cluster's store opened, or a manager asked, and the node taken in."""

import asyncio
import time
from collections.abc import Collection

from routemesh import identity
from routemesh.agent.agent import LEASE_TTL_S
from routemesh.decide import admit
from routemesh.decide.liveness import lease_name
from routemesh.errors import Conflict
from routemesh.membership import Member
from routemesh.model import Node, State
from routemesh.nodeplan.ranges import Occupied
from routemesh.options import NodeOptions, OfManagers, SqliteFile
from routemesh.store import Store
from routemesh.store.opening import open_store
from routemesh.store.stream.client import StreamStore
from routemesh.store.stream.talk import Hello

_PAUSE_S = 0.5


async def opened_store(options: NodeOptions, past: identity.Past, member: Member | None) -> Store:
    """Open the cluster's store; a node that belongs to a cluster makes no new one, whatever became of the old one's store."""
    place = options.place
    if member is not None and isinstance(place, OfManagers):
        return await StreamStore.open(member.node_id, member.managers)
    if isinstance(place, SqliteFile) and past and not options.new_cluster and not place.path.exists():
        raise Conflict(
            f"{place.path} is not there, but this node belongs to {past}: mount or restore the cluster's store; "
            "--new-cluster begins anew: what runs here of the old one is ended, and its logs are deleted"
        )
    return await open_store(place)


async def become_node(
    options: NodeOptions, store: Store, node: Node, past: identity.Past, occupied: Collection[Occupied]
) -> None:
    """Become a node of the cluster, or make it. A name's lease that nobody renews lapses while this waits."""

    async def join() -> State:
        if not isinstance(store, StreamStore):
            return await store.update(change)
        hello = Hello(
            address=str(node.address),
            engine=node.engine,
            mtu_bytes=node.mtu_bytes,
            api=node.api,
            identity=node.identity,
            occupied=tuple(occupied),
        )
        try:
            return await store.hello(hello)
        except Conflict as exc:
            raise admit.Taken(str(exc)) from exc

    def change(state: State) -> State:
        if past and not options.new_cluster and not (options.membership and not past.cluster):
            admit.check_past(state, past.cluster, str(past))
        return admit.join(
            state,
            node,
            time.time(),
            ingress_subnet=options.ingress_subnet,
            gwbridge_subnet=options.gwbridge_subnet,
            occupied=occupied,
            live={other for other in state.nodes if lease_name(other) in leases},
        )

    patience = time.monotonic() + LEASE_TTL_S + _PAUSE_S
    while True:
        leases = await store.leases()
        try:
            state = await join()
        except admit.Taken:
            if time.monotonic() > patience:
                raise
            await asyncio.sleep(_PAUSE_S)
            continue
        assert state.cluster is not None
        identity.remember_cluster(state.cluster.id, options.run_dir, options.data_dir)
        return
