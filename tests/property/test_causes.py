"""Two faults at once, one of which breaks nothing: what is said of the other is the same as without it, whatever their kinds."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from routemesh import names
from routemesh.doctor import Finding, Severity
from routemesh.doctor.mesh import findings, look, recorded
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from routemesh.explain.nouns import Explanation
from routemesh.nodeplan import (
    HOST,
    Address,
    FdbEntry,
    IpvsDestination,
    IpvsService,
    Item,
    Link,
    Match,
    Neighbour,
    Route,
    Sysctl,
    Verdict,
    XtChain,
)
from routemesh.recording.expected import lacking
from routemesh.snapshot import ClusterSnapshot, NamespaceSnapshot
from routemesh.values import replace
from routemesh.walk import Packet, every_way, observed
from tests.swarm.recorded import recording

NODES = ("swarm1", "swarm2")
PLANNED = (Address, Route, Neighbour, FdbEntry, IpvsService, IpvsDestination, Sysctl)
DROP = (Match("meta l4proto", "tcp"), Verdict("drop"))


@dataclass(frozen=True)
class Fault:
    """A change of one namespace, with what it is called when a test fails."""

    node: str
    netns: str
    what: str
    change: Callable[[NamespaceSnapshot], NamespaceSnapshot]
    switches_off: bool = False

    def __repr__(self) -> str:
        return f"{self.node}/{self.netns or 'host'}: {self.what}"


def healthy() -> ClusterSnapshot:
    return recording("2-service")


def broken(*faults: Fault) -> ClusterSnapshot:
    cluster = healthy()
    for fault in faults:
        node = cluster.nodes[fault.node]
        spaces = {**node.namespaces, fault.netns: fault.change(node.namespaces[fault.netns])}
        cluster = replace(cluster, nodes={**cluster.nodes, fault.node: replace(node, namespaces=spaces)})
    return cluster


def explained(cluster: ClusterSnapshot, entry: str) -> Explanation:
    return explain(cluster, ask(cluster, target(f"{entry}:8080"), "", None), recorded(lacking(cluster)).repairs())


def ends(cluster: ClusterSnapshot) -> list[object]:
    """What becomes of connections, without the causes: what the walk alone says."""
    found: list[object] = []
    for entry in NODES:
        asked = ask(cluster, target(f"{entry}:8080"), "", None)
        packet = Packet(protocol=asked.target.protocol, source=asked.source, destination=asked.destination)
        found.append([(branch.share, branch.outcome) for branch in every_way(observed(cluster), packet, full_size=True)])
    return found


# --- faults -------------------------------------------------------------------------------------------------------


def without(item: Item) -> Callable[[NamespaceSnapshot], NamespaceSnapshot]:
    return lambda space: replace(space, items=tuple(each for each in space.items if each != item))


def one_rule_less(chain: XtChain, number: int) -> Callable[[NamespaceSnapshot], NamespaceSnapshot]:
    def change(space: NamespaceSnapshot) -> NamespaceSnapshot:
        rules = (*chain.rules[:number], *chain.rules[number + 1 :])
        return replace(space, items=tuple(replace(chain, rules=rules) if each == chain else each for each in space.items))

    return change


def other(link: Link, **fields: object) -> Callable[[NamespaceSnapshot], NamespaceSnapshot]:
    def change(space: NamespaceSnapshot) -> NamespaceSnapshot:
        changed = replace(link, **fields)  # type: ignore[arg-type]
        return replace(space, items=tuple(changed if each == link else each for each in space.items))

    return change


def deaf(space: NamespaceSnapshot) -> NamespaceSnapshot:
    return replace(space, sockets=())


def fenced(hook: str) -> Callable[[NamespaceSnapshot], NamespaceSnapshot]:
    def change(space: NamespaceSnapshot) -> NamespaceSnapshot:
        chains = [item for item in space.items if isinstance(item, XtChain) and (item.table, item.name) == ("filter", hook)]
        chain = chains[0] if chains else XtChain("filter", hook, (), "ACCEPT")
        items = tuple(each for each in space.items if each not in chains)
        return replace(space, items=(*items, replace(chain, rules=(DROP, *chain.rules))))

    return change


def of_plan() -> Iterator[Fault]:
    """Everything on the first node that may be missing or other so that a difference from the plan is told of it."""
    name = NODES[0]
    for netns, space in healthy().nodes[name].namespaces.items():
        for item in space.items:
            if isinstance(item, XtChain):
                for number in range(len(item.rules) if item.table != "filter" else min(len(item.rules), 2)):
                    yield Fault(name, netns, f"rule {number} of {item.table} {item.name}", one_rule_less(item, number))
            elif isinstance(item, Link) and item.kind in ("veth", "bridge", "vxlan"):
                yield Fault(name, netns, f"{item.name} down", other(item, up=False), switches_off=True)
                if item.kind == "vxlan":
                    yield Fault(name, netns, f"{item.name} narrow", other(item, mtu=1280))
                if item.master:
                    yield Fault(name, netns, f"{item.name} off its bridge", other(item, master=None))
            elif isinstance(item, PLANNED):
                yield Fault(name, netns, f"no {item}", without(item))


def of_others() -> Iterator[Fault]:
    """What no plan knows of."""
    for task in healthy().names.tasks:
        yield Fault(task.node, task.netns, "nothing listens", deaf)
        yield Fault(task.node, task.netns, "a rule in the task's INPUT", fenced("INPUT"))
    for name in NODES:
        yield Fault(name, HOST, "a rule in FORWARD", fenced("FORWARD"))
        yield Fault(name, names.SANDBOX, "a rule in the sandbox's OUTPUT", fenced("OUTPUT"))


@functools.cache
def sorted_out() -> tuple[Sequence[Fault], Sequence[Fault]]:
    """The differences that break nothing, and all faults that break something for clients outside; what leaves something untold,
    or breaks something within alone, is neither."""
    whole = ends(healthy())
    differing = [fault for fault in of_plan() if any(lacking(broken(fault)).values())]
    harmless: list[Fault] = []
    real: list[Fault] = []
    for fault in (*differing, *of_others()):
        if ends(broken(fault)) != whole:
            real.append(fault)
        elif not hurts_within(broken(fault)):
            harmless.append(fault)
    return harmless, real


def hurts_within(cluster: ClusterSnapshot) -> bool:
    """Whether the doctor knows a way that fails: it asks as the nodes themselves and their tasks, too."""
    found = look(cluster, recorded(lacking(cluster))).walked
    return bool(found.by_place or found.by_reason)


def causes(cluster: ClusterSnapshot) -> list[list[tuple[str, str, tuple[str, ...]]]]:
    found = (explained(cluster, entry) for entry in NODES)
    return [[(cause.place, cause.why, cause.mend) for cause in each.causes] for each in found]


def of_ways(cluster: ClusterSnapshot) -> list[tuple[str, str]]:
    """What the doctor says of ways."""
    found: Sequence[Finding] = findings(cluster, recorded(lacking(cluster)))
    return sorted((each.where, each.found) for each in found if each.state is Severity.WRONG and each.what in ("way", "firewall"))


# --- the laws -----------------------------------------------------------------------------------------------------


def test_there_are_faults_of_many_kinds_on_either_side() -> None:
    harmless, real = sorted_out()
    assert len(harmless) > 12, harmless
    assert len(real) > 25, real


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_harmless_difference_hides_nothing_and_takes_no_blame(data: st.DataObject) -> None:
    harmless, real = sorted_out()
    fault, beside = data.draw(st.sampled_from(real)), data.draw(st.sampled_from(harmless))
    alone, both = broken(fault), broken(beside, fault)
    # That IPVS is not there can't be mended in a snapshot.
    assume(all(each.op for each in lacking(alone)[fault.node]))
    # A link that comes up again has forgotten its neighbours: then an address beside it may matter that did not.
    assume(not fault.switches_off or fault.netns != beside.netns)
    assume(ends(alone) == ends(both) and both not in (alone, broken(beside)))
    assert causes(both) == causes(alone)
    assert set(of_ways(alone)) <= set(of_ways(both))


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_of_two_real_faults_each_is_named(data: st.DataObject) -> None:
    """One of the plan and one that no plan knows of: when the first is mended the second is not news."""
    _, real = sorted_out()
    # That IPVS is not there can't be mended in a snapshot.
    plans = [fault for fault in real if any(each.op for each in lacking(broken(fault))[fault.node])]
    others = [fault for fault in real if not lacking(broken(fault))[fault.node]]
    fault, other_one = data.draw(st.sampled_from(plans)), data.draw(st.sampled_from(others))
    both = broken(fault, other_one)
    assume(ends(both) != ends(broken(other_one)))
    for entry in NODES:
        alone, found = explained(broken(other_one), entry), explained(both, entry)
        named = {(cause.place, cause.why) for cause in found.causes}
        assert {(cause.place, cause.why) for cause in alone.causes} <= named, (fault, other_one)
