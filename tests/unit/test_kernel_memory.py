"""The memory of a namespace: true to what the kernel says, and asking again where events do not tell all."""

import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from routemesh.kernel import memory
from routemesh.kernel.memory import Memory
from routemesh.kernel.netlink import Message, Reply, entries, links, text, u32
from routemesh.kernel.netlink.entries import Entry
from routemesh.kernel.netlink.entryreader import BRIDGE_FAMILY
from routemesh.kernel.netlink.links import Row
from routemesh.nodeplan import Address, Item, Neighbour, Route, RoutingRule
from routemesh.values import replace

ETH0 = Row(
    index=7, name="eth0", kind="", alias="", mtu=1500, mac="", up=False, master=0, flood=True,
    isolated=False, port_learns=False, vxlan=None, peer=None, group=0,
)  # fmt: skip
ADDRESS = Address("eth0", IPv4Interface("10.0.0.9/24"))
ROUTE = Route(destination=IPv4Network("0.0.0.0/0"), via=IPv4Address("10.0.0.1"), link="eth0")
GATEWAY = Neighbour("eth0", IPv4Address("10.0.0.1"), "02:42:0a:00:00:01")
RULE = RoutingRule(priority=82, fwmark=1, mask=1, table=82)


def put(entry: Entry, index: int = 7) -> Reply:
    return told(entries.put(entry, index, 0, 82))


def drop(entry: Entry, index: int = 7) -> Reply:
    return told(entries.drop(entry, index, 82))


def told(message: Message) -> Reply:
    return Reply(message.kind, 0, 0, 0, message.body)


def link(row: Row) -> Reply:
    header = bytes(4) + row.index.to_bytes(4, sys.byteorder) + bytes(8)
    return Reply(links.NEW_LINK, 0, 0, 0, header + text(3, row.name) + u32(4, row.mtu))


ROUTES = ("routes", "routes")
"""Of ours, and of the kernel's own."""


class Namespace:
    """What a kernel has, and which questions it was asked."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {7: ETH0}
        self.told: list[Reply] = [put(ADDRESS), put(RULE, entries.NO_LINK), put(GATEWAY), put(ROUTE)]
        self.asked: list[object] = []
        self.memory = Memory(self.links, self.link, self.dump, 82)

    def links(self) -> Sequence[Row]:
        self.asked.append("links")
        return list(self.rows.values())

    def link(self, index: int) -> Row | None:
        self.asked.append(index)
        return self.rows.get(index)

    def dump(self, kind: int, body: bytes) -> list[Reply]:
        """The body begins with the family, which tells the ARP table from the FDB."""
        self.asked.append("routes" if kind == entries.GET_ROUTE else "others")
        of_bridges = body[0] == BRIDGE_FAMILY
        return [reply for reply in self.told if reply.kind == kind - 2 and not of_bridges]

    def questions(self) -> list[object]:
        """What was asked to renew the memory."""
        self.asked.clear()
        self.memory.renew()
        return self.asked

    def items(self, *indices: int) -> set[Item]:
        return {item for table in self.memory.hanging(indices) for item in table.values()}


@pytest.fixture
def namespace() -> Namespace:
    """One that was read."""
    namespace = Namespace()
    assert namespace.questions() == ["links", "others", "others", "others", "others", *ROUTES]
    assert namespace.items(7) == {ADDRESS, ROUTE, GATEWAY, RULE}
    return namespace


def test_knows_nothing_and_hears_no_news_before_it_was_read() -> None:
    assert not Namespace().memory.fold(put(GATEWAY))


def test_what_hangs_on_a_link_is_told_with_it(namespace: Namespace) -> None:
    assert namespace.items() == {ROUTE, RULE}
    assert namespace.memory.names == {7: "eth0"}


@pytest.mark.parametrize(
    "event", [put(ADDRESS), put(ROUTE), put(GATEWAY), put(RULE, 0), link(ETH0), drop(replace(GATEWAY, ip=ADDRESS.address.ip))]
)
def test_what_is_known_is_no_news(namespace: Namespace, event: Reply) -> None:
    assert not namespace.memory.fold(event)
    assert namespace.questions() == []


@pytest.mark.parametrize(
    "entry", [replace(GATEWAY, mac="02:00:00:00:00:01"), replace(ROUTE, via=IPv4Address("10.0.0.2")), replace(ROUTE, table=9)]
)
def test_takes_in_what_is_new(namespace: Namespace, entry: Entry) -> None:
    assert namespace.memory.fold(put(entry))
    assert entry in namespace.items(7)
    assert namespace.memory.fold(drop(entry))
    assert entry not in namespace.items(7)


def test_asks_for_routes_again_when_an_address_is_gone(namespace: Namespace) -> None:
    namespace.told.remove(put(ROUTE))
    assert namespace.memory.fold(drop(ADDRESS))
    assert namespace.questions() == [*ROUTES]
    assert namespace.items(7) == {GATEWAY, RULE}


def test_of_two_rules_with_one_priority_and_mark_the_later_is_kept(namespace: Namespace) -> None:
    later = replace(RULE, table=83)
    assert namespace.memory.fold(put(later, 0))
    assert not namespace.memory.fold(drop(RULE, 0))
    assert later in namespace.items()


def test_asks_for_a_changed_link_once(namespace: Namespace) -> None:
    namespace.rows[7] = replace(ETH0, mtu=1400)
    assert namespace.memory.fold(link(replace(ETH0, mtu=1450)))
    assert namespace.memory.fold(link(namespace.rows[7]))
    assert namespace.questions() == [7, *ROUTES]
    assert namespace.memory.rows == namespace.rows
    assert namespace.items(7) == {ADDRESS, ROUTE, GATEWAY, RULE}


def test_a_link_that_is_gone_takes_along_what_hung_on_it(namespace: Namespace) -> None:
    del namespace.rows[7]
    namespace.told = [put(RULE, entries.NO_LINK)]
    assert namespace.memory.fold(told(links.delete(7)))
    assert namespace.questions() == [7, *ROUTES]
    assert namespace.items(7) == {RULE}


def test_keeps_what_it_hears_of_a_link_before_it_knows_it(namespace: Namespace) -> None:
    namespace.rows[8] = replace(ETH0, index=8, name="eth1")
    neighbour = replace(GATEWAY, link="eth1")
    assert namespace.memory.fold(link(namespace.rows[8]))
    assert not namespace.memory.fold(put(neighbour, 8))
    assert namespace.questions() == [8, *ROUTES]
    assert neighbour in namespace.items(8)


def test_asks_for_everything_when_a_link_has_another_name(namespace: Namespace) -> None:
    namespace.rows[7] = replace(ETH0, name="eth9")
    assert namespace.memory.fold(link(namespace.rows[7]))
    assert namespace.questions()[:2] == [7, "links"]
    assert replace(GATEWAY, link="eth9") in namespace.items(7)


def test_asks_for_everything_after_forgetting_and_after_a_while(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace.memory.forget()
    assert namespace.questions()[0] == "links"
    assert namespace.questions() == []
    monkeypatch.setattr(memory, "MEMORY_S", 0.0)
    assert namespace.questions()[0] == "links"


def test_does_not_collect_for_ever_what_it_cannot_place(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_EARLY_AT_MOST", 3)
    for _ in range(4):
        namespace.memory.fold(put(GATEWAY, 99))
    assert namespace.questions()[0] == "links"


def test_stays_unknown_when_the_kernel_does_not_answer(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[Reply]:
        raise OSError(105, "No buffer space available")

    namespace.memory.forget()
    with monkeypatch.context() as refusing:
        refusing.setattr(namespace.memory, "_dump", refuse)
        with pytest.raises(OSError, match="buffer"):
            namespace.memory.renew()
    assert namespace.questions()[0] == "links"
