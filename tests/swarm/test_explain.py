"""`routemesh explain` and `routemesh doctor` on recordings: the verdict is what real requests met, the hop what was broken."""

import json
import shutil
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from routemesh.cli.main import cli
from tests.swarm.recorded import DATA

HEALTHY = DATA / "faults" / "00-healthy"


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False)
    return done.return_value or 0, done.output


def explained(directory: Path | Sequence[Path], *question: str) -> dict[str, Any]:
    directories = [directory] if isinstance(directory, Path) else directory
    words = [word for each in directories for word in ("--from", str(each))]
    status, output = run("explain", *words, "--format", "json", *question)
    found: dict[str, Any] = json.loads(output)
    assert status == {"reaches": 0, "partly": 3, "broken": 3, "untold": 4}[found["outcome"]]
    return found


def findings(directory: Path) -> list[dict[str, str]]:
    status, output = run("doctor", "--from", str(directory), "--format", "json")
    report = json.loads(output)
    found: list[dict[str, str]] = report["findings"]
    states = {each["state"] for each in found}
    outcome, expected = ("findings", 3) if "wrong" in states else ("untold", 4) if "untold" in states else ("clean", 0)
    assert (report["version"], report["outcome"], status) == (2, outcome, expected)
    return found


# --- what works --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "question", "reached"),
    [
        ("2-service", ("swarm1:8080",), ["web.1", "web.2"]),
        ("2-service", ("swarm2:8080",), ["web.1", "web.2"]),
        ("2-service", ("192.168.77.2:8080",), ["web.1", "web.2"]),
        ("2-service", ("127.0.0.1", "swarm1:8080"), ["web.1", "web.2"]),
        ("5-overlay", ("swarm1:8090",), ["apipub.1"]),
        ("5-overlay", ("swarm2:8090",), ["apipub.1"]),
        ("5-overlay", ("cli1", "swarm1:8090"), ["apipub.1"]),
        ("5-overlay", ("swarm2:8080",), ["web.1", "web.2"]),
        ("faults/00-healthy", ("swarm1:8080",), ["web.1", "web.2"]),
        ("faults/00-healthy", ("swarm1:5353/udp",), ["dns.1", "dns.2"]),
        ("faults/00-healthy", ("swarm2:5353/udp",), ["dns.1", "dns.2"]),
    ],
)
def test_a_published_port_reaches_all_tasks(step: str, question: tuple[str, ...], reached: list[str]) -> None:
    found = explained(DATA / step, *question)
    assert (found["outcome"], found["reached"], found["causes"]) == ("reaches", reached, [])


@pytest.mark.parametrize(
    ("question", "reached"),
    [
        (("cli1", "api:80"), ["api.1", "api.2"]),
        (("cli2", "api:80/udp"), ["api.1", "api.2"]),
        (("cli1", "10.0.1.9:80"), ["apipub.1"]),
        (("cli1", "rr.2:80"), ["rr.2"]),
    ],
)
def test_a_task_asks_a_service_or_a_task_on_their_network(question: tuple[str, str], reached: list[str]) -> None:
    found = explained(DATA / "5-overlay", *question)
    assert (found["outcome"], found["reached"], found["causes"]) == ("reaches", reached, [])


def test_a_service_does_not_have_its_published_port_on_its_own_network() -> None:
    found = explained(DATA / "5-overlay", "cli1", "apipub:8090")
    assert (found["outcome"], found["causes"][0]["place"]) == ("broken", "swarm2: task apipub.1")


def test_two_recordings_together_give_the_whole_way() -> None:
    both = explained([HEALTHY / "node1", HEALTHY / "node2"], "swarm1:8080")
    far = next(way for way in both["ways"] if way["task"] == "web.1")
    assert [place for place, _ in groupby(step["place"] for step in (*far["there"], *far["back"]))] == [
        "swarm1", "swarm1: ingress_sbox", "swarm1: overlay ingress", "swarm1", "swarm2", "swarm2: overlay ingress",
        "swarm2: task web.1", "swarm2: overlay ingress", "swarm2", "swarm1", "swarm1: overlay ingress",
        "swarm1: ingress_sbox", "swarm1",
    ]  # fmt: skip
    alone = explained(HEALTHY / "node1", "swarm1:8080")
    assert alone["reached"] == ["web.2"]
    assert any("swarm2" in cause["why"] for cause in alone["causes"])


@pytest.mark.parametrize("step", ["1-no-service", "2-service", "5-overlay", "faults/00-healthy"])
def test_nothing_is_wrong_with_a_healthy_swarm(step: str) -> None:
    assert {each["state"] for each in findings(DATA / step)} <= {"ok", "unknown"}


# --- what does not -----------------------------------------------------------------------------------------------

FAULTS = {
    "01-dnat-deleted": ("swarm1:8080", "broken", []),
    "08-ipvs-dest-deleted": ("swarm1:8080", "partly", ["web.2"]),
    "12-fdb-deleted": ("swarm1:8080", "partly", ["web.2"]),
    "16-vxlan-port-dropped-input-node2": ("swarm2:8080", "partly", ["web.1"]),
    "21-task-redirect-deleted": ("swarm2:8080", "partly", ["web.2"]),
}
BESIDES = {
    "01-dnat-deleted": ("swarm2:8080", "swarm1:5353/udp", "swarm2:5353/udp"),
    "08-ipvs-dest-deleted": ("swarm2:8080", "swarm1:5353/udp", "swarm2:5353/udp"),
    "12-fdb-deleted": ("swarm2:8080", "swarm1:5353/udp", "swarm2:5353/udp"),
    "16-vxlan-port-dropped-input-node2": (),
    "21-task-redirect-deleted": ("swarm1:5353/udp", "swarm2:5353/udp"),
}


def told(fault: str) -> tuple[str, str, str]:
    """The broken node and namespace, and what mends it: from `-j`, `-r` or the MAC on, since the rest has many spellings."""
    found = json.loads((DATA / "faults" / fault / "fault.json").read_text())
    namespace = "" if found["broken_namespace"] == "host" else found["broken_namespace"]
    mend = found["mend"][0]["cmd"].replace(" -j DROP", " -j ACCEPT")  # an exception: whose rule it is, a recording does not say
    tail = next(mend[mend.index(word) :] for word in (" -j ", " -r ", " 02:42:", " ") if word in mend)
    return found["broken_node"].replace("node", "swarm"), namespace, tail.split(" -m -w")[0].strip()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_broken_hop_is_named_with_what_mends_it(fault: str) -> None:
    question, outcome, reached = FAULTS[fault]
    found = explained(DATA / "faults" / fault, question)
    assert (found["outcome"], found["reached"]) == (outcome, reached)
    node, namespace, mend = told(fault)
    first = found["causes"][0]
    assert (first["node"], first["namespace"]) == (node, namespace)
    assert any(mend in command for command in first["mend"])


@pytest.mark.parametrize(
    ("fault", "question"), [(fault, question) for fault, questions in BESIDES.items() for question in questions]
)
def test_what_a_fault_does_not_concern_is_fine(fault: str, question: str) -> None:
    assert explained(DATA / "faults" / fault, question)["outcome"] == "reaches"


@pytest.mark.parametrize("fault", FAULTS)
def test_doctor_finds_it_and_what_mends_it(fault: str) -> None:
    node, _, mend = told(fault)
    wrong = [each for each in findings(DATA / "faults" / fault) if each["state"] == "wrong"]
    assert wrong
    assert all(f"on {node}: " in each["fix"] and mend in each["fix"] for each in wrong)


# --- bad input ---------------------------------------------------------------------------------------------------


def refused(*words: str) -> str:
    from routemesh.errors import RoutemeshError

    with pytest.raises(RoutemeshError) as error:
        run(*words)
    return str(error.value)


def test_bad_questions_are_answered_with_what_there_is() -> None:
    healthy = str(HEALTHY)
    assert "swarm1, swarm2" in refused("explain", "--from", healthy, "swarm3:8080")
    assert "8080/tcp (web)" in refused("explain", "--from", healthy, "swarm1:8081")
    assert "there is no recording of it" in refused("explain", "--from", str(HEALTHY / "node1"), "swarm2:8080")
    assert "is not a recording" in refused("explain", "--from", str(DATA), "swarm1:8080")
    overlay = str(DATA / "5-overlay")
    assert "those that do: api.1, api.2" in refused("explain", "--from", overlay, "api:80")
    assert "web.1 shares no network with api" in refused("explain", "--from", overlay, "web.1", "api:80")
    assert "shares no network with web, ingress aside" in refused("explain", "--from", overlay, "web.1", "web:8080")
    assert "exclude one another" in refused("doctor", "--from", healthy, "--swarm")


def test_what_a_recording_lacks_is_no_verdict(tmp_path: Path) -> None:
    place = tmp_path / "swarm"
    shutil.copytree(DATA / "3-node2-killed", place)
    (place / "node1" / "host" / "ip-route.txt").unlink()
    found = explained(place, "swarm1:8080")
    assert found["outcome"] == "untold"
    assert any("ip-route.txt" in note for note in found["notes"])
    assert [cause["mend"] for cause in found["causes"]] == [[]]
    states = {each["what"]: each["state"] for each in findings(place)}
    assert states == {"way": "untold", "node": "unknown", "reading": "unknown"}


# --- ports in host mode ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host_ports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording without sysctl.txt, with the settings of the same Swarm's nodes at another time."""
    place = tmp_path_factory.mktemp("swarm") / "host-ports"
    shutil.copytree(DATA / "4-udp-host-ports", place)
    for node in ("node1", "node2"):
        shutil.copy(DATA / "2-service" / node / "host" / "sysctl.txt", place / node / "host")
        like = {space.name[:2]: space for space in (DATA / "2-service" / node / "netns").iterdir()}
        task = next(space for name, space in like.items() if name not in ("in", "1-"))
        for space in (place / node / "netns").iterdir():
            shutil.copy(like.get(space.name[:2], task) / "sysctl.txt", space)
    return place


@pytest.mark.parametrize("node", ["swarm1", "swarm2"])
@pytest.mark.parametrize("client", ["", "127.0.0.1", "itself"])
def test_a_port_in_host_mode_leads_to_the_nodes_own_task(host_ports: Path, node: str, client: str) -> None:
    asking = [node if client == "itself" else client] if client else []
    found = explained(host_ports, *asking, f"{node}:8070")
    assert (found["outcome"], found["reached"], found["causes"]) == ("reaches", [f"hostp.{node}"], [])
    assert any("host mode" in note for note in found["notes"])
