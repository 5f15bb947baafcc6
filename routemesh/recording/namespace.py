"""The files about one network namespace → its NamespaceSnapshot. PURE.

A file that is missing or broken is an Unread; what it would have told is absent from the items, and must not be taken for
absent in the kernel.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import NamedTuple

from routemesh.language import xtsave
from routemesh.nodeplan import HOST, Address, Item, ItemKey, Link, LinkKind, Peer, Sysctl, Vxlan, XtChain, key
from routemesh.recording import connections, entries, links, nftables, routes, tables, usual
from routemesh.recording.source import Source
from routemesh.snapshot import Bound, ConntrackEntry, NamespaceSnapshot, Part, Socket, Unread
from routemesh.values import replace

HOST_DIRECTORY = "host"
ANY = IPv4Address("0.0.0.0")


class Kind(NamedTuple):
    """What can't be told without a file, and which part of a namespace that is."""

    loses: str
    part: Part


NUMBERS = "netns-ids.txt"
XTABLES, LEGACY = "iptables-save.txt", "iptables-legacy-save.txt"
"""The second is of the older variant, and empty where the first is."""

KINDS: Mapping[str, Kind] = {
    "ip-addr.json": Kind("which devices and addresses there are", "links"),
    "ip-addr.txt": Kind("which devices and addresses there are", "links"),
    NUMBERS: Kind("which namespace the other end of a veth is in", "links"),
    "ip-route.txt": Kind("which way packets are routed", "routes"),
    "ip-rule.txt": Kind("which routing table is asked", "rules"),
    "ip-neigh.txt": Kind("which MAC a packet is sent to", "neighbours"),
    "bridge-fdb.txt": Kind("which port or tunnel end a bridge sends a frame to", "fdb"),
    XTABLES: Kind("what iptables does to a packet", "filters"),
    LEGACY: Kind("what iptables-legacy does to a packet", "filters"),
    "nft-ruleset.json": Kind("what nftables does to a packet", "filters"),
    "nft-ruleset.txt": Kind("what nftables does to a packet", "filters"),
    "ipvsadm-Ln.txt": Kind("which tasks IPVS balances over", "balancing"),
    "ipvsadm-timeouts.txt": Kind("when IPVS forgets a connection", "timers"),
    "sysctl.txt": Kind("forwarding, the reverse path filter and IPVS's settings", "settings"),
    "ss-listen.txt": Kind("whether anybody listens", "sockets"),
    "conntrack.txt": Kind("which connections are under way", "connections"),
}
CONNECTIONS, SOCKETS = "conntrack.txt", "ss-listen.txt"
LEFT_OUT_WHEN_EMPTY = frozenset({"ip-neigh.txt", "nft-ruleset.txt", CONNECTIONS})
"""By scripts that people record with, as the one whose recordings tests read; `routemesh record` does not."""

_OPTIONAL = frozenset({NUMBERS, "ip-addr.txt", "ipvsadm-timeouts.txt"})
_COUNT, _MAX = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"
_NO_NAMESPACE = ("nsenter:", "setting the network namespace")
"""What nsenter and ip-netns print when a namespace can't be entered; it ends up in the files of older recordings."""


@dataclass(slots=True)
class Files:
    """The files of one namespace by name. `place` is the directory as people know it: node1/netns/ingress_sbox.

    `empty`: files that are empty when they are missing; `untold`: those whose lack has been told for the whole node. `ours`:
    `routemesh record` made them.
    """

    place: str
    texts: Mapping[str, str]
    empty: Set[str] = frozenset()
    untold: Set[str] = frozenset()
    ours: bool = True
    unread: list[Unread] = field(default_factory=list)

    def source(self, name: str) -> Source | None:
        """A file, or None for one that is missing; whatever is odd about it gets into `unread`."""
        text = self.texts.get(name, "" if name in self.empty else None)
        if text is None:
            if name not in _OPTIONAL | self.untold:
                self.unread.append(Unread(f"{self.place}/{name}", "missing", *KINDS[name]))
            return None
        return self._read(name, text, self.unread)

    def _read(self, name: str, text: str, unread: list[Unread]) -> Source:
        return Source(f"{self.place}/{name}", text, KINDS[name].loses, unread, KINDS[name].part)

    def devices(self) -> tuple[links.Device, ...]:
        """The devices, from whichever of the two files is whole."""
        as_json, as_text = self.texts.get("ip-addr.json"), self.texts.get("ip-addr.txt")
        spoilt: list[Unread] = []
        if as_json is not None:
            found = links.read_json(self._read("ip-addr.json", as_json, spoilt))
            if not spoilt:
                return found
        if as_text is not None:
            found = links.read_text(self._read("ip-addr.txt", as_text, spoilt))
        elif as_json is None:
            self.source("ip-addr.json")
            return ()
        self.unread += spoilt
        return found

    def numbers(self) -> Mapping[int, str]:
        """By which numbers this namespace knows others, as far as that was recorded."""
        source = self.source(NUMBERS)
        found = () if source is None else links.read_numbers(source)
        return {number: HOST if name == HOST_DIRECTORY else name for number, name in found}


def why_closed(texts: Mapping[str, str]) -> str:
    """Why a namespace could not be entered when it was recorded, "" when it could."""
    first = (text.strip() for text in texts.values())
    return next((text.splitlines()[0] for text in first if text.startswith(_NO_NAMESPACE)), "")


def snapshot(files: Files, path: str, devices: Sequence[links.Device], peers: Mapping[str, Peer]) -> NamespaceSnapshot:
    """Everything that the files tell. `devices` are files.devices(), `peers` the other ends of the veths among them."""
    items: list[Item] = [item for device in devices for item in _of_device(device, peers.get(device.name))]
    if (source := files.source("ip-route.txt")) is not None:
        items += routes.read_routes(source)
    if (source := files.source("ip-rule.txt")) is not None:
        items += routes.read_rules(source)
    if (source := files.source("ip-neigh.txt")) is not None:
        items += entries.read_neighbours(source)
    if (source := files.source("bridge-fdb.txt")) is not None:
        items += entries.read_fdb(source)
    chains, hidden = _chains(files)
    items += chains
    rulesets = files.source("nft-ruleset.json") if files.ours else None, files.source("nft-ruleset.txt")
    items += nftables.read(*rulesets, nftables.kept_by_iptables(files.texts.get(XTABLES, ""), hidden))
    if (source := files.source("ipvsadm-Ln.txt")) is not None:
        items += tables.read_ipvs(source)
    if (source := files.source("ipvsadm-timeouts.txt")) is not None:
        items += filter(None, [tables.read_ipvs_timeouts(source)])
    settings = {setting.path: setting for setting in _settings(files, devices)}
    items += settings.values()
    sockets = _sockets(files)
    return NamespaceSnapshot(
        path=path,
        items=tuple(items),
        conntrack=_conntrack(files),
        conntrack_count=_number(settings.get(_COUNT)),
        conntrack_max=_number(settings.get(_MAX)),
        sockets=None if sockets is None else tuple(each for each in sockets if isinstance(each, Socket)),
        only_ipv6=tuple(each for each in sockets or () if isinstance(each, Bound)),
        unread=tuple(files.unread),
    )


def _settings(files: Files, devices: Sequence[links.Device]) -> Iterator[Sysctl]:
    """Those of a Swarm's node that nobody took down are as Docker makes them."""
    source = files.source("sysctl.txt")
    if source is not None:
        yield from tables.read_sysctls(source)
    elif not files.ours:
        if files.unread and files.unread[-1].part == "settings":
            files.unread[-1] = replace(files.unread[-1], reason="missing: taken as Docker makes them")
        yield from usual.settings(files.place.rpartition("/")[2], [device.name for device in devices])


def _of_device(device: links.Device, peer: Peer | None) -> Iterator[Item]:
    kind: LinkKind = "other"
    if device.name == "lo":
        kind = "loopback"
    elif device.kind in ("bridge", "veth", "vxlan"):
        kind = device.kind  # type: ignore[assignment]  # one of LinkKind's by the line above
    tunnel = device.tunnel
    yield Link(
        name=device.name,
        kind=kind,
        mtu=device.mtu,
        mac=device.mac or None,
        master=device.master or None,
        peer=peer,
        vxlan=None if tunnel is None else Vxlan(tunnel.vni, tunnel.local or ANY, tunnel.port, tunnel.learning, tunnel.proxy),
        flood=device.flood,
        isolated=device.isolated,
        up=device.up,
        learning=device.learning and bool(device.master),
        carrier=device.carrier,
    )
    for address in device.addresses:
        yield Address(device.name, address)


def _chains(files: Files) -> tuple[tuple[XtChain, ...], Set[str]]:
    """The chains of both variants, and the tables whose chains these are not: iptables can't show all that is in them."""
    found: dict[ItemKey, XtChain] = {}
    hidden: set[str] = set()
    for name in (XTABLES, LEGACY) if files.ours or LEGACY in files.texts else (XTABLES,):
        if (source := files.source(name)) is None:
            continue
        try:
            saved = xtsave.parse(source.text)
        except ValueError as error:
            source.broken(str(error))
            continue
        beyond = {chain.table for chain in saved if chain.beyond and files.ours}  # then nft's JSON tells
        for chain in xtsave.every_chain([chain for chain in saved if chain.table not in beyond]):
            found[key(chain)] = xtsave.beside(found.get(key(chain)), chain, "legacy")
        hidden |= beyond
    return tuple(found.values()), hidden


def _conntrack(files: Files) -> tuple[ConntrackEntry, ...] | None:
    source = files.source(CONNECTIONS)
    return None if source is None else tuple(connections.read_conntrack(source))


def _sockets(files: Files) -> tuple[Socket | Bound, ...] | None:
    source = files.source(SOCKETS)
    return None if source is None else tuple(connections.read_sockets(source))


def _number(setting: Sysctl | None) -> int | None:
    return int(setting.value) if setting is not None and setting.value.isdigit() else None
