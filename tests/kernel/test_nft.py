"""nftables for real: the kernel reads back what was planned, and what others do is seen at once."""

import errno
import itertools
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal, NoReturn, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routemesh.coprocess.client import Coprocess
from routemesh.diff import diff
from routemesh.errors import KernelError, Unavailable
from routemesh.kernel.tables import libnftables, transactions
from routemesh.kernel.tables.nft import Nft
from routemesh.language import canonical, nftjson, ruleset
from routemesh.nodeplan import (
    HOST,
    Assign,
    Chain,
    Change,
    ClampMss,
    Counter,
    Create,
    CtTimeouts,
    Delete,
    Dnat,
    Element,
    Failure,
    Field,
    Hook,
    InSet,
    IpvsMatch,
    Item,
    Jhash,
    Learn,
    Lookup,
    Map,
    MarkMatch,
    Masquerade,
    Match,
    Namespace,
    NodePlan,
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
    key,
    namespace,
)
from tests.kernel.private import Private, private_netns

PORT: tuple[Field, Field] = ("meta l4proto", "th dport")
TCP = Match("meta l4proto", "tcp")
FILTER = Hook("filter", "prerouting", -150)
MARK = 0x0A000002
HASH = Jhash(field="ip saddr", modulus=1021, seed=0x100)
MAC = "02:42:0a:00:00:02"

MAPS: tuple[Map, ...] = (
    Map("ip", "published", ("proto", "port")),
    Map("ip", "ports", ("proto", "port"), "port"),
    Map("ip", "marks", ("proto", "port"), "mark"),
    Map("ip", "by-port", ("port",), "mark"),
    Map("ip", "services", ("mark",), "verdict"),
    Map("ip", "choices", ("mark", "index"), "verdict"),
    Map("ip", "backends", ("mark", "index"), "ip"),
    Map("ip", "turns", ("index",), "ip"),
    Map("ip", "nodes", ("mac",), "mark"),
    Map("ip", "neighbours", ("ip",), "mac"),
    Map("ip", "zones", ("mac",), "zone"),
    Map("ip", "snat-marks", ("mark",)),
    Map("ip", "clients", ("ip", "mark"), "mark", learns=1000),
    Map("ip", "by-index", ("mark", "index"), "mark"),
    Map("ip", "tasks", ("mark", "mark"), "ip"),
    Map("netdev", "macs", ("mark",), "mac"),
    Map("bridge", "senders", ("link", "mac", "ip")),
    Map("bridge", "guarded", ("link",)),
)
TIMEOUTS: tuple[CtTimeouts, ...] = (
    CtTimeouts("ip", "mesh-tcp", "tcp", (("close_wait", 432_000), ("fin_wait", 300), ("last_ack", 300))),
    CtTimeouts("ip", "mesh-udp", "udp", (("replied", 300), ("unreplied", 120))),
)
ELEMENTS: tuple[Element, ...] = (
    Element("ip", "published", ("tcp", 8080)),
    Element("ip", "published", ("udp", 53)),
    Element("ip", "published", ("99", 1)),
    Element("ip", "ports", ("tcp", 8080), 80),
    Element("ip", "marks", ("tcp", 8080), 0x100),
    Element("ip", "by-port", (443,), 0xFFFFFFFF),
    Element("ip", "services", (0x100,), Verdict("goto", "FWM-256")),
    Element("ip", "services", (0x101,), Verdict("drop")),
    Element("ip", "choices", (0x100, 1), Verdict("jump", "FWM-256")),
    Element("ip", "backends", (0x100, 0), IPv4Address("10.0.0.8")),
    Element("ip", "backends", (0x100, 1), IPv4Address("10.0.0.9")),
    Element("ip", "turns", (0,), IPv4Address("10.0.0.8")),
    Element("ip", "nodes", (MAC,), MARK),
    Element("ip", "zones", (MAC,), 2),
    Element("ip", "neighbours", (IPv4Address("10.0.0.2"),), MAC),
    Element("ip", "snat-marks", (0x100,)),
    Element("ip", "by-index", (0x100, 0), MARK),
    Element("ip", "tasks", (0x100, MARK), IPv4Address("10.0.0.2")),
    Element("netdev", "macs", (MARK,), MAC),
    Element("bridge", "senders", ("veth1234567", MAC, IPv4Address("10.0.0.2"))),
    Element("bridge", "guarded", ("veth1234567",)),
)
REMEMBERED = (SetTimeouts("mesh-tcp"), SetTimeouts("mesh-udp"))
CHAINS: tuple[Chain, ...] = (
    Chain("ip", "FWM-256", rules=((Counter(), Dnat(Lookup(("meta mark", Numgen(2)), "backends"))),)),
    Chain("ip", "by-lot", rules=((Dnat(Lookup(("meta mark", Numgen(3, "random")), "backends")),),)),
    Chain("ip", "by-address", rules=((Dnat(Lookup(("meta mark", HASH), "backends")),),)),
    Chain(
        "ip",
        "from-memory",
        rules=(
            (Counter(), Assign("ct mark", Lookup(("meta mark", HASH), "by-index"))),
            (Learn(map="clients", key=("ip saddr", "meta mark"), value="ct mark", timeout_s=2_678_400),),
            (Learn(map="clients", key=("ip saddr", "meta mark"), value="ct mark", timeout_s=93_784),),
            (Assign("ct mark", Lookup(("ip saddr", "meta mark"), "clients")),),
            (Dnat(Lookup(("meta mark", "ct mark"), "tasks")),),
        ),
    ),
    Chain(
        "ip",
        "INGRESS",
        rules=(
            (InSet(PORT, "published"), *REMEMBERED, Counter(), Dnat(IPv4Address("172.18.0.2"))),
            (Verdict("return"),),
        ),
    ),
    Chain("ip", "nobody"),
    Chain(
        "ip",
        "filter-prerouting",
        FILTER,
        (
            (Match("iifname", "eth1"), Assign("meta mark", Lookup(PORT, "marks"))),
            (Match("iifname", "eth0", negate=True), Verdict("accept")),
            (Match("iifname", "veth*"), Assign("meta mark", 0x102)),
            (Match("ct state", "established,related"), Verdict("accept")),
            (Match("ct state", "new"), Assign("ct mark", Lookup(("ether saddr",), "nodes"))),
            (InSet(PORT, "published"), Verdict("accept")),
            (TCP, Match("th dport", "80"), Match("ip saddr", "10.0.0.0/24"), Verdict("accept")),
            (TCP, Reject("tcp reset")),
            (Reject("icmp port-unreachable"),),
        ),
    ),
    Chain(
        "ip",
        "nat-prerouting",
        Hook("nat", "prerouting", -100),
        (
            (Match("fib daddr type", "local"), Verdict("goto", "INGRESS")),
            (Match("iifname", "eth1"), VerdictLookup(("meta mark",), "services")),
            (Match("iifname", "eth0"), Redirect(Lookup(PORT, "ports"))),
            (Match("meta l4proto", "udp"), Redirect(Lookup(PORT, "ports"))),
            (Match("fib daddr type", "local", negate=True), Verdict("jump", "nobody")),
        ),
    ),
    Chain("ip", "nat-output", Hook("nat", "output", -100), ((Match("fib daddr type", "local"), Verdict("goto", "INGRESS")),)),
    Chain("ip", "filter-input", Hook("filter", "input", 0), ((MarkMatch("ct mark", 0x0A000000, 0xFF000000), Verdict("accept")),)),
    Chain(
        "ip",
        "filter-forward",
        Hook("filter", "forward", 0),
        (
            (Match("tcp flags", "syn"), ClampMss(1410)),
            (Match("tcp flags", "syn / fin,syn"), Verdict("drop")),
            (MarkMatch("meta mark", 5, 0xFF), Verdict("return")),
            (MarkMatch("meta mark", 5, 0xFFFFFFFF), Counter()),
            (Match("ct mark", "0x00000000", negate=True), Counter(), Verdict("accept")),
        ),
    ),
    Chain(
        "ip",
        "nat-postrouting",
        Hook("nat", "postrouting", 100),
        (
            (Match("oifname", "docker_gwbridge"), Match("fib saddr type", "local"), Masquerade()),
            (Match("ct status", "dnat"), Masquerade()),
            (Match("oifname", "eth0"), InSet(("meta mark",), "snat-marks"), Snat(IPv4Address("10.0.0.2"))),
        ),
    ),
    Chain(
        "ip", "route-output", Hook("route", "output", -150), ((Match("ct direction", "reply"), Assign("meta mark", "ct mark")),)
    ),
    Chain("netdev", "egress", Hook("filter", "egress", 0, "lo"), ((Assign("ether daddr", Lookup(("meta mark",), "macs")),),)),
    Chain(
        "bridge",
        "filter-prerouting",
        Hook("filter", "prerouting", -300),
        (
            (InSet(("iifname", "ether saddr", "ip saddr"), "senders"), Verdict("accept")),
            (
                InSet(("iifname", "ether saddr", "arp saddr ip"), "senders"),
                InSet(("iifname", "arp saddr ether", "arp saddr ip"), "senders"),
                Verdict("accept"),
            ),
            (InSet(("iifname",), "guarded"), Verdict("drop")),
        ),
    ),
)
PLAN: tuple[Item, ...] = (Table("ip"), Table("netdev"), Table("bridge"), *TIMEOUTS, *MAPS, *CHAINS, *ELEMENTS)

HAND_MADE = "add rule ip routemesh filter-input limit rate 5/second accept"


@pytest.fixture
def space() -> Iterator[Private]:
    with private_netns() as made:
        yield made


@pytest.fixture
def nft(space: Private) -> Iterator[Nft]:
    opened = Nft(space.name, space.enter, lambda name: f"/run/netns/{name}")
    yield opened
    opened.close()


def plan(items: Iterable[Item]) -> NodePlan:
    return NodePlan({HOST: namespace(items)})


def create(nft: Nft, items: Iterable[Item]) -> tuple[Failure, ...]:
    return nft.apply([Create(HOST, item) for item in items])


def found(nft: Nft) -> Namespace:
    return namespace(nft.read())


def read_anew(space: Private) -> set[Item]:
    other = Nft(space.name, space.enter)
    try:
        return set(other.read())
    finally:
        other.close()


def reconcile(nft: Nft, wanted: Iterable[Item]) -> tuple[Failure, ...]:
    return nft.apply(diff(plan(nft.read()), plan(wanted)))


# --- reading back ------------------------------------------------------------------------------------------------


def test_the_plan_here_has_every_statement_map_type_and_hook() -> None:
    statements = {type(statement) for chain in CHAINS for rule in chain.rules for statement in rule}
    assert statements == set(get_args(Statement)) - {Unknown, IpvsMatch}
    hooks = [chain.hook for chain in CHAINS if chain.hook is not None]
    assert {hook.hook for hook in hooks} == set(get_args(Hook.__annotations__["hook"])) - {"ingress"}
    assert {hook.type for hook in hooks} == set(get_args(Hook.__annotations__["type"]))
    assert {part for item in MAPS for part in item.key} == {"proto", "port", "mark", "index", "mac", "ip", "link"}
    assert {item.value for item in MAPS} == {None, "ip", "mark", "port", "mac", "zone", "verdict"}


def test_what_is_read_is_what_was_planned(space: Private, nft: Nft) -> None:
    assert create(nft, PLAN) == ()
    assert set(nft.read()) == set(PLAN)
    assert read_anew(space) == set(PLAN)


def test_a_second_apply_issues_nothing(space: Private, nft: Nft) -> None:
    create(nft, PLAN)
    handles = space.run("nft", "-a", "list", "ruleset")
    assert diff(plan(nft.read()), plan(PLAN)) == ()
    assert create(nft, PLAN) == ()
    assert space.run("nft", "-a", "list", "ruleset") == handles


def test_the_ruleset_shown_to_people_loads(space: Private, nft: Nft) -> None:
    space.nft(ruleset(PLAN))
    assert set(nft.read()) == set(PLAN)


def test_everything_can_be_deleted(space: Private, nft: Nft) -> None:
    create(nft, PLAN)
    assert reconcile(nft, ()) == ()
    assert nft.read() == ()
    assert space.run("nft", "list", "ruleset") == ""


def test_items_go_one_by_one(space: Private, nft: Nft) -> None:
    create(nft, PLAN)
    for gone in reversed(PLAN):
        if isinstance(gone, Element | Chain):
            assert nft.apply([Delete(HOST, gone)]) == () or isinstance(gone, Chain)
    assert not any(isinstance(item, Element) for item in read_anew(space))


def test_all_kinds_of_changes_in_one_transaction(space: Private, nft: Nft) -> None:
    create(nft, PLAN)
    changed: set[Item] = {
        Element("ip", "backends", (0x100, 1), IPv4Address("10.0.0.77")),
        Element("ip", "services", (0x101,), Verdict("goto", "FWM-257")),
        Chain("ip", "FWM-256", rules=((Counter(), Dnat(Lookup(("meta mark", Numgen(1)), "backends"))),)),
        Chain("ip", "FWM-257", rules=((Verdict("drop"),),)),
        Chain("ip", "nat-output", Hook("nat", "output", -101), ((Counter(),),)),
        CtTimeouts("ip", "mesh-tcp", "tcp", (("close_wait", 600),)),
        Map("ip", "by-port", ("port",), "ip"),
        Element("ip", "by-port", (443,), IPv4Address("10.0.0.1")),
    }
    gone = {"nobody"}
    wanted = namespace([*PLAN, *changed])
    rest = [item for item in wanted.values() if not (isinstance(item, Chain) and item.name in gone)]
    jumping = next(item for item in CHAINS if item.name == "nat-prerouting")
    rest[rest.index(jumping)] = Chain("ip", jumping.name, jumping.hook, jumping.rules[:-1])
    assert reconcile(nft, rest) == ()
    assert set(nft.read()) == read_anew(space) == set(rest)


def test_a_plan_that_jumps_in_a_ring_of_declarations_loads(nft: Nft) -> None:
    """Chains are declared before rules, so their order does not matter."""
    first = Chain("ip", "first", rules=((Verdict("jump", "second"),),))
    second = Chain("ip", "second", rules=((Counter(),),))
    assert create(nft, [Table("ip"), first, second]) == ()


CONDITIONS: dict[str, list[Statement]] = {
    "iifname": [Match("iifname", "eth0"), Match("iifname", "lo", negate=True)],
    "l4proto": [TCP, Match("meta l4proto", "tcp", negate=True)],
    "mark": [MarkMatch("meta mark", 0x10000, 0xFFFF0000), MarkMatch("meta mark", 1, 0xFFFFFFFF), MarkMatch("ct mark", 0, 1)],
    "saddr": [Match("ip saddr", "10.0.0.0/8"), Match("ip saddr", "10.0.0.1", negate=True)],
    "daddr": [Match("ip daddr", "10.0.0.1"), Match("ip daddr", "10.0.0.0/9")],
    "th": [
        Match("th dport", "80"),
        Match("th sport", "80", negate=True),
        Match("tcp flags", "syn"),
        Match("tcp flags", "syn / syn,ack"),
    ],
    "set": [InSet(PORT, "published"), InSet(("th dport",), "single"), InSet(("meta mark",), "snat-marks")],
    "ether": [Match("ether saddr", MAC), Match("ether daddr", MAC, negate=True)],
    "state": [Match("ct state", "new,established"), Match("ct state", "invalid", negate=True)],
    "status": [Match("ct status", "dnat"), Match("ct direction", "original")],
    "fib": [Match("fib daddr type", "local"), Match("fib saddr type", "unicast", negate=True)],
}
ACTIONS: list[Statement] = [
    Counter(),
    Assign("meta mark", Lookup(PORT, "marks")),
    Assign("ct mark", Lookup(("th dport",), "by-port")),
    Assign("meta mark", "ct mark"),
    ClampMss(1410),
    VerdictLookup(("meta mark",), "services"),
]
ENDS: dict[str, list[Statement]] = {
    "filter": [Verdict("accept"), Verdict("jump", "other"), Reject("tcp reset"), Reject("icmp port-unreachable"), Counter()],
    "nat": [Redirect(Lookup(PORT, "ports")), Dnat(Lookup(("meta mark", Numgen(3)), "backends")), Dnat(IPv4Address("10.0.0.3"))],
}


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """One rule of any statements in any order, with at most one comparison of each group (nft merges neighbouring fields)."""
    kind: Literal["filter", "nat"] = draw(st.sampled_from(["filter", "nat"]))
    groups = draw(st.permutations(sorted(CONDITIONS)))[: draw(st.integers(0, 5))]
    body: list[Statement] = [draw(st.sampled_from(CONDITIONS[group])) for group in groups]
    for action in draw(st.lists(st.sampled_from(ACTIONS), max_size=2)):
        body.insert(draw(st.integers(0, len(body))), action)
    return Chain("ip", "subject", Hook(kind, "prerouting", -150), ((*body, draw(st.sampled_from(ENDS[kind]))),))


def test_any_rule_reads_back_in_its_canonical_form(space: Private, nft: Nft) -> None:
    needed: list[Item] = [
        Table("ip"),
        *(item for item in MAPS if item.family == "ip"),
        Map("ip", "single", ("port",)),
        Chain("ip", "other"),
    ]
    assert create(nft, needed) == ()

    @settings(max_examples=200, suppress_health_check=list(HealthCheck))
    @given(chains())
    def law(chain: Chain) -> None:
        assert reconcile(nft, [*needed, chain]) == ()
        nft.forget()
        read = found(nft)[key(chain)]
        assert isinstance(read, Chain)
        assert read.rules == tuple(canonical(rule) for rule in chain.rules)

    law()


# --- what others do ----------------------------------------------------------------------------------------------


def test_a_foreign_rule_in_our_chain_is_seen_and_removed(space: Private, nft: Nft) -> None:
    create(nft, PLAN)
    space.nft(HAND_MADE)
    chain = found(nft)["Chain", "ip", "filter-input"]
    assert isinstance(chain, Chain)
    assert [type(statement) for statement in chain.rules[-1]] == [Unknown, Verdict]
    assert reconcile(nft, PLAN) == ()
    assert read_anew(space) == set(PLAN)


@pytest.mark.parametrize(
    "by_hand",
    [
        "delete element ip routemesh backends { 256 . 1 }",
        "add element ip routemesh published { tcp . 22 }",
        "delete element ip routemesh marks { tcp . 8080 }; add element ip routemesh marks { tcp . 8080 : 0x999 }",
        "flush chain ip routemesh filter-prerouting",
        "flush set ip routemesh published",
        "delete table netdev routemesh",
        "delete table ip routemesh",
        "delete chain ip routemesh filter-input",
        "add chain ip routemesh filter-input { type filter hook input priority 0; policy drop; }",
        "add chain ip routemesh extra; add rule ip routemesh extra accept; add rule ip routemesh INGRESS jump extra",
        "add map ip routemesh extra { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags interval; }; "
        "add element ip routemesh extra { 10.0.0.0/8 . 80 : 10.0.0.1 . 80 }",
        "add set ip routemesh extra { type ipv6_addr; }; add element ip routemesh extra { ::1 }",
        "delete map ip routemesh turns; add map ip routemesh turns { type mark : mark; timeout 1h; }",
        "delete chain ip routemesh route-output; add chain ip routemesh route-output { type route hook output priority 7; }",
        "add table ip routemesh { flags dormant; }",
        "insert rule ip routemesh nat-prerouting return",
    ],
)
def test_a_change_by_hand_is_seen_at_once_and_undone(space: Private, nft: Nft, by_hand: str) -> None:
    create(nft, PLAN)
    assert set(nft.read()) == set(PLAN)
    space.nft(by_hand)
    assert set(nft.read()) != set(PLAN)
    assert reconcile(nft, PLAN) == ()
    assert set(nft.read()) == read_anew(space) == set(PLAN)


def test_foreign_tables_are_neither_read_nor_touched(space: Private, nft: Nft) -> None:
    space.nft("add table ip6 routemesh; add chain ip6 routemesh c; add rule ip6 routemesh c accept; add table ip other")
    before = space.run("nft", "list", "ruleset")
    assert nft.read() == ()
    create(nft, PLAN)
    assert set(nft.read()) == set(PLAN)
    reconcile(nft, ())
    assert space.run("nft", "list", "ruleset") == before


def test_a_chain_that_goes_with_its_device_is_back_when_wanted(space: Private, nft: Nft) -> None:
    """Older kernels remove the chain without a transaction, newer ones (6.16) keep it; either way it is there in the end."""
    chain = Chain("netdev", "egress", Hook("filter", "egress", 0, "veth-a"), ((Counter(),),))
    wanted: list[Item] = [Table("netdev"), chain]
    space.run("ip", "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b")
    assert create(nft, wanted) == ()
    space.run("ip", "link", "delete", "veth-a")
    assert set(nft.read()) == read_anew(space)
    space.run("ip", "link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b")
    assert reconcile(nft, wanted) == ()
    assert set(nft.read()) == read_anew(space) == set(wanted)


# --- what is remembered ------------------------------------------------------------------------------------------


def test_nothing_is_read_while_nothing_happened(nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    create(nft, PLAN)
    before = nft.read()

    def refuse(*_: object) -> object:
        raise AssertionError("the ruleset was read again")

    monkeypatch.setattr(nftjson, "parse", refuse)
    assert nft.read() is before
    fresh = Element("ip", "backends", (0x100, 2), IPv4Address("10.0.0.10"))
    assert create(nft, [fresh]) == ()
    assert set(nft.read()) == {*PLAN, fresh}
    assert nft.apply([Delete(HOST, fresh), Create(HOST, fresh), Delete(HOST, fresh)]) == ()
    assert set(nft.read()) == set(PLAN)


def test_a_change_by_others_beside_ours_is_not_missed(space: Private, nft: Nft) -> None:
    create(nft, PLAN)
    space.nft(HAND_MADE)
    assert create(nft, [Element("ip", "snat-marks", (7,))]) == ()
    assert set(nft.read()) == read_anew(space)
    assert set(nft.read()) != {*PLAN, Element("ip", "snat-marks", (7,))}


def test_forgetting_makes_it_read(nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    create(nft, PLAN)
    before = nft.read()
    nft.forget()
    assert nft.read() is not before
    assert set(nft.read()) == set(before)


def test_a_table_that_goes_takes_all_along(space: Private, nft: Nft) -> None:
    create(nft, PLAN)
    assert nft.apply([Delete(HOST, Table("ip"))]) == ()
    assert set(nft.read()) == read_anew(space) == {item for item in PLAN if getattr(item, "family", "") != "ip"}


# --- refusals ----------------------------------------------------------------------------------------------------


def test_idempotence(nft: Nft) -> None:
    element = ELEMENTS[0]
    assert nft.apply([Delete(HOST, element), Delete(HOST, Table("ip"))]) == ()
    create(nft, PLAN)
    assert create(nft, [element, *CHAINS]) == ()
    assert nft.apply([Change(HOST, element, element)]) == ()
    other = Element("ip", "backends", (0x100, 0), IPv4Address("10.0.0.99"))
    assert create(nft, [other]) == ()
    assert found(nft)[key(other)] == other


def test_a_refused_operation_is_named_and_the_rest_gets_in(space: Private, nft: Nft) -> None:
    create(nft, [Table("ip"), *MAPS[:-1]])
    good = [Element("ip", "backends", (number, 0), IPv4Address(number)) for number in range(500)]
    no_map = Element("ip", "nowhere", (1,), 2)
    no_chain = Chain("ip", "lost", rules=((Verdict("goto", "absent"),),))
    to_no_chain = Element("ip", "services", (1,), Verdict("goto", "absent"))
    failures = create(nft, [no_chain, *good[:250], no_map, *good[250:], to_no_chain])
    assert {failure.op for failure in failures} == {Create(HOST, no_map), Create(HOST, no_chain), Create(HOST, to_no_chain)}
    assert set(good) <= set(nft.read())
    assert set(nft.read()) == read_anew(space)
    for failure in failures:
        assert "No such file or directory" in failure.reason
        assert "\n" not in str(failure)


def test_the_command_of_a_failure_repeats_it(space: Private, nft: Nft) -> None:
    create(nft, [Table("ip")])
    bad = Create(space.name, Element("ip", "nowhere", (1,), 2))
    (failure,) = nft.apply([bad])
    assert failure.command == f"nsenter --net=/run/netns/{space.name} nft 'add element ip routemesh nowhere {{ 1 : 2 }}'"
    again = subprocess.run(("sh", "-c", failure.command), capture_output=True, text=True)
    assert again.returncode == 1
    assert "No such file or directory" in again.stderr


def test_a_search_gives_up_in_the_end(nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "_ATTEMPTS_AT_MOST", 5)
    ops = [Create(HOST, Element("ip", "nowhere", (number,), 2)) for number in range(100)]
    failures = nft.apply(ops)
    assert [failure.op for failure in failures] == ops


def test_a_name_that_nft_cannot_express_is_reported(nft: Nft) -> None:
    create(nft, [Table("ip")])
    op = Create(HOST, Chain("ip", "a b; delete table ip routemesh"))
    (failure,) = nft.apply([op])
    assert "is not a name" in failure.reason
    assert nft.read() == (Table("ip"),)


def test_an_object_deleted_by_others_meanwhile_is_no_failure(space: Private, nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    create(nft, PLAN)
    execute = nft._execute

    def interfere(ops: object) -> str | None:
        monkeypatch.setattr(nft, "_execute", execute)
        space.nft("delete element ip routemesh backends { 256 . 1 }")
        return execute(ops)  # type: ignore[arg-type]

    monkeypatch.setattr(nft, "_execute", interfere)
    assert nft.apply([Delete(HOST, Element("ip", "backends", (0x100, 1), IPv4Address("10.0.0.9")))]) == ()


def test_a_ruleset_that_never_rests_is_read_every_time(space: Private, nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    create(nft, PLAN)
    attest, restless = nft._attest, itertools.count(1000)
    monkeypatch.setattr(nft, "_attest", lambda: attest()._replace(generation=next(restless)))
    first = nft.read()
    assert set(first) == set(PLAN)
    assert nft.read() is not first
    assert create(nft, [Element("ip", "snat-marks", (7,))]) == ()
    assert set(nft.read()) == read_anew(space)


def test_a_kernel_that_refuses_is_a_kernel_error(space: Private, nft: Nft, monkeypatch: pytest.MonkeyPatch) -> None:
    create(nft, PLAN)
    nft.forget()
    answer = libnftables.Answer(-1, "", "netlink: Error: cache initialization failed: Not today\n")
    monkeypatch.setattr(libnftables, "run", lambda *_: answer)
    with pytest.raises(KernelError) as refused:
        nft.read()
    path = f"/run/netns/{space.name}"
    assert str(refused.value) == f"nsenter --net={path} nft list table ip routemesh: cache initialization failed: Not today"

    def refuse(_: object) -> NoReturn:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(nft._requests, "ask", refuse)
    with pytest.raises(KernelError) as without:
        nft.read()
    assert str(without.value) == f"nsenter --net={path} nft list tables: Protocol not supported"


def test_without_libnftables_the_message_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = (
        "class Nftables:\n    def __init__(self):\n        raise OSError('libnftables.so.1: cannot open shared object file')\n"
    )
    (tmp_path / "nftables.py").write_text(lacking)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(libnftables, "PROCESS", process := Coprocess("nft"))
    with closing(process), pytest.raises(Unavailable, match="install Debian's libnftables1"):
        libnftables.run("list tables")


def test_libnftables_process_is_started_anew_and_its_end_is_a_kernel_error(space: Private, nft: Nft) -> None:
    create(nft, PLAN)
    with space.enter():
        kept = libnftables.Context("list tables")
    os.kill(libnftables.PROCESS._pids[-1], signal.SIGKILL)
    os.waitid(os.P_PID, libnftables.PROCESS._pids[-1], os.WEXITED | os.WNOWAIT)
    assert create(nft, [Element("ip", "snat-marks", (7,))]) == ()
    with pytest.raises(OSError, match="has ended"):
        kept.run("list tables")
    nft.forget()
    os.kill(libnftables.PROCESS._pids[-1], signal.SIGSTOP)
    threading.Timer(0.1, os.kill, (libnftables.PROCESS._pids[-1], signal.SIGKILL)).start()
    with pytest.raises(KernelError, match=r"nft list table ip routemesh: the process .* ended"):
        nft.read()
    assert Element("ip", "snat-marks", (7,)) in nft.read()


# --- packets -----------------------------------------------------------------------------------------------------


def test_maps_are_asked_as_they_are_filled(space: Private, nft: Nft) -> None:
    """Marks, ports and turns have the byte order that the packet path uses: six connections, each backend twice in turn."""
    backends = [IPv4Address(f"10.0.0.{host}") for host in (8, 9, 10)]
    choice = Lookup(("meta mark", Numgen(3)), "backends")
    items: list[Item] = [
        Table("ip"),
        *(item for item in MAPS if item.name in ("marks", "services", "backends")),
        Chain("ip", "route-output", Hook("route", "output", -150), ((Assign("meta mark", Lookup(PORT, "marks")),),)),
        Chain("ip", "nat-output", Hook("nat", "output", -100), ((VerdictLookup(("meta mark",), "services"),),)),
        Chain("ip", "FWM-258", rules=((Counter(), Dnat(choice)),)),
        Element("ip", "marks", ("udp", 8080), 258),
        Element("ip", "services", (258,), Verdict("goto", "FWM-258")),
        *(Element("ip", "backends", (258, turn), address) for turn, address in enumerate(backends)),
    ]
    assert create(nft, items) == ()
    for address in (*backends, "172.18.0.2"):
        space.run("ip", "address", "add", f"{address}/32", "dev", "lo")
    with ExitStack() as stack, space.enter():
        servers = {stack.enter_context(udp_socket(str(address), 8080)): address for address in backends}
        heard = []
        for _ in range(6):
            client = stack.enter_context(udp_socket("172.18.0.2", 0))
            client.sendto(b"x", ("172.18.0.2", 8080))
            (server, *_), _, _ = select.select(servers, (), (), 5)
            server.recv(10)
            heard.append(servers[server])
    assert sorted(heard) == sorted(backends * 2)
    assert heard[:3] == heard[3:]


def udp_socket(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made
