"""What tasks answered that were asked, in words, and what a doctor makes of it."""

import pytest

from routemesh.doctor import Severity, answers
from routemesh.doctor.answers import is_elsewhere, trouble
from routemesh.doctor.facts import Facts, NodeFacts
from routemesh.doctor.twice import both_say
from routemesh.model import Protocol
from routemesh.sightings import Answering, PortAnswer, PortQuestion
from routemesh.snapshot import Bound, ClusterSnapshot, NamedService, NamedTask, Names
from routemesh.values import replace

TASK = PortQuestion(protocol=Protocol.TCP, port=8080, address="10.0.0.6", task="web.1", netns="aa", target=8000)
NODE = PortQuestion(protocol=Protocol.TCP, port=8080, address="192.0.2.1")


def bound(address: str, port: int, process: str = "python3") -> Bound:
    return Bound(protocol=Protocol.TCP, address=address, port=port, process=process)


@pytest.mark.parametrize(
    ("outcome", "process", "instead", "said"),
    [
        ("accepted", "who", (), ""),
        ("refused", "", (bound("127.0.0.1", 8000),), "web.1 listens on 127.0.0.1:8000, not on 10.0.0.6:8000 (python3)"),
        ("refused", "", (bound("::", 8000),), "web.1 listens on [::]:8000 for IPv6 alone, not on 10.0.0.6:8000 (python3)"),
        ("refused", "", (bound("0.0.0.0", 80, ""),), "no process of web.1 listens on 8000; it listens on 80"),
        ("refused", "", (bound("127.0.0.1", 80),), "no process of web.1 listens on 8000; it listens on 127.0.0.1:80 (python3)"),
        ("refused", "", (), "no process of web.1 listens on 8000/tcp, or any other port"),
        ("refused", "who", (), "web.1 does not answer on 10.0.0.6:8000, though who listens: refused"),
        ("silence", "who", (), "web.1 does not answer on 10.0.0.6:8000, though who listens: silence"),
        ("waits", "who", (), "web.1 does not answer on 10.0.0.6:8000: who takes no connections"),
        ("stopped", "who", (), "web.1 does not answer on 10.0.0.6:8000: who is stopped"),
    ],
)
def test_why_a_task_does_not_answer(outcome: Answering, process: str, instead: tuple[Bound, ...], said: str) -> None:
    answer = PortAnswer(asked=TASK, outcome=outcome, process=process, instead=instead)
    assert trouble("node1", answer) == said
    assert is_elsewhere(answer) == bool(instead)


def test_a_node_that_does_not_answer_is_explained_by_another_command() -> None:
    refused = PortAnswer(asked=NODE, outcome="refused")
    why = "node1 does not answer on 8080/tcp: the connection is refused; see routemesh explain node1 node1:8080/tcp"
    assert trouble("node1", refused) == why


NAMES = Names(
    services=(NamedService(name="web", checked=False),),
    tasks=(NamedTask(name="web.1", service="web", node="node1", netns="aa"),),
)
CLUSTER = ClusterSnapshot(nodes={}, names=NAMES)


def facts(*found: PortAnswer, asked: bool = True) -> Facts:
    return Facts(nodes={"node1": NodeFacts(node="node1", asked=asked, answers=found)}, asking=True)


def test_a_task_that_does_not_answer_is_wrong_unless_that_is_told_already() -> None:
    silent = PortAnswer(asked=TASK, outcome="waits", process="who")
    (found,) = answers.findings(CLUSTER, facts(silent), {})
    assert (found.state, found.basis, found.where) == (Severity.WRONG, "asked", "node1: task web.1")
    assert found.effect.endswith("; web has no health check: tasks get connections as soon as they run")
    assert list(answers.findings(CLUSTER, facts(silent), {("node1", "aa"): None})) == []


def test_what_answered_and_who_was_not_asked() -> None:
    (good,) = answers.findings(CLUSTER, facts(PortAnswer(asked=TASK, outcome="accepted")), {})
    assert (good.state, good.found) == (Severity.OK, "all 1 tasks' ports took a connection from the sandbox of their node")
    (older,) = answers.findings(CLUSTER, facts(asked=False), {})
    assert older.state is Severity.UNKNOWN and "was not asked" in older.found.replace("were", "was")
    assert list(answers.findings(CLUSTER, replace(facts(asked=False), asking=False), {})) == []


def test_only_what_did_not_answer_twice_counts() -> None:
    silent, good = PortAnswer(asked=TASK, outcome="waits"), PortAnswer(asked=TASK, outcome="accepted")
    assert both_say(facts(good), facts(silent)).nodes["node1"].answers == ()
    assert both_say(facts(silent), facts(silent)).nodes["node1"].answers == (silent,)
