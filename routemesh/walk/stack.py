"""One namespace, arranged for the questions that a packet puts to it: planned or observed. PURE.

Answers as the kernel would: an address counts only while its link is there and up.
Source: ip-address(8); the kernel's ip-sysctl.rst, devinet.c, fib_frontend.c.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface
from typing import Never, assert_never

from routemesh.nodeplan import (
    LOOPBACK,
    Address,
    Chain,
    CtTimeouts,
    Element,
    Family,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    IpvsTimeouts,
    Item,
    Link,
    Map,
    Neighbour,
    Netns,
    Route,
    RoutingRule,
    Sysctl,
    Table,
    XtChain,
    XtRule,
)
from routemesh.reasons.ends import End, LoopbackOnWire, OwnSource, ReversePath
from routemesh.reasons.unclear import ArpSetting, Doubt, FramesFiltered, ItemUnknown, NotRead, SettingNotRead
from routemesh.snapshot import Part, Place, Unread
from routemesh.walk.chains import RuleChain, Space, of_iptables, of_nftables, space_of
from routemesh.walk.hooks import Turn, in_order
from routemesh.walk.nouns import UnknownRule
from routemesh.walk.routing import NextHop, Routing, asks_local_first

_LOOPBACK_BYTE = 127
_ALL_HOSTS, _NARROW = IPv4Address("255.255.255.255"), 31
USUAL_MTU = 1500
_ALWAYS_THERE = ("net/ipv4/conf/", "net/ipv4/ip_forward")
"""Settings that every namespace has, so that one which was not read is not known."""


def is_loopback(address: IPv4Address) -> bool:
    """Whether it is of 127.0.0.0/8; ipaddress takes a hundred times as long to say so."""
    return int(address) >> 24 == _LOOPBACK_BYTE


class Stack:
    """A namespace, ready to be asked. `underlay` is the device to the other nodes, in a node's own namespace only.

    `observed`: the items are all that there is. Otherwise they are planned, and what no plan contains is made up: lo, the routes
    that come with addresses, the table that is asked by default, `underlay_addresses` on the underlay and a route there.
    `translates`: whether there is any NAT; then it is at all its hooks.
    """

    def __init__(
        self,
        place: Place,
        items: Iterable[Item],
        sysctls: Mapping[str, str],
        underlay: str = "",
        underlay_addresses: tuple[IPv4Address, ...] = (),
        *,
        observed: bool = False,
        unread: Iterable[Unread] = (),
    ) -> None:
        self.place = place
        self.underlay = underlay
        self.underlay_addresses = underlay_addresses
        self.links: dict[str, Link] = {}
        self.ports: dict[str, list[Link]] = defaultdict(list)
        self.addresses: dict[str, list[Address]] = defaultdict(list)
        self.neighbours: dict[tuple[str, IPv4Address], Neighbour] = {}
        self.tunnel_entries: dict[tuple[str, str], FdbEntry] = {}
        self.port_entries: dict[tuple[str, str], FdbEntry] = {}
        self.maps: dict[tuple[Space, str], Map] = {}
        self.elements: dict[tuple[Space, str, tuple[object, ...]], Element] = {}
        self.chains: dict[tuple[Space, str], RuleChain] = {}
        self.services: dict[int, IpvsService] = {}
        self.servers: dict[int, list[IpvsDestination]] = defaultdict(list)
        self._observed = observed
        self._unheard_of = ""
        self._unread = {each.part: each for each in unread}
        self._dormant: set[Space] = set()
        self._turns: dict[tuple[str, str | None], tuple[Turn, ...]] = {}
        self._bridge_chains: dict[str, tuple[RuleChain, ...]] = {}
        self._sysctls = dict(sysctls)
        self._local = set(underlay_addresses)
        every = tuple(items)
        self._arrange(every)
        self.translates = any(chain.hook is not None and chain.hook.type == "nat" for chain in self.chains.values())
        self._asks_local_first = not observed or asks_local_first(every)
        self._routing = Routing(self, every, observed=observed)

    # --- what is here ---

    def is_local(self, address: IPv4Address) -> bool:
        """Whether packets to `address` end in this namespace."""
        self.must_know("links")
        return self._asks_local_first and (address in self._local or is_loopback(address))

    def is_broadcast(self, address: IPv4Address) -> bool:
        """Whether it is the broadcast address of a subnet of this namespace, or of all."""
        on = (item.address.network for name, found in self.addresses.items() if self.link(name) for item in found)
        return address == _ALL_HOSTS or any(address == net.broadcast_address and net.prefixlen < _NARROW for net in on)

    def must_know(self, *parts: Part) -> None:
        """Raises UnknownRule where one of these parts of the namespace could not be read."""
        if self._unheard_of:
            raise UnknownRule(self.place, ItemUnknown(self._unheard_of))
        for part in ("all", *parts) if self._unread else ():
            if part in self._unread:
                unread = self._unread[part]
                raise UnknownRule(self.place, NotRead(unread.what, unread.reason, unread.loses))

    def link(self, name: str) -> Link | None:
        """The link, if it is there and up."""
        link = self.links.get(name)
        return link if link is not None and link.up else None

    def mtu(self, link: str) -> int:
        """How large a packet a link takes; of one that is in no plan, what is usual."""
        found = self.links.get(link)
        return USUAL_MTU if found is None else found.mtu

    def bridge_ports(self, bridge: Link) -> list[Link]:
        """Those ports of a bridge that carry anything."""
        return [port for port in self.ports[bridge.name] if port.up and port.carrier]

    def mac(self, link: Link) -> str:
        """A link's MAC; a name for it where the plan leaves the MAC to the kernel."""
        return link.mac or f"<{self.place} {link.name}>"

    def addresses_on(self, link: str) -> list[IPv4Interface]:
        """A link's addresses, the primary one first."""
        if link == self.underlay and not self._observed:
            return [IPv4Interface(address) for address in self.underlay_addresses]
        return [item.address for item in self.addresses[link]] if self.link(link) else []

    def source_on(self, link: str, toward: IPv4Address | None) -> IPv4Address | None:
        """The source address for what leaves by a link: one on the subnet of `toward` if it has one, else its first.

        A link without any, as lo, uses another link's. Source: inet_select_addr.
        """
        own = self.addresses_on(link)
        near = (address for address in own if toward is not None and toward in address.network)
        others = (address for other in (self.underlay, *self.addresses) for address in self.addresses_on(other))
        found = next(near, None) or next(iter(own), None) or next(others, None)
        return None if found is None else found.ip

    def turns(self, hook: str, device: str | None = None) -> tuple[Turn, ...]:
        """What meets a packet at a hook (of a device), in order."""
        self.must_know("filters", "balancing")
        if (hook, device) not in self._turns:
            here = [chain for chain in self.chains.values() if chain.meets(hook, device) and chain.space not in self._dormant]
            self._turns[hook, device] = tuple(in_order(hook, here, balances=bool(self.services)))
        return self._turns[hook, device]

    def bridge_chains(self, hook: str) -> tuple[RuleChain, ...]:
        """What meets a frame at a hook of a bridge, in order."""
        self.must_know("filters")
        if hook not in self._bridge_chains:
            here = [chain for chain in self._filtering("bridge") if chain.hook and chain.hook.hook == hook]
            self._bridge_chains[hook] = tuple(sorted(here, key=lambda chain: chain.hook.priority if chain.hook else 0))
        return self._bridge_chains[hook]

    def rules_of(self, family: Family) -> FramesFiltered | None:
        """A base chain with rules, or a policy, of a family whose frames are not walked; None where there is none."""
        for chain in self._filtering(family):
            return FramesFiltered(family, f"{chain.space} {chain.name}")
        return None

    def _filtering(self, family: Family) -> Iterator[RuleChain]:
        for chain in self.chains.values():
            if chain.family == family and chain.hook and (chain.rules or chain.drops) and chain.space not in self._dormant:
                yield chain

    # --- routing ---

    def route(self, destination: IPv4Address, mark: int, source: IPv4Address | None = None, incoming: str = "") -> NextHop | None:
        """The next hop to an address that is not local, of what came in by `incoming` ("": its own); None without a route."""
        self.must_know("routes", "rules")
        return self._routing.look_up(destination, mark, source, incoming)

    def preferred_source(self, destination: IPv4Address) -> IPv4Address | None:
        """The source address that the kernel gives a packet of the namespace's own whose sender has not chosen one."""
        if self.is_local(destination):
            return destination
        hop = self.route(destination, 0)
        return None if hop is None or not hop.link else hop.source or self.source_on(hop.link, hop.address)

    def tracks_balanced(self) -> bool:
        """Whether connection tracking sees what IPVS sends, rather than leaving it alone."""
        return self.setting("net/ipv4/vs/conntrack") != 0

    def reroutes_answers(self) -> bool:
        """Whether IPVS looks for a route anew once an answer has the source that the client asked."""
        return self.setting("net/ipv4/vs/snat_reroute", 1) != 0

    def filters_bridges(self) -> bool:
        """Whether bridged IP packets meet the hooks of the IP layer too (br_netfilter)."""
        return self.setting("net/bridge/bridge-nf-call-iptables") != 0

    def answers_arp(self, link: str, address: IPv4Address, asker: IPv4Address, suppose: Callable[[Doubt], bool]) -> bool:
        """Whether an ARP request for `address` that comes in through `link` is answered. `suppose`: what of it can't be told.

        Source: arp_ignore and arp_filter in ip-sysctl.rst; the kernel's arp.c (arp_process).
        """
        if not self.is_local(address):  # then neither setting is asked
            return self._answers_for_others(link, address)
        return not self._ignores(link, address, asker) and not self._filters(link, address, asker, suppose)

    def _ignores(self, link: str, address: IPv4Address, asker: IPv4Address) -> bool:
        strictness = self._most("arp_ignore", link)
        on_link = [own for own in self.addresses_on(link) if own.ip == address]
        match strictness:
            case 0:
                return False
            case 1:
                return not on_link
            case 2:
                return not any(asker in own.network for own in on_link)
            case 8:
                return True
            case _:
                raise UnknownRule(self.place, ArpSetting(link, "arp_ignore", strictness))

    def _filters(self, link: str, address: IPv4Address, asker: IPv4Address, suppose: Callable[[Doubt], bool]) -> bool:
        """Only whom the way back leads to through `link` is answered; the setting is asked only where it makes a difference."""
        back = self.route(asker, 0, address)
        if back is not None and back.link == link:
            return False
        try:
            return self._either("arp_filter", link)
        except UnknownRule as error:
            return suppose(error.unclear.reason)

    def _answers_for_others(self, link: str, address: IPv4Address) -> bool:
        """Source: proxy_arp in ip-sysctl.rst; the kernel's arp_fwd_proxy."""
        if not self._either("proxy_arp", link) or not self.forwards(link):
            return False
        hop = self.route(address, 0)
        return hop is not None and hop.kind == "unicast" and hop.link != link

    def forwards(self, link: str) -> bool:
        """Whether packets that come in through `link` may go on."""
        own = f"net/ipv4/conf/{link}/forwarding"
        return self.setting(own if own in self._sysctls else "net/ipv4/ip_forward") != 0

    def objection(self, link: str, source: IPv4Address, destination: IPv4Address, mark: int) -> End | None:
        """Why a packet that came in through `link` is thrown away for its addresses; None when it is not.

        Source: ip_route_input_slow, __fib_validate_source.
        """
        if link == LOOPBACK:
            return None
        if (is_loopback(source) or is_loopback(destination)) and not self.routes_loopback(link):
            return LoopbackOnWire(link)
        if source in self._local and not self._either("accept_local", link):
            return OwnSource(source)
        return self._reverse_path_objection(link, source, destination, mark)

    def routes_loopback(self, link: str) -> bool:
        """Whether loopback addresses may be on the wire of `link`."""
        return self._either("route_localnet", link)

    def _reverse_path_objection(self, link: str, source: IPv4Address, destination: IPv4Address, mark: int) -> End | None:
        """The setting is asked only where it makes a difference."""
        back = None if source in self._local else self.route(source, self._mark_back(mark, link), destination, link)
        if source in self._local or (back is not None and back.link == link):
            return None
        strictness = self._most("rp_filter", link)
        return ReversePath(source, link, strictness) if strictness == 1 or (strictness and back is None) else None

    def _mark_back(self, mark: int, link: str) -> int:
        """The mark by which the way back is looked up; the setting is asked only where it makes a difference."""
        return mark if mark and self._routing.minds_marks and self._either("src_valid_mark", link) else 0

    def _either(self, setting: str, link: str) -> bool:
        return self._most(setting, link) != 0

    def _most(self, setting: str, link: str) -> int:
        return max(self.setting(f"net/ipv4/conf/{name}/{setting}") for name in ("all", link))

    def setting(self, path: str, default: int = 0) -> int:
        """A kernel setting's value, `default` where the kernel has it not; raises UnknownRule for one that was not read."""
        if self._observed and path not in self._sysctls and path.startswith(_ALWAYS_THERE):
            raise UnknownRule(self.place, SettingNotRead(path))
        return int(self._sysctls.get(path, default))

    # --- arranging ---

    def _arrange(self, items: tuple[Item, ...]) -> None:
        for item in items:
            self._place_one(item)
        for chain in of_iptables(items):
            self.chains[chain.space, chain.name] = chain
        for link in self.links.values():
            if link.master is not None:
                self.ports[link.master].append(link)
        self._local.update(item.address.ip for name, found in self.addresses.items() if self.link(name) for item in found)

    def _place_one(self, item: Item) -> None:
        match item:
            case Link():
                self.links[item.name] = item
            case Sysctl():
                self._sysctls[item.path] = item.value
            case Address():
                self.addresses[item.link].append(item)
            case Neighbour():
                self.neighbours[item.link, item.ip] = item
            case FdbEntry():
                entries = self.port_entries if item.dst is None else self.tunnel_entries
                entries[item.link, item.mac] = item
            case IpvsService():
                self.services[item.mark] = item
            case IpvsDestination():
                self.servers[item.mark].append(item)
            case Table() | Map() | Chain() | Element():
                self._place_nftables(item)
            case Netns() | Route() | RoutingRule() | IpvsTimeouts() | CtTimeouts() | XtChain() | XtRule():
                pass  # routes and iptables are arranged as a whole
            case unknown:
                self._unheard_of = _kind(unknown)

    def _place_nftables(self, item: Table | Map | Chain | Element) -> None:
        match item:
            case Table():
                self._dormant |= {space_of(item.family, item.name)} if item.dormant else set()
            case Map():
                self.maps[space_of(item.family, item.table), item.name] = item
            case Chain():
                self.chains[space_of(item.family, item.table), item.name] = of_nftables(item)
            case Element():
                self.elements[space_of(item.family, item.table), item.map, item.key] = item
            case _:
                assert_never(item)


def _kind(item: Never) -> str:
    """What a later version called a kind of item that this one does not know."""
    return type(item).__name__
