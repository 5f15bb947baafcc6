"""The ipvs engine's plan is what a real Swarm made of the same services, but for the differences of one table."""

from pathlib import Path

import pytest

from routemesh.model import ClientIp
from routemesh.nodeplan import Sysctl
from tests.swarm.differences import ROWS, table
from tests.swarm.recorded import Difference, compare, compare_facts, planned, recording, seen

STEPS = ("1-no-service", "2-service", "3-node2-killed", "5-overlay", "faults/00-healthy")
NODES = [(step, node) for step in STEPS for node in recording(step).nodes]


def unexplained(found: list[Difference], kept: bool) -> list[Difference]:
    return [each for each in found if not any(row.shows(each) for row in ROWS if kept or not row.kept)]


@pytest.mark.parametrize(("step", "node"), NODES)
def test_the_plan_is_what_swarm_made(step: str, node: str) -> None:
    assert unexplained(list(compare(step, node)), kept=True) == []


@pytest.mark.parametrize(("step", "node"), NODES)
def test_with_snat_it_is_even_more_so(step: str, node: str) -> None:
    assert unexplained(list(compare(step, node, ClientIp.SNAT)), kept=False) == []


def test_recordings_show_every_difference_of_the_table() -> None:
    found = [each for step, node in NODES for each in compare(step, node)]
    assert [row.object for row in ROWS if not any(row.shows(each) for each in found)] == []


@pytest.mark.parametrize("node", recording("2-service").nodes)
def test_the_table_excuses_nothing_that_both_have(node: str) -> None:
    cluster = recording("2-service")
    swarm, ours = seen(cluster, node), planned(cluster, node)
    excused = []
    for netns, facts in ours.items():
        for fact in facts:
            if fact in swarm[netns] and not isinstance(fact, Sysctl):
                without = {**ours, netns: tuple(other for other in facts if other != fact)}
                if not unexplained(list(compare_facts(cluster, swarm, without)), kept=True):
                    excused.append((netns, fact))
    assert excused == []


def test_the_order_of_rules_counts() -> None:
    cluster = recording("faults/00-healthy")
    swarm, ours = seen(cluster, "swarm1"), planned(cluster, "swarm1")
    turned = {netns: facts[::-1] for netns, facts in ours.items()}
    assert any("order" in each.changed for each in unexplained(list(compare_facts(cluster, swarm, turned)), kept=True))


def test_the_documentation_has_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "swarm.md"
    assert table() in page.read_text()
