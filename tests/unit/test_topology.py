"""The network of a lab as a plan."""

from ipaddress import IPv4Interface

import pytest

from routemesh.diff import applied, diff
from routemesh.lab import topology, wires
from routemesh.lab.topology import CLIENT, MAX_NODES, UNDERLAY
from routemesh.nodeplan import HOST, Address, Link, Netns, NodePlan, Peer, key
from routemesh.values import replace

MTU = 1400


def links(plan: NodePlan) -> dict[tuple[str, str], Link]:
    return {
        (name, item.name): item for name, items in plan.namespaces.items() for item in items.values() if isinstance(item, Link)
    }


def addresses(plan: NodePlan) -> dict[str, IPv4Interface]:
    return {name: item.address for name, items in plan.namespaces.items() for item in items.values() if isinstance(item, Address)}


def test_the_first_node_is_at_10_and_the_client_at_100() -> None:
    assert addresses(wires.topology(3, MTU)) == {
        "client": IPv4Interface("192.168.200.100/24"),
        "node1": IPv4Interface("192.168.200.10/24"),
        "node2": IPv4Interface("192.168.200.11/24"),
        "node3": IPv4Interface("192.168.200.12/24"),
    }


def test_no_two_machines_of_the_largest_lab_share_an_address_or_a_mac() -> None:
    plan = wires.topology(MAX_NODES, MTU)
    assert len(set(addresses(plan).values())) == MAX_NODES + 1
    assert len({link.mac for link in links(plan).values() if link.mac}) == MAX_NODES + 1


def test_a_larger_lab_would_reach_the_client() -> None:
    assert topology.address(f"node{MAX_NODES + 11}") == topology.address(CLIENT)


def test_nothing_but_namespaces_is_made_on_the_host() -> None:
    machines = (UNDERLAY, CLIENT, "node1", "node2")
    assert wires.topology(2, MTU).namespaces[HOST] == {key(item): item for item in map(Netns, machines)}


def test_every_cable_has_two_ends_that_know_each_other() -> None:
    found = links(wires.topology(2, MTU))
    for (netns, name), link in found.items():
        if link.peer is not None:
            assert found[link.peer.netns, link.peer.link].peer == Peer(netns, name)
    assert found[UNDERLAY, "node2"].master == UNDERLAY


@pytest.mark.parametrize("mtu", [626, 1500, 9000])
def test_every_link_has_the_mtu_that_was_asked_for(mtu: int) -> None:
    assert {link.mtu for link in links(wires.topology(2, mtu)).values()} == {mtu}


def test_a_machine_comes_back_as_it_was_in_the_whole() -> None:
    whole = wires.topology(3, MTU)
    without = {key(item) for item in wires.machine("node2", MTU).namespaces[UNDERLAY].values()}
    broken = NodePlan(
        {
            HOST: {name: item for name, item in whole.namespaces[HOST].items() if item != Netns("node2")},
            UNDERLAY: {name: item for name, item in whole.namespaces[UNDERLAY].items() if name not in without},
            **{name: items for name, items in whole.namespaces.items() if name not in (HOST, UNDERLAY, "node2")},
        }
    )
    assert broken != whole
    assert applied(broken, diff(NodePlan(), wires.machine("node2", MTU))) == whole


def test_a_cut_cable_differs_in_nothing_but_being_down() -> None:
    port = wires.port("node1", MTU)
    assert wires.port("node1", MTU, plugged_in=False) == replace(port, up=False)
