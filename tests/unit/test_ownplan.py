"""A recording of ours against the plan that was recorded with it."""

from ipaddress import IPv4Address, IPv4Interface

import pytest

from routemesh.nodeplan import (
    HOST,
    Address,
    Chain,
    Element,
    FdbEntry,
    Item,
    Link,
    Map,
    Neighbour,
    Netns,
    NodePlan,
    RoutingRule,
    Sysctl,
    Table,
    Verdict,
    namespace,
)
from routemesh.recording.ownplan import differing
from routemesh.snapshot import NamespaceSnapshot, NodeSnapshot, Unread

ITEMS: tuple[Item, ...] = (
    Link(name="br0", kind="bridge"),
    Sysctl("net/ipv4/ip_forward", "1"),
    Address("br0", IPv4Interface("10.0.0.1/24")),
    RoutingRule(priority=82, fwmark=0x0A000000, mask=0xFF000000, table=82),
    Neighbour("br0", IPv4Address("10.0.0.7"), "02:42:0a:00:00:07"),
    FdbEntry("vxlan0", "02:42:0a:00:00:07", IPv4Address("192.0.2.2")),
    Table("ip"),
    Map("ip", "marks", ("proto", "port"), "mark"),
    Chain("ip", "c", None, ((Verdict("accept"),),)),
    Element("ip", "marks", ("tcp", 8080), 256),
)
SPACE = "ingress_sbox"
PLAN = NodePlan({HOST: namespace([Netns(SPACE)]), SPACE: namespace(ITEMS)})


def told(*items: Item, unread: tuple[Unread, ...] = ()) -> list[str]:
    spaces = {
        HOST: NamespaceSnapshot(path=""),
        SPACE: NamespaceSnapshot(path="/run/netns/x", items=items, unread=unread),
    }
    node = NodeSnapshot(name="node1", kind="routemesh", engine="nftables", addresses=(), device="eth0", namespaces=spaces)
    found = differing(PLAN, node)
    assert all(each.netns == SPACE and (not each.command or "--net=/run/netns/x" in each.command) for each in found)
    return [each.what for each in found]


def test_what_is_as_planned_is_no_difference() -> None:
    assert told(*ITEMS) == []


@pytest.mark.parametrize("missing", range(len(ITEMS)))
def test_whatever_is_missing_is_told(missing: int) -> None:
    (what,) = told(*ITEMS[:missing], *ITEMS[missing + 1 :])
    assert "missing" in what or what == "net/ipv4/ip_forward can't be read"


def test_what_is_other_than_planned_is_told() -> None:
    (what,) = told(*ITEMS[:-1], Element("ip", "marks", ("tcp", 8080), 257))
    assert what == "element tcp . 8080 of marks has value 257 instead of 256"
    (what,) = told(ITEMS[0], Sysctl("net/ipv4/ip_forward", "0"), *ITEMS[2:])
    assert what == "net/ipv4/ip_forward is 0 instead of 1"


@pytest.mark.parametrize(
    "stale",
    [
        Element("ip", "marks", ("tcp", 9090), 256),
        FdbEntry("vxlan0", "02:42:0a:00:00:99", IPv4Address("192.0.2.9")),
        Neighbour("br0", IPv4Address("10.0.0.99"), "02:42:0a:00:00:99"),
    ],
)
def test_what_is_left_of_something_is_told(stale: Item) -> None:
    (what,) = told(*ITEMS, stale)
    assert what.endswith(" is not planned")


@pytest.mark.parametrize(
    "others",
    [
        Element("ip", "marks", ("tcp", 9090), 256, "filter"),
        Neighbour("br0", IPv4Address("10.0.0.99"), "02:42:0a:00:00:99", "stale"),
        Chain("ip", "theirs", table="filter"),
    ],
)
def test_what_others_have_or_the_kernel_learned_is_no_difference(others: Item) -> None:
    assert told(*ITEMS, others) == []


def test_what_was_not_read_is_no_difference() -> None:
    assert told(*ITEMS[:-1], unread=(Unread("nft list ruleset", "missing", "what filters", "filters"),)) == []


def test_a_namespace_that_is_not_there() -> None:
    node = NodeSnapshot(
        name="node1", kind="routemesh", engine="nftables", addresses=(), device="", namespaces={HOST: NamespaceSnapshot(path="")}
    )
    assert [each.what for each in differing(PLAN, node)] == [f"namespace {SPACE} is missing"]
