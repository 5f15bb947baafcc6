"""One namespace's plan, arranged for the questions that a packet puts to it. PURE.

Answers as the kernel would: an address or a route counts only while its link is there and up, and a route only while its next
hop is on one of the link's subnets (fib_check_nh) and its source address is here (fib_valid_prefsrc).
Source: ip-route(8), ip-rule(8); the kernel's ip-sysctl.rst, fib_frontend.c, fib_semantics.c.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from routemesh.nodeplan import (
    Address,
    Chain,
    Element,
    Family,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    Item,
    Link,
    Map,
    Namespace,
    Neighbour,
    Route,
    RoutingRule,
    Sysctl,
    XtTable,
)
from routemesh.walk.chains import RuleChain, of_iptables, of_nftables
from routemesh.walk.hooks import Turn, in_order
from routemesh.walk.nouns import Place

MAIN_TABLE = 254
LOOPBACK = "lo"
_MAIN_RULE = RoutingRule(priority=32766, fwmark=0, mask=0, table=MAIN_TABLE)
_EVERYWHERE = IPv4Network("0.0.0.0/0")
_ON_LINK = IPv4Address("0.0.0.0")
_HOST_PREFIX = 32


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where a route leads. `item` is the route, or the address that brought it; None for what no plan contains."""

    link: str
    address: IPv4Address
    item: Item | None
    source: IPv4Address | None = None

    def __str__(self) -> str:
        return f"via {self.address} dev {self.link}" if isinstance(self.item, Route) else f"dev {self.link}"


class Stack:
    """A namespace, ready to be asked. `underlay` is the device to the other nodes, in a node's own namespace only."""

    def __init__(
        self,
        place: Place,
        items: Namespace,
        sysctls: Mapping[str, str],
        underlay: str = "",
        underlay_addresses: tuple[IPv4Address, ...] = (),
    ) -> None:
        self.place = place
        self.underlay = underlay
        self.links: dict[str, Link] = {}
        self.ports: dict[str, list[Link]] = defaultdict(list)
        self.addresses: dict[str, list[Address]] = defaultdict(list)
        self.neighbours: dict[tuple[str, IPv4Address], Neighbour] = {}
        self.fdb: dict[tuple[str, str], FdbEntry] = {}
        self.maps: dict[tuple[Family | XtTable, str], Map] = {}
        self.elements: dict[tuple[Family | XtTable, str, tuple[object, ...]], Element] = {}
        self.chains: dict[tuple[Family | XtTable, str], RuleChain] = {}
        self.services: dict[int, IpvsService] = {}
        self.servers: dict[int, list[IpvsDestination]] = defaultdict(list)
        self.underlay_addresses = underlay_addresses
        self._turns: dict[tuple[str, str | None], tuple[Turn, ...]] = {}
        self._sysctls = dict(sysctls)
        self._rules = [_MAIN_RULE]
        self._routes: dict[int, list[tuple[IPv4Network, NextHop]]] = defaultdict(list)
        self._place(items)

    # --- what is here ---

    def is_local(self, address: IPv4Address) -> bool:
        """Whether packets to `address` end in this namespace."""
        return address in self._local or address.is_loopback

    def link(self, name: str) -> Link | None:
        """The link, if it is there and up."""
        link = self.links.get(name)
        return link if link is not None and link.up else None

    def mac(self, link: Link) -> str:
        """A link's MAC; a name for it where the plan leaves the MAC to the kernel."""
        return link.mac or f"<{self.place} {link.name}>"

    def addresses_on(self, link: str) -> list[IPv4Interface]:
        """A link's addresses, the primary one first."""
        if link == self.underlay:
            return [IPv4Interface(address) for address in self.underlay_addresses]
        return [item.address for item in self.addresses[link]] if self.link(link) else []

    def source_on(self, link: str, toward: IPv4Address | None) -> IPv4Address | None:
        """The source address for what leaves by a link: one on the subnet of `toward` if it has one, else its first.

        A link without any, as lo, uses another link's. Source: inet_select_addr.
        """
        own = self.addresses_on(link)
        near = [address for address in own if toward is not None and toward in address.network]
        others = (address for other in (self.underlay, *self.addresses) for address in self.addresses_on(other))
        found = next(iter(near or own), None) or next(others, None)
        return None if found is None else found.ip

    def turns(self, hook: str, device: str | None = None) -> tuple[Turn, ...]:
        """What meets a packet at a hook (of a device), in order."""
        if (hook, device) not in self._turns:
            here = [
                chain for chain in self.chains.values() if chain.hook and (chain.hook.hook, chain.hook.device) == (hook, device)
            ]
            self._turns[hook, device] = tuple(in_order(hook, here, balances=bool(self.services)))
        return self._turns[hook, device]

    # --- routing ---

    def route(self, destination: IPv4Address, mark: int) -> NextHop | None:
        """The next hop to an address that is not local; None where there is no route."""
        for rule in self._rules:
            if mark & rule.mask != rule.fwmark:
                continue
            for network, hop in self._routes[rule.table]:
                if destination in network:
                    return hop if hop.address != _ON_LINK else NextHop(hop.link, destination, hop.item)
        return None

    def preferred_source(self, destination: IPv4Address) -> IPv4Address | None:
        """The source address that the kernel gives a packet of the namespace's own whose sender has not chosen one."""
        if self.is_local(destination):
            return destination
        hop = self.route(destination, 0)
        return None if hop is None else hop.source or self.source_on(hop.link, hop.address)

    def tracks_balanced(self) -> bool:
        """Whether connection tracking sees what IPVS sends, rather than leaving it alone."""
        return self._sysctl("net/ipv4/vs/conntrack") != 0

    def reroutes_answers(self) -> bool:
        """Whether IPVS looks for a route anew once an answer has the source that the client asked."""
        return self._sysctl("net/ipv4/vs/snat_reroute", 1) != 0

    def filters_bridges(self) -> bool:
        """Whether bridged IP packets meet the hooks of the IP layer too (br_netfilter)."""
        return self._sysctl("net/bridge/bridge-nf-call-iptables") != 0

    def forwards(self, link: str) -> bool:
        """Whether packets that come in through `link` may go on."""
        return self._sysctl(f"net/ipv4/conf/{link}/forwarding", self._sysctl("net/ipv4/ip_forward")) != 0

    def objection(self, link: str, source: IPv4Address, destination: IPv4Address) -> str | None:
        """Why a packet that came in through `link` is thrown away for its addresses; None when it is not.

        Source: ip_route_input_slow, __fib_validate_source.
        """
        if link == LOOPBACK:
            return None
        if (source.is_loopback or destination.is_loopback) and not self.routes_loopback(link):
            return f"a loopback address on the wire, and route_localnet is off on {link}"
        if source in self._local and not self._either("accept_local", link):
            return f"its source {source} is this namespace's own address"
        return self._reverse_path_objection(link, source)

    def routes_loopback(self, link: str) -> bool:
        """Whether loopback addresses may be on the wire of `link`."""
        return self._either("route_localnet", link)

    def _reverse_path_objection(self, link: str, source: IPv4Address) -> str | None:
        strictness = max(self._sysctl(f"net/ipv4/conf/{name}/rp_filter") for name in ("all", link))
        if strictness == 0 or source in self._local:
            return None
        back = self.route(source, 0)
        if back is None or (strictness == 1 and back.link != link):
            return f"the route back to {source} does not lead through {link}, and rp_filter is {strictness}"
        return None

    def _either(self, setting: str, link: str) -> bool:
        return any(self._sysctl(f"net/ipv4/conf/{name}/{setting}") for name in ("all", link))

    def _sysctl(self, path: str, default: int = 0) -> int:
        return int(self._sysctls.get(path, default))

    # --- arranging ---

    def _place(self, items: Namespace) -> None:
        for item in items.values():
            self._place_one(item)
        for chain in of_iptables(items.values()):
            self.chains[chain.space, chain.name] = chain
        for name, link in self.links.items():
            if link.master is not None:
                self.ports[link.master].append(self.links[name])
        self._local = set(self.underlay_addresses)
        self._local.update(item.address.ip for name, found in self.addresses.items() if self.link(name) for item in found)
        self._rules.sort(key=lambda rule: rule.priority)
        for table, network, hop in self._all_routes(items):
            self._routes[table].append((network, hop))
        for routes in self._routes.values():
            routes.sort(key=lambda route: -route[0].prefixlen)

    def _place_one(self, item: Item) -> None:
        match item:
            case Link():
                self.links[item.name] = item
            case Sysctl():
                self._sysctls[item.path] = item.value
            case Address():
                self.addresses[item.link].append(item)
            case RoutingRule():
                self._rules.append(item)
            case Neighbour():
                self.neighbours[item.link, item.ip] = item
            case FdbEntry():
                self.fdb[item.link, item.mac] = item
            case IpvsService():
                self.services[item.mark] = item
            case IpvsDestination():
                self.servers[item.mark].append(item)
            case _:
                self._place_nftables(item)

    def _place_nftables(self, item: Item) -> None:
        match item:
            case Map():
                self.maps[item.family, item.name] = item
            case Chain():
                self.chains[item.family, item.name] = of_nftables(item)
            case Element():
                self.elements[item.family, item.map, item.key] = item

    def _all_routes(self, items: Namespace) -> Iterator[tuple[int, IPv4Network, NextHop]]:
        """Tables, destinations and next hops: those of the plan, those that addresses bring, the underlay for all else."""
        for name, found in self.addresses.items():
            for item in found if self.link(name) else ():
                if item.address.network.prefixlen == _HOST_PREFIX:
                    continue  # brings no route (fib_add_ifaddr)
                yield MAIN_TABLE, item.address.network, NextHop(name, _ON_LINK, item)
        for route in items.values():
            if isinstance(route, Route) and self._usable(route):
                yield route.table, route.destination, NextHop(route.link, route.via or _ON_LINK, route, route.source)
        if self.underlay:
            yield MAIN_TABLE, _EVERYWHERE, NextHop(self.underlay, _ON_LINK, None)

    def _usable(self, route: Route) -> bool:
        near = route.via is None or any(route.via in address.network for address in self.addresses_on(route.link))
        return near and (route.source is None or route.source in self._local)
