"""The daemon of one node: opens the store, the kernel and the runtime, joins the cluster and runs the loops.

When it ends, by whatever signal, the data plane and the tasks stay as they are; the next daemon takes them over (rule 7).
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence, Set
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from routemesh import identity, joining, loops, names
from routemesh.agent.agent import Agent
from routemesh.agent.dataplane import Dataplane
from routemesh.agent.disks import watch_disks
from routemesh.agent.ports import PortHolder
from routemesh.agent.silence import all_answer
from routemesh.api.server import serve
from routemesh.ask.context import Context
from routemesh.ask.peer import Peers
from routemesh.errors import Conflict
from routemesh.gateway.loop import GatewayLoop
from routemesh.gateway.loop import check as check_gateway
from routemesh.kernel.linux import LinuxKernel
from routemesh.manager import Manager
from routemesh.membership import Member
from routemesh.model import (
    INGRESS_VNI,
    LEAST_UNDERLAY_MTU_BYTES,
    VXLAN_OVERHEAD_BYTES,
    VXLAN_PORT,
    Node,
    NodeId,
    ServiceSpec,
)
from routemesh.nodeplan import HOST, Capabilities, Link, NodePlan, Vxlan, namespace
from routemesh.options import NodeOptions, SqliteFile
from routemesh.plan.engines import check_engine
from routemesh.runtime import Runtime
from routemesh.runtime.node import NodeRuntime
from routemesh.sight.asking import ask
from routemesh.sight.checkup import answering, check_up
from routemesh.sight.disks import disks
from routemesh.sight.observe import observe_node
from routemesh.sightings import Disk, Echoes, Offload, PortAnswer, PortQuestion
from routemesh.snapshot import Connections, NodeSnapshot
from routemesh.stalls import watched_loop
from routemesh.store.stream.client import StreamStore
from routemesh.threads import in_thread
from routemesh.values import replace

log = logging.getLogger(__name__)


def run(options: NodeOptions, known_as: str, begun: Callable[[], None]) -> None:
    """Run the daemon until SIGTERM or SIGINT; see start.run. `known_as`: the node's identity; `begun`: called when its loops are.

    Raises Conflict or Unavailable where it can't begin: an engine that the kernel lacks, an underlay too small for VXLAN, an
    active Docker Swarm, a store that can't be opened.
    """
    kernel = LinuxKernel(options.run_dir, options.advertise)
    caps = kernel.capabilities()
    engine = check_engine(options.engine, caps).name
    if fault := _fault(options, kernel):
        raise Conflict(f"{options.name} can't join: {fault}")
    with watched_loop() as runner:
        runner.run(_serve(options, kernel, caps, _node(options, caps, engine, known_as), begun))


def _fault(options: NodeOptions, kernel: LinuxKernel) -> str:
    """Why this machine can't be a node as it is now, "" where it can: no daemon begins so, and none takes part while it is so."""
    mtu = kernel.underlay_mtu()
    if mtu == 0:
        return f"no link of this machine that is up has the address {options.advertise}; --advertise takes one of its own"
    least = LEAST_UNDERLAY_MTU_BYTES
    if mtu < least:
        return (
            f"the link of {options.advertise} has MTU {mtu}, which leaves {mtu - VXLAN_OVERHEAD_BYTES} bytes inside VXLAN; "
            f"at least {least - VXLAN_OVERHEAD_BYTES} are needed: raise it to {least} or more"
        )
    return "; ".join(kernel.foreign(_claims(options)))


def _claims(options: NodeOptions) -> NodePlan:
    """The names and numbers that a node needs for itself whatever the cluster looks like."""
    tunnel = Vxlan(INGRESS_VNI, options.advertise, VXLAN_PORT)
    bridge = Link(name=names.GWBRIDGE, kind="bridge")
    vxlan = Link(name=names.VXLAN, kind="vxlan", vxlan=tunnel)
    return NodePlan({HOST: namespace([bridge]), names.overlay_netns("claims"): namespace([vxlan])})


async def _serve(options: NodeOptions, kernel: LinuxKernel, caps: Capabilities, node: Node, begun: Callable[[], None]) -> None:
    runtime = NodeRuntime(options.run_dir, options.data_dir / "logs")
    past = identity.Past(identity.past_cluster(options.run_dir, options.data_dir), len(await runtime.tasks()))
    member = None if options.membership is None else Member(options, options.membership)
    if member is not None:
        known = member.certificate
        node = replace(node, certified_until=known.not_after, signed_by=known.signed_by)
    store = await joining.opened_store(options, past, member)
    dataplane = Dataplane(kernel, caps)
    ports = PortHolder()
    reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")
    try:
        await joining.become_node(options, store, node, past, await dataplane.occupied())
        troubles = loops.Troubles()
        if isinstance(store, StreamStore):
            store.on_trouble(partial(troubles.note, "managers"))
        look_at_disks = partial(_disks, options)
        gateway = GatewayLoop(node.id, store, runtime, options.run_dir, troubles)
        context = Context(
            node_id=node.id,
            store=store,
            now=time.time,
            check=partial(_check_spec, runtime),
            plan=dataplane.plan,
            diff=dataplane.diff,
            strayed=dataplane.strayed,
            logs=runtime.logs,
            observe=partial(_observe, reader, options, caps),
            proxies=gateway.look,
            look=partial(_look, options),
            disks=look_at_disks,
            ask=partial(_ask, options),
            repair=dataplane.repair,
            troubles=troubles.lines,
            peers=Peers(None if member is None else member.connecting),
            netns_path=dataplane.netns_path,
            own_netns=Path(f"/proc/{os.getpid()}/ns/net"),
            netns_directory=options.run_dir / "netns",
        )
        agent = Agent(
            node.id,
            store,
            dataplane,
            runtime,
            ports.hold,
            proxied=gateway.acknowledged,
            troubles=troubles,
            fault=partial(_fault, options, kernel),
            identity=node.identity,
            # What others answer is for managers to judge.
            probe=all_answer if isinstance(store, StreamStore) else partial(_answering, options),
        )
        gateway.on_acknowledge(agent.proxies_moved)
        begun()
        network = {} if member is None else {"network": member.run(context, troubles)}
        leading = {} if isinstance(store, StreamStore) else {"manager": Manager(node.id, store, troubles=troubles).run()}
        await _until_signal(
            agent=agent.run(),
            gateway=gateway.run(),
            api=serve(context, options.socket),
            disks=watch_disks(look_at_disks, troubles),
            **leading,
            **network,
        )
    finally:
        reader.shutdown(wait=True, cancel_futures=True)
        ports.close()
        runtime.close()
        dataplane.close()
        await store.close()


async def _observe(
    reader: Executor,
    options: NodeOptions,
    caps: Capabilities,
    node: Node,
    which: Connections,
    namespaces: Collection[str] | None,
) -> NodeSnapshot:
    """Read this node's kernel in the thread of `reader`: that goes from namespace to namespace."""
    read = partial(observe_node, node.name, node.engine, (node.address,), options.run_dir / "netns", caps, which, namespaces)
    return await in_thread(reader, read)


async def _look(
    options: NodeOptions, node: Node, peers: Mapping[str, tuple[IPv4Address, int]]
) -> tuple[tuple[Echoes, ...], tuple[Offload, ...]]:
    """In a thread of its own, beside the one that reads: it goes into the sandbox, and may wait for answers."""
    return await asyncio.to_thread(check_up, options.run_dir / "netns", node.address, peers)


async def _answering(options: NodeOptions, peers: Mapping[str, IPv4Address]) -> Set[str]:
    return await asyncio.to_thread(answering, options.run_dir / "netns", peers)


async def _ask(options: NodeOptions, questions: Sequence[PortQuestion]) -> tuple[PortAnswer, ...]:
    """In a thread of its own, which goes into namespaces and waits for answers."""
    return await asyncio.to_thread(ask, options.run_dir / "netns", questions)


async def _disks(options: NodeOptions) -> Sequence[Disk]:
    """In a thread: a disk that hangs is to hang nothing else."""
    place = options.place
    stores = (place.path.parent,) if isinstance(place, SqliteFile) else ()
    paths = (options.data_dir, *stores, options.run_dir)
    return await asyncio.to_thread(lambda: tuple(disks(paths)))


def _check_spec(runtime: Runtime, spec: ServiceSpec) -> None:
    runtime.check(spec)
    check_gateway(runtime, spec)


def _node(options: NodeOptions, caps: Capabilities, engine: str, known_as: str) -> Node:
    membership = options.membership
    return Node(
        id=NodeId(names.derive_id("node", options.name) if membership is None else membership.node_id),
        name=options.name,
        address=options.advertise,
        role=options.role,
        labels=options.labels,
        engine=engine,
        mtu_bytes=caps.mtu_bytes,
        api=f"unix://{options.socket}" if membership is None else f"https://{options.advertise}:{membership.port}",
        identity=known_as,
        created_at=time.time(),
    )


async def _until_signal(**parts: Coroutine[None, None, None]) -> None:
    """Run the parts until SIGTERM or SIGINT. Raises what a part could not begin with, and LoopEnded when one returns."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running, asked = asyncio.ensure_future(loops.together(**parts)), asyncio.ensure_future(stop.wait())
    await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        log.info("stopping; the data plane and the tasks stay")
        running.cancel()
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await running
