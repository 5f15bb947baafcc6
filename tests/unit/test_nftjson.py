"""libnftables' JSON, as nft 1.0.6 and 1.1.3 really printed it."""

import json
from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.language.nftjson import parse, parse_everything, rule
from routemesh.nodeplan import (
    Assign,
    Chain,
    ClampMss,
    Counter,
    CtTimeouts,
    Dnat,
    Element,
    Field,
    Hook,
    InSet,
    Item,
    Jhash,
    Learn,
    Lookup,
    Map,
    MarkMatch,
    Masquerade,
    Match,
    Numgen,
    Redirect,
    Reject,
    SetTimeouts,
    Snat,
    Statement,
    Table,
    Unknown,
    Verdict,
    VerdictLookup,
)
from routemesh.values import replace

PORT: tuple[Field, Field] = ("meta l4proto", "th dport")
TCP = Match("meta l4proto", "tcp")
L4 = {"meta": {"key": "l4proto"}}
TH_DPORT = {"payload": {"protocol": "th", "field": "dport"}}
TCP_DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
FLAGS = {"payload": {"protocol": "tcp", "field": "flags"}}
META_MARK, CT_MARK = {"meta": {"key": "mark"}}, {"ct": {"key": "mark"}}
NUMGEN = {"numgen": {"mode": "inc", "mod": 2, "offset": 0}}
BY_LOT = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
JHASH = {"jhash": {"mod": 2, "seed": 256, "expr": SADDR}}
ENTRY = {"elem": {"val": {"concat": [SADDR, META_MARK]}, "timeout": 93_784}}
LEARN = {"map": {"op": "update", "elem": ENTRY, "data": CT_MARK, "map": "@clients"}}
REMEMBER = Learn(map="clients", key=("ip saddr", "meta mark"), value="ct mark", timeout_s=93_784)


def match(left: Any, right: Any, op: str = "==") -> Any:
    return {"match": {"op": op, "left": left, "right": right}}


def lookup(name: str, *key: Any) -> Any:
    return {"map": {"key": key[0] if len(key) == 1 else {"concat": list(key)}, "data": f"@{name}"}}


def mangle(target: Any, value: Any) -> Any:
    return {"mangle": {"key": target, "value": value}}


def document(*entries: Any) -> Any:
    return {"nftables": [{"metainfo": {"version": "1.0.6"}}, *entries]}


def items(*entries: Any) -> tuple[Item, ...]:
    return parse(document(*entries), {})


def table_map(**fields: Any) -> Any:
    return {"map": {"family": "ip", "name": "m", "table": "routemesh", "handle": 8, **fields}}


def table_set(**fields: Any) -> Any:
    return {"set": {"family": "ip", "name": "s", "table": "routemesh", "handle": 8, **fields}}


def test_timeouts_are_read_in_one_order() -> None:
    raw = {"family": "ip", "name": "t", "table": "routemesh", "handle": 1, "protocol": "udp", "l3proto": "ip"}
    found = items({"ct timeout": {**raw, "policy": {"unreplied": 120, "replied": 300}}}, {"ct timeout": {**raw, "name": "u"}})
    assert found == (CtTimeouts("ip", "t", "udp", (("replied", 300), ("unreplied", 120))), CtTimeouts("ip", "u", "udp", ()))


# --- statements --------------------------------------------------------------------------------------------------

STATEMENTS: tuple[tuple[Any, Statement], ...] = (
    (match({"meta": {"key": "iifname"}}, "eth1"), Match("iifname", "eth1")),
    (match({"meta": {"key": "oifname"}}, "eth1", "!="), Match("oifname", "eth1", negate=True)),
    (match(L4, 6), TCP),
    (match(L4, "udp"), Match("meta l4proto", "udp")),
    (match(L4, 99), Match("meta l4proto", "99")),
    (match({"ct": {"key": "state"}}, "new", "in"), Match("ct state", "new")),
    (match({"ct": {"key": "state"}}, ["established", "related"], "in"), Match("ct state", "established,related")),
    (match({"ct": {"key": "status"}}, ["snat", "dnat"], "in"), Match("ct status", "snat,dnat")),
    (match({"ct": {"key": "direction"}}, "reply"), Match("ct direction", "reply")),
    (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), Match("fib daddr type", "local")),
    (match({"fib": {"result": "type", "flags": "saddr"}}, "local", "!="), Match("fib saddr type", "local", negate=True)),
    (
        match({"payload": {"protocol": "ip", "field": "saddr"}}, {"prefix": {"addr": "10.0.0.0", "len": 24}}),
        Match("ip saddr", "10.0.0.0/24"),
    ),
    (match({"payload": {"protocol": "ether", "field": "saddr"}}, "02:42:0a:00:00:02"), Match("ether saddr", "02:42:0a:00:00:02")),
    (match(TH_DPORT, 80), Match("th dport", "80")),
    (match(FLAGS, "syn", "in"), Match("tcp flags", "syn")),
    (match({"&": [FLAGS, "syn"]}, "syn"), Match("tcp flags", "syn")),
    (match({"&": [FLAGS, ["fin", "syn"]]}, "syn"), Match("tcp flags", "syn / fin,syn")),
    (match({"&": [FLAGS, {"|": ["fin", "syn"]}]}, "syn"), Match("tcp flags", "syn / fin,syn")),
    (match(META_MARK, 5), MarkMatch("meta mark", 5, 0xFFFFFFFF)),
    (match(META_MARK, 0, "!="), Match("meta mark", "0x00000000", negate=True)),
    (match({"&": [META_MARK, 255]}, 5), MarkMatch("meta mark", 5, 255)),
    (match(CT_MARK, {"prefix": {"addr": 0x0A000000, "len": 8}}), MarkMatch("ct mark", 0x0A000000, 0xFF000000)),
    (match({"&": [CT_MARK, 0xFF000000]}, 0x0A000000), MarkMatch("ct mark", 0x0A000000, 0xFF000000)),
    ({"ct timeout": "mesh-tcp"}, SetTimeouts("mesh-tcp")),
    (match({"concat": [L4, TH_DPORT]}, "@published"), InSet(PORT, "published")),
    (match(TH_DPORT, "@published"), InSet(("th dport",), "published")),
    (mangle(META_MARK, lookup("marks", L4, TH_DPORT)), Assign("meta mark", Lookup(PORT, "marks"))),
    (mangle(META_MARK, CT_MARK), Assign("meta mark", "ct mark")),
    (mangle(CT_MARK, 258), Assign("ct mark", 258)),
    (
        mangle({"payload": {"protocol": "ether", "field": "daddr"}}, lookup("macs", META_MARK)),
        Assign("ether daddr", Lookup(("meta mark",), "macs")),
    ),
    (mangle({"tcp option": {"name": "maxseg", "field": "size"}}, 1410), ClampMss(1410)),
    ({"counter": None}, Counter()),
    ({"counter": {"packets": 1, "bytes": 60}}, Counter()),
    ({"dnat": {"addr": "172.18.0.2"}}, Dnat(IPv4Address("172.18.0.2"))),
    ({"dnat": {"family": "ip", "addr": "172.18.0.2"}}, Dnat(IPv4Address("172.18.0.2"))),
    ({"dnat": {"addr": lookup("b", META_MARK, NUMGEN)}}, Dnat(Lookup(("meta mark", Numgen(2)), "b"))),
    ({"dnat": {"addr": lookup("b", META_MARK, BY_LOT)}}, Dnat(Lookup(("meta mark", Numgen(2, "random")), "b"))),
    (
        {"dnat": {"addr": lookup("b", META_MARK, JHASH)}},
        Dnat(Lookup(("meta mark", Jhash(field="ip saddr", modulus=2, seed=256)), "b")),
    ),
    (LEARN, REMEMBER),
    ("update @clients { ip saddr . meta mark timeout 1d2h3m4s : ct mark }", REMEMBER),
    ("update @clients { ip saddr . meta mark timeout 3h : ct mark }", replace(REMEMBER, timeout_s=10_800)),
    ({"snat": {"addr": "10.0.0.2"}}, Snat(IPv4Address("10.0.0.2"))),
    ({"masquerade": None}, Masquerade()),
    ({"redirect": {"port": lookup("ports", L4, TH_DPORT)}}, Redirect(Lookup(PORT, "ports"))),
    ({"reject": {"type": "icmp", "expr": "port-unreachable"}}, Reject("icmp port-unreachable")),
    ({"reject": None}, Reject("icmp port-unreachable")),
    ({"accept": None}, Verdict("accept")),
    ({"goto": {"target": "FWM-256"}}, Verdict("goto", "FWM-256")),
    ({"vmap": {"key": META_MARK, "data": "@services"}}, VerdictLookup(("meta mark",), "services")),
)


@pytest.mark.parametrize(("raw", "statement"), STATEMENTS, ids=[json.dumps(raw) for raw, _ in STATEMENTS])
def test_statements(raw: Any, statement: Statement) -> None:
    assert rule([raw]) == (statement,)


@pytest.mark.parametrize(
    "raw",
    [
        {"limit": {"rate": 5, "burst": 5, "per": "second"}},
        {"log": {"prefix": "hi"}},
        {"dnat": {"addr": "10.0.0.1", "port": 80}},
        {"dnat": {"addr": {"range": ["10.0.0.1", "10.0.0.4"]}}},
        {"snat": {"addr": "10.0.0.1", "flags": "random"}},
        {"masquerade": {"flags": "random"}},
        {"redirect": None},
        {"redirect": {"port": 8080}},
        {"continue": None},
        {"queue": {"num": 0}},
        {"counter": "named"},
        match(TH_DPORT, {"range": [1, 100]}),
        match(L4, {"set": [6, 17]}),
        match({"ct": {"key": "state"}}, ["established", "new"], "=="),
        match({"ct": {"key": "state"}}, "odd", "in"),
        match({"ct": {"key": "mark", "dir": "original"}}, 5),
        match({"payload": {"base": "th", "offset": 0, "len": 32}}, 5308496),
        match({"payload": {"protocol": "icmp", "field": "type"}}, 8),
        match({"&": [META_MARK, 255]}, 5, "!="),
        match(FLAGS, "syn", "!"),
        mangle(META_MARK, {"&": [CT_MARK, 255]}),
        mangle({"payload": {"protocol": "ip", "field": "ttl"}}, 64),
        {"vmap": {"key": META_MARK, "data": {"set": [[1, {"accept": None}]]}}},
        {"dnat": {"addr": {"map": {"key": {"numgen": {"mode": "random", "mod": 2, "offset": 1}}, "data": "@b"}}}},
        {"dnat": {"addr": lookup("b", {"jhash": {"mod": 2, "expr": SADDR}})}},
        {"dnat": {"addr": lookup("b", {"jhash": {"mod": 2, "offset": 1, "seed": 256, "expr": SADDR}})}},
        {"dnat": {"addr": lookup("b", {"symhash": {"mod": 2}})}},
        "add @clients { ip saddr . meta mark timeout 3h : ct mark }",
        "update @clients { ip saddr . meta mark : ct mark }",
        "update @clients { ip saddr . meta cpu timeout 3h : ct mark }",
        "update @clients { ip saddr . meta mark timeout 3h : 5 }",
        "update @clients { ip saddr . meta mark timeout 3h500ms : ct mark }",
        {"map": {**LEARN["map"], "op": "add"}},
        {"map": {**LEARN["map"], "elem": {"elem": {"val": SADDR, "timeout": 60, "comment": "x"}}}},
        {"set": {"op": "update", "elem": SADDR, "set": "@s"}},
        {"dnat": {"addr": {"map": {"key": {"numgen": {"mode": "inc", "mod": 2, "offset": 5}}, "data": "@b"}}}},
        {"xt": None},
    ],
    ids=json.dumps,
)
def test_what_is_none_of_ours_is_unknown_and_keeps_its_json(raw: Any) -> None:
    assert rule([raw]) == (Unknown(json.dumps(raw, sort_keys=True)),)


def test_the_protocol_that_nft_puts_into_a_name_is_a_match_again() -> None:
    assert rule([match(TCP_DPORT, 80), {"accept": None}]) == (TCP, Match("th dport", "80"), Verdict("accept"))
    both = [match(TCP_DPORT, 80), match({"payload": {"protocol": "tcp", "field": "sport"}}, 81)]
    assert rule(both) == (TCP, Match("th dport", "80"), Match("th sport", "81"))
    udp = {"payload": {"protocol": "udp", "field": "dport"}}
    assert rule([{"vmap": {"key": udp, "data": "@vm"}}]) == (Match("meta l4proto", "udp"), VerdictLookup(("th dport",), "vm"))
    assert rule([match(FLAGS, "syn", "in"), match(TCP_DPORT, 80)]) == (Match("tcp flags", "syn"), Match("th dport", "80"))


def test_a_reset_is_for_tcp() -> None:
    reset = {"reject": {"type": "tcp reset"}}
    assert rule([{"counter": None}, reset]) == (Counter(), TCP, Reject("tcp reset"))
    assert rule([match(L4, 6), {"counter": None}, reset]) == (TCP, Counter(), Reject("tcp reset"))


@pytest.mark.parametrize("either", [[6, 17], ["udp", "tcp"]])
def test_the_protocols_before_a_redirect_are_renders_own(either: list[Any]) -> None:
    redirect = {"redirect": {"port": lookup("ports", L4, TH_DPORT)}}
    assert rule([match(L4, {"set": either}), redirect]) == (Redirect(Lookup(PORT, "ports")),)
    assert isinstance(rule([match(L4, {"set": either}), {"counter": None}, redirect])[0], Unknown)


def test_a_redirect_of_one_protocol_is_the_same_in_both_versions() -> None:
    redirect = {"redirect": {"port": lookup("ports", L4, TCP_DPORT)}}
    expected = (TCP, Redirect(Lookup(PORT, "ports")))
    assert rule([match(L4, 6), redirect]) == rule([redirect]) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "left", "right", "set", "&", "x"]), inner)
    ),
    max_leaves=8,
)
kinds = st.sampled_from(["match", "mangle", "vmap", "counter", "dnat", "redirect", "reject", "accept", "goto", "other"])


@given(st.lists(st.dictionaries(kinds, json_values, max_size=2), max_size=3))
def test_any_json_is_some_rule(raw: list[Any]) -> None:
    assert len(rule(raw)) >= len(raw)


@given(st.sampled_from(STATEMENTS), st.data())
def test_a_statement_with_something_more_is_never_taken_for_ours(pair: tuple[Any, Statement], data: st.DataObject) -> None:
    raw, _ = pair
    more = raw + " counter" if isinstance(raw, str) else raw | {"more": None}
    assert rule([more])[0].__class__ is Unknown


# --- maps --------------------------------------------------------------------------------------------------------

TYPEOF = {"typeof": {"concat": [META_MARK, NUMGEN]}}


@pytest.mark.parametrize(
    ("declared", "value", "key"),
    [
        (["mark", "integer"], "ipv4_addr", ("mark", "index")),
        (TYPEOF, "ipv4_addr", ("mark", "index")),
        (TYPEOF, {"typeof": {"payload": {"protocol": "ip", "field": "daddr"}}}, ("mark", "index")),
        ({"typeof": NUMGEN}, "ipv4_addr", ("index",)),
        ("integer", "ipv4_addr", ("index",)),
    ],
)
def test_types_of_maps_in_all_forms(declared: Any, value: Any, key: Any) -> None:
    assert items(table_map(type=declared, map=value)) == (Map("ip", "m", key, "ip"),)


def test_elements() -> None:
    ports = table_set(
        type=["inet_proto", "inet_service"], elem=[{"concat": [6, 8080]}, {"concat": ["udp", 53]}, {"concat": [99, 1]}]
    )
    assert items(ports)[1:] == tuple(Element("ip", "s", key) for key in (("tcp", 8080), ("udp", 53), ("99", 1)))
    backends = table_map(type=["mark", "integer"], map="ipv4_addr", elem=[[{"concat": [256, 0]}, "10.0.0.8"]])
    assert items(backends)[1:] == (Element("ip", "m", (256, 0), IPv4Address("10.0.0.8")),)
    nodes = table_map(type="ether_addr", map="mark", elem=[["02:42:0a:00:00:02", 167772162]])
    assert items(nodes)[1:] == (Element("ip", "m", ("02:42:0a:00:00:02",), 167772162),)
    services = table_map(type="mark", map="verdict", elem=[[256, {"goto": {"target": "c"}}], [257, {"drop": None}]])
    assert items(services)[1:] == (Element("ip", "m", (256,), Verdict("goto", "c")), Element("ip", "m", (257,), Verdict("drop")))


def test_elements_with_comments_counters_and_timeouts() -> None:
    wrapped = {"elem": {"val": {"concat": [6, 80]}, "comment": "by hand", "counter": {"packets": 0, "bytes": 0}}}
    assert items(table_set(type=["inet_proto", "inet_service"], elem=[wrapped]))[1:] == (Element("ip", "s", ("tcp", 80)),)
    mapped = [{"elem": {"val": 256, "timeout": 60}}, "10.0.0.8"]
    assert items(table_map(type="mark", map="ipv4_addr", elem=[mapped]))[1:] == (
        Element("ip", "m", (256,), IPv4Address("10.0.0.8")),
    )


@pytest.mark.parametrize("flags", [["timeout"], ["timeout", "dynamic"], "timeout"])
def test_a_map_that_learns_is_read_without_what_it_learned(flags: Any) -> None:
    """nft 1.0.6 does not tell that it is dynamic."""
    learned = [[{"elem": {"val": {"concat": ["198.51.100.7", 256]}, "timeout": 60, "expires": 59}}, 5]]
    assert items(table_map(type=["ipv4_addr", "mark"], map="mark", size=9, flags=flags, elem=learned)) == (
        Map("ip", "m", ("ip", "mark"), "mark", learns=9),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "ipv6_addr", "map": "mark", "elem": [["::1", 1]]},
        {"type": "mark", "map": "mark", "flags": ["timeout"], "elem": [[1, 1]]},
        {"type": "mark", "map": "mark", "flags": "interval", "elem": [[{"range": [1, 9]}, 1]]},
        {"type": "mark", "map": ["ipv4_addr", "inet_service"], "elem": [[1, {"concat": ["10.0.0.1", 80]}]]},
        {"type": {"typeof": {"meta": {"key": "cpu"}}}, "map": "mark", "elem": [[1, 1]]},
        {"type": {"typeof": {"osf": {"key": "name"}}}, "map": "mark", "elem": [["Linux", 1]]},
    ],
    ids=json.dumps,
)
def test_a_map_of_another_type_equals_none_of_ours_and_has_no_elements(fields: dict[str, Any]) -> None:
    (found,) = items(table_map(**fields))
    assert isinstance(found, Map)
    assert found.value is not None, "it is deleted as a map, not as a set"
    assert (found.key, found.value) != (("mark",), "mark")


# --- tables and chains -------------------------------------------------------------------------------------------


def chain(family: str, name: str, **fields: Any) -> Any:
    return {"chain": {"family": family, "table": "routemesh", "name": name, "handle": 1, **fields}}


def chain_rule(family: str, name: str, *expressions: Any) -> Any:
    return {"rule": {"family": family, "table": "routemesh", "chain": name, "handle": 2, "expr": list(expressions)}}


BASE = {"type": "nat", "hook": "prerouting", "prio": -100, "policy": "accept"}


def test_chains_with_their_rules_in_order() -> None:
    entries: Iterable[Any] = (
        {"table": {"family": "ip", "name": "routemesh", "handle": 1}},
        chain("ip", "nat-prerouting", **BASE),
        chain("ip", "FWM-256"),
        chain_rule("ip", "nat-prerouting", {"counter": None}),
        chain_rule("ip", "FWM-256", {"drop": None}),
        chain_rule("ip", "nat-prerouting", {"accept": None}),
    )
    assert items(*entries) == (
        Table("ip"),
        Chain("ip", "nat-prerouting", Hook("nat", "prerouting", -100), ((Counter(),), (Verdict("accept"),))),
        Chain("ip", "FWM-256", rules=((Verdict("drop"),),)),
    )


def test_chains_of_one_name_in_two_families_keep_their_rules_apart() -> None:
    found = items(chain("ip", "c"), chain("netdev", "c"), chain_rule("netdev", "c", {"drop": None}))
    assert found == (Chain("ip", "c"), Chain("netdev", "c", rules=((Verdict("drop"),),)))


@pytest.mark.parametrize("dev", [{}, {"dev": "eth0"}])
def test_devices_come_from_elsewhere(dev: dict[str, str]) -> None:
    """nft 1.0.6 does not print them."""
    entry = document(chain("netdev", "egress", type="filter", hook="egress", prio=0, policy="accept", **dev))
    devices = {("routemesh", "egress"): "eth0", ("other", "egress"): "eth9"}
    assert parse(entry, devices) == (Chain("netdev", "egress", Hook("filter", "egress", 0, "eth0")),)


def test_a_policy_that_is_not_ours_shows() -> None:
    (found,) = items(chain("ip", "c", **(BASE | {"policy": "drop"})))
    assert isinstance(found, Chain)
    assert (found.policy, found.rules) == ("drop", ())


def test_other_tables_are_left_out() -> None:
    other = {"chain": {"family": "ip", "table": "filter", "name": "c", "handle": 1}}
    same_name = {"chain": {"family": "ip6", "table": "routemesh", "name": "c", "handle": 1}}
    assert items(other, same_name, {"table": {"family": "inet", "name": "routemesh"}}) == ()


def test_a_dormant_table_is_not_there_but_its_contents_are() -> None:
    """nft 1.0.6 prints rubbish as the flag's name."""
    found = items({"table": {"family": "ip", "name": "routemesh", "flags": "Lester Gooch #5"}}, chain("ip", "c"))
    assert found == (Chain("ip", "c"),)


def test_everything_is_read_with_the_name_of_its_table() -> None:
    document = {
        "nftables": [
            {"table": {"family": "inet", "name": "filter", "handle": 1}},
            {"table": {"family": "ip", "name": "asleep", "flags": ["dormant"]}},
            {"table": {"family": "ip", "name": "kept", "flags": ["owner"]}},
            {
                "map": {
                    "family": "inet",
                    "name": "m",
                    "table": "filter",
                    "type": "mark",
                    "map": "verdict",
                    "elem": [[1, {"drop": None}]],
                }
            },
            {"set": {"family": "inet", "name": "s", "table": "filter", "type": "ipv6_addr", "elem": ["::1"]}},
            {"chain": {"family": "inet", "table": "filter", "name": "in", **BASE, "policy": "drop"}},
            {
                "rule": {
                    "family": "inet",
                    "table": "filter",
                    "chain": "in",
                    "handle": 7,
                    "expr": [{"log": None}, {"accept": None}],
                }
            },
        ]
    }
    assert set(parse_everything(document, {})) == {
        Table("inet", "filter"),
        Table("ip", "asleep", True),
        Table("ip", "kept"),
        Map("inet", "m", ("mark",), "verdict", "filter"),
        Element("inet", "m", (1,), Verdict("drop"), "filter"),
        Map("inet", "s", ("ipv6_addr",), None, "filter", listed='["::1"]'),  # type: ignore[arg-type]  # what is read may be of any type
        Chain(
            "inet",
            "in",
            Hook("nat", "prerouting", -100),
            ((Unknown('{"log": null}'), Verdict("accept")),),
            "drop",
            "filter",
            (7,),
        ),
    }
