"""What others put into names, errors and outputs reaches a terminal as mere text: it moves no cursor and forges no line."""

import ast
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from routemesh.cli import main as cli
from routemesh.decide import admit
from routemesh.kernel.netlink import as_text
from routemesh.model import Listener, Protocol, Publish, ServiceSpec, TaskState, TaskStatus
from routemesh.nodeplan import Create, Link
from routemesh.values import replace
from tests.unit.daemon import NOW, Daemon, Type, cluster, typist

EVIL = "\x1b[2J\x1b]0;pwned\x07\x9b31m\u202ereversed\r\x7f"
FORGED = f"{EVIL}\nok       all is well"
SHOWN = r"\x1b[2J\x1b]0;pwned\x07\x9b31m\u202ereversed\r\x7f"
ACTED_ON = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
WEB = ServiceSpec(
    name="web",
    image="host",
    command=("serve", EVIL),
    environment=(f"TITLE={EVIL}",),
    labels={"note": EVIL},
    publish=(Publish(published=8080, target=80),),
)
PACKAGE = Path(cli.__file__).parent


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Daemon]]:
    with cluster(tmp_path, ("node1", "node2")) as daemons:
        yield daemons


@pytest.fixture
def type_(nodes: list[Daemon], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    (first, second) = nodes
    first.client.create_service(WEB)
    task = next(iter(first.settle().tasks.values()))
    first.report(task.id, TaskStatus(state=TaskState.FAILED, at=NOW, error=FORGED, message=EVIL, exit_code=1))
    first.settle()
    first.fault(FORGED)
    listener = Listener(protocol=Protocol.TCP, port=9090, process=FORGED)
    second.run(second.store.update(partial(admit.node_report, node_id=second.node_id, listeners=(listener,))))
    first.ops = (Create("", Link(name=EVIL, kind="bridge")),)
    first.lines[task.id] = [b"raw \x1b[1mbold\x1b[0m\n"]
    return typist(first.socket, capfd, monkeypatch)


@pytest.mark.parametrize(
    "words",
    [
        "node ls", "node ls --format json", "node inspect node1", "node inspect --pretty node1 node2",
        "service ls", "service ls --format json", "service ps web", "service ps --no-trunc web", "service ps --format json web",
        "service inspect web", "service inspect --pretty web", "container ls --all", "container ls --all --format json",
        "doctor", "doctor --format json", "diff node1", "diff --format json node1", "plan node1", "plan --format json node1",
        "explain node1:8080", "explain --format json node1:8080", "explain --format mermaid node1:8080",
        "network inspect ingress", "secret ls", "gateway status", "doctor --fix",
        "service create --name other -p 9090:80 host true",
        "service create --name \x1b[2J host true", "node inspect \x1b[2J\u202e", "\x1b[2J", "service ps \x9b2J",
        "service create --name x --label routemesh.\x1b[2J=1 host true", "service update --constraint-add \x1b[2J web",
        "--color always explain node1:8080",
    ],
)  # fmt: skip
def test_no_command_prints_what_a_terminal_acts_on(type_: Type, words: str) -> None:
    status, out, err = type_(*words.split(" "))
    assert status != 1 or err or out
    own_colours = re.sub(r"\x1b\[(0|1|2|3\d)(;1)?m", "", out) if "always" in words else out
    assert not ACTED_ON.search(own_colours), repr(out)
    assert not ACTED_ON.search(err), repr(err)
    if "json" in words or words.endswith("inspect web"):
        json.loads(out)
    else:
        assert "\nok       all is well" not in out + err, "a line that nobody said"


@pytest.mark.parametrize(
    "words", ["node ls", "service ps --no-trunc web", "node inspect --pretty node1", "service inspect --pretty web"]
)
def test_it_is_shown_and_not_left_out(type_: Type, words: str) -> None:
    assert SHOWN in re.sub(r"\s+", " ", type_(*words.split())[1])


def test_the_process_that_has_a_port_is_named(type_: Type) -> None:
    status, _, err = type_("service", "create", "--name", "other", "-p", "9090:80", "host", "true")
    assert status == 1
    assert f"is taken by process {SHOWN.replace(chr(92) + 'r', ' ')}" in err


def test_json_means_the_same(type_: Type) -> None:
    (found,) = json.loads(type_("service", "inspect", "web")[1])
    assert found["spec"]["labels"] == {"note": EVIL}
    assert json.loads(type_("node", "inspect", "node1")[1])[0]["failures"] == [FORGED]


def test_what_a_task_wrote_is_raw(type_: Type) -> None:
    assert "\x1b[1mbold\x1b[0m" in type_("service", "logs", "web")[1]


def test_only_one_module_of_the_command_line_prints() -> None:
    """`service logs` alone writes bytes, those of tasks."""
    for path in PACKAGE.glob("*.py"):
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        printing = {
            call
            for call in calls - {"sys.stdout.isatty", "sys.stderr.isatty"}
            if call in {"click.echo", "click.secho", "print"} or "stdout" in call or "stderr" in call
        }
        allowed = {
            "output": {"click.echo"},
            "service": {"sys.stdout.buffer.write", "sys.stdout.buffer.flush"},
        }
        assert printing <= allowed.get(path.stem, set()), path.name


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\xed\xa0\x80", b"caf\xc3\xa9 \x1b[1m"])
def test_a_name_that_is_no_text_can_be_stored_sent_and_printed(nodes: list[Daemon], raw: bytes) -> None:
    listener = Listener(protocol=Protocol.UDP, port=53, process=as_text(raw))
    nodes[0].run(nodes[0].store.update(partial(admit.node_report, node_id=nodes[0].node_id, listeners=(listener,))))
    (told,) = nodes[0].client.node("node1").listeners
    assert told == replace(listener, process=raw.decode(errors="backslashreplace"))
