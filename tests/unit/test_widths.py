"""What is printed on a terminal fits its width: words wrap, commands are never broken; what is piped is whole."""

import re
from functools import cache
from pathlib import Path

import pytest

from routemesh.doctor import Finding, Severity
from routemesh.doctor.mesh import findings, recorded
from routemesh.doctor.text import text as doctor_text
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from routemesh.explain.nouns import Explanation
from routemesh.explain.text import Screen
from routemesh.explain.text import text as explain_text
from routemesh.recording.expected import lacking
from routemesh.recording.read import read
from routemesh.sightings import Observation, Sent
from routemesh.trace.compare import compare
from routemesh.trace.nouns import Traced
from routemesh.trace.text import text as trace_text

DATA = Path(__file__).parent.parent / "data" / "swarm"
STATES = ("2-service", "faults/12-fdb-deleted", "faults/16-vxlan-port-dropped-input-node2", "faults/21-task-redirect-deleted")
WIDTHS = (72, 80, 132)
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@cache
def explained(state: str) -> Explanation:
    cluster = read([DATA / state])
    return explain(cluster, ask(cluster, target("swarm1:8080"), "", None))


@cache
def found(state: str) -> tuple[Finding, ...]:
    cluster = read([DATA / state])
    return findings(cluster, recorded(lacking(cluster)))


def plain(text: str) -> list[str]:
    return _ESCAPES.sub("", text).splitlines()


def words(text: str) -> str:
    return " ".join(_ESCAPES.sub("", text).split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("state", STATES)
def test_explain_fits_but_for_commands(state: str, width: int) -> None:
    explanation = explained(state)
    lines = plain(explain_text(explanation, Screen(colour=True, width=width)))
    commands = {step.show for way in explanation.ways for step in (*way.there, *way.back)}
    commands |= {command for cause in explanation.causes for command in cause.mend}
    for line in lines:
        assert len(line) <= width or line.endswith(tuple(filter(None, commands))), line
    whole = explain_text(explanation)
    assert words(explanation.verdict) in words(explain_text(explanation, Screen(width=width)))
    assert "…" not in whole


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("state", STATES)
def test_doctor_fits_but_for_what_to_do(state: str, width: int) -> None:
    told = found(state)
    lines = plain(doctor_text(told, Screen(colour=True, width=width)))
    for line in lines:
        assert len(line) <= width or any(line.strip() in finding.fix for finding in told), line
    assert words(doctor_text(told, Screen(colour=True, width=width))) == words(doctor_text(told))
    assert max(map(len, plain(doctor_text(found(STATES[2]))))) > 80, "piped, lines are as long as they are"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("state", STATES)
def test_trace_fits(state: str, width: int) -> None:
    sent = Sent(
        outcome="silence", what="no answer within 2 s, which is a long time for a packet on such a short way", at=0.0, took_s=2.0
    )
    nodes = tuple(Observation(node=name, seen=(), connections=(), namespaces=("",)) for name in ("swarm1", "swarm2"))
    trace = compare(Traced(prediction=explained(state), sent=sent, observations=nodes))
    assert max(map(len, plain(trace_text(trace, Screen(colour=True, width=width))))) <= width


def test_a_findings_state_has_a_colour() -> None:
    for state, code in ((Severity.WRONG, "31;1"), (Severity.OK, "32;1"), (Severity.UNTOLD, "33")):
        finding = Finding(what="way", where="node1", state=state, found="so it is")
        assert doctor_text([finding], Screen(colour=True)) == f"\x1b[{code}m{state:8}\x1b[0m node1: way (asked): so it is\n"
        assert doctor_text([finding]) == f"{state:8} node1: way (asked): so it is\n"


def test_what_others_named_stays_one_line() -> None:
    finding = Finding(what="a\nb", where="", state=Severity.WRONG, found="\x1b[2J", effect="c\nd", fix="e\nf")
    assert doctor_text([finding]).count("\n") == 3
    assert "\x1b" not in doctor_text([finding])
