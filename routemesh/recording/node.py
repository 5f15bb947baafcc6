"""One node's directory of a recording → its NodeSnapshot. PURE.

    host/*                  the node's own namespace
    netns/NAME/*            each other one
    docker/*                what Docker's engine says (docker.py)
    recording.json          whose it is; without it docker/info.txt tells

Source: ip-netns(8) for the namespaces' files; Docker's `docker info`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from typing import Any, Literal, TypeVar

from routemesh.nodeplan import HOST, Address, Link, Peer, XtChain
from routemesh.plan.engines import SWARM
from routemesh.recording import links
from routemesh.recording.namespace import (
    CONNECTIONS,
    HOST_DIRECTORY,
    KINDS,
    LEFT_OUT_WHEN_EMPTY,
    NUMBERS,
    SOCKETS,
    Files,
    snapshot,
    why_closed,
)
from routemesh.recording.source import Source
from routemesh.snapshot import NamespaceSnapshot, NodeSnapshot, Socket, Unread
from routemesh.values import replace

NETNS_DIRECTORY = "netns"
DOCKER_NETNS = "/var/run/docker/netns"
ABOUT = "recording.json"
VERSION = 1
_NAME_AND_ADDRESS = "the node's name and address"
_OVERLAY = "1-"
"""How libnetwork calls the namespaces of bridges and tunnels, in which no process is."""

T = TypeVar("T")
Texts = Mapping[str, str]
"""A directory's files by path: host/ip-addr.json, netns/ingress_sbox/ip-route.txt …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Whose recording it is. `netns`: the directory of the namespaces' files; `at`: seconds since the epoch."""

    name: str
    kind: Literal["routemesh", "swarm"]
    engine: str
    address: IPv4Address | None
    kernel: str = ""
    netns: str = DOCKER_NETNS
    at: float = 0.0


def read_node(place: str, texts: Texts) -> NodeSnapshot:
    """The node whose directory is called `place`; what could not be read is in the snapshot's `unread`."""
    unread: list[Unread] = []
    about = read_about(place, texts, unread)
    found = {name: _files(f"{place}/{directory}", name, files, texts) for name, directory, files in _namespaces(texts)}
    if not any(path.endswith(f"/{CONNECTIONS}") for path in texts):
        unread.append(Unread(f"{place}/*/{CONNECTIONS}", "missing", *KINDS[CONNECTIONS]))
    for name in list(found):
        if name != HOST and (why := why_closed(found[name].texts)):
            unread.append(Unread(found[name].place, why, f"what is in namespace {name}"))
            del found[name]
    if HOST not in found:
        unread.append(Unread(f"{place}/{HOST_DIRECTORY}", "missing", "what the node's own namespace does to a packet"))
    devices = {name: files.devices() for name, files in found.items()}
    numbers = {name: files.numbers() for name, files in found.items() if NUMBERS in files.texts}
    ends = links.ends(devices, numbers)
    namespaces: dict[str, NamespaceSnapshot] = {}
    for name, files in found.items():
        peers = {here[1]: Peer(*there) for here, there in ends.items() if here[0] == name}
        namespaces[name] = snapshot(files, f"{about.netns}/{name}" if name else "", devices[name], peers)
    halted = stopped(texts.get(PROCESSES, ""))
    namespaces = {name: replace(space, sockets=_marked(space.sockets, halted)) for name, space in namespaces.items()}
    device, addresses = underlay(namespaces.get(HOST, NamespaceSnapshot(path="")), about.address)
    return NodeSnapshot(
        name=about.name,
        kind=about.kind,
        engine=about.engine,
        addresses=addresses,
        device=device,
        namespaces=namespaces,
        kernel=about.kernel,
        iptables=_variant(texts, namespaces),
        at=about.at,
        unread=tuple(unread),
    )


PROCESSES = f"{HOST_DIRECTORY}/ps.txt"
_PROCESS = re.compile(r"\s*(?P<pid>\d+)\s+\d+\s+[Tt]\S*\s.*")


def stopped(text: str) -> Set[int]:
    """The processes that are stopped, by `ps -eo pid,ppid,stat,…`."""
    return {int(found["pid"]) for line in text.splitlines() if (found := _PROCESS.fullmatch(line))}


def _marked(sockets: tuple[Socket, ...] | None, halted: Set[int]) -> tuple[Socket, ...] | None:
    return None if sockets is None else tuple(replace(each, stopped=each.pid in halted) for each in sockets)


def _namespaces(texts: Texts) -> Iterator[tuple[str, str, Texts]]:
    """Name, directory and files of each namespace."""
    of: dict[tuple[str, str], dict[str, str]] = {}
    for path, text in texts.items():
        match path.split("/"):
            case [directory, file] if directory == HOST_DIRECTORY:
                of.setdefault((HOST, directory), {})[file] = text
            case [directory, name, file] if directory == NETNS_DIRECTORY:
                of.setdefault((name, f"{directory}/{name}"), {})[file] = text
    return ((name, directory, files) for (name, directory), files in of.items())


def _files(place: str, name: str, files: Texts, texts: Texts) -> Files:
    """What a recording that people made by a script leaves out where it is empty counts as empty there."""
    recorded = {path.rsplit("/", 1)[-1] for path in texts}
    untold = frozenset({CONNECTIONS} - recorded)
    if ABOUT in texts:
        return Files(place, files, untold=untold)
    nobody_there = {SOCKETS} if name.startswith(_OVERLAY) else set[str]()
    return Files(place, files, LEFT_OUT_WHEN_EMPTY & recorded | nobody_there, untold, ours=False)


# --- whose it is -------------------------------------------------------------------------------------------------

_INFO_FILE = "docker/info.txt"
_INFO = re.compile(r"\s*(?P<name>Name|Node Address|Kernel Version|System Time): (?P<value>.*)")


def read_about(place: str, texts: Texts, unread: list[Unread]) -> About:
    """From recording.json, or else from `docker info`; a node that neither tells about is called as its directory."""
    text = texts.get(ABOUT)
    if text is not None:
        source = Source(f"{place}/{ABOUT}", text, "whose recording it is", unread)
        try:
            told = json.loads(text)
            if told["version"] != VERSION:
                raise ValueError(f"version {told['version']}, this program knows {VERSION}")
            return _about(told)
        except (KeyError, TypeError, ValueError) as error:
            source.broken(f"not understood ({type(error).__name__}: {error})")
    info = texts.get(_INFO_FILE)
    if info is None and text is None:
        unread.append(Unread(f"{place}/{_INFO_FILE}", "missing", _NAME_AND_ADDRESS, "name"))
    source = Source(f"{place}/{_INFO_FILE}", info or "", _NAME_AND_ADDRESS, unread, "name")
    told = {found["name"]: found["value"].strip() for _, line in source.lines() if (found := _INFO.fullmatch(line))}
    return About(
        name=told.get("Name", place),
        kind="swarm",
        engine=SWARM,
        address=_understood(source, IPv4Address, told.get("Node Address")),
        kernel=told.get("Kernel Version", ""),
        at=_understood(source, lambda time: datetime.fromisoformat(time).timestamp(), told.get("System Time")) or 0.0,
    )


def _understood(source: Source, read: Callable[[str], T], text: str | None) -> T | None:
    try:
        return None if text is None else read(text)
    except ValueError as error:
        source.broken(str(error))
        return None


def _about(told: Mapping[str, Any]) -> About:
    return About(
        name=told["name"],
        kind=told["kind"],
        engine=told["engine"],
        address=IPv4Address(told["address"]) if told["address"] else None,
        kernel=told["kernel"],
        netns=told["netns"],
        at=told["at"],
    )


def underlay(own: NamespaceSnapshot, wanted: IPv4Address | None) -> tuple[str, tuple[IPv4Address, ...]]:
    """The device that a node is known by and its addresses, the advertised one first.

    Where nobody says which address that is: the first device with an address that is not a bridge and not lo.
    """
    for link in own.of(Link):
        found = [address.address.ip for address in own.of(Address) if address.link == link.name]
        if wanted in found or (wanted is None and found and link.kind not in ("bridge", "loopback")):
            return link.name, tuple(sorted(found, key=lambda address: address != wanted))
    return "", () if wanted is None else (wanted,)


def _variant(texts: Texts, namespaces: Mapping[str, NamespaceSnapshot]) -> Literal["nft", "legacy", ""]:
    """Which iptables printed the rules of the node."""
    saved = texts.get(f"{HOST_DIRECTORY}/iptables-save.txt", "")
    if "(nf_tables)" in saved:
        return "nft"
    return "legacy" if any(True for space in namespaces.values() for _ in space.of(XtChain)) else ""
