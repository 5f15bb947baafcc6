"""`ip route show table all` and `ip rule`: IPv4's; lines about IPv6 are passed over. PURE.

Source: iproute2's ip/iproute.c (print_route) and ip/iprule.c (print_rule); /etc/iproute2/rt_tables and rt_protos.
"""

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import get_args

from routemesh.nodeplan import Route, RouteKind, RoutingRule, first_or_same
from routemesh.recording.source import Source, is_ipv6

_TABLES = {"local": 255, "main": 254, "default": 253, "unspec": 0}
_PROTOCOLS = {
    **{"unspec": 0, "redirect": 1, "kernel": 2, "boot": 3, "static": 4, "gated": 8, "ra": 9, "mrt": 10, "zebra": 11, "bird": 12},
    **{"dnrouted": 13, "xorp": 14, "ntk": 15, "dhcp": 16, "mrouted": 17, "keepalived": 18, "babel": 42, "openr": 99},
    **{"bgp": 186, "isis": 187, "ospf": 188, "rip": 189, "eigrp": 192},
}
_KINDS = frozenset(get_args(RouteKind)) - {"unknown"}
_BOOT = _PROTOCOLS["boot"]
_FLAGS = frozenset({"linkdown", "dead", "onlink", "pervasive", "offload", "trap", "notify", "rt_offload", "rt_trap"})
_WITH_VALUE = frozenset(
    {"scope", "tos", "dsfield", "pref", "mtu", "advmss", "hoplimit", "expires", "initcwnd", "window", "rtt", "quickack", "realm"}
)
_IPV4 = re.compile(r"\d+\.\d+\.\d+\.\d+(/\d+)?")


def read_routes(source: Source) -> Iterator[Route]:
    """The routes, those of kind `unknown` too, which go where this can't tell (several next hops, say)."""
    lines = list(source.lines())
    for position, (number, line) in enumerate(lines):
        if line[0].isspace():  # "\tnexthop via …" of the line before
            continue
        words = line.split()
        kind, words = (words[0], words[1:]) if words[0] in _KINDS else ("unicast", words)
        if any(is_ipv6(word) for word in words):
            continue
        several = position + 1 < len(lines) and lines[position + 1][1].lstrip().startswith("nexthop")
        route = _route(kind, words, several)
        if route is None:
            source.odd(number, line)
        else:
            yield route


def _route(kind: str, words: list[str], several: bool) -> Route | None:
    told = _told(words[1:])
    if told is None or not words or (words[0] != "default" and _IPV4.fullmatch(words[0]) is None):
        return None
    try:
        return Route(
            destination=IPv4Network("0.0.0.0/0" if words[0] == "default" else words[0]),
            via=IPv4Address(told["via"]) if "via" in told else None,
            link=told.get("dev", ""),
            table=_number(told.get("table", "main"), _TABLES),
            source=IPv4Address(told["src"]) if "src" in told else None,
            metric=int(told.get("metric", "0")),
            kind="unknown" if several or ("dev" not in told and kind == "unicast") else kind,  # type: ignore[arg-type]
            protocol=_number(told["proto"], _PROTOCOLS) if "proto" in told else _BOOT,
        )
    except (ValueError, KeyError):
        return None


def _told(words: list[str]) -> dict[str, str] | None:
    """What a route's line says behind the destination: keyword and value; None when there is a word nobody knows."""
    told: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word in _FLAGS:
            continue
        if word not in _WITH_VALUE and word not in ("via", "dev", "table", "src", "metric", "proto"):
            return None
        value = next(rest, None)
        if value is None:
            return None
        told[word] = value
    return told


def _number(name: str, known: dict[str, int]) -> int:
    return known[name] if name in known else int(name)


_RULE = re.compile(
    r"(?P<priority>\d+):\s+(?P<not>not )?from (?P<from>\S+)(?: to (?P<to>\S+))?"
    r"(?: fwmark (?P<mark>0x[0-9a-f]+|\d+)(?:/(?P<mask>0x[0-9a-f]+))?)?(?: iif (?P<iif>\S+))?(?: oif (?P<oif>\S+))?"
    r" (?:lookup (?P<table>\S+)|(?P<action>blackhole|unreachable|prohibit))(?: proto (?P<protocol>\S+))?"
)
_ALL_BITS = 0xFFFFFFFF


def read_rules(source: Source) -> Iterator[RoutingRule]:
    """The routing rules. One that is not understood is reported; from its place on it is not sure which table is asked."""
    for number, line in source.lines():
        found = _RULE.fullmatch(line.strip())
        try:
            if found is None:
                raise ValueError(line)
            mark, mask = found["mark"], found["mask"]
            rule = RoutingRule(
                priority=int(found["priority"]),
                fwmark=int(mark, 0) if mark else 0,
                mask=int(mask, 0) if mask else _ALL_BITS if mark else 0,
                table=_number(found["table"], _TABLES) if found["table"] else 0,
                source=_selector(found["from"]),
                destination=_selector(found["to"] or "all"),
                iif=found["iif"] or "",
                oif=found["oif"] or "",
                negate=found["not"] is not None,
                action=found["action"] or "lookup",  # type: ignore[arg-type]
                protocol=_number(found["protocol"] or "unspec", _PROTOCOLS),
            )
        except ValueError:
            source.odd(number, line)
            continue
        # ip-rule(8) prints neither the kernel's protocol nor that of a rule that was made without one (iproute2, iprule.c).
        yield first_or_same(rule)


def _selector(text: str) -> IPv4Network | None:
    return None if text == "all" else IPv4Network(text)
