"""All rules of the namespace that the calling thread is in, whatever made them: nftables' tables, and iptables' and IPVS's.

What iptables-nft keeps are nftables tables as well, but of a form that nft can't tell; they are read as iptables prints them.
Source: libnftables(3); iptables-save(8), xtables-nft(8); proc(5) on net/ip_tables_names.
"""

import json
import socket
from collections.abc import Callable, Iterator, Set
from contextlib import closing, nullcontext
from typing import NamedTuple

from routemesh import names
from routemesh.errors import KernelError, RoutemeshError
from routemesh.kernel.netlink import Requests, as_text, parse
from routemesh.kernel.netlink.ipvs import Ipvs, is_loaded
from routemesh.kernel.netlink.netfilter import ANY_FAMILY, FAMILIES, HEADER_BYTES, NETDEV, NETFILTER
from routemesh.kernel.netlink.numbers.nf_tables import NftaTable, NftMessage
from routemesh.kernel.tables import libnftables
from routemesh.kernel.tables.nft import chain_device
from routemesh.kernel.tables.xtables import save
from routemesh.kernel.tables.xtevidence import Witness
from routemesh.kernel.tables.xttools import VARIANTS, Tools
from routemesh.language import nftjson
from routemesh.language.xtsave import beside, every_chain
from routemesh.nodeplan import Item, ItemKey, XtChain, key
from routemesh.snapshot import Part, Unread


class Rules(NamedTuple):
    """What was found, and what could not be read."""

    items: list[Item]
    unread: list[Unread]


def everything(*, nf_tables: bool) -> Rules:
    """Everything that filters, translates or balances. A kernel without nf_tables, iptables or ip_vs has nothing of it.

    `nf_tables`: whether this kernel has that (capabilities.has_nf_tables): to find out takes 10 ms, and namespaces are many.
    """
    found = Rules([], [])
    told_by_iptables: set[str] = set()
    parts: tuple[tuple[str, str, Part, Callable[[], Iterator[Item]]], ...] = (
        ("iptables-save", "what filters and translates", "filters", lambda: _iptables(told_by_iptables)),
        (
            "nft list ruleset",
            "what filters and translates",
            "filters",
            lambda: _nftables(told_by_iptables) if nf_tables else iter(()),
        ),
        ("ipvsadm -Ln", "how connections are balanced", "balancing", _ipvs),
    )
    for what, loses, part, read in parts:
        try:
            found.items.extend(read())
        except OSError as refusal:
            found.unread.append(Unread(what, str(refusal.strerror), loses, part))
        except RoutemeshError as refusal:
            found.unread.append(Unread(what, str(refusal), loses, part))
    return found


def _iptables(told: set[str]) -> Iterator[Item]:
    """The chains of both variants; into `told` go the tables of nftables that are told with them.

    Where iptables can't show all that is in such a table, nft tells of it.
    """
    with closing(Witness(nullcontext)) as witness:
        evidence = witness.testify()
    tools = Tools()
    found: dict[ItemKey, XtChain] = {}
    for variant in VARIANTS:
        if getattr(evidence, variant):
            chains = save(tools, variant)
            hidden = {chain.table for chain in chains if chain.beyond}
            shown = [chain for chain in chains if chain.table not in hidden]
            if variant == "nft":
                told.update(chain.table for chain in shown)
            for chain in every_chain(shown):
                found[key(chain)] = beside(found.get(key(chain)), chain, variant)
    yield from found.values()


def _nftables(told_by_iptables: Set[str]) -> Iterator[Item]:
    with closing(Requests(protocol=NETFILTER)) as requests:
        tables = _tables(requests)
        if not tables:
            return
        chains = requests.dump(NftMessage.GET_CHAIN, NETDEV)
        devices = dict(device for chain in chains for device in chain_device(chain.body))
    left_out = {("ip", table) for table in told_by_iptables}
    if not any(name.startswith(names.TRACE_TABLE) for _, name in tables):
        yield from _understood("ruleset", devices, left_out)
        return
    for family, name in tables:  # nft 1.0.6 breaks off its JSON at a trace's table: `flags owner` is more than it can tell
        if not name.startswith(names.TRACE_TABLE):
            yield from _understood(f"table {family} {name}", devices, left_out)


def _understood(what: str, devices: nftjson.Devices, left_out: Set[tuple[str, str]]) -> tuple[Item, ...]:
    listed = _listed(what)
    try:
        links = {str(number): name for number, name in socket.if_nameindex()}
        return nftjson.parse_everything(listed, devices, left_out, links)
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise KernelError(f"nft -j list {what}", f"what it printed is not understood: {exc!r}") from exc


def _ipvs() -> Iterator[Item]:
    """Services by firewall mark, which are those that a mesh has."""
    if is_loaded():
        with closing(Ipvs(nullcontext)) as ipvs:
            yield from ipvs.read()


def _tables(requests: Requests) -> list[tuple[str, str]]:
    """The tables by family and name."""
    found = requests.dump(NftMessage.GET_TABLE, ANY_FAMILY)
    named = ((FAMILIES.get(table.body[0], ""), parse(table.body, HEADER_BYTES)[NftaTable.NAME]) for table in found)
    return [(family, as_text(name)) for family, name in named]


def _listed(what: str) -> nftjson.Json:
    code, output, error = libnftables.run(f"list {what}", "json", "stateless", "numeric_proto")
    if code != 0:
        raise KernelError(f"nft list {what}", error.strip() or "libnftables gave no reason")
    try:
        return json.loads(output)
    except ValueError:
        raise KernelError(
            f"nft -j list {what}", "its JSON is broken off, as nft 1.0.6 does it at a table with flags owner"
        ) from None
