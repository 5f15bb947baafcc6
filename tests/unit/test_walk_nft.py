"""What rules do to a packet that arrives at one machine with one device."""

from ipaddress import IPv4Address

import pytest

from routemesh.model import Protocol
from routemesh.nodeplan import (
    HOST,
    Assign,
    Chain,
    ClampMss,
    Counter,
    Dnat,
    Element,
    Family,
    Hook,
    InSet,
    Item,
    Jhash,
    Key,
    Learn,
    Lookup,
    Map,
    MarkMatch,
    Masquerade,
    Match,
    NodePlan,
    Numgen,
    Redirect,
    Reject,
    Rule,
    Snat,
    Statement,
    Unknown,
    Verdict,
    VerdictLookup,
    namespace,
)
from routemesh.reasons.ends import RuleDrops, RuleRejects
from routemesh.reasons.words import of_event
from routemesh.values import replace
from routemesh.walk import (
    OUTSIDE,
    Branch,
    Delivered,
    Dropped,
    Endpoint,
    Host,
    Network,
    Packet,
    Place,
    Refused,
    ReplyArrives,
    UnknownRule,
    walk,
)
from routemesh.walk.conntrack import Conntrack, Known

NODE = IPv4Address("192.0.2.1")
CLIENT = Endpoint(IPv4Address("198.51.100.7"), 40000)
HERE = Place("node1", HOST)
ACCEPT, DROP = Verdict("accept"), Verdict("drop")
REJECT = Reject("tcp reset")
INPUT = Hook("filter", "input", 0)


def branches(*items: Item, protocol: Protocol = Protocol.TCP, port: int = 80, start: Place = OUTSIDE) -> tuple[Branch, ...]:
    """From outside to a port of a node whose ports 80, 81 and 53 answer."""
    listening = {("node1", HOST): {(each, number) for each in Protocol for number in (53, 80, 81)}}
    network = Network({"node1": Host(NodePlan({HOST: namespace(items)}), (NODE,))}, listening)
    source = CLIENT if start == OUTSIDE else Endpoint(NODE, 40000)
    return walk(network, Packet(protocol=protocol, source=source, destination=Endpoint(NODE, port)), start)


def passes(*items: Item, protocol: Protocol = Protocol.TCP, port: int = 80) -> bool:
    """Whether a packet gets to its socket; the reply is let out by everything here."""
    (branch,) = branches(*items, protocol=protocol, port=port)
    return isinstance(branch.outcome, Delivered)


def chain(*rules: Rule, name: str = "input", hook: Hook | None = INPUT, family: Family = "ip") -> Chain:
    return Chain(family, name, hook, rules)


def prerouting(*rules: Rule, kind: str = "nat", priority: int = -100, name: str = "prerouting") -> Chain:
    return chain(*rules, name=name, hook=Hook("nat" if kind == "nat" else "filter", "prerouting", priority))


def mark(value: int, priority: int, name: str) -> Chain:
    return prerouting((Assign("meta mark", value),), kind="filter", priority=priority, name=name)


def jump(name: str) -> Verdict:
    return Verdict("jump", name)


def goto(name: str) -> Verdict:
    return Verdict("goto", name)


# --- verdicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "passed"),
    [
        ((), True),
        (((DROP,),), False),
        (((ACCEPT,), (DROP,)), True),
        (((Verdict("return"),), (DROP,)), True),
        (((Counter(), DROP),), False),
        (((Match("th dport", "443"), DROP),), True),
        (((Match("th dport", "443"), ACCEPT), (DROP,)), False),
    ],
)
def test_the_first_rule_that_matches_decides(rules: tuple[Rule, ...], passed: bool) -> None:
    assert passes(chain(*rules)) is passed


@pytest.mark.parametrize(
    ("inner", "call", "passed"),
    [
        ((), jump, False),
        ((), goto, True),
        (((Verdict("return"),),), jump, False),
        (((Verdict("return"),),), goto, True),
        (((ACCEPT,),), jump, True),
        (((ACCEPT,),), goto, True),
        (((DROP,),), jump, False),
        (((DROP,),), goto, False),
    ],
)
def test_a_chain_returns_to_where_it_was_jumped_from_but_not_to_where_it_was_gone_from(inner, call, passed) -> None:  # type: ignore[no-untyped-def]
    assert passes(chain((call("inner"),), (DROP,)), chain(*inner, name="inner", hook=None)) is passed


def test_accepting_ends_one_base_chain_only() -> None:
    assert not passes(chain((ACCEPT,)), chain((DROP,), name="later", hook=Hook("filter", "input", 10)))


def test_base_chains_are_met_by_priority() -> None:
    (branch,) = branches(mark(2, 20, "second"), mark(1, 10, "first"))
    assert [of_event(hop.event) for hop in branch.hops[:2]] == [
        "filter first meta mark set 0x1",
        "filter second meta mark set 0x2",
    ]


def test_a_rejected_packet_is_refused_and_a_dropped_one_is_lost() -> None:
    (rejected,) = branches(chain((REJECT,)))
    (dropped,) = branches(chain((DROP,)))
    assert rejected.outcome == Refused(HERE, RuleRejects("filter", "input", "tcp reset"))
    assert dropped.outcome == Dropped(HERE, RuleDrops("filter", "input"))


def test_the_hop_of_a_decision_names_what_decided() -> None:
    decider = chain((DROP,))
    (branch,) = branches(decider)
    assert branch.hops[-1].item == decider


# --- what rules read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "matches"),
    [
        (Match("iifname", "eth0"), True),
        (Match("iifname", "eth1"), False),
        (Match("iifname", "eth1", negate=True), True),
        (Match("iifname", "et*"), True),
        (Match("iifname", "eth0*"), True),
        (Match("iifname", "veth*"), False),
        (Match("oifname", "eth0"), False),
        (Match("meta l4proto", "tcp"), True),
        (Match("meta l4proto", "udp"), False),
        (Match("meta mark", "0x0"), True),
        (Match("ip saddr", "198.51.100.0/24"), True),
        (Match("ip saddr", "198.51.100.0/24", negate=True), False),
        (Match("ip daddr", "192.0.2.1"), True),
        (Match("ip daddr", "192.0.2.2"), False),
        (Match("th sport", "40000"), True),
        (Match("th dport", "81"), False),
        (Match("ether saddr", "02:42:0a:00:00:02"), False),
        (Match("ct state", "new"), True),
        (Match("ct state", "established,related"), False),
        (Match("ct status", "dnat"), False),
        (Match("ct direction", "original"), True),
        (Match("ct direction", "reply"), False),
        (Match("ct mark", "0"), True),
        (Match("tcp flags", "syn"), True),
        (Match("tcp flags", "fin,rst"), False),
        (Match("tcp flags", "syn / fin,syn,rst,ack"), True),
        (Match("tcp flags", "syn,ack / fin,syn,rst,ack"), False),
        (Match("tcp flags", "ack / ack"), False),
        (Match("fib saddr type", "local"), False),
        (Match("fib daddr type", "local"), True),
        (Match("fib daddr type", "broadcast"), False),
        (MarkMatch("meta mark", 0, 0xFF), True),
        (MarkMatch("meta mark", 1, 0xFF), False),
    ],
)
def test_a_match_compares_with_what_the_packet_has(statement: Statement, matches: bool) -> None:
    assert passes(chain((statement, DROP))) is not matches


def test_what_is_only_written_down_changes_nothing() -> None:
    assert passes(chain((Unknown('{"log": {"prefix": "all"}}'),)))
    assert not passes(chain((Unknown('{"log": null}'), DROP)))


def test_only_tcp_has_flags() -> None:
    assert passes(chain((Match("tcp flags", "syn", negate=False), DROP)), protocol=Protocol.UDP)


def test_a_mark_is_seen_by_later_rules_whole_and_masked() -> None:
    marked = mark(0x102, -150, "mark")
    assert not passes(marked, chain((Match("meta mark", "0x102"), DROP)))
    assert not passes(marked, chain((MarkMatch("meta mark", 0x100, 0xF00), DROP)))
    assert passes(marked, chain((MarkMatch("meta mark", 0x100, 0xF0F), DROP)))


def test_before_connection_tracking_there_is_no_connection() -> None:
    early = prerouting((Match("ct state", "new"), DROP), kind="filter", priority=-300)
    late = prerouting((Match("ct state", "new"), DROP), kind="filter", priority=-150)
    assert passes(early)
    assert not passes(late)


def test_a_connection_keeps_its_mark_for_the_reply() -> None:
    remember = prerouting((Assign("ct mark", 7),), kind="filter", priority=-150)
    lost = chain((Match("ct direction", "reply"), Match("ct mark", "7"), DROP), hook=Hook("filter", "output", 0))
    (branch,) = branches(remember, lost)
    assert isinstance(branch.outcome, Delivered)
    assert branch.outcome.reply != ReplyArrives()


# --- maps ---------------------------------------------------------------------------------------------------------

MARKS = Map("ip", "marks", ("proto", "port"), "mark")
BY_PORT = Lookup(("meta l4proto", "th dport"), "marks")


def test_a_map_gives_the_value_for_the_packets_own_key() -> None:
    marking = prerouting((Assign("meta mark", BY_PORT),), kind="filter", priority=-150)
    tcp, udp = Element("ip", "marks", ("tcp", 80), 1), Element("ip", "marks", ("udp", 80), 2)
    (branch,) = branches(MARKS, tcp, udp, marking, protocol=Protocol.UDP)
    assert (branch.hops[0].after.mark, branch.hops[0].item) == (2, udp)


def test_without_an_entry_a_rule_ends_without_effect() -> None:
    assert passes(MARKS, chain((Assign("meta mark", BY_PORT), DROP)))
    assert passes(Map("ip", "ports", ("proto", "port")), chain((InSet(("meta l4proto", "th dport"), "ports"), DROP)))
    verdicts = Map("ip", "verdicts", ("port",), "verdict")
    assert not passes(verdicts, chain((VerdictLookup(("th dport",), "verdicts"), ACCEPT), (DROP,)))


def test_without_an_entry_nothing_is_translated() -> None:
    addresses, ports = Map("ip", "addresses", ("port",), "ip"), Map("ip", "ports", ("port",), "port")
    by_port: Key = ("th dport",)
    rules: tuple[Rule, ...] = ((Dnat(Lookup(by_port, "addresses")),), (Redirect(Lookup(by_port, "ports")),))
    (branch,) = branches(addresses, ports, prerouting(*rules))
    assert isinstance(branch.outcome, Delivered)
    assert [of_event(hop.event) for hop in branch.hops] == ["is here, for tcp/80"]


def test_a_verdict_map_gives_the_verdict() -> None:
    verdicts = Map("ip", "verdicts", ("port",), "verdict")
    dropping = chain((VerdictLookup(("th dport",), "verdicts"),))
    assert not passes(verdicts, dropping, Element("ip", "verdicts", (80,), DROP))
    inner = chain((DROP,), name="inner", hook=None)
    assert not passes(verdicts, dropping, inner, Element("ip", "verdicts", (80,), goto("inner")))


def test_every_lot_is_a_branch_with_its_share() -> None:
    lots = Map("ip", "lots", ("index",), "port")
    to_lot = prerouting((Redirect(Lookup((Numgen(3),), "lots")),))
    found = branches(lots, to_lot, *(Element("ip", "lots", (number,), 80 + number % 2) for number in range(3)))
    assert [(str(branch.share), branch.outcome.port) for branch in found if isinstance(branch.outcome, Delivered)] == [
        ("1/3", 80),
        ("1/3", 81),
        ("1/3", 80),
    ]


def test_a_lot_drawn_at_random_is_a_branch_too() -> None:
    lots = Map("ip", "lots", ("index",), "port")
    to_lot = prerouting((Redirect(Lookup((Numgen(2, "random"),), "lots")),))
    found = branches(lots, to_lot, *(Element("ip", "lots", (number,), 80 + number) for number in range(2)))
    assert [str(branch.share) for branch in found] == ["1/2", "1/2"]


def test_a_hash_leads_one_client_one_way() -> None:
    lots = Map("ip", "lots", ("index",), "port")
    hashed = Jhash(field="ip saddr", modulus=4, seed=256)
    (branch,) = branches(
        lots, prerouting((Redirect(Lookup((hashed,), "lots")),)), *(Element("ip", "lots", (way,), 80 + way) for way in range(4))
    )
    assert branch.share == 1
    assert branch.hops[0].item == Element("ip", "lots", (3,), 83)


REMEMBER = Learn(map="clients", key=("ip saddr",), value="meta mark", timeout_s=60)
CLIENTS = Map("ip", "clients", ("ip",), "mark", learns=2)
RECALL = Assign("meta mark", Lookup(("ip saddr",), "clients"))


def marks_at_last(*items: Item) -> list[int]:
    """Which mark a packet has that is marked 7, remembered, and then marked with what is remembered."""
    rules: tuple[Rule, ...] = ((Assign("meta mark", 7),), (REMEMBER,), (Assign("meta mark", 0),), (RECALL,))
    return [branch.hops[-1].after.mark for branch in branches(*items, prerouting(*rules, kind="filter"))]


def test_what_a_map_learns_is_seen_by_later_rules() -> None:
    assert marks_at_last(CLIENTS) == [7]


def test_a_map_keeps_what_it_knows() -> None:
    assert marks_at_last(CLIENTS, Element("ip", "clients", (CLIENT.address,), 9)) == [9]


def test_a_full_map_learns_nothing() -> None:
    others = [Element("ip", "clients", (CLIENT.address + number,), 9) for number in (1, 2)]
    assert marks_at_last(CLIENTS, *others) == [0]


def test_only_a_map_that_may_learn_does() -> None:
    with pytest.raises(UnknownRule, match="which adds to a map of another type"):
        marks_at_last(Map("ip", "clients", ("ip",), "mark"))


def test_lots_are_drawn_anew_at_every_choice() -> None:
    lots = Map("ip", "lots", ("index",), "mark")
    twice = prerouting(
        (Assign("meta mark", Lookup((Numgen(2),), "lots")), Assign("meta mark", Lookup((Numgen(3),), "lots"))), kind=""
    )
    found = branches(lots, twice, *(Element("ip", "lots", (number,), number) for number in range(3)))
    assert [[hop.after.mark for hop in branch.hops[:2]] for branch in found] == [[a, b] for a in range(2) for b in range(3)]
    assert sum(branch.share for branch in found) == 1


# --- translation --------------------------------------------------------------------------------------------------


def test_a_redirected_connection_gets_its_answer_from_where_it_asked() -> None:
    ports = Map("ip", "ports", ("port",), "port")
    (branch,) = branches(
        ports, Element("ip", "ports", (8080,), 80), prerouting((Redirect(Lookup(("th dport",), "ports")),)), port=8080
    )
    assert branch.outcome == Delivered(place=HERE, protocol=Protocol.TCP, port=80, peer=CLIENT, reply=ReplyArrives())


def test_the_first_translation_decides() -> None:
    other = Dnat(IPv4Address("203.0.113.9"))
    (branch,) = branches(prerouting((Dnat(NODE),), (other,)), prerouting((other,), name="later", priority=-90))
    assert isinstance(branch.outcome, Delivered)


def test_a_source_translated_on_the_way_in_is_what_the_process_sees() -> None:
    gateway = IPv4Address("203.0.113.5")
    (branch,) = branches(chain((Snat(gateway),), hook=Hook("nat", "input", 100)))
    assert isinstance(branch.outcome, Delivered)
    assert (branch.outcome.peer, branch.outcome.reply) == (Endpoint(gateway, 40000), ReplyArrives())


def test_a_process_that_calls_its_own_node_passes_the_output_hook_and_not_the_prerouting_nat() -> None:
    ports = (Map("ip", "ports", ("port",), "port"), Element("ip", "ports", (8080,), 80), Element("ip", "ports", (80,), 81))
    rule: Rule = (Redirect(Lookup(("th dport",), "ports")),)
    output = chain(rule, name="output", hook=Hook("nat", "output", -100))
    (branch,) = branches(*ports, output, prerouting(rule), port=8080, start=HERE)
    assert isinstance(branch.outcome, Delivered)
    assert (branch.outcome.port, branch.outcome.reply) == (80, ReplyArrives())


# --- what it does not know ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        (Unknown('{"queue": null}'), "queue"),
        (Match("th dport", "80-90"), "80-90"),
        (Match("ip saddr", "192.0.2.1-192.0.2.9"), "192.0.2.1-192.0.2.9"),
        (Match("ct state", "new,untracked,nonsense"), "nonsense"),
        (Match("ct status", "dnat", negate=True), "dnat"),
        (Match("fib daddr type", "anycast"), "anycast"),
        (jump("nowhere"), "nowhere"),
        (InSet(("th dport",), "nothing"), "@nothing"),
        (Dnat(NODE), "dnat to 192.0.2.1:80"),
        (Masquerade(), "masquerade as 192.0.2.1"),
    ],
)
def test_what_can_not_be_evaluated_is_an_error_that_names_it(statement: Statement, named: str) -> None:
    with pytest.raises(UnknownRule, match=f"^node1: can't tell what happens at .*{named}.* in chain ip input$"):
        branches(chain((statement, ACCEPT)))


def test_a_map_of_another_type_is_an_error() -> None:
    with pytest.raises(UnknownRule, match="@marks, which is of another type"):
        branches(Map("ip", "marks", ("port",), "mark"), chain((Assign("meta mark", BY_PORT),)))


def test_a_verdict_that_is_none_is_an_error() -> None:
    verdicts, odd = Map("ip", "verdicts", ("port",), "verdict"), Element("ip", "verdicts", (80,), 7)
    with pytest.raises(UnknownRule, match="which holds no verdict"):
        branches(verdicts, odd, chain((VerdictLookup(("th dport",), "verdicts"),)))


def test_an_unknown_condition_does_not_matter_where_another_of_its_rule_fails() -> None:
    lot = Unknown('{"match": {"op": "==", "left": {"numgen": {"mode": "random", "mod": 2, "offset": 0}}, "right": 0}}')
    assert passes(chain((lot, Match("th dport", "81"), DROP)))
    assert [type(each.outcome) for each in branches(chain((lot, Match("th dport", "80"), DROP)))] == [Dropped, Delivered]
    odd = Unknown('{"match": {"carrots": 1}}')
    assert passes(chain((odd, Match("th dport", "81"), DROP)))
    with pytest.raises(UnknownRule, match="carrots"):
        branches(chain((odd, Match("th dport", "80"), DROP)))
    with pytest.raises(UnknownRule, match="queue"):  # that may have done something already
        branches(chain((Unknown('{"queue": null}'), Match("th dport", "81"), DROP)))


def test_a_connection_that_the_netdev_family_can_not_see_is_an_error() -> None:
    rule: Rule = (Match("ct state", "new"), DROP)
    with pytest.raises(UnknownRule, match="ct state"):
        branches(chain(rule, family="netdev", hook=Hook("filter", "ingress", 0, "eth0")))


def test_of_two_connections_whose_answers_would_look_the_same_the_later_gets_another_port() -> None:
    conntrack, server = Conntrack(Known()), Endpoint(IPv4Address("203.0.113.9"), 80)
    one, other = (
        conntrack.new(Packet(protocol=Protocol.TCP, source=CLIENT, destination=Endpoint(NODE, port))) for port in (80, 81)
    )
    for each in (one, other):
        conntrack.translate(each, "destination", server)
    assert [conntrack.clashes(each) for each in (one, other)] == [False, True]
    assert conntrack.give_another_port(other) == 1024
    assert not conntrack.clashes(other)
    answer = Packet(protocol=Protocol.TCP, source=server, destination=CLIENT)
    assert conntrack.look_up(answer) == (one, True)
    assert conntrack.look_up(replace(answer, destination=CLIENT._replace(port=1024))) == (other, True)


def test_a_segment_size_is_noted_and_nothing_more() -> None:
    (branch,) = branches(chain((Match("tcp flags", "syn"), ClampMss(1410))))
    assert isinstance(branch.outcome, Delivered)
    assert of_event(branch.hops[0].event) == "filter input maxseg at most 1410"
