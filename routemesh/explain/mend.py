"""The commands that mend what is broken. PURE.

Of what is ours a node's own plan knows best (`Repair`). For what others have made, and where nobody has a plan (a Docker Swarm, a
recording), it is what a person would type, as far as the snapshot tells it.
"""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from shlex import quote
from typing import NamedTuple, assert_never

from routemesh import names
from routemesh.explain import theirs
from routemesh.explain.ask import Asked
from routemesh.explain.firewalls import letting_pass
from routemesh.explain.shown import in_namespace
from routemesh.explain.way import Places
from routemesh.language import command as written
from routemesh.nodeplan import (
    HOST,
    Address,
    Chain,
    Create,
    CtTimeouts,
    Element,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    IpvsTimeouts,
    Item,
    Link,
    Map,
    Neighbour,
    Netns,
    Op,
    Route,
    RoutingRule,
    Sysctl,
    Table,
    XtChain,
    XtRule,
    item_of,
    key,
)
from routemesh.plan.engines import ENGINES
from routemesh.plan.engines.entry import Mend, Port
from routemesh.reasons.causes import LargeLost, Reason
from routemesh.reasons.ends import (
    End,
    IpsecBlocks,
    LeadsAway,
    NoFdbEntry,
    NoRoute,
    NotForwarding,
    PolicyDrops,
    ReversePath,
    RuleDrops,
    RuleRejects,
    TableFull,
    TooLarge,
    Unheard,
    WrongNeighbour,
)
from routemesh.snapshot import Names, NodeSnapshot
from routemesh.walk import OUTSIDE, Hop, Place

_GATEWAY = 2
"""The sandbox's place in docker_gwbridge's network."""
_LEAST_LIMIT = 1024
"""Of connections that are tracked: the kernel's own on a machine with little memory."""


class Repair(NamedTuple):
    """What a node would change in one of its namespaces to have what its plan wants, as a command to be run on the node.

    `op`: the same for the walker, where it can be walked with it. `planned` False: the plan is not known, but it is plain.
    """

    netns: str
    command: str
    op: Op | None = None
    planned: bool = True


Repairs = Mapping[str, Sequence[Repair]]
"""By node. A node that is not in it said nothing."""


def planned(repairs: Repairs, place: Place) -> tuple[str, ...]:
    """What the node itself would do in a namespace."""
    return tuple(repair.command for repair in _of_plan(repairs, place))


def _of_plan(repairs: Repairs, place: Place) -> Iterator[Repair]:
    return (repair for repair in repairs.get(place.node, ()) if repair.planned and repair.netns == place.netns)


class Advice(NamedTuple):
    """What to do: commands that mend it; where it is not the mesh's, commands that show it, for its owner decides."""

    mend: tuple[str, ...] = ()
    look: tuple[str, ...] = ()


def of_end(places: Places, place: Place, end: End, last: Hop | None, repairs: Repairs, *, answer: bool) -> Advice:
    """What mends the place where a packet ended. No plan undoes what others have made, but for what is in a namespace of ours.

    `answer`: the packet was one.
    """
    found, by = planned(repairs, place), theirs.foreign(places, last)
    if (found and (not by or _is_planned(repairs, place, last))) or place == OUTSIDE:
        return Advice(found)
    node = places.cluster.nodes.get(place.node)
    space = None if node is None else node.namespaces.get(place.netns)
    items = () if space is None else space.items
    netns = HOST if isinstance(end, TableFull) else place.netns  # see more_connections
    mending = _by_hand(places, end, last, by, node, items, answer=answer)
    look = "" if last is None or (by and letting_pass(by, last.before)) else theirs.looking_at(node, last.item, end)
    return Advice(
        tuple(in_namespace(node, netns, each) for each in mending if each),
        (in_namespace(node, place.netns, look),) if look else (),
    )


def of_untold(places: Places, place: Place, reason: Reason) -> Advice | None:
    """What lets a sender hear of the MTU that its large packets exceed, where others' rule keeps that from it; None elsewhere.

    The MTU itself is as it should be: a sender that is told of it sends smaller ones.
    """
    match reason:
        case LargeLost(Unheard(TooLarge(), at=Place() as at, lost=RuleDrops() | PolicyDrops() | RuleRejects() as lost)):
            node = places.cluster.nodes.get(at.node) if at.node == place.node else None
        case LargeLost(Unheard(TooLarge())):
            return Advice()
        case _:
            return None
    chains = () if node is None else theirs.chains(node.namespaces[at.netns].items, lost)
    commands = ([theirs.hearing_of_mtu(node, each) for each in chains], [theirs.looking_at(node, each, lost) for each in chains])
    return Advice(*(tuple(in_namespace(node, at.netns, each) for each in some if each) for some in commands))


def _is_planned(repairs: Repairs, place: Place, last: Hop | None) -> bool:
    """Whether what ended the packet is a difference from the node's own plan."""
    item = None if last is None else last.item
    ops = (repair.op for repair in _of_plan(repairs, place))
    return item is not None and any(op is not None and key(item_of(op)) == key(item) for op in ops)


def more_connections(node: NodeSnapshot) -> str:
    """The command that lets every namespace of a node track twice as many connections as the fullest does, or `_LEAST_LIMIT`.

    The limit is one number for all namespaces, which each one's own count is held against; only the first namespace may write it.
    Source: the kernel's nf_conntrack_core.c (__nf_conntrack_alloc, nf_conntrack_init_start), nf_conntrack_standalone.c.
    """
    numbers = (space.conntrack_count or 0 for space in node.namespaces.values())
    limits = (space.conntrack_max or 0 for space in node.namespaces.values())
    return f"sysctl -w net.netfilter.nf_conntrack_max={max(2 * max(*numbers, *limits), _LEAST_LIMIT)}"


def _by_hand(
    places: Places, end: End, last: Hop | None, by: str, node: NodeSnapshot | None, items: Sequence[Item], *, answer: bool
) -> Iterator[str]:
    if isinstance(end, IpsecBlocks):
        return  # its owner decides
    item, device = (None, "") if last is None else (last.item, last.device)
    if last is not None and (allowing := letting_pass(by, last.before)):
        yield allowing
        return
    if by and last is not None:
        yield theirs.exception(node, last, answer=answer)
    elif item is not None:
        yield from _against_item(places, end, item)
    match end:
        case TooLarge(size, link):
            yield f"ip link set {link} mtu {size}"
        case TableFull() if node is not None:
            yield more_connections(node)
        case NotForwarding():
            # The incoming device's setting decides. ip_forward may be on already, and to write that again changes nothing.
            yield f"sysctl -w net.ipv4.conf.{_dotted(device)}.forwarding=1" if device else "sysctl -w net.ipv4.ip_forward=1"
        case NoRoute(destination=toward):
            yield from _lost_with_address(items, toward)
        case LeadsAway(destination=toward):
            yield from _lost_with_address(items, toward)
        case WrongNeighbour(address, own=mac):
            yield f"ip neighbour replace {address} lladdr {mac} dev {quote(device)} nud permanent"
        case ReversePath(source=source):
            lost = tuple(_lost_with_address(items, source))
            yield from lost or (f"sysctl -w net.ipv4.conf.{_dotted(name)}.rp_filter=0" for name in ("all", device) if name)
        case _:
            pass  # what else ends packets is mended at the item


def _dotted(device: str) -> str:
    """A device's name within a setting's, as sysctl(8) wants it: eth0.100 is eth0/100."""
    return device.replace(".", "/")


def _lost_with_address(items: Sequence[Item], destination: IPv4Address) -> Iterator[str]:
    """Put back the route that came with an address, where the address is there and the route is not."""
    up = {item.name for item in items if isinstance(item, Link) and item.up}
    there = {(item.link, item.destination) for item in items if isinstance(item, Route)}
    for item in items:
        if not isinstance(item, Address) or item.link not in up or item.address.ip == destination:
            continue
        network = item.address.network
        if destination in network and (item.link, network) not in there:
            yield f"ip route add {network} dev {quote(item.link)} proto kernel scope link src {item.address.ip}"


def _against_item(places: Places, end: End, item: Item) -> Iterator[str]:
    """Undo what ended the packet, where that takes nothing away that somebody may have made."""
    match item:
        case Link(up=False):
            yield f"ip link set {item.name} up"
        case Neighbour() if item.state != "permanent":
            yield f"ip neighbour del {item.ip} dev {item.link}"
        case Link() if isinstance(end, NoFdbEntry):
            yield from _missing_entry(places, item.name, end.mac)
        case Link() | Chain() | Route() | Netns() | Sysctl() | Address() | FdbEntry():
            pass  # they ended nothing, or nobody knows what they should be instead
        case Neighbour() | RoutingRule() | XtChain() | Element():
            pass  # their owner decides (theirs.looking_at)
        case IpvsTimeouts() | IpvsService() | IpvsDestination() | Table() | CtTimeouts() | Map() | XtRule():
            pass
        case _:
            assert_never(item)


def _missing_entry(places: Places, link: str, mac: str) -> Iterator[str]:
    """Where the endpoint with that MAC is, the manager knows."""
    nodes = {node.name: node.address for node in places.cluster.names.nodes}
    for address, node in endpoints(places.cluster.names):
        if names.mac(address) == mac and nodes.get(node) is not None:
            yield written(Create(HOST, FdbEntry(link, mac, nodes[node])))


def endpoints(known: Names) -> Iterator[tuple[IPv4Address, str]]:
    """The addresses on overlays, each with its node: those of tasks, and those of sandboxes on the ingress network."""
    yield from ((address, task.node) for task in known.tasks for address in task.addresses.values())
    yield from ((node.ingress_address, node.name) for node in known.nodes if node.ingress_address is not None)


# --- what leads to the mesh ---------------------------------------------------------


def to_sandbox(places: Places, asked: Asked) -> tuple[str, ...]:
    """The rule that leads a published port to the sandbox."""
    node, mend = _mended(places, asked.target.node)
    networks = (network.subnet for network in places.cluster.names.networks if network.name == names.GWBRIDGE)
    subnet = next(networks, None)
    if node is None or mend is None or subnet is None:
        return ()
    return _given(mend.to_sandbox(_port(asked), subnet[_GATEWAY]))


def to_balancer(places: Places, asked: Asked, place: Place) -> tuple[str, ...]:
    """The rule that marks a published port."""
    node, mend = _mended(places, place.node)
    mark = _mark(places, asked, place)
    if node is None or mend is None or mark is None:
        return ()
    return _given(mend.to_balancer(_port(asked), mark), node, place)


def to_target(places: Places, asked: Asked, place: Place, address: IPv4Address, target: int) -> tuple[str, ...]:
    """The rule that redirects a published port in a task."""
    node, mend = _mended(places, place.node)
    if node is None or mend is None or place.netns not in node.namespaces:
        return ()
    return _given(mend.to_target(_port(asked), address, target), node, place)


def to_task(places: Places, asked: Asked, place: Place, address: IPv4Address) -> tuple[str, ...]:
    """What takes a task into the service."""
    node, mend = _mended(places, place.node)
    mark = _mark(places, asked, place)
    if node is None or mend is None or mark is None:
        return ()
    return _given(mend.to_task(node.namespaces[place.netns].items, mark, address), node, place)


def _port(asked: Asked) -> Port:
    return Port(asked.target.protocol, asked.target.port)


def _given(command: str, node: NodeSnapshot | None = None, place: Place | None = None) -> tuple[str, ...]:
    """A command, if there is one, for the namespace of the place."""
    if not command:
        return ()
    return (command if node is None or place is None else in_namespace(node, place.netns, command),)


def _mended(places: Places, name: str) -> tuple[NodeSnapshot | None, Mend | None]:
    """A node, and how what is missing there is mended by hand."""
    node = places.cluster.nodes.get(name)
    engine = None if node is None else ENGINES.get(node.engine)
    return node, None if engine is None else engine.mend


def _mark(places: Places, asked: Asked, place: Place) -> int | None:
    """The mark of the service in this sandbox: that under which its tasks are balanced, or what the manager says."""
    node, mend = _mended(places, place.node)
    space = None if node is None else node.namespaces.get(place.netns)
    if space is None or mend is None or asked.service is None:
        return None
    tasks = (task for task in places.cluster.names.tasks if task.service == asked.service.name)
    addresses = {address for task in tasks for address in task.addresses.values()}
    return mend.mark(space.items, addresses, asked.service.mark_on(asked.target.node))
