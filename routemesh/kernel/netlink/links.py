"""Links as rtnetlink messages, both ways: bridges, veth pairs, VXLAN tunnels and the bridge ports among them.

What the kernel says of a link is a Row; a Row becomes a Link (nodeplan) when the names of its master and peer are known.
Source: rtnetlink(7), include/uapi/linux/if_link.h, veth.h; drivers/net/{veth,vxlan}, net/bridge/br_netlink.c.
"""

import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Literal, NamedTuple

from routemesh.kernel import netlink
from routemesh.kernel.netlink import Attributes, Message, as_text, as_u32, attribute, nest, parse, reader, text, u8, u32
from routemesh.kernel.netlink.numbers.rtnetlink import BridgeData, BridgePort, Ifla, IflaInfo, InetData, VethData, VxlanData
from routemesh.legible import decoded
from routemesh.nodeplan import LOOPBACK, Link, Peer, Vxlan

NEW_LINK, DELETE_LINK, GET_LINK = 16, 17, 18

_HEADER = struct.Struct("=BxHiII")  # family, type, index, flags, change
_UP, _NO_ARP, _LOWER_UP = 0x1, 0x80, 0x10000
_PORT = struct.Struct(">H")
_SKIP_STATISTICS = 8
LOOPBACK_INDEX = 1

_ADDRESS, _NAME, _MTU, _LINK, _MASTER, _PROTINFO, _LINKINFO, _ALIAS = (
    Ifla.ADDRESS,
    Ifla.NAME,
    Ifla.MTU,
    Ifla.LINK,
    Ifla.MASTER,
    Ifla.PROTINFO,
    Ifla.LINKINFO,
    Ifla.ALIAS,
)
_GROUP, _NETNS_FILE, _EXTENSIONS, _LINK_NETNS, _TARGET_NETNS = (
    Ifla.GROUP,
    Ifla.NETNS_FILE,
    Ifla.EXTENSIONS,
    Ifla.LINK_NETNS,
    Ifla.TARGET_NETNS,
)
_KIND, _DATA, _PORT_KIND, _PORT_DATA = IflaInfo.KIND, IflaInfo.DATA, IflaInfo.PORT_KIND, IflaInfo.PORT_DATA
_FORWARDING = bytes([3])
"""Source: include/uapi/linux/if_bridge.h (BR_STATE_FORWARDING)."""
_PORT_LEARNING, _PORT_FLOOD, _PORT_ISOLATED = BridgePort.LEARNING, BridgePort.FLOOD, BridgePort.ISOLATED
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PROXY, _VXLAN_PORT = (
    VxlanData.ID,
    VxlanData.LOCAL,
    VxlanData.LEARNING,
    VxlanData.PROXY,
    VxlanData.PORT,
)

_AF_SPEC, _INET_CONF = Ifla.AF_SPEC, InetData.CONF
_SETTINGS: Mapping[str, int] = {
    "forwarding": 1, "proxy_arp": 3, "rp_filter": 8, "arp_filter": 13, "arp_ignore": 19, "accept_local": 23,
    "src_valid_mark": 24, "route_localnet": 26,
}  # fmt: skip
"""Of snapshot.LINK_SYSCTLS, each with its number in the kernel. Source: include/uapi/linux/ip.h (IPV4_DEVCONF_*)."""

KINDS = ("bridge", "veth", "vxlan")
"""What we make."""


class End(NamedTuple):
    """The other end of a veth: its namespace's number as the node's own namespace counts (None: the same one) and its index."""

    nsid: int | None
    link: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A link as the kernel tells it. Events count namespaces in another way than dumps, so `peer` is not compared.

    `port_learns` is False where there is no port. A link that does no ARP counts as not `up`: it is not as we make them; `on`
    and `carrier` are just the switch and the cable. A `vxlan` without a local address has 0.0.0.0.
    """

    index: int
    name: str
    kind: str
    alias: str
    mtu: int
    mac: str
    up: bool
    master: int
    flood: bool
    isolated: bool
    port_learns: bool
    vxlan: Vxlan | None
    peer: End | None = field(compare=False)
    group: int = field(compare=False)
    on: bool = field(default=True, compare=False)
    carrier: bool = field(default=True, compare=False)
    odd: str = field(default="", compare=False)


# --- reading -----------------------------------------------------------------------------------------------------


def dump(nsid: int | None) -> tuple[int, bytes]:
    """Message type and body that ask for all links of the namespace that the asking one knows as `nsid` (None: itself)."""
    return GET_LINK, _HEADER.pack(0, 0, 0, 0, 0) + _reading_options(nsid)


def lookup(link: str | int, nsid: int | None) -> Message:
    """The request for one link, by name or index."""
    if isinstance(link, int):
        return Message(GET_LINK, 0, _HEADER.pack(0, 0, link, 0, 0) + _reading_options(nsid))
    return Message(GET_LINK, 0, _HEADER.pack(0, 0, 0, 0, 0) + text(_NAME, link) + _reading_options(nsid))


def names_by_index() -> dict[int, str]:
    """The names of the links of the namespace that the calling thread is in. Raises OSError."""
    return {index: decoded(os.fsencode(name)) for index, name in socket.if_nameindex()}


@reader
def link_of(body: bytes) -> tuple[int, int]:
    """Family and index in a link message; of family AF_BRIDGE are those about ports."""
    family, _, index, _, _ = _HEADER.unpack_from(body)
    return family, index


@reader
def read_row(body: bytes) -> Row:
    """A link message as a Row."""
    _, _, index, flags, _ = _HEADER.unpack_from(body)
    found = parse(body, _HEADER.size)
    info = parse(found.get(_LINKINFO, b""))
    port = parse(info.get(_PORT_DATA, b"")) if as_text(info.get(_PORT_KIND, b"")) == "bridge" else {}
    kind = as_text(info.get(_KIND, b""))
    tunnel = parse(info.get(_DATA, b"")) if kind == "vxlan" else {}
    return Row(
        index=index,
        name=as_text(found[_NAME]),
        kind=kind,
        alias=as_text(found.get(_ALIAS, b"")),
        mtu=as_u32(found[_MTU]),
        mac=found.get(_ADDRESS, b"").hex(":"),
        up=bool(flags & _UP) and not flags & _NO_ARP,
        master=as_u32(found[_MASTER]) if _MASTER in found else 0,
        flood=_flag(port, _PORT_FLOOD, default=True),
        isolated=_flag(port, _PORT_ISOLATED, default=False),
        port_learns=_flag(port, _PORT_LEARNING, default=False),
        vxlan=_read_vxlan(tunnel),
        peer=_read_peer(found) if kind == "veth" else None,
        group=as_u32(found[_GROUP]) if _GROUP in found else 0,
        on=bool(flags & _UP),
        carrier=bool(flags & _LOWER_UP),
        odd=_odd(flags, kind, parse(info.get(_DATA, b"")) if kind == "bridge" else {}, port),
    )


def _odd(flags: int, kind: str, bridge: Attributes, port: Attributes) -> str:
    """What it has that no walk follows; a link that is off, or leads to nothing, has no port that forwards."""
    if flags & _NO_ARP and kind in KINDS:
        return "no ARP"
    if _flag(bridge, BridgeData.VLAN_FILTERING, default=False):
        return "VLAN filtering"
    if flags & _UP and flags & _LOWER_UP and port.get(BridgePort.STATE, _FORWARDING) != _FORWARDING:
        return "a port's state that forwards nothing"
    return ""


@reader
def read_settings(body: bytes) -> dict[str, int]:
    """The link's net/ipv4/conf settings by name, as far as a snapshot tells them; none where IPv4 is not for it."""
    of_ipv4 = parse(parse(parse(body, _HEADER.size).get(_AF_SPEC, b"")).get(socket.AF_INET, b""))
    values = of_ipv4.get(_INET_CONF, b"")
    places = {name: 4 * (number - 1) for name, number in _SETTINGS.items()}
    return {name: as_u32(values[place : place + 4]) for name, place in places.items() if place + 4 <= len(values)}


@reader
def read_port(body: bytes) -> tuple[bool, bool, bool] | None:
    """Flood, isolation and learning in a message of family AF_BRIDGE; None where it does not tell."""
    port = parse(parse(body, _HEADER.size).get(_PROTINFO, b""))
    if _PORT_FLOOD not in port or _PORT_LEARNING not in port:
        return None
    isolated = _flag(port, _PORT_ISOLATED, default=False)
    return _flag(port, _PORT_FLOOD, default=True), isolated, _flag(port, _PORT_LEARNING, default=False)


def as_link(row: Row, names: Mapping[int, str], peer: Peer | None) -> Link | None:
    """The Link that a row is; None for a kind that no plan has. Its carrier is not looked at: no operation mends it."""
    if row.kind not in KINDS and row.name != LOOPBACK:
        return None
    kind: Literal["bridge", "veth", "vxlan", "loopback"]
    kind = "loopback" if row.name == LOOPBACK else row.kind  # type: ignore[assignment]  # checked above
    return Link(
        name=row.name, kind=kind, mtu=row.mtu, mac=row.mac, master=names.get(row.master), peer=peer, vxlan=row.vxlan,
        flood=row.flood, isolated=row.isolated, up=row.up, learning=row.port_learns,
    )  # fmt: skip


def _reading_options(nsid: int | None) -> bytes:
    options = u32(_EXTENSIONS, _SKIP_STATISTICS)
    return options if nsid is None else options + u32(_TARGET_NETNS, nsid)


def _flag(found: Attributes, kind: int, *, default: bool) -> bool:
    return found[kind] != b"\0" if kind in found else default


def _read_vxlan(data: Attributes) -> Vxlan | None:
    if _VXLAN_ID not in data:
        return None
    local = IPv4Address(data.get(_VXLAN_LOCAL, bytes(4)))
    learning, proxy = _flag(data, _VXLAN_LEARNING, default=False), _flag(data, _VXLAN_PROXY, default=True)
    return Vxlan(as_u32(data[_VXLAN_ID]), local, int(_PORT.unpack(data[_VXLAN_PORT])[0]), learning, proxy)


def _read_peer(found: Attributes) -> End | None:
    if _LINK not in found:
        return None
    return End(as_u32(found[_LINK_NETNS]) if _LINK_NETNS in found else None, as_u32(found[_LINK]))


# --- writing -----------------------------------------------------------------------------------------------------


def loopback_up() -> Message:
    """The request that switches lo on."""
    return _set(LOOPBACK_INDEX, flags=_UP, change=_UP)


def create_bridge(link: Link) -> Message:
    """The request that makes a bridge, down.

    Its MTU is set later: only one that is *changed* is kept when ports come (br_change_mtu), hence another one here. Without a
    default VLAN a static FDB entry is one entry, not two.
    """
    bridge = nest(_DATA, attribute(BridgeData.DEFAULT_VLAN, bytes(2)))
    return _create(text(_NAME, link.name) + u32(_MTU, link.mtu - 1) + _mac(link), "bridge", bridge)


def create_veth(link: Link, peer: Peer, peer_netns: int) -> Message:
    """The request that makes a pair, both ends down; the peer goes into the namespace of the file descriptor `peer_netns`."""
    other = text(_NAME, peer.link) + u32(_MTU, link.mtu) + u32(_NETNS_FILE, peer_netns)
    data = nest(_DATA, attribute(VethData.PEER, _HEADER.pack(0, 0, 0, 0, 0) + other))
    return _create(text(_NAME, link.name) + u32(_MTU, link.mtu) + _mac(link), "veth", data)


def create_vxlan(link: Link, vxlan: Vxlan, netns: int) -> Message:
    """The request, to be made in the node's own namespace, where the tunnel's socket stays; the link goes to that of `netns`."""
    data = nest(
        _DATA,
        u32(_VXLAN_ID, vxlan.vni),
        attribute(_VXLAN_LOCAL, vxlan.local.packed),
        attribute(_VXLAN_PORT, _PORT.pack(vxlan.port)),
        u8(_VXLAN_LEARNING, int(vxlan.learning)),
        u8(_VXLAN_PROXY, int(vxlan.proxy)),
    )
    return _create(text(_NAME, link.name) + u32(_MTU, link.mtu) + _mac(link) + u32(_NETNS_FILE, netns), "vxlan", data)


def adjust(row: Row, link: Link, master: int, alias: str) -> list[Message]:
    """The requests that make the link of `row` what `link` says; none when it is.

    Only what differs is touched: setting even the same MAC again makes the kernel forget the link's neighbours.
    """
    wanted = b""
    if row.alias != alias:
        wanted += text(_ALIAS, alias)
    if row.mtu != link.mtu:
        wanted += u32(_MTU, link.mtu)
    if link.mac is not None and row.mac != link.mac:
        wanted += _mac(link)
    if row.master != master:
        wanted += u32(_MASTER, master)
    messages = []
    if wanted or row.up != link.up:
        messages.append(_set(row.index, wanted, flags=_UP if link.up else 0, change=_UP | _NO_ARP))
    port_differs = (row.port_learns, row.flood, row.isolated) != (link.learning, link.flood, link.isolated)
    if master and (row.master != master or port_differs):
        messages.append(_set_port(row.index, link))
    return messages


def delete(index: int, nsid: int | None = None) -> Message:
    """The request that deletes one link, of the namespace that the asking one knows as `nsid` (None: itself)."""
    target = b"" if nsid is None else u32(_TARGET_NETNS, nsid)
    return Message(DELETE_LINK, 0, _HEADER.pack(0, 0, index, 0, 0) + target)


def put_in_group(index: int, group: int) -> Message:
    """The request that puts a link into a group."""
    return _set(index, u32(_GROUP, group))


def delete_group(group: int) -> Message:
    """The request that deletes all links of a group at once: the kernel waits once for all, some 20 ms, not for each."""
    return Message(DELETE_LINK, 0, _HEADER.pack(0, 0, 0, 0, 0) + u32(_GROUP, group))


def _create(attributes: bytes, kind: str, data: bytes) -> Message:
    body = _HEADER.pack(0, 0, 0, 0, 0) + attributes + nest(_LINKINFO, text(_KIND, kind), data)
    return Message(NEW_LINK, netlink.CREATE | netlink.EXCLUSIVE, body)


def _set(index: int, attributes: bytes = b"", *, flags: int = 0, change: int = 0) -> Message:
    return Message(NEW_LINK, 0, _HEADER.pack(socket.AF_UNSPEC, 0, index, flags, change) + attributes)


def _set_port(index: int, link: Link) -> Message:
    isolated = u8(_PORT_ISOLATED, int(link.isolated))
    port = nest(_PORT_DATA, u8(_PORT_LEARNING, int(link.learning)), u8(_PORT_FLOOD, int(link.flood)), isolated)
    return _set(index, nest(_LINKINFO, text(_PORT_KIND, "bridge"), port))


def _mac(link: Link) -> bytes:
    return b"" if link.mac is None else netlink.mac(_ADDRESS, link.mac)
