"""The lab, through the command line: real daemons in real namespaces."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from routemesh.kernel import netns
from tests.lab.cluster import Cluster
from tests.support import require, unique, wait_until

TIMEOUT_S = 30.0

Make = Callable[..., Cluster]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes labs with the given flags; removes them afterwards."""
    require("root", "netns", "nf_tables")
    made = []

    def up(*flags: str) -> Cluster:
        lab = Cluster(unique("t"))
        made.append(lab)
        lab.cli("lab", "up", *flags)
        return lab

    yield up
    for lab in made:
        if (lab.directory).exists():
            lab.cli("lab", "down")


@pytest.fixture(scope="module")
def lab() -> Iterator[Cluster]:
    """Two nodes, which every test leaves as it found them."""
    require("root", "netns", "nf_tables")
    shared = Cluster(unique("t"))
    shared.cli("lab", "up", "--nodes", "2")
    yield shared
    shared.cli("lab", "down")


@pytest.fixture(scope="module")
def web(lab: Cluster) -> Iterator[str]:
    """The name of a task on node2."""
    lab.cli("service", "create", "--name", "web", "--constraint", "node.hostname==node2", "host", "sleep", "1000")
    yield "web.1"
    lab.cli("service", "rm", "web")


def on(lab: Cluster, host: str, *command: str) -> str:
    """What a command prints on a machine."""
    return lab.cli("lab", "exec", host, "--", *command)


def status(lab: Cluster) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in lab.json("lab", "status")}


@contextmanager
def numbers(files: Iterable[Path]) -> Iterator[set[int]]:
    """The numbers of network namespaces; held open, because the kernel soon gives another lab those that are free."""
    with ExitStack() as stack:
        yield {os.fstat(stack.enter_context(open(file, "rb", buffering=0)).fileno()).st_ino for file in files}


def namespaces(lab: Cluster) -> AbstractContextManager[set[int]]:
    """Every network namespace below a lab's directory, by number."""
    return numbers(lab.directory.glob("**/netns/*"))


def links() -> set[str]:
    """The links of the host."""
    return {link["ifname"] for link in json.loads(subprocess.check_output(["ip", "-j", "link"]))}


def mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def processes_in(inside: set[int]) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/net").stat().st_ino in inside:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


# --- up and down -----------------------------------------------------------------------------------------------------


def test_after_up_every_node_is_ready(lab: Cluster) -> None:
    nodes = status(lab)
    assert {name: (node["address"], node["ready"], node["link"]) for name, node in nodes.items()} == {
        "node1": ("192.168.200.10", True, "up"),
        "node2": ("192.168.200.11", True, "up"),
    }
    assert all(Path(f"/proc/{node['pid']}").exists() for node in nodes.values())


def test_down_leaves_nothing(make: Make) -> None:
    links_before = links()
    lab = make("--nodes", "2")
    options = ("--replicas", "2", "-p", "8080:80", "--answer-timeout", "0s")
    lab.cli("service", "create", "--name", "web", *options, "host", "sleep", "1000")
    assert links() == links_before
    with namespaces(lab) as inside:
        assert len(inside) == 4 + 2 * 3  # machines; on each node sandbox, overlay and task
        assert len(processes_in(inside)) >= 4
        lab.cli("lab", "down")
        assert not (lab.directory).exists()
        assert not [mount for mount in mounts() if lab.name in mount]
        assert processes_in(inside) == []
    assert lab.refused("lab", "down").startswith(f"routemesh: there is no lab {lab.name}; ")


def test_down_ends_what_was_started_by_exec(make: Make) -> None:
    lab = make("--nodes", "1")
    command = (sys.executable, "-m", "routemesh", "lab", "exec", "--name", lab.name, "client", "--", "sleep", "1000")
    with subprocess.Popen(command) as process, numbers([lab.directory / "netns" / "client"]) as client:
        wait_until(lambda: processes_in(client))
        lab.cli("lab", "down")
        assert process.wait(TIMEOUT_S) == -signal.SIGKILL


def test_down_repairs_a_half_made_lab(make: Make) -> None:
    lab = make("--nodes", "1")
    (lab.directory / "lab.json").unlink()
    assert "half made" in lab.refused("lab", "status")
    with namespaces(lab) as inside:
        lab.cli("lab", "down")
        assert not (lab.directory).exists()
        assert processes_in(inside) == []


def test_down_takes_along_what_others_mounted_below_its_directory_and_harms_nothing_of_theirs(make: Make, tmp_path: Path) -> None:
    lab = make("--nodes", "1")
    (tmp_path / "precious").touch()
    place = lab.directory / "node1" / "a driver's"
    bound, theirs = place / "bound", place / "netns of a task"
    bound.mkdir(parents=True)
    theirs.touch()
    subprocess.run(["mount", "--bind", tmp_path, bound], check=True)
    with subprocess.Popen(["unshare", f"--net={theirs}", "sleep", "1000"]) as task:
        wait_until(lambda: any("a\\040driver's/netns" in mount for mount in mounts()))
        lab.cli("lab", "down")
        assert task.wait(TIMEOUT_S) == -signal.SIGKILL
    assert not lab.directory.exists()
    assert not [mount for mount in mounts() if lab.name in mount]
    assert (tmp_path / "precious").exists()


def test_down_finds_processes_whose_namespaces_lost_their_names(make: Make) -> None:
    lab = make("--nodes", "1")
    lab.cli("service", "create", "--name", "web", "host", "sleep", "1000")
    with namespaces(lab) as inside:
        for path in lab.directory.glob("**/netns/*"):
            netns.remove(path)
        assert processes_in(inside)
        lab.cli("lab", "down")
        wait_until(lambda: not processes_in(inside))


def test_labs_live_side_by_side(lab: Cluster, make: Make) -> None:
    other = make("--nodes", "1")
    assert status(lab)["node1"]["address"] == status(other)["node1"]["address"]
    lab.cli("service", "create", "--detach", "--name", "only-here", "--replicas", "0", "host", "sleep", "1")
    try:
        assert "only-here" in lab.cli("service", "ls")
        assert "only-here" not in other.cli("service", "ls")
        other.cli("lab", "down")
        assert status(lab)["node1"]["ready"]
    finally:
        lab.cli("service", "rm", "only-here")


# --- exec ------------------------------------------------------------------------------------------------------------


def test_exec_is_on_that_machine(lab: Cluster) -> None:
    assert "192.168.200.100/24" in on(lab, "client", "ip", "address", "show", "eth0")
    assert "192.168.200.11/24" in on(lab, "node2", "ip", "address", "show", "eth0")


def test_exec_passes_the_exit_status_on(lab: Cluster) -> None:
    lab.cli("lab", "exec", "client", "--", "sh", "-c", "exit 7", status=7)


def test_exec_in_a_sandbox(lab: Cluster) -> None:
    assert "172.18.0.2/16" in lab.cli("lab", "exec", "node1", "--sandbox", "ingress_sbox", "--", "ip", "address")


def test_on_a_node_run_netns_has_the_nodes_namespaces(lab: Cluster) -> None:
    inside = lab.cli("lab", "exec", "node1", "--sandbox", "ingress_sbox", "--", "ip", "address")
    assert on(lab, "node1", "ip", "netns", "exec", "ingress_sbox", "ip", "address") == inside
    for place in ("/run/netns", "/var/run/docker/netns"):
        assert on(lab, "node1", "nsenter", f"--net={place}/ingress_sbox", "ip", "address") == inside
    sources = [line.split()[3] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert not [source for source in sources if lab.name in source]
    assert not Path("/run/netns/ingress_sbox").exists()


def test_on_a_node_routemesh_talks_to_that_node(lab: Cluster) -> None:
    said = on(lab, "node2", "sh", "-c", "echo $ROUTEMESH_HOST").strip()
    assert said == f"unix://{lab.directory}/node2/routemesh.sock"


def test_exec_in_a_task_is_in_all_its_namespaces(lab: Cluster, web: str) -> None:
    inside = lab.cli("lab", "exec", "node2", "--task", web, "--", "sh", "-c", "hostname; cat /proc/1/cmdline; ip address")
    hostname, rest = inside.split("\n", 1)
    assert (lab.directory / "node2" / "netns" / hostname).exists()
    assert "sleep" in rest
    assert "172.18.0." in rest


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("node1", "--", "no-such-program"), 127, "routemesh: no-such-program: there is no such program"),
        (("node1", "--", "/etc/passwd"), 126, "routemesh: /etc/passwd: this can't be executed"),
        (("node9", "--", "true"), 1, "has no node node9; it has node1, node2"),
        (("node1", "--sandbox", "nowhere", "--", "true"), 1, "routemesh: node1 has no namespace nowhere; it has 1-"),
        (("client", "--sandbox", "ingress_sbox", "--", "true"), 1, "the client has neither sandboxes nor tasks; name a node"),
        (("node1", "--task", "web.9", "--", "true"), 1, "there is no task web.9; 'routemesh service ps' lists them"),
        (("node1", "--task", "a", "--sandbox", "b", "--", "true"), 2, "--sandbox and --task exclude each other"),
        (("node1",), 2, "missing argument"),
    ],
)
def test_exec_refuses(lab: Cluster, words: tuple[str, ...], status: int, says: str) -> None:
    assert says in lab.refused("lab", "exec", *words, status=status)


def test_a_task_on_another_node_is_refused_with_its_place(lab: Cluster, web: str) -> None:
    assert f"task {web} is on node2, not on node1" in lab.refused("lab", "exec", "node1", "--task", web, "--", "true")


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_cut_cable_can_be_healed(lab: Cluster) -> None:
    lab.cli("lab", "cut", "node2")
    try:
        assert status(lab)["node2"]["link"] == "cut"
        assert "NO-CARRIER" in on(lab, "node2", "ip", "link", "show", "eth0")
        assert "NO-CARRIER" not in on(lab, "node1", "ip", "link", "show", "eth0")
    finally:
        lab.cli("lab", "heal", "node2")
    assert status(lab)["node2"]["link"] == "up"
    wait_until(lambda: "NO-CARRIER" not in on(lab, "node2", "ip", "link", "show", "eth0"))


def test_a_killed_node_is_gone_and_comes_back(make: Make) -> None:
    lab = make("--nodes", "2")
    lab.cli("service", "create", "--name", "web", "--mode", "global", "host", "sleep", "1000")
    run_dir = lab.directory / "node2"
    with numbers((*run_dir.glob("netns/*"), lab.directory / "netns" / "node2")) as gone:
        assert len(processes_in(gone)) >= 3  # the daemon; the task and its init
        lab.cli("lab", "kill", "node2")
        assert processes_in(gone) == []
    assert not run_dir.exists()
    nodes = status(lab)
    assert (nodes["node2"]["pid"], nodes["node2"]["ready"], nodes["node2"]["link"]) == (None, False, "off")
    assert nodes["node1"]["ready"]
    assert "has no power" in lab.refused("lab", "exec", "node2", "--", "true")
    assert "has no power" in lab.refused("lab", "cut", "node2")
    lab.cli("lab", "kill", "node2")
    lab.cli("lab", "start", "node2")
    assert status(lab)["node2"]["ready"]
    assert "192.168.200.11/24" in on(lab, "node2", "ip", "address", "show", "eth0")


def test_a_crashed_daemon_comes_back_without_touching_tasks(lab: Cluster, web: str) -> None:
    def init() -> tuple[int, int]:
        """The task's init: its pid on the machine, and when it began, in clock ticks since the boot (proc(5), stat, field 22)."""
        (task,) = lab.serving("web")
        return task["pid"], int(Path(f"/proc/{task['pid']}/stat").read_text().rpartition(")")[2].split()[19])

    before, pid = init(), status(lab)["node2"]["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: status(lab)["node2"]["pid"] is None)
    assert init() == before
    lab.cli("lab", "start", "node2")
    after = status(lab)["node2"]
    assert after["ready"]
    assert after["pid"] != pid
    assert init() == before
    assert lab.cli("lab", "start", "node2") == "the daemon of node2 runs already\n"


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_name_in_use_is_refused_and_the_lab_goes_on(lab: Cluster) -> None:
    assert f"lab {lab.name} is there already; choose another --name" in lab.refused("lab", "up")
    assert status(lab)["node1"]["ready"]


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (("--name", "Not_a_name"), 1, "'Not_a_name' can't be a lab's name"),
        (("--nodes", "0"), 2, "0 is not in the range 1<=x<=80"),
        (("--nodes", "81"), 2, "81 is not in the range 1<=x<=80"),
        (("--nodes", "1", "--mtu", "625"), 2, "625 is not in the range 626<=x<=65535"),
        (("--nodes", "1", "--engine", "ebpf"), 2, "nftables"),
    ],
)
def test_up_refuses_and_leaves_nothing(flags: tuple[str, ...], status: int, says: str) -> None:
    require("root", "netns", "nf_tables")
    lab = Cluster(unique("t"))
    assert says in lab.refused("lab", "up", *flags, status=status)
    assert not (lab.directory).exists()
    assert not [mount for mount in mounts() if lab.name in mount]


def test_the_smallest_mtu_works(make: Make) -> None:
    lab = make("--nodes", "1", "--mtu", "626")
    assert "mtu 626 " in on(lab, "node1", "ip", "link", "show", "eth0")


@pytest.mark.parametrize("command", [("up",), ("down",), ("status",), ("exec", "client", "--", "true"), ("kill", "node1")])
def test_without_root_one_line_says_so(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from routemesh.cli.main import main

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["lab", *command]) == 1
    assert capsys.readouterr().err == "routemesh: routemesh lab needs root, for network namespaces; run it with sudo\n"
