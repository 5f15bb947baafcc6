"""`ip -details addr`, as JSON or as text, in one namespace. PURE.

Which namespace the other end of a veth is in can't be told from one namespace alone: `ends` does, from all of a node's.

Source: iproute2's ip/ipaddress.c, ip/iplink_vxlan.c, ip/iplink_bridge_slave.c.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from routemesh.recording.source import Source
from routemesh.values import replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Tunnel:
    """A VXLAN device's own settings. `local` None: whatever the route to the other end says."""

    vni: int
    port: int
    local: IPv4Address | None
    learning: bool
    proxy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A network device. `kind` is iproute2's, "" for one that needs no kind (lo, a network card).

    `peer`: the ifindex of a veth's other end, in the namespace that this one knows as `peer_netns` (None: in this one).
    `carrier`: there is something at the other end, and it is up. `flood` and `isolated` are a bridge port's.
    """

    index: int
    name: str
    kind: str
    mtu: int
    mac: str
    up: bool
    carrier: bool
    master: str = ""
    alias: str = ""
    peer: int | None = None
    peer_netns: int | None = None
    tunnel: Tunnel | None = None
    learning: bool = True
    flood: bool = True
    isolated: bool = False
    addresses: tuple[IPv4Interface, ...] = ()


def read_json(source: Source) -> tuple[Device, ...]:
    """The devices of `ip -details -json addr`; an entry that lacks something is skipped and reported."""
    try:
        entries = json.loads(source.text)
    except ValueError as error:
        source.broken(f"no JSON: {error}")
        return ()
    if not isinstance(entries, list):
        source.broken("no list of devices")
        return ()
    found: list[Device] = []
    for entry in entries:
        if entry == {}:  # what ip prints for a device that its filter leaves out
            continue
        try:
            found.append(_from_json(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = entry.get("ifname", "?") if isinstance(entry, dict) else "?"
            source.broken(f"device {name} is not understood ({type(error).__name__}: {error})")
    return _with_peers_in_place(found, {entry["ifname"]: entry.get("link", "") for entry in entries if "ifname" in entry})


def _from_json(entry: Mapping[str, Any]) -> Device:
    info = entry.get("linkinfo", {})
    kind, data = info.get("info_kind", ""), info.get("info_data", {})
    slave = info.get("info_slave_data", {}) if info.get("info_slave_kind") == "bridge" else {}
    flags = entry["flags"]
    tunnel = None
    if kind == "vxlan":
        local = data.get("local")
        tunnel = Tunnel(
            vni=data["id"],
            port=data["port"],
            local=None if local is None else IPv4Address(local),
            learning=data.get("learning", False),
            proxy=data.get("proxy", False),
        )
    return Device(
        index=entry["ifindex"],
        name=entry["ifname"],
        kind=kind,
        mtu=entry["mtu"],
        mac=entry.get("address", ""),
        up="UP" in flags,
        carrier="LOWER_UP" in flags,
        master=entry.get("master", ""),
        alias=entry.get("ifalias", ""),
        peer=entry.get("link_index") if kind == "veth" else None,
        peer_netns=entry.get("link_netnsid"),
        tunnel=tunnel,
        learning=slave.get("learning", True),
        flood=slave.get("flood", True),
        isolated=slave.get("isolated", False),
        addresses=tuple(
            IPv4Interface(f"{address['local']}/{address['prefixlen']}")
            for address in entry.get("addr_info", ())
            if address.get("family") == "inet"
        ),
    )


# --- text --------------------------------------------------------------------------------------------------------

_HEAD = re.compile(r"(?P<index>\d+): (?P<name>[^:@\s]+)(?:@(?P<link>[^:\s]+))?: <(?P<flags>[^>]*)> mtu (?P<mtu>\d+)(?P<rest>.*)")
_ELSEWHERE = re.compile(r"if(\d+)")
_NOT_OURS = ("inet6", "altname", "valid_lft", "link-netns")
_KINDS = frozenset({
    "bond", "bridge", "dummy", "erspan", "geneve", "gre", "gretap", "hsr", "ifb", "ip6tnl", "ipip", "ipvlan", "ipvtap", "macsec",
    "macvlan", "macvtap", "netdevsim", "nlmon", "sit", "team", "tun", "veth", "vlan", "vrf", "vti", "vxlan", "wireguard", "xfrm",
})  # fmt: skip


def read_text(source: Source) -> tuple[Device, ...]:
    """The devices of `ip -details addr`, with the same outcome as `read_json`."""
    found: list[Device] = []
    links: dict[str, str] = {}
    about: dict[str, Any] = {}

    def end() -> None:
        if about:
            device = Device(**about)
            found.append(device if device.kind == "veth" else replace(device, peer=None))
            about.clear()

    for number, line in source.lines():
        head = _HEAD.fullmatch(line)
        if head is not None:
            end()
            about.update(_from_head(head))
            links[head["name"]] = head["link"] or ""
        elif not about or not _understood(line.split(), about):
            source.odd(number, line)
    end()
    return _with_peers_in_place(found, links)


def _from_head(head: re.Match[str]) -> dict[str, Any]:
    flags, words = head["flags"].split(","), head["rest"].split()
    elsewhere = _ELSEWHERE.fullmatch(head["link"] or "")
    return {
        "index": int(head["index"]),
        "name": head["name"],
        "kind": "",
        "mtu": int(head["mtu"]),
        "mac": "",
        "up": "UP" in flags,
        "carrier": "LOWER_UP" in flags,
        "master": _after(words, "master") or "",
        "peer": int(elsewhere[1]) if elsewhere else None,
    }


def _understood(words: list[str], about: dict[str, Any]) -> bool:
    """Take in a line about the device of the head before, if it is understood."""
    try:
        return _detail(words, about)
    except (IndexError, ValueError):
        return False


def _detail(words: list[str], about: dict[str, Any]) -> bool:
    first = words[0]
    match first:
        case "inet":
            about["addresses"] = (*about.get("addresses", ()), IPv4Interface(words[1]))
        case "alias":
            about["alias"] = " ".join(words[1:])
        case "bridge_slave":
            for name in ("learning", "flood", "isolated"):
                if (value := _after(words, name)) is not None:
                    about[name] = value == "on"
        case "vxlan":
            return _vxlan(words, about)
        case _ if first.startswith("link/"):
            about["mac"] = words[1] if len(words) > 1 else ""
            if (netnsid := _after(words, "link-netnsid")) is not None:
                about["peer_netns"] = int(netnsid)
        case _ if first in _KINDS:
            about["kind"] = first
        case _:
            return first in _NOT_OURS
    return True


def _vxlan(words: list[str], about: dict[str, Any]) -> bool:
    vni, port, local = _after(words, "id"), _after(words, "dstport"), _after(words, "local")
    if vni is None or port is None:
        return False
    about["kind"] = "vxlan"
    about["tunnel"] = Tunnel(
        vni=int(vni),
        port=int(port),
        local=None if local is None else IPv4Address(local),
        learning="nolearning" not in words,
        proxy="proxy" in words,
    )
    return True


def _after(words: list[str], name: str) -> str | None:
    """The word that follows `name`."""
    return words[words.index(name) + 1] if name in words[:-1] else None


def _with_peers_in_place(found: list[Device], links: Mapping[str, str]) -> tuple[Device, ...]:
    """A veth whose other end is in the same namespace names it instead of its ifindex."""
    by_name = {device.name: device.index for device in found}
    return tuple(
        replace(device, peer=by_name.get(links.get(device.name, ""))) if device.kind == "veth" and device.peer is None else device
        for device in found
    )


# --- which ends belong together ----------------------------------------------------------------------------------

_NUMBER = re.compile(r"nsid (?P<number>\d+)(?: current-nsid \d+)?(?: \(iproute2 netns name: (?P<name>\S+)\))?")


def read_numbers(source: Source) -> Iterator[tuple[int, str]]:
    """`ip netns list-id`: the numbers by which a namespace knows others, with their names; those without are passed over."""
    for number, line in source.lines():
        found = _NUMBER.fullmatch(line.strip())
        if found is None:
            source.odd(number, line)
        elif found["name"]:
            yield int(found["number"]), found["name"]


End = tuple[str, str]
"""A device: its namespace and its name."""


def ends(namespaces: Mapping[str, Iterable[Device]], numbers: Mapping[str, Mapping[int, str]]) -> Mapping[End, End]:
    """The other end of each veth, from the devices of all namespaces of one node; only what is certain.

    A veth tells its peer's ifindex and by which number its namespace knows the peer's. `numbers` says which those are, for the
    namespaces where that was recorded. Elsewhere: ifindexes repeat from namespace to namespace, but one number is one namespace,
    so a pair that is certain makes others so.
    """
    devices = {(netns, device.index): device for netns, found in namespaces.items() for device in found if device.kind == "veth"}
    options = {
        here: {there for there, other in devices.items() if _fit(here, device, there, other, numbers)}
        for here, device in devices.items()
    }
    known: dict[tuple[str, int], str] = {}
    while True:
        certain = {here: next(iter(others)) for here, others in options.items() if len(others) == 1}
        for (netns, index), (other, _) in certain.items():
            number = devices[netns, index].peer_netns
            if number is not None:
                known[netns, number] = other
        kept = {
            here: {there for there in others if _agrees(here, devices[here], there, known, certain)}
            for here, others in options.items()
        }
        if kept == options:
            break
        options = kept
    return {
        (here[0], devices[here].name): (there[0], devices[there].name)
        for here, there in certain.items()
        if certain.get(there) == here
    }


_Numbered = tuple[str, int]


def _fit(here: _Numbered, device: Device, there: _Numbered, other: Device, numbers: Mapping[str, Mapping[int, str]]) -> bool:
    if here == there or device.peer != other.index or other.peer != device.index:
        return False
    if device.peer_netns is None or other.peer_netns is None:
        return device.peer_netns is other.peer_netns and here[0] == there[0]
    return (
        here[0] != there[0]
        and (here[0] not in numbers or numbers[here[0]].get(device.peer_netns) == there[0])
        and (there[0] not in numbers or numbers[there[0]].get(other.peer_netns) == here[0])
    )


def _agrees(
    here: _Numbered, device: Device, there: _Numbered, known: Mapping[_Numbered, str], certain: Mapping[_Numbered, _Numbered]
) -> bool:
    if certain.get(there, here) != here:
        return False
    if device.peer_netns is None:
        return True
    numbers = {number for (netns, number), other in known.items() if (netns, other) == (here[0], there[0])}
    return known.get((here[0], device.peer_netns), there[0]) == there[0] and numbers <= {device.peer_netns}
