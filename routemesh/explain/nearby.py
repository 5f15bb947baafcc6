"""What else may be wrong where a way ended: a packet ends of what lies before its end, or behind it. PURE."""

from collections.abc import Iterator, Sequence

from routemesh import names
from routemesh.explain.faults import Fault
from routemesh.explain.mend import Repair, Repairs, endpoints, planned
from routemesh.explain.shown import in_namespace
from routemesh.explain.way import Places
from routemesh.language import command as written
from routemesh.nodeplan import HOST, Address, Change, Create, Link, Neighbour, Op, item_of, key
from routemesh.reasons.causes import Doubled, Reason, UnlikePlanned
from routemesh.reasons.ends import LinkDown
from routemesh.snapshot import ClusterSnapshot, NodeSnapshot
from routemesh.values import replace
from routemesh.walk import OUTSIDE, Branch, Place


def links_down(places: Places, branch: Branch, number: int, repairs: Repairs) -> Iterator[Fault]:
    """Links that are switched off on the way, or where it would have gone on, and without which it ends otherwise."""
    for place in _concerned(places, branch):
        for each in repairs.get(place.node, ()):
            if each.netns == place.netns and (name := _switched_on(each.op)):
                commands = planned(repairs, place)
                by_hand = (each.command, *_neighbours_of(name, netns=each.netns, repairs=repairs[place.node]))
                yield _fault(places, place, LinkDown(name), commands or by_hand, number, known=bool(commands))


def unlike_planned(places: Places, branch: Branch, ended: Place, number: int, repairs: Repairs) -> Iterator[Fault]:
    """Namespaces other than the one where it ended that are not as their node's plan wants them."""
    for place in _concerned(places, branch):
        commands = () if place == ended else planned(repairs, place)
        if commands:
            yield _fault(places, place, UnlikePlanned(), commands, number, known=True)


def doubled(places: Places, branch: Branch, number: int, repairs: Repairs) -> Iterator[Fault]:
    """Who else has the address of the task that was meant."""
    task = places.meant(branch)
    if task is None:
        return
    for address in task.addresses.values():
        for place in places.doubles.get(address, ())[1:]:
            device = next(
                (
                    item.link
                    for item in places.cluster.nodes[place.node].namespaces[place.netns].of(Address)
                    if item.address.ip == address
                ),
                "",
            )
            by_hand = in_namespace(places.cluster.nodes[place.node], place.netns, f"ip address del {address} dev {device}")
            commands = planned(repairs, place)
            yield _fault(places, place, Doubled(address, task.name), commands or (by_hand,), number, known=bool(commands))


def _fault(  # a line for each kind of what is near
    places: Places, place: Place, reason: Reason, commands: tuple[str, ...], number: int, *, known: bool
) -> Fault:
    return Fault(at=place, called=places.called(place), reason=reason, mend=commands, way=number, planned=known)


def _concerned(places: Places, branch: Branch) -> Sequence[Place]:
    """The namespaces that were passed, then of the nodes on the way those that lead on, and the task that was meant."""
    passed = list(dict.fromkeys([*(hop.place for hop in (*branch.hops, *branch.reply_hops)), branch.outcome.place]))
    task = places.meant(branch)
    nodes = dict.fromkeys([*(place.node for place in passed), *([task.node] if task is not None else [])])
    overlays = [network.netns for network in places.cluster.names.networks if network.netns]
    leading_on = [Place(node, netns) for node in nodes for netns in (HOST, names.SANDBOX, *overlays)]
    meant = [] if task is None else [Place(task.node, task.netns)]
    found = [place for place in dict.fromkeys([*passed, *leading_on, *meant]) if place != OUTSIDE]
    return [place for place in found if _is_there(places, place)]


def _is_there(places: Places, place: Place) -> bool:
    node = places.cluster.nodes.get(place.node)
    return node is not None and place.netns in node.namespaces


def _neighbours_of(link: str, netns: str, repairs: Sequence[Repair]) -> Iterator[str]:
    """The commands for those that a link has lost, where no plan tells."""
    for each in repairs:
        match each:
            case Repair(place, command, Create(item=Neighbour(link=name)), planned=False) if (place, name) == (netns, link):
                yield command


def _switched_on(op: Op | None) -> str:
    match op:
        case Change(old=Link(up=False), new=Link(name=name, up=True)):
            return name
        case _:
            return ""


def with_links(cluster: ClusterSnapshot, repairs: Repairs) -> Repairs:
    """The repairs with those of links that are down and should not be, where no plan tells."""
    return {
        **repairs,
        **{name: [*repairs.get(name, ()), *found] for name in cluster.nodes if (found := _off(cluster, name, repairs))},
    }


def _off(cluster: ClusterSnapshot, name: str, repairs: Repairs) -> list[Repair]:
    """In the node's own namespace only those of the mesh and of the underlay."""
    node = cluster.nodes[name]
    known = {(each.netns, key(item_of(each.op))) for each in repairs.get(name, ()) if each.op is not None}
    found = []
    for netns, space in node.namespaces.items():
        for link in space.of(Link):
            of_mesh = netns != HOST or link.name in (names.GWBRIDGE, node.device) or link.master == names.GWBRIDGE
            if not link.up and of_mesh and (netns, key(link)) not in known:
                command = in_namespace(node, netns, f"ip link set {link.name} up")
                found.append(Repair(netns, command, Change(netns, link, replace(link, up=True)), planned=False))
                found += _lost_with(cluster, node, netns, link)
    return found


def _lost_with(cluster: ClusterSnapshot, node: NodeSnapshot, netns: str, tunnel: Link) -> Iterator[Repair]:
    """The neighbours that a tunnel which answers ARP itself has lost by being switched off (neigh_ifdown), permanent ones too."""
    subnets = [network.subnet for network in cluster.names.networks if network.netns == netns and network.subnet is not None]
    if netns == HOST or tunnel.vxlan is None or not tunnel.vxlan.proxy:
        return
    there = {item.ip for item in node.namespaces[netns].of(Neighbour) if item.link == tunnel.name}
    for address, owner in endpoints(cluster.names):
        if owner != node.name and address not in there and any(address in subnet for subnet in subnets):
            op = Create(netns, Neighbour(tunnel.name, address, names.mac(address)))
            yield Repair(netns, in_namespace(node, netns, written(replace(op, netns=HOST))), op, planned=False)
