"""What is written in iptables' language is read as what it was: random rules, and the plans of random clusters."""

from hypothesis import given
from hypothesis import strategies as st

from routemesh.language.xtables import XT_ITEMS, saved, transaction
from routemesh.language.xtparse import parse_rule
from routemesh.language.xtrule import rule_text
from routemesh.language.xtsave import ours_in_a_namespace_of_ours, ours_on_a_node, parse
from routemesh.model import State
from routemesh.nodeplan import HOST, Capabilities, Change, Item, Rule, Verdict, XtChain, XtRule, namespace
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.values import replace
from tests.property.clusters import states
from tests.property.xtrules import NAMES, among_others, chains, rules

CAPS = Capabilities(nf_tables=True, ip_vs=True, kernel="6.1.0", iptables="legacy")


@given(rules(), st.sampled_from(["", "routemesh", "swarm/web.1"]))
def test_a_rule_is_read_as_it_was_written(rule: Rule, comment: str) -> None:
    assert parse_rule(rule_text(rule, comment), frozenset(NAMES)) == (rule, comment)


@given(st.lists(chains(), max_size=6))
def test_a_namespace_is_read_as_it_was_written(drawn: list[XtChain]) -> None:
    jumped_to = (XtChain(table, name) for table in {chain.table for chain in drawn} for name in NAMES)
    items = set(namespace([*jumped_to, *drawn]).values())
    assert set(ours_in_a_namespace_of_ours(parse(saved(items)))) == items


@given(st.lists(rules(), max_size=6).flatmap(lambda known: st.tuples(*[st.lists(st.sampled_from([(), *known]), max_size=8)] * 2)))
def test_a_change_leads_to_what_is_wanted(drawn: tuple[list[Rule], list[Rule]]) -> None:
    old, new = (XtChain("nat", "A", tuple(rules)) for rules in drawn)
    found = list(old.rules)
    for line in transaction([Change(HOST, old, new)]).splitlines()[1:-1]:
        verb, _, number, text = (*line.split(" ", 3), "")[:4]
        if verb == "-D":
            del found[int(number) - 1]
        else:
            assert verb == "-I"
            found.insert(int(number) - 1, parse_rule(text, frozenset(NAMES)).rule)
    assert found == list(new.rules)


@given(st.lists(among_others(), max_size=5), rules())
def test_a_node_is_read_as_it_was_written(drawn: list[XtRule], inside: Rule) -> None:
    own = [XtChain(table, "DOCKER-INGRESS", (inside, (Verdict("return"),))) for table in ("nat", "filter")]
    jumped_to = [XtChain(table, name) for table in ("nat", "filter") for name in NAMES if name != "DOCKER-INGRESS"]
    items = list(namespace([*own, *jumped_to, *drawn]).values())
    assert set(ours_on_a_node(parse(saved(items)))) == {as_read(item) for item in items} - set(jumped_to)


@given(states())
def test_a_plan_is_read_as_it_was_written(state: State) -> None:
    state = replace(state, nodes={name: replace(node, engine="ipvs") for name, node in state.nodes.items()})
    for name in state.nodes:
        for netns, items in plan(view(state, name), CAPS).namespaces.items():
            wanted = {as_read(item) for item in items.values() if isinstance(item, XT_ITEMS)}
            text = parse(saved(items.values()))
            assert set(ours_on_a_node(text) if netns == HOST else ours_in_a_namespace_of_ours(text)) == wanted


def as_read(item: Item) -> Item:
    return replace(item, head=True) if isinstance(item, XtRule) else item
