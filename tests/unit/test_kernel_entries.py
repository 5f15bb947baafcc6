"""Addresses, routes, rules, neighbours and FDB entries on the wire.

The kernel's messages have the form of ours, so the writer feeds the reader.
"""

import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.kernel.netlink import Message, Reply, entries, u32
from routemesh.kernel.netlink.entries import Entry, EntryMessage
from routemesh.nodeplan import Address, FdbEntry, Neighbour, Route, RoutingRule

NAMES = {7: "eth0"}
PROTOCOL = 82
MAC = "02:42:0a:00:00:09"
STALE, REACHABLE = 0x04, 0x02

addresses = st.builds(IPv4Address, st.integers(1, 2**32 - 1))
interfaces = st.builds(lambda address, length: IPv4Interface((address, length)), addresses, st.integers(0, 32))
networks = interfaces.map(lambda interface: interface.network)
macs = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
numbers = st.integers(0, 2**32 - 1)
on_a_link = st.one_of(
    st.builds(Address, st.just("eth0"), interfaces),
    st.builds(Route, destination=networks, via=addresses, link=st.just("eth0"), table=st.integers(1, 2**32 - 1)),
    st.builds(Neighbour, st.just("eth0"), addresses, macs),
    st.builds(FdbEntry, st.just("eth0"), macs, addresses),
)
rules = st.builds(RoutingRule, priority=numbers, fwmark=numbers, mask=numbers, table=numbers).filter(
    lambda rule: bool(rule.mask) or not rule.fwmark  # without a mask the kernel looks at no mark
)


def told(message: Message, extra: bytes = b"") -> EntryMessage | None:
    """What the kernel's own message would say, which has the form of ours."""
    return entries.read(Reply(message.kind, 0, 0, 0, message.body + extra), NAMES, PROTOCOL)


@given(on_a_link)
def test_what_is_put_is_read(entry: Entry) -> None:
    put, drop = entries.put(entry, 7, 0, PROTOCOL), entries.drop(entry, 7, PROTOCOL)
    assert told(put) == EntryMessage(7, entry, True)
    gone = told(drop)
    assert gone is not None
    assert (gone.link, gone.present) == (7, False)
    assert isinstance(entry, Route) or entries.link_of(Reply(put.kind, 0, 0, 0, put.body)) == 7


@given(rules)
def test_a_rule_that_is_put_is_read(rule: RoutingRule) -> None:
    assert told(entries.put(rule, entries.NO_LINK, 0, PROTOCOL)) == EntryMessage(entries.NO_LINK, rule, True)
    assert told(entries.drop(rule, entries.NO_LINK, PROTOCOL)) == EntryMessage(entries.NO_LINK, rule, False)


def test_a_ports_entry_is_told_with_its_bridge() -> None:
    entry = FdbEntry("eth0", MAC)
    of_bridge, of_vlan = u32(9, 3), u32(9, 3) + b"\x06\0\x05\0\x01\0\0\0"
    assert told(entries.put(entry, 7, 0, PROTOCOL), of_bridge) == EntryMessage(7, entry, True)
    assert told(entries.put(entry, 7, 0, PROTOCOL), of_vlan) is None
    assert told(entries.put(entry, 7, 0, PROTOCOL)) is None


@pytest.mark.parametrize("state", [STALE, REACHABLE])
@pytest.mark.parametrize("entry", [Neighbour("eth0", IPv4Address("10.0.0.1"), MAC), FdbEntry("eth0", MAC)])
def test_a_learned_entry_is_one_that_is_not_there(entry: Entry, state: int) -> None:
    kind, flags, body = entries.put(entry, 7, 0, PROTOCOL)
    seen = told(Message(kind, flags, body[:8] + state.to_bytes(2, sys.byteorder) + body[10:]), u32(9, 3))
    assert seen is not None
    assert not seen.present


def test_what_is_of_others_or_elsewhere_is_nothing() -> None:
    route = Route(destination=IPv4Network("0.0.0.0/0"), via=IPv4Address("10.0.0.1"), link="eth0")
    rule = RoutingRule(priority=1, fwmark=2, mask=3, table=4)
    assert told(entries.put(route, 7, 0, protocol=4)) is None
    assert told(entries.put(rule, entries.NO_LINK, 0, protocol=4)) is None
    assert told(entries.put(route, 8, 0, PROTOCOL)) is None
    assert told(entries.put(Neighbour("eth1", IPv4Address("10.0.0.1"), MAC), 8, 0, PROTOCOL)) is None
    assert told(Message(16, 0, bytes(16))) is None
