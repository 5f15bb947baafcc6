"""A node with more tasks than a bridge has ports: further bridges behind the first. PURE.

    node ""            docker_gwbridge ── gwbridge1 ═ up of gwbridge1
    gwbridge1          br0 ── up and a veth to eth1 of each of its tasks
    1-<network id>     br0 ── br1-down ═ br1-up ── br1 ── a veth to eth0 of each of its tasks

The first bridge alone has addresses, the sandbox, the tunnel and the gateway's task; a further one takes what none of its own
ports has up to it. What goes for ports of tasks goes for the port that leads down: isolated ones stay apart whichever bridge
they are on. Those of docker_gwbridge have namespaces of their own, for where br_netfilter is loaded the node's rules, which tell
docker_gwbridge from other devices, would meet each frame there.
"""

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address

from routemesh import names
from routemesh.model import Task
from routemesh.nodeplan import HOST, FdbEntry, Item, Link, Netns, Peer

_UP = "up"

Here = Sequence[tuple[Task, IPv4Address]]
"""The node's tasks that are on a network, each with its address there."""


def gwbridge_side(task: Task) -> tuple[str, str]:
    """The namespace and the bridge of the port behind which a task's eth1 is."""
    return (names.more_gwbridge(task.bridge), names.OVERLAY_BRIDGE) if task.bridge else (HOST, names.GWBRIDGE)


def overlay_side(task: Task) -> str:
    """The bridge of the port behind which a task's eth0 is."""
    return names.more_bridge(task.bridge) if task.bridge else names.OVERLAY_BRIDGE


def numbers(tasks: Iterable[Task]) -> list[int]:
    """Which further bridges tasks need."""
    return sorted({task.bridge for task in tasks} - {0})


def behind_docker_gwbridge(mtu: int, here: Here) -> Iterator[Item]:
    """What the node's own namespace has of each further one: its namespace, and the port that leads there."""
    for number in numbers(task for task, _ in here):
        netns = names.more_gwbridge(number)
        yield Netns(netns)
        yield from _down(netns, names.GWBRIDGE, Peer(netns, _UP), mtu, _macs(here, number), isolated=True)


def further_gwbridge(mtu: int, number: int) -> Iterator[Item]:
    """The namespace of a further one, but for the ports of its tasks."""
    yield from _further(names.OVERLAY_BRIDGE, _UP, Peer(HOST, names.more_gwbridge(number)), mtu)


def behind_overlay(netns: str, mtu: int, here: Here, *, isolated: bool) -> Iterator[Item]:
    """The further bridges of an overlay, in its namespace, but for the ports of their tasks."""
    for number in numbers(task for task, _ in here):
        more = names.more_bridge(number)
        up, down = f"{more}-up", f"{more}-down"
        yield from _further(more, up, Peer(netns, down), mtu)
        yield from _down(down, names.OVERLAY_BRIDGE, Peer(netns, up), mtu, _macs(here, number), isolated=isolated)


def _macs(here: Here, number: int) -> Iterator[str]:
    return (names.mac(address) for task, address in here if task.bridge == number)


def _further(bridge: str, up: str, peer: Peer, mtu: int) -> Iterator[Item]:
    yield Link(name=bridge, kind="bridge", mtu=mtu)
    yield Link(name=up, kind="veth", mtu=mtu, master=bridge, peer=peer)


def _down(name: str, first: str, peer: Peer, mtu: int, macs: Iterable[str], *, isolated: bool) -> Iterator[Item]:
    yield Link(name=name, kind="veth", mtu=mtu, master=first, peer=peer, flood=False, isolated=isolated)
    for mac in macs:
        yield FdbEntry(name, mac)
