"""What iptables' rules do to a packet that arrives at one machine with one device, or that it sends itself."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from routemesh.model import Protocol
from routemesh.nodeplan import (
    HOST,
    Address,
    Assign,
    Chain,
    Dnat,
    Hook,
    InSet,
    IpvsMatch,
    Item,
    Link,
    Lookup,
    Map,
    Match,
    NodePlan,
    Peer,
    Redirect,
    Reject,
    Route,
    RoutingRule,
    Rule,
    Snat,
    Statement,
    Unknown,
    Verdict,
    XtChain,
    XtRule,
    XtTable,
    namespace,
)
from routemesh.reasons.ends import PolicyDrops, RuleDrops, RuleRejects
from routemesh.reasons.words import of_event
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

NODE = IPv4Address("192.0.2.1")
CLIENT = Endpoint(IPv4Address("198.51.100.7"), 40000)
HERE = Place("node1", HOST)
ACCEPT, DROP, RETURN = Verdict("accept"), Verdict("drop"), Verdict("return")
ODD = Unknown("-m u32 --u32 0=0")


def branch(*items: Item, port: int = 80, start: Place = OUTSIDE, protocol: Protocol = Protocol.TCP) -> Branch:
    """From outside, or from the node itself, to a port of the node, whose ports 80 and 81 answer."""
    listening = {("node1", HOST): {(each, number) for each in Protocol for number in (80, 81)}}
    network = Network({"node1": Host(NodePlan({HOST: namespace(items)}), (NODE,))}, listening)
    source = CLIENT if start == OUTSIDE else Endpoint(NODE, 40000)
    (found,) = walk(network, Packet(protocol=protocol, source=source, destination=Endpoint(NODE, port)), start)
    return found


def passes(*items: Item, start: Place = OUTSIDE) -> bool:
    return isinstance(branch(*items, start=start).outcome, Delivered)


def chain(name: str, *rules: Rule, table: XtTable = "filter", policy: str = "ACCEPT") -> XtChain:
    """A chain; a built-in one has a policy."""
    return XtChain(table, name, rules, "DROP" if policy == "DROP" else "ACCEPT" if name.isupper() else None)


def jump(name: str) -> Verdict:
    return Verdict("jump", name)


def goto(name: str) -> Verdict:
    return Verdict("goto", name)


# --- chains -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "policy", "passed"),
    [
        ((), "ACCEPT", True),
        ((), "DROP", False),
        (((DROP,),), "ACCEPT", False),
        (((ACCEPT,),), "DROP", True),
        (((RETURN,), (DROP,)), "ACCEPT", True),
        (((RETURN,), (ACCEPT,)), "DROP", False),
        (((Match("th dport", "81"), ACCEPT),), "DROP", False),
        (((Match("th dport", "80"), ACCEPT),), "DROP", True),
    ],
)
def test_a_packet_that_no_rule_takes_meets_the_policy(rules: tuple[Rule, ...], policy: str, passed: bool) -> None:
    assert passes(chain("INPUT", *rules, policy=policy)) is passed


@pytest.mark.parametrize(
    ("inner", "call", "passed"),
    [
        ((), jump, True),
        ((), goto, False),
        (((RETURN,),), jump, True),
        (((RETURN,),), goto, False),
        (((ACCEPT,),), goto, True),
        (((DROP,),), jump, False),
    ],
)
def test_what_comes_back_from_a_goto_meets_the_policy_and_not_the_next_rule(inner, call, passed) -> None:  # type: ignore[no-untyped-def]
    assert passes(chain("INPUT", (call("inner"),), (ACCEPT,), policy="DROP"), chain("inner", *inner)) is passed


def test_a_jump_stays_in_its_table() -> None:
    other = chain("inner", (DROP,), table="mangle")
    assert passes(chain("INPUT", (jump("inner"),)), chain("inner", (RETURN,)), other)
    with pytest.raises(UnknownRule, match="jump inner, a chain that is not there, in chain filter INPUT"):
        passes(chain("INPUT", (jump("inner"),)), other)


def test_a_policy_and_a_rule_are_named_where_they_drop() -> None:
    policed = branch(chain("INPUT", policy="DROP"))
    assert policed.outcome == Dropped(HERE, PolicyDrops("filter", "INPUT"))
    assert (policed.hops[-1].item, policed.hops[-1].rule) == (chain("INPUT", policy="DROP"), None)
    rule: Rule = (Match("th dport", "80"), DROP)
    outer, inner = chain("INPUT", (jump("inner"),)), chain("inner", (Match("th dport", "81"), DROP), rule)
    ruled = branch(outer, inner)
    assert ruled.outcome == Dropped(HERE, RuleDrops("filter", "inner"))
    assert (ruled.hops[-1].item, ruled.hops[-1].rule) == (inner, rule)


def test_our_rules_go_before_and_behind_what_a_chain_of_others_has() -> None:
    first, second, last = (Assign("meta mark", 1),), (Assign("meta mark", 2),), (Assign("meta mark", 9),)
    own = [XtRule("mangle", "INPUT", rule) for rule in (first, second)] + [XtRule("mangle", "INPUT", last, head=False)]
    theirs = chain("INPUT", (Assign("meta mark", 5),), table="mangle")
    hops = branch(*own, theirs).hops[:-1]
    assert [hop.after.mark for hop in hops] == [2, 1, 5, 9]
    assert [hop.item for hop in hops] == [own[1], own[0], theirs, own[2]]
    assert [hop.after.mark for hop in branch(*own).hops[:-1]] == [2, 1, 9]
    assert not passes(*own, chain("INPUT", policy="DROP"))


def test_tables_are_met_in_the_kernels_order() -> None:
    marks: tuple[tuple[XtTable, str], ...] = (
        ("filter", "INPUT"), ("mangle", "INPUT"), ("nat", "PREROUTING"), ("mangle", "PREROUTING"), ("raw", "PREROUTING"),
    )  # fmt: skip
    items = [chain(name, (Assign("meta mark", number),), table=table) for number, (table, name) in enumerate(marks)]
    assert [hop.after.mark for hop in branch(*items).hops[:-1]] == [4, 3, 2, 1, 0]


def test_both_tools_chains_are_met_by_priority() -> None:
    early = Chain("ip", "early", Hook("filter", "input", -10), ((Assign("meta mark", 1),),))
    late = Chain("ip", "late", Hook("filter", "input", 10), ((Assign("meta mark", 3),),))
    hops = branch(late, chain("INPUT", (Assign("meta mark", 2),)), early).hops[:-1]
    assert [hop.after.mark for hop in hops] == [1, 2, 3]


def test_raw_comes_before_connections_are_known() -> None:
    new = (Match("ct state", "new"), DROP)
    assert passes(chain("PREROUTING", new, table="raw"))
    assert not passes(chain("PREROUTING", new, table="mangle"))
    assert not passes(chain("PREROUTING", (Match("ct state", "invalid"), DROP), table="raw"))


# --- statements ---------------------------------------------------------------------------------------------------


def test_an_address_and_a_port_are_translated_together() -> None:
    found = branch(chain("PREROUTING", (Match("th dport", "8080"), Dnat(NODE, 81)), table="nat"), port=8080)
    assert found.outcome == Delivered(place=HERE, protocol=Protocol.TCP, port=81, peer=CLIENT, reply=ReplyArrives())
    assert of_event(found.hops[0].event) == "nat PREROUTING dnat to 192.0.2.1:81"


@pytest.mark.parametrize(("port", "answers"), [(8080, True), (8081, False)])
def test_a_port_is_redirected(port: int, answers: bool) -> None:
    redirect = chain("PREROUTING", (Match("th dport", "8080"), Redirect(80)), table="nat")
    redirected = Network(
        {"node1": Host(NodePlan({HOST: namespace((redirect, *BOXED))}), (NODE,))}, {("node1", "box"): {(Protocol.TCP, 80)}}
    )
    packet = Packet(protocol=Protocol.TCP, source=CLIENT, destination=Endpoint(NODE, port))
    (found,) = walk(redirected, packet)
    assert (of_event(found.hops[0].event) == "nat PREROUTING redirect to :80") is answers


BOXED = (
    Link(name="eth1", kind="veth", peer=Peer("box", "eth0")),
    Address("eth1", IPv4Interface("172.18.0.2/16")),
)


def test_a_call_of_its_own_is_redirected_to_loopback() -> None:
    found = branch(chain("OUTPUT", (Redirect(81),), table="nat"), start=HERE)
    assert isinstance(found.outcome, Delivered)
    assert (found.outcome.port, found.hops[0].after.destination) == (81, Endpoint(IPv4Address("127.0.0.1"), 81))


def test_a_packet_is_rejected_and_its_sender_hears_of_it() -> None:
    assert branch(chain("INPUT", (Reject("icmp port-unreachable"),))).outcome == Refused(
        HERE, RuleRejects("filter", "INPUT", "icmp port-unreachable")
    )
    deaf = (chain("INPUT", (Reject("tcp reset"),)), chain("OUTPUT", policy="DROP"))
    assert isinstance(branch(*deaf).outcome, Dropped)


def test_a_connections_mark_is_saved_and_restored() -> None:
    saved = chain("PREROUTING", (Assign("meta mark", 7),), (Assign("ct mark", "meta mark"),), table="mangle")
    restored = chain("OUTPUT", (Match("ct direction", "reply"), Assign("meta mark", "ct mark")), table="mangle")
    assert any(hop.after.mark == 7 for hop in branch(saved, restored).reply_hops)
    assert not any(hop.after.mark == 7 for hop in branch(saved).reply_hops)


WAYS = (
    *BOXED,
    RoutingRule(priority=100, fwmark=7, mask=0xFF, table=100),
    Route(destination=IPv4Network("0.0.0.0/0"), via=IPv4Address("172.18.0.1"), link="eth1", table=100),
)


@pytest.mark.parametrize(("table", "rerouted"), [("mangle", True), ("filter", False), ("raw", False)])
def test_only_a_mark_from_mangle_output_leads_elsewhere(table: XtTable, rerouted: bool) -> None:
    found = branch(*WAYS, chain("OUTPUT", (Assign("meta mark", 7),), table=table))
    assert any(of_event(hop.event) == "route via 172.18.0.1 dev eth1" for hop in found.reply_hops) is rerouted


def test_nothing_is_balanced_where_there_is_no_service() -> None:
    assert passes(chain("INPUT", (IpvsMatch(), DROP)))


# --- what it does not know ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "matters"),
    [
        ((ODD, DROP), True),
        ((Match("th dport", "80"), ODD, DROP), True),
        ((Match("th dport", "81"), ODD, DROP), False),
        ((ODD, Match("th dport", "81"), DROP), False),
        ((ODD, IpvsMatch(), DROP), False),
        ((Match("ip saddr", "198.51.100.1-198.51.100.9"), Match("th dport", "81"), DROP), False),
        ((ODD, Match("ip saddr", "198.51.100.1-198.51.100.9"), DROP), True),
        ((Match("th dport", "81"), Unknown("-j NFQUEUE")), False),
        ((Unknown("-j NFQUEUE"),), True),
    ],
)
def test_what_is_unknown_matters_only_where_all_that_is_known_of_the_rule_matches(rule: Rule, matters: bool) -> None:
    rules = chain("INPUT", rule)
    if not matters:
        assert passes(rules)
        return
    with pytest.raises(UnknownRule, match=r"^node1: can't tell what happens at .* in chain filter INPUT$"):
        branch(rules)


def test_what_is_only_written_down_changes_nothing_whatever_it_depends_on() -> None:
    """As the last rule of many a firewall, before its policy."""
    limited = (Unknown("-m limit --limit 3/min"), Unknown('-j LOG --log-prefix "[BLOCK] "'))
    assert branch(chain("INPUT", limited, policy="DROP")).outcome == Dropped(HERE, PolicyDrops("filter", "INPUT"))
    assert passes(chain("INPUT", limited))


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        (Match("ct state", "new", negate=True), False),
        (Match("ct state", "established,related", negate=True), True),
        (Match("tcp flags", "syn / fin,syn,rst,ack", negate=True), False),
    ],
)
def test_conditions_on_flags_may_be_negated(match: Match, matches: bool) -> None:
    assert passes(chain("INPUT", (match, DROP))) is not matches


def test_what_is_unknown_behind_a_decision_does_not_matter() -> None:
    assert passes(chain("INPUT", (ACCEPT,), (ODD, DROP)))
    assert passes(
        chain("FORWARD", (ODD, DROP)), chain("INPUT", (Match("th dport", "81"), jump("odd"))), chain("odd", (ODD, DROP))
    )


@pytest.mark.parametrize(
    "statement", [InSet(("th dport",), "ports"), Dnat(Lookup(("th dport",), "ports")), Dnat(NODE), Snat(NODE)]
)
def test_what_iptables_has_not_is_an_error(statement: Statement) -> None:
    with pytest.raises(UnknownRule, match="in chain filter INPUT"):
        branch(Map("ip", "ports", ("port",)), chain("INPUT", (statement,)))
