"""What else may be wrong where a way ended: a packet ends of what lies before its end, or behind it. PURE."""

from collections.abc import Iterator, Sequence

from routemesh import names
from routemesh.explain.faults import Fault
from routemesh.explain.mend import Repairs, planned
from routemesh.explain.shown import in_namespace
from routemesh.explain.way import Places
from routemesh.nodeplan import HOST, Address, Link
from routemesh.reasons.causes import Doubled, Reason, UnlikePlanned
from routemesh.reasons.ends import LinkDown
from routemesh.walk import OUTSIDE, Branch, Place


def links_down(places: Places, branch: Branch, number: int, repairs: Repairs) -> Iterator[Fault]:
    """Links of the mesh that are switched off on the way, or where it would have gone on."""
    for place in _concerned(places, branch):
        if place not in places.off:
            places.off[place] = list(_off(places, place))
        for link in places.off[place]:
            by_hand = in_namespace(places.cluster.nodes.get(place.node), place.netns, f"ip link set {link.name} up")
            commands = planned(repairs, place) or (by_hand,)
            yield _fault(places, place, LinkDown(link.name), commands, number)


def unlike_planned(places: Places, branch: Branch, ended: Place, number: int, repairs: Repairs) -> Iterator[Fault]:
    """Namespaces other than the one where it ended that are not as their node's plan wants them."""
    for place in _concerned(places, branch):
        commands = () if place == ended else planned(repairs, place)
        if commands:
            yield _fault(places, place, UnlikePlanned(), commands, number)


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
            commands = planned(repairs, place) or (by_hand,)
            yield _fault(places, place, Doubled(address, task.name), commands, number)


def _fault(places: Places, place: Place, reason: Reason, commands: tuple[str, ...], number: int) -> Fault:
    return Fault(at=place, called=places.called(place), reason=reason, mend=commands, way=number)


def _concerned(places: Places, branch: Branch) -> Sequence[Place]:
    """The namespaces that were passed, then of the nodes on the way those that lead on, and the task that was meant."""
    passed = list(dict.fromkeys(hop.place for hop in (*branch.hops, *branch.reply_hops)))
    task = places.meant(branch)
    nodes = dict.fromkeys([*(place.node for place in passed), *([task.node] if task is not None else [])])
    overlays = [network.netns for network in places.cluster.names.networks if network.netns]
    leading_on = [Place(node, netns) for node in nodes for netns in (names.SANDBOX, *overlays)]
    meant = [] if task is None else [Place(task.node, task.netns)]
    found = [place for place in dict.fromkeys([*passed, *leading_on, *meant]) if place != OUTSIDE]
    return [place for place in found if _is_there(places, place)]


def _is_there(places: Places, place: Place) -> bool:
    node = places.cluster.nodes.get(place.node)
    return node is not None and place.netns in node.namespaces


def _off(places: Places, place: Place) -> Iterator[Link]:
    """The links that are down and should not be: in the node's own namespace only those of the mesh and of the underlay."""
    node = places.cluster.nodes[place.node]
    for link in node.namespaces[place.netns].of(Link):
        of_mesh = link.name in (names.GWBRIDGE, node.device) or link.master == names.GWBRIDGE
        if not link.up and (of_mesh or place.netns != HOST):
            yield link
