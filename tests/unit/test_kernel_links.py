"""Links: what the kernel tells becomes a Link, and only what differs is set."""

from ipaddress import IPv4Address

import pytest

from routemesh.kernel.netlink import links
from routemesh.kernel.netlink.links import End, Row
from routemesh.nodeplan import Link, Peer, Vxlan
from routemesh.values import replace

TUNNEL = Vxlan(4096, IPv4Address("192.0.2.1"), 4789)
PORT = Link(name="port", kind="veth", mtu=1450, mac="02:42:0a:00:00:09", master="br0", peer=Peer("task", "eth0"), flood=False)
ROW = Row(
    index=7, name="port", kind="veth", alias="routemesh", mtu=1450, mac="02:42:0a:00:00:09", up=True, master=3, flood=False,
    isolated=False, port_learns=False, vxlan=None, peer=End(1, 2), group=0,
)  # fmt: skip
NAMES = {3: "br0", 7: "port"}


def test_a_row_becomes_a_link() -> None:
    assert links.as_link(ROW, NAMES, PORT.peer) == PORT
    assert links.as_link(replace(ROW, kind="dummy"), NAMES, None) is None


def test_a_link_tells_what_we_never_ask_for() -> None:
    assert links.as_link(replace(ROW, port_learns=True), NAMES, PORT.peer) == replace(PORT, learning=True)
    learning = replace(TUNNEL, learning=True, proxy=False)
    tunnel = replace(ROW, kind="vxlan", vxlan=learning)
    assert links.as_link(tunnel, NAMES, None) == replace(PORT, kind="vxlan", peer=None, vxlan=learning)


def test_rows_that_count_namespaces_differently_are_equal() -> None:
    assert replace(ROW, peer=End(9, 2), group=5) == ROW


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        (ROW, 0),
        (replace(ROW, alias=""), 1),
        (replace(ROW, mtu=1500), 1),
        (replace(ROW, mac="02:00:00:00:00:01"), 1),
        (replace(ROW, up=False), 1),
        (replace(ROW, master=0), 2),
        (replace(ROW, flood=True), 1),
        (replace(ROW, isolated=True), 1),
        (replace(ROW, port_learns=True), 1),
        (replace(ROW, mtu=1500, up=False, alias="", flood=True), 2),
    ],
)
def test_sets_only_what_differs(row: Row, messages: int) -> None:
    assert len(links.adjust(row, PORT, 3, "routemesh")) == messages
    assert links.adjust(row, replace(PORT, mac=None), 3, "routemesh") == links.adjust(
        replace(row, mac="any"), replace(PORT, mac=None), 3, "routemesh"
    )


def test_a_tunnel_is_read_as_it_is_written() -> None:
    link = Link(name="vxlan0", kind="vxlan", mtu=1450, mac="02:42:0a:00:00:07", vxlan=TUNNEL)
    row = links.read_row(links.create_vxlan(link, TUNNEL, 0).body)
    assert (row.name, row.kind, row.mtu, row.mac, row.vxlan) == ("vxlan0", "vxlan", 1450, link.mac, TUNNEL)
