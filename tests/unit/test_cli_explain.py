"""`routemesh explain`: what is printed, in which form, with which status."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from routemesh.model import Publish, ServiceSpec
from tests.unit.daemon import Daemon, Type, cluster, typist

DATA = Path(__file__).parent.parent / "data" / "swarm"
HEALTHY, BROKEN = DATA / "2-service", DATA / "faults" / "12-fdb-deleted"
WEB = ServiceSpec(name="web", replicas=2, publish=(Publish(published=8080, target=80),))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Daemon]]:
    with cluster(tmp_path, ("node1", "node2")) as daemons:
        yield daemons


@pytest.fixture
def type_(nodes: list[Daemon], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    return typist(nodes[0].socket, capfd, monkeypatch)


@pytest.mark.parametrize(("recording", "status"), [(HEALTHY, 0), (BROKEN, 3)])
def test_the_status_says_whether_it_reaches(type_: Type, recording: Path, status: int) -> None:
    code, out, err = type_("explain", "--from", str(recording), "swarm1:8080")
    assert (code, err) == (status, "")
    assert "\x1b" not in out
    assert any(line.startswith("swarm1:8080/tcp reaches web.") for line in out.splitlines())


def test_recordings_may_be_named_one_by_one(type_: Type) -> None:
    code, out, _ = type_(
        "explain", "--from", str(HEALTHY / "node1"), "--from", str(HEALTHY / "node2"), "127.0.0.1", "swarm2:8080"
    )
    assert (code, out.splitlines()[-1]) == (0, "swarm2:8080/tcp reaches web.1 and web.2")


def test_one_way_is_told_or_none(type_: Type) -> None:
    code, brief, _ = type_("explain", "--from", str(BROKEN), "--brief", "swarm1:8080")
    assert code == 3
    assert [line.split()[0] for line in brief.splitlines()[2:4]] == ["✗", "✓"]
    assert "$ " not in brief
    assert "mend on swarm1" in brief
    assert brief.splitlines()[5].startswith("swarm1:8080/tcp reaches")
    for way, task in ((1, "web.1"), (2, "web.2")):
        _, out, _ = type_("explain", "--from", str(HEALTHY), "--way", str(way), "swarm1:8080")
        assert f"way {way}, 1/2: {task}" in out
        assert f"way {3 - way}, " not in out


@pytest.mark.parametrize(
    ("form", "start"), [("svg", "<svg "), ("html", "<!DOCTYPE html>"), ("mermaid", "%% nodes: 2"), ("json", "{")]
)
def test_the_cluster_itself_is_shown_without_a_question(type_: Type, form: str, start: str) -> None:
    code, out, err = type_("explain", "--from", str(HEALTHY), "--format", form)
    assert (code, err) == (0, "")
    assert out.startswith(start)
    assert "10.0.0.5" in out


def test_a_daemon_is_asked_for_the_cluster(nodes: list[Daemon], type_: Type) -> None:
    nodes[0].client.create_service(WEB)
    nodes[0].settle()
    code, out, _ = type_("explain", "--format", "svg")
    assert code == 0
    assert all(f">{words}</text>" in out for words in ("node1", "node2", "8080/tcp → web"))


@pytest.mark.parametrize(("form", "start"), [("svg", "<svg "), ("html", "<!DOCTYPE html>"), ("mermaid", "%% swarm1:8080/tcp")])
def test_pictures_are_printed(type_: Type, form: str, start: str) -> None:
    code, out, _ = type_("explain", "--from", str(HEALTHY), "--format", form, "swarm1:8080")
    assert code == 0
    assert out.startswith(start)


def test_json_has_a_version(type_: Type) -> None:
    code, out, _ = type_("explain", "--from", str(BROKEN), "--format", "json", "swarm1:8080")
    found = json.loads(out)
    assert (code, found["version"], found["outcome"], found["causes"][0]["node"]) == (3, 2, "partly", "swarm1")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("a", "b", "c"), 2, "got 3 words, but a question is [CLIENT] NODE:PORT[/udp]"),
        (("--format", "png", "node1:8080"), 2, "'png' is not one of"),
        (("--swarm", "--from", str(HEALTHY), "swarm1:8080"), 1, "--from and --swarm exclude one another"),
        (("--from", "/no/such/place", "swarm1:8080"), 1, "/no/such/place can't be read"),
        (("--from", str(HEALTHY), "swarm9:8080"), 1, "there is no node swarm9; there are swarm1, swarm2"),
        (("node1:8081",), 1, "port 8081/tcp is not published; published are: 8080/tcp (web)"),
        (("node9:8080",), 1, "there is no node node9; there are node1, node2"),
        (("carrots", "node1:8080"), 1, "client carrots is not an address, a node or a task"),
        (("node1",), 1, "node1 is not NODE:PORT or NODE:PORT/udp"),
        (("node1:8080", "--http", "a.example"), 1, "there is no gateway that could be asked for http://a.example"),
        (("node1:8080", "--http", "ftp://a.example"), 2, "is not of the form [http://]HOST[/PATH]"),
        (("node1:8080", "--http", "a.example", "--header", "X-User"), 2, "'X-User' is not NAME:VALUE"),
        ((), 2, "what is asked is missing: [CLIENT] NODE:PORT[/udp]; --format svg alone draws the cluster"),
        (("--format", "svg", "--brief"), 2, "--brief and --way are two ways to print text"),
        (("--way", "3", "--from", str(HEALTHY), "swarm1:8080"), 1, "there is no way 3; there are 2"),
        (("node1:8080", "--cookie", "x"), 2, "--cookie and --header belong to a request: --http HOST[/PATH]"),
        (
            ("--swarm", "node1:8080", "--http", "a.example"),
            1,
            "--http asks the gateway's proxies, which no recording and no Swarm",
        ),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_in_one_line(
    nodes: list[Daemon], type_: Type, words: tuple[str, ...], status: int, message: str
) -> None:
    nodes[0].client.create_service(WEB)
    nodes[0].settle()
    code, out, err = type_("explain", *words)
    assert (code, out, len(err.splitlines())) == (status, "", 1)
    assert message in err


def test_the_daemon_that_is_asked_reads_all_nodes(nodes: list[Daemon], type_: Type) -> None:
    """These have nothing in their kernels, so that nothing leads anywhere."""
    nodes[0].client.create_service(WEB)
    nodes[0].settle()
    code, out, _ = type_("explain", "192.0.2.9", "node2:8080")
    assert code in (3, 4)
    assert "client 192.0.2.9 asks node2, published by web" in out


def test_a_node_whose_daemon_is_silent_is_named(nodes: list[Daemon], type_: Type) -> None:
    nodes[0].client.create_service(WEB)
    nodes[0].settle()
    nodes[1].socket.unlink()
    code, out, err = type_("explain", "node2:8080")
    assert (code, out) == (1, "")
    assert err.startswith("routemesh: node node2 can't be explained: node node2's daemon can't be asked at")
    code, out, _ = type_("explain", "192.0.2.9", "node1:8080")
    assert "note: node node2 was not read: node node2's daemon can't be asked" in out
