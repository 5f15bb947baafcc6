"""The command as a whole: which daemon it asks, how it says what is wrong, and what it loads."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from routemesh import __version__
from routemesh.cli.host import Host
from routemesh.cli.main import cli, main
from routemesh.errors import RoutemeshError
from routemesh.lab import find
from tests.unit.daemon import Daemon, Type, cluster, modules_after, typist


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with cluster(tmp_path) as (only,):
        yield only


@pytest.fixture
def type_(daemon: Daemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    return typist(daemon.socket, capfd, monkeypatch)


# --- which daemon ------------------------------------------------------------------------------------------------


@pytest.fixture
def no_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a daemon and without a lab."""
    monkeypatch.delenv("ROUTEMESH_HOST", raising=False)
    monkeypatch.delenv(find.NAME_VARIABLE, raising=False)
    monkeypatch.setattr("routemesh.cli.host.DEFAULT_SOCKET", tmp_path / "default.sock")
    monkeypatch.setattr(find, "LABS", tmp_path / "labs")


def make_lab(name: str, nodes: int = 2) -> find.Lab:
    lab = find.Lab(name=name, nodes=nodes, managers=1, engine="auto", mtu_bytes=1500)
    lab.directory.mkdir(parents=True)
    lab.save()
    return lab


@pytest.mark.parametrize("form", ["unix://{}", "{}"])
def test_a_socket_is_named_by_flag_or_environment(
    daemon: Daemon, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROUTEMESH_HOST", "/nowhere")
    assert main(["-H", form.format(daemon.socket), "node", "ls"]) == 0
    monkeypatch.setenv("ROUTEMESH_HOST", form.format(daemon.socket))
    assert main(["node", "ls"]) == 0
    assert capsys.readouterr().out.count("id-node1 *") == 2


@pytest.mark.usefixtures("no_host")
def test_without_a_word_it_is_this_machine_then_the_lab(tmp_path: Path) -> None:
    with pytest.raises(RoutemeshError, match="it is not clear which daemon to ask: start a lab with routemesh lab up"):
        Host("").socket()
    lab = make_lab("mine")
    assert Host("").socket() == lab.node("node1").socket
    (tmp_path / "default.sock").touch()
    assert Host("").socket() == tmp_path / "default.sock"


@pytest.mark.usefixtures("no_host")
def test_a_lab_node_is_named_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RoutemeshError, match="host node2 is neither a path nor a node of a running lab"):
        Host("node2").socket()
    mine, other = make_lab("mine"), make_lab("other", nodes=3)
    assert Host("node3").socket() == other.node("node3").socket
    with pytest.raises(RoutemeshError, match=r"several labs have a node2 \(mine, other\): say which .* with ROUTEMESH_LAB"):
        Host("node2").socket()
    monkeypatch.setenv(find.NAME_VARIABLE, "mine")
    assert Host("node2").socket() == mine.node("node2").socket


@pytest.mark.usefixtures("no_host")
def test_a_lab_of_another_version_is_known_all_the_same() -> None:
    path = make_lab("mine").directory / "lab.json"
    path.write_text(path.read_text().replace("{", '{"colour": "blue", ', 1))
    assert [lab.name for lab in find.running_labs()] == ["mine"]


# --- what is wrong is one line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("nix", 2, "routemesh: no such command 'nix'"),
        ("service nix", 2, "routemesh service: no such command 'nix'"),
        ("service create --name a", 2, "routemesh service create: missing argument 'IMAGE'"),
        ("service create host", 2, "routemesh service create: missing option '--name'"),
        ("service create --name", 2, "option '--name' requires an argument"),
        ("service create --nome a host", 2, "no such option"),
        ("service create --name a --replicas two host", 2, "'two' is not a valid integer"),
        ("service create --name a --replicas -1 host", 2, "-1 is not in the range x>=0"),
        ("service create --name a --mode global --replicas 2 host", 1, "--replicas: a global service has one task on every node"),
        ("service create --name a --mode local host", 2, "'local' is not one of replicated, global"),
        ("service create --name a -p 80 host", 2, "'80' has a target port and no published one; write PUBLISHED:80"),
        ("service create --name a -p published=80 host", 2, "'published=80' has no target port; add target=PORT"),
        ("service create --name a -p 70000:80 host", 2, "'70000' is not a port; use 1-65535"),
        ("service create --name a -p 80:80/sctp host", 2, "'sctp' is not a protocol; use tcp or udp"),
        ("service create --name a -p published=80,target=80,mode=host host", 2, "mode=host is not supported yet"),
        ("service create --name a -p 80:80 -p 80:81 host x", 1, "port 80/tcp is published twice"),
        ("service create --name a nginx", 1, "image 'nginx' needs the docker runtime"),
        ("service create --name a_ host x", 1, "service name 'a_' is not a DNS label"),
        ("service create --name a --constraint node.colour==red host x", 1, "is about 'node.colour', which nodes don't have"),
        (
            "service create --name a --health-interval 1s host x",
            1,
            "--health-interval: there is no health check; add",
        ),
        (
            "service create --name a --log-opt mode=non-blocking host x",
            2,
            "log option 'mode' is not supported; there are",
        ),
        ("service create --name a --log-opt max-size=-1 host x", 2, "'max-size=-1' is none; write it as max-size=10m"),
        ("service create --name a --log-driver syslog host x", 2, "'syslog' is not one of local, json-file, none"),
        ("service create --name a --log-opt max-size=1k host x", 1, "log option max-size is 1000 bytes; use 4096 to"),
        ("service create --name a --health-cmd x --health-interval 1 host x", 2, "'1' is not a duration; write it as 1m30s"),
        ("service create --name a --health-cmd x --health-interval 0s host x", 1, "health check's interval is 0.0 s"),
        ("service create --name a --label routemesh.health.http=x host x", 1, "is not of the form /path or /path:port"),
        ("service create --name a --stop-signal BOO host x", 1, "stop signal 'BOO' is unknown"),
        ("service update nix --replicas 2", 1, "no service named 'nix'"),
        ("service update --publish-rm 81 there", 1, "--publish-rm: service there publishes no port with target 81/tcp"),
        ("service update --args it's there", 2, "can't be split into words"),
        ("service scale there", 2, "'there' is not of the form SERVICE=REPLICAS"),
        ("service scale there=x", 2, "'x' is not a number of replicas; use 0 or more"),
        ("service ps", 2, "missing argument 'SERVICE...'"),
        ("service ps nix", 1, "no service named 'nix'; services are: there"),
        ("service logs --tail x there", 2, "'x' is not a number of lines; use 0 or more, or all"),
        ("service logs nix", 1, "no service named 'nix'"),
        ("service ls --format {{.ID}}", 2, "'{{.ID}}' is neither table nor json; Go templates are not supported"),
        ("service inspect --format x there", 2, "'x' is neither table nor json"),
        ("-H /nowhere service ls", 1, "no daemon answers at /nowhere: there is no such socket"),
        ("completion powershell", 2, "'powershell' is not one of"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(type_: Type, daemon: Daemon, words: str, status: int, message: str) -> None:
    type_("service", "create", "--name", "there", "-d", "-p", "8080:80", "host", "x")
    before = daemon.state
    found, out, err = type_(*words.split())
    assert (found, out.replace("[]\n", "")) == (status, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert daemon.state == before


def test_a_group_without_a_subcommand_shows_its_help(type_: Type) -> None:
    for words in ((), ("service",), ("network",)):
        status, out, err = type_(*words)
        assert status == 2
        assert (out + err).startswith("Usage: routemesh")


def test_every_command_has_help(type_: Type) -> None:
    context = cli.make_context("routemesh", ["version"])
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help, name
        if name != "whoami":
            assert type_(name, "--help")[0] == 0


def test_version(type_: Type) -> None:
    assert type_("version") == type_("--version") == (0, f"routemesh {__version__}\n", "")


def test_a_bug_shows_its_traceback(type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("routemesh.api.client.Client.services", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        type_("service", "ls")


# --- the command in a process of its own -------------------------------------------------------------------------


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "routemesh", *words], capture_output=True, text=True, timeout=30, env={**os.environ, **environment}
    )


def test_exit_statuses(daemon: Daemon) -> None:
    host = str(daemon.socket)
    assert run("node", "ls", ROUTEMESH_HOST=host).returncode == 0
    assert run("service", "ps", "nix", ROUTEMESH_HOST=host).returncode == 1
    assert run("service", "ps", ROUTEMESH_HOST=host).returncode == 2


def test_a_reader_that_goes_is_no_error(daemon: Daemon) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "routemesh", "-H", str(daemon.socket), "plan", "node1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=30)


def complete(line: str, daemon: Daemon) -> list[str]:
    """What bash would offer for the last word of a line."""
    words = line.split(" ")
    environment = {
        "_ROUTEMESH_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "ROUTEMESH_HOST": str(daemon.socket),
    }
    return [offer.partition(",")[2] for offer in run(**environment).stdout.splitlines() if offer]


def test_completion(daemon: Daemon, type_: Type) -> None:
    type_("service", "create", "-d", "--name", "web", "host", "x")
    type_("service", "create", "-d", "--name", "api", "host", "x")
    assert complete("routemesh ser", daemon) == ["service"]
    assert complete("routemesh service s", daemon) == ["scale"]
    assert complete("routemesh service ps w", daemon) == ["web"]
    assert complete("routemesh service create --mode g", daemon) == ["global"]
    assert complete("routemesh node inspect ", daemon) == ["node1"]
    assert complete("routemesh network inspect i", daemon) == ["ingress"]
    assert complete("routemesh -H /nowhere service ps ", daemon) == []
    for shell in ("bash", "zsh", "fish"):
        assert "_ROUTEMESH_COMPLETE" in type_("completion", shell)[1]


def test_a_daemon_loads_nothing_that_only_an_answer_needs() -> None:
    loaded = modules_after("import routemesh.node, routemesh.start")
    rare = {f"routemesh.{name}" for name in ("explain", "walk", "doctor", "trace", "reasons", "recording")}
    assert not rare & loaded


def test_what_prolongs_a_daemons_lease_is_loaded_before_the_daemon() -> None:
    loaded = modules_after("import routemesh.start")
    assert not {"aiohttp", "asyncio", "cryptography", "routemesh.node", "routemesh.plan", "routemesh.kernel"} & loaded


def test_looking_at_services_loads_no_server(daemon: Daemon) -> None:
    loaded = modules_after(f"from routemesh.cli.main import main; main(['-H', {str(daemon.socket)!r}, 'service', 'ls'])")
    assert "routemesh.cli.service" in loaded
    assert not {"aiohttp", "asyncio", "pyroute2", "nftables", "routemesh.cli.node", "routemesh.lab.find", "subprocess"} & loaded


# --- another machine, by ssh -------------------------------------------------------------------------------------


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """An ssh that notes its words and runs the command here, where a daemon is."""
    with cluster(tmp_path) as (daemon,):
        fake = tmp_path / "bin" / "ssh"
        fake.parent.mkdir()
        fake.write_text(
            f'#!/bin/sh\necho "$@" > {tmp_path}/words\nwhile [ "$1" != -- ]; do shift; done\nshift 3\n'
            f'ROUTEMESH_HOST={daemon.socket} exec {sys.executable} -m routemesh "$@"\n'
        )
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
        yield daemon


def test_a_daemon_is_asked_over_ssh(ssh: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-H", "ssh://root@192.0.2.1:2222", "node", "ls", "-q"]) == 0
    assert capfd.readouterr().out == "id-node1\n"
    assert (tmp_path / "words").read_text() == "-l root -p 2222 -- 192.0.2.1 routemesh dial-stdio\n"
    assert main(["-H", "ssh://other", "service", "inspect", "x"]) == 1
    assert "no service named 'x'" in capfd.readouterr().err
    assert (tmp_path / "words").read_text() == "-- other routemesh dial-stdio\n"


def test_a_machine_that_ssh_does_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["-H", "ssh://other", "node", "ls"]) == 1
    assert capfd.readouterr().err.startswith("routemesh: no daemon answers at ssh://other: see what ssh says above; is routemesh")
    (tmp_path / "ssh").unlink()
    assert main(["-H", "ssh://other", "node", "ls"]) == 1
    assert "there is no program ssh" in capfd.readouterr().err
    for wrong in ("ssh://", "ssh://-oProxyCommand=x", "ssh://a@b@c", "ssh://a:99999", "ssh://a/b"):
        assert main(["-H", wrong, "node", "ls"]) == 1
        assert f"host {wrong} is not ssh://HOST" in capfd.readouterr().err
