"""The wires between a lab's machines, in the words of NodePlan. PURE.

    client .100          node1 .10        node2 .11        192.168.200.0/24
      eth0                 eth0             eth0
       │                    │                │
    ───client──────────────node1────────────node2───       the ports of bridge `underlay` in namespace `underlay`

The bridge has a namespace of its own, so that the host's firewall, routes and Docker have no part in it.
"""

from collections.abc import Iterator
from ipaddress import IPv4Interface

from routemesh import names
from routemesh.lab.topology import CLIENT, UNDERLAY, address, node_names
from routemesh.nodeplan import HOST, Address, Item, Link, Netns, NodePlan, Peer, namespace

_LINK = "eth0"
_PREFIX_LENGTH = 24


def topology(count: int, mtu_bytes: int) -> NodePlan:
    """The network of a lab of `count` nodes, all machines switched on."""
    parts = [machine(name, mtu_bytes) for name in (CLIENT, *node_names(count))]
    bridge = Link(name=UNDERLAY, kind="bridge", mtu=mtu_bytes)
    host: Iterator[Item] = (item for part in parts for item in part.namespaces[HOST].values())
    underlay: Iterator[Item] = (item for part in parts for item in part.namespaces[UNDERLAY].values())
    machines = {name: items for part in parts for name, items in part.namespaces.items() if name not in (HOST, UNDERLAY)}
    return NodePlan({HOST: namespace((Netns(UNDERLAY), *host)), UNDERLAY: namespace((bridge, *underlay)), **machines})


def machine(name: str, mtu_bytes: int) -> NodePlan:
    """What one machine adds: its namespace, its eth0 and the port of the underlay that this is plugged into.

    The MAC follows from the address, as a real machine keeps its own over a power cut.
    """
    own = address(name)
    eth0 = Link(name=_LINK, kind="veth", mtu=mtu_bytes, mac=names.mac(own), peer=Peer(UNDERLAY, name))
    return NodePlan(
        {
            HOST: namespace([Netns(name)]),
            UNDERLAY: namespace([port(name, mtu_bytes)]),
            name: namespace([eth0, Address(_LINK, IPv4Interface((own, _PREFIX_LENGTH)))]),
        }
    )


def port(machine_name: str, mtu_bytes: int, *, plugged_in: bool = True) -> Link:
    """The underlay's port of a machine; down when the cable is cut."""
    return Link(name=machine_name, kind="veth", mtu=mtu_bytes, master=UNDERLAY, peer=Peer(machine_name, _LINK), up=plugged_in)
