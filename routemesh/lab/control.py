"""Making, changing and removing labs. Every function but `status` holds the lab's lock meanwhile."""

import signal
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from routemesh.diff import diff
from routemesh.errors import Conflict, NotFound, Unavailable, UserError
from routemesh.kernel.linux import LinuxKernel
from routemesh.kernel.owner import LAB
from routemesh.lab import daemons, etcd, find, joining, processes, removal, topology, wires
from routemesh.lab.find import Lab
from routemesh.lab.mounts import network_namespaces
from routemesh.nodeplan import HOST, Capabilities, Change, Delete, Link, Netns, NodePlan, Op
from routemesh.plan.engines import check_engine

_GOODBYE_S = 2.0
"""How long daemons may take to end by SIGTERM when a lab is taken down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node as `lab status` shows it. `link`: up, cut, or off when the node has no power."""

    name: str
    address: IPv4Address
    role: str
    pid: int | None
    ready: bool
    link: str


def up(lab: Lab) -> None:
    """Make a lab and return when all its nodes are ready; what was made is removed again when that fails.

    Raises UserError for an engine that this kernel can't run, Conflict for a name in use, Unavailable with the reason when a node
    does not get ready.
    """
    check_engine(lab.engine, _capabilities(lab))
    if lab.members:
        if lab.joined:
            raise UserError("a lab whose machines join has its store on node1: leave out --join or --store etcd")
        etcd.check()
    try:
        lab.directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise Conflict(
            f"lab {lab.name} is there already; choose another --name, or remove it with 'routemesh lab down --name {lab.name}'"
        ) from None
    with find.locked(lab.name):
        try:
            lab.save()
            _apply(lab, diff(NodePlan(), wires.topology(lab.nodes, lab.mtu_bytes)))
            if lab.members:
                etcd.prepare(lab)
            if lab.joined:
                joining.join_all(lab)
            _start_nodes(lab, lab.node_names[1:] if lab.joined else lab.node_names)
        except BaseException:
            removal.remove_lab(lab.directory)
            raise


def down(name: str) -> None:
    """Remove a lab and whatever runs in it, also one that is half made. Raises NotFound."""
    with find.locked(name):
        place = find.directory(name)
        if processes.is_inside(network_namespaces(place)):
            raise Conflict(f"this command runs inside lab {name}, which it would remove; leave the lab first")
        with suppress(NotFound):  # half made
            _say_goodbye(find.load(name))
        removal.remove_lab(place)


def status(lab: Lab) -> list[NodeStatus]:
    """Every node as it is now."""
    with closing(LinuxKernel(lab.directory, owner=LAB)) as kernel:
        ports = kernel.read(NodePlan()).namespaces.get(topology.UNDERLAY, {})
    found = []
    for name in lab.node_names:
        node = lab.node(name)
        port = ports.get(("Link", name))
        found.append(
            NodeStatus(
                name=name,
                address=node.advertise,
                role=node.role,
                pid=daemons.daemon_pid(node),
                ready=daemons.is_ready(node),
                link=("up" if port.up else "cut") if isinstance(port, Link) else "off",
            )
        )
    return found


def kill(lab: Lab, name: str) -> None:
    """Cut a node's power. Its link goes first: dying processes close their connections, and nobody may hear of that."""
    node = lab.node(name)
    with find.locked(lab.name):
        _apply(lab, [Delete(topology.UNDERLAY, wires.port(name, lab.mtu_bytes))])
        removal.empty_node(lab.netns(name), node.run_dir)
        _apply(lab, [Delete(HOST, Netns(name))])


def start(lab: Lab, name: str) -> bool:
    """Start a node after `kill`, or its daemon after that ended; tasks that still run go on. False if there was nothing to do."""
    node = lab.node(name)
    with find.locked(lab.name):
        if daemons.daemon_pid(node) is not None:
            return etcd.start(lab, name)
        if not lab.netns(name).exists():
            _apply(lab, diff(NodePlan(), wires.machine(name, lab.mtu_bytes)))
        _start_nodes(lab, [name])
        return True


def cut(lab: Lab, name: str) -> None:
    """Pull a node's cable."""
    _plug(lab, name, plugged_in=False)


def heal(lab: Lab, name: str) -> None:
    """Plug a node's cable in again."""
    _plug(lab, name, plugged_in=True)


def _plug(lab: Lab, name: str, *, plugged_in: bool) -> None:
    lab.node(name)
    with find.locked(lab.name):
        if not lab.netns(name).exists():
            raise Conflict(f"{name} of lab {lab.name} has no power: 'routemesh lab start {name}' first")
        before, after = (wires.port(name, lab.mtu_bytes, plugged_in=state) for state in (not plugged_in, plugged_in))
        _apply(lab, [Change(topology.UNDERLAY, before, after)])


def _start_nodes(lab: Lab, nodes: Sequence[str]) -> None:
    """Start members of etcd, of which a daemon that starts needs most, and daemons."""
    started = [name for name in nodes if etcd.start(lab, name)]
    if set(started) == set(lab.members):
        etcd.wait_ready(lab)
    for name in nodes:
        daemons.spawn(lab, name)
    try:
        daemons.wait_ready([lab.node(name) for name in nodes])
    except Unavailable as exc:
        raise Unavailable(f"lab {lab.name}: {exc}") from None


def _apply(lab: Lab, ops: Sequence[Op]) -> None:
    with closing(LinuxKernel(lab.directory, owner=LAB)) as kernel:
        failures = kernel.apply(ops)
    if failures:
        raise Unavailable(f"lab {lab.name}: {failures[0]}")


def _capabilities(lab: Lab) -> Capabilities:
    with closing(LinuxKernel(lab.directory, owner=LAB)) as kernel:
        return kernel.capabilities()


def _say_goodbye(lab: Lab) -> None:
    """Let the daemons end by themselves."""
    pids = [pid for name in lab.node_names if (pid := daemons.daemon_pid(lab.node(name))) is not None]
    with processes.held(map(lab.netns, lab.node_names)) as namespaces:
        processes.end(pids, signal.SIGTERM, _GOODBYE_S, namespaces)
