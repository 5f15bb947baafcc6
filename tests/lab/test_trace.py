"""Traces of real packets: what was seen is what was predicted; what is broken is named; and nothing is left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from routemesh.lab.find import NAME_VARIABLE
from tests.lab.cluster import ADDRESSES, CLIENT, Cluster, running
from tests.support import require, wait_until

WEB, DNS, DEAF = 8080, 5353, 8081
QUICK = ("--timeout", "0.4")
TABLE = "routemesh-trace-"
ON_THE_WAY = 8
"""The namespaces that are watched: each node's own, its sandbox, its overlay and a task of web."""
Json = dict[str, Any]


@pytest.fixture(scope="module")
def traced() -> Iterator[Cluster]:
    """Two nodes; a service with a task on each over TCP and UDP; and one that answers on no port."""
    require("root", "netns", "nf_tables")
    with running("trace", "--nodes", "2") as cluster:
        ports = ("-p", f"{WEB}:80", "-p", f"{DNS}:80/udp")
        cluster.cli("service", "create", "--name", "web", "--replicas", "2", *ports, "host", "routemesh", "whoami")
        cluster.cli("service", "create", "--name", "deaf", "-p", f"{DEAF}:80", "-d", "host", "sleep", "1000000")
        wait_until(lambda: cluster.serving("deaf"), what="a task that does not listen")
        yield cluster


def trace(cluster: Cluster, *question: str, host: str = "", status: int = 0) -> Json:
    found: Json = json.loads(cluster.cli("trace", "--format", "json", *question, host=host, status=status))
    return found


def to_task(cluster: Cluster, task: str, *question: str, host: str = "", status: int = 0) -> Json:
    """A trace whose packet was led to that task: they are led to each in turn."""
    for _ in range(4):
        done = cluster.run("trace", "--format", "json", *question, host=host)
        found: Json = json.loads(done.stdout)
        if way(found)["task"] == task:
            assert done.returncode == status, found["verdict"]
            return found
    raise AssertionError(f"no packet was led to {task}")


def way(found: Json) -> Json:
    taken: Json = found["prediction"]["ways"][found["way"]]
    return taken


def places(found: Json) -> list[str]:
    """The namespaces in which steps were seen, in their order."""
    steps = [*way(found)["there"], *way(found)["back"]]
    seen = [steps[hop["step"]] for hop in found["hops"] if hop["mark"] == "seen"]
    named = [f"{step['node']}/{kind(step['namespace'])}" for step in seen]
    return [name for number, name in enumerate(named) if number == 0 or named[number - 1] != name]


def kind(netns: str) -> str:
    return "task" if re.fullmatch("[0-9a-f]{12}", netns) else "overlay" if netns.startswith("1-") else netns or "own"


def rules(cluster: Cluster) -> dict[str, str]:
    """All rules of all namespaces; without the numbers in them."""
    spaces = [
        *cluster.directory.glob("netns/node*"),
        *(path for node in ADDRESSES for path in cluster.directory.glob(f"{node}/netns/*")),
    ]
    found = {}
    for path in spaces:
        command = ["nsenter", f"--net={path}", "nft", "--stateless", "list", "ruleset"]
        found[str(path)] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return found


def traces(cluster: Cluster) -> int:
    """In how many namespaces there is a trace's table."""
    return sum(TABLE in each for each in rules(cluster).values())


@contextmanager
def foreign(cluster: Cluster, place: str, hook: str, rule: str) -> Iterator[None]:
    """A rule of somebody else's."""
    chain = f"add chain inet fw c {{ type filter hook {hook} priority 5; policy accept; }}"
    for command in ("add table inet fw", chain, f"add rule inet fw c {rule}"):
        cluster.nft(place, command)
    try:
        yield
    finally:
        cluster.nft(place, "delete table inet fw")


# --- whole --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ((f"node1:{WEB}",), "the connection was accepted"),
        (("--http", "/", f"node1:{WEB}"), "HTTP/1.1 200 OK"),
        ((f"node1:{DNS}/udp",), "a datagram of "),
        (("node1", f"node1:{WEB}"), "the connection was accepted"),
        (("web.1", f"node1:{DNS}/udp"), "a datagram of "),
    ],
)
def test_a_whole_mesh_is_seen_as_it_is_predicted(traced: Cluster, question: tuple[str, ...], answer: str) -> None:
    found = to_task(traced, "web.2", *question)
    assert found["agrees"]
    assert found["sent"]["what"].startswith(answer)
    assert {hop["mark"] for hop in found["hops"]} <= {"seen", "passed"}
    assert found["notes"] == [] == found["strays"]


def test_every_hop_is_seen_where_it_is_and_in_its_order(traced: Cluster) -> None:
    before = rules(traced)
    found = to_task(traced, "web.2", f"node1:{WEB}")
    there = ["node1/own", "node1/ingress_sbox", "node1/overlay", "node1/own", "node2/own", "node2/overlay", "node2/task"]
    assert places(found) == [*there, *there[-2::-1]]
    times = [hop["at_s"] for hop in found["hops"] if hop["mark"] == "seen"]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 1
    assert {hop["mark"] for hop in found["hops"]} == {"seen"}
    tracked = {(kind(each["namespace"]), each["answer_source"]) for one in found["observations"] for each in one["connections"]}
    assert ("own", f"172.18.0.2:{WEB}") in tracked
    assert rules(traced) == before


def test_text_has_both_side_by_side(traced: Cluster) -> None:
    printed = traced.cli("trace", f"node1:{WEB}")
    assert re.search(r"✓ +\d+\.\d+ +eth0 +nat DOCKER-INGRESS dnat to 172\.18\.0\.2 .* │ ip routemesh DOCKER-INGRESS: ", printed)
    assert re.search(rf"^node1:{WEB}/tcp reached web\.[12] and the answer came back in [\d.]+ ms, as predicted$", printed, re.M)


def test_all_ways_are_followed_and_one_that_is_named(traced: Cluster) -> None:
    printed = traced.cli("trace", f"node1:{WEB}")
    assert "This is one of 2 ways: --all follows each, --task TASK one that is chosen." in printed
    table = traced.cli("trace", "--all", f"node1:{WEB}")
    assert re.search(rf"^node1:{WEB}/tcp: web\.1, web\.2 answered, as predicted$", table, re.M), table
    one = traced.cli("trace", "--task", "web.2", f"node1:{WEB}")
    assert f"node1:{WEB}/tcp reached web.2 and the answer came back" in one
    assert "they lead to web.1, web.2" in traced.refused("trace", "--task", "web.9", f"node1:{WEB}")
    with foreign(traced, "node2", "input", "udp dport 4789 drop"):
        table = traced.cli("trace", *QUICK, "--all", f"node1:{WEB}", status=3)
    assert "web.2 not answered, as predicted; web.1 answered, as predicted" in table, table


def test_what_nobody_can_predict_is_told_as_it_was_seen(traced: Cluster) -> None:
    """Out of connection tracking nothing is translated; on which CPU the packet will be, explain can't know."""
    chain = "add chain ip fw c { type filter hook prerouting priority -300; }"
    for command in ("add table ip fw", chain, f"add rule ip fw c tcp dport {WEB} meta cpu != 4095 notrack"):
        traced.nft("node1", command)
    try:
        assert "can't be told" in traced.cli("explain", f"node1:{WEB}", status=4)
        printed = traced.cli("trace", *QUICK, f"node1:{WEB}", status=3)
    finally:
        traced.nft("node1", "delete table ip fw")
    assert "nowhere" not in printed and "as predicted" not in printed and "AS PREDICTED" not in printed
    assert "the connection was refused, and it was last seen in node1 eth0" in printed


def test_live_waits_for_somebody_else(traced: Cluster) -> None:
    with spawned(traced, "trace", "--live", "--timeout", "20", "--format", "json", f"node1:{WEB}") as waiting:
        wait_until(lambda: traces(traced) == ON_THE_WAY, what="all tables")
        traced.ask(ADDRESSES["node2"], WEB, 4)  # half of them are led to node1, which is not what is waited for
        traced.ask(ADDRESSES["node1"], WEB)
        found = json.loads(waiting.communicate(timeout=20)[0])
    assert (waiting.returncode, found["agrees"], found["sent"]["outcome"]) == (0, True, "live")
    assert found["prediction"]["question"]["source"].startswith(f"{CLIENT}:")


# --- broken -------------------------------------------------------------------------------------------------------


def test_a_rule_that_drops_it_is_named(traced: Cluster) -> None:
    with foreign(traced, "node1", "forward", f"tcp dport {WEB} drop"):
        found = trace(traced, *QUICK, f"node1:{WEB}", status=3)
    assert found["agrees"]
    assert found["drops"] == [f"node1: inet fw c: tcp dport {WEB} drop"]
    assert found["last"]["place"] == "node1"
    assert "hook forward" in found["last"]["what"]


def test_a_tunnel_that_is_dropped_is_seen_to_be(traced: Cluster) -> None:
    with foreign(traced, "node2", "input", "udp dport 4789 drop"):
        found = to_task(traced, "web.2", *QUICK, f"node1:{WEB}", status=3)
    assert found["agrees"]
    assert found["drops"] == ["node2: inet fw c: udp dport 4789 drop"]
    assert found["last"]["place"] == "node2"


def test_a_drop_in_the_task_itself(traced: Cluster) -> None:
    task = next(task for task in traced.tasks("web") if task["name"] == "web.2")
    with foreign(traced, f"node2/{task['container']}", "input", "tcp dport 80 drop"):
        found = to_task(traced, "web.2", *QUICK, f"node1:{WEB}", status=3)
    assert found["drops"] == [f"node2 {task['container']}: inet fw c: tcp dport 80 drop"]


def test_a_later_packet_that_is_dropped_is_followed_too(traced: Cluster) -> None:
    with foreign(traced, "node1", "forward", "tcp flags & psh == psh drop"):
        found = trace(traced, *QUICK, "--http", "/", f"node1:{WEB}", status=3)
    assert not found["agrees"]
    assert found["drops"] == ["node1: inet fw c: tcp flags & psh == psh drop"]
    assert (found["last"]["place"], found["lost"]) == ("node1", None)
    assert "a later packet was last seen in node1 " in found["verdict"]


def test_nobody_listens(traced: Cluster) -> None:
    found = trace(traced, f"node1:{DEAF}", status=3)
    assert (found["agrees"], found["sent"]["outcome"]) == (True, "refused")
    assert "nothing listens" in found["verdict"]


def test_what_explain_can_not_know_is_shouted(traced: Cluster) -> None:
    """A queue that takes nothing is outside of what is read."""
    task = next(task for task in traced.tasks("web") if task["name"] == "web.2")
    port = overlay_port(traced, "node2", task["container"])
    with_queue = (traced.overlay("node2"), "tc", "qdisc")
    traced.inside(*with_queue, "add", "dev", port, "root", "pfifo", "limit", "0")
    try:
        found = to_task(traced, "web.2", *QUICK, f"node1:{WEB}", status=3)
    finally:
        traced.inside(*with_queue, "del", "dev", port, "root")
    assert not found["agrees"]
    assert "NOT AS PREDICTED" in found["verdict"]
    assert found["last"]["place"] == "node2: overlay ingress"
    assert (found["lost"]["place"], found["lost"]["device"]) == ("node2: overlay ingress", port)


def overlay_port(cluster: Cluster, node: str, netns: str) -> str:
    number = re.findall(r"eth0@if(\d+)", cluster.inside(f"{node}/{netns}", "ip", "-o", "link"))[0]
    found = re.search(rf"^{number}: (\w+)@", cluster.inside(cluster.overlay(node), "ip", "-o", "link"), re.M)
    assert found
    return found[1]


def test_bad_questions_have_one_line(traced: Cluster) -> None:
    assert "there is no node node9; there are node1, node2" in traced.refused("trace", f"node9:{WEB}")
    assert f"published are: {DNS}/udp (web), {WEB}/tcp (web), {DEAF}/tcp (deaf)" in traced.refused("trace", "node1:81")
    assert "nothing can be sent from there" in traced.refused("trace", "192.0.2.7", f"node1:{WEB}")
    assert "nobody opened a connection" in traced.refused("trace", "--live", *QUICK, f"node1:{WEB}")


# --- interrupted --------------------------------------------------------------------------------------------------


@contextmanager
def spawned(cluster: Cluster, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs."""
    env = os.environ | {NAME_VARIABLE: cluster.name}
    command = [sys.executable, "-m", "routemesh", *words]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_trace_leaves_nothing(traced: Cluster, how: signal.Signals) -> None:
    before = rules(traced)
    with spawned(traced, "trace", "--live", f"node1:{WEB}") as running:
        wait_until(lambda: traces(traced) == ON_THE_WAY, what="all tables")
        assert " reaches web.1 and web.2" in traced.cli("explain", f"node1:{WEB}"), "what is there meanwhile disturbs nobody"
        running.send_signal(how)
        running.communicate(timeout=20)
    wait_until(lambda: rules(traced) == before, what="the rules as they were")


def test_other_traffic_is_not_marked(traced: Cluster) -> None:
    """Somebody's connections go on beside a trace; nothing of them is seen by it."""
    with spawned(traced, "trace", "--format", "json", "node2", f"node1:{WEB}") as running:
        wait_until(lambda: traces(traced) or running.poll() is not None, what="a table")
        asking = threading.Thread(target=lambda: traced.ask(ADDRESSES["node1"], WEB, 20))
        asking.start()
        found = json.loads(running.communicate(timeout=20)[0])
        asking.join()
    port = found["prediction"]["question"]["source"].rpartition(":")[2]
    assert running.returncode == 0
    assert {each["port"] for one in found["observations"] for each in one["seen"]} == {int(port)}


# --- without a daemon; these come last ------------------------------------------------------------------------------


def test_a_killed_daemon_leaves_nothing_and_its_node_is_watched_all_the_same(traced: Cluster) -> None:
    before = rules(traced)
    pid = next(int(line.split()[3]) for line in traced.lab("status").splitlines() if line.startswith("node1"))
    with spawned(traced, "-H", "node2", "trace", "--live", f"node2:{WEB}") as running:
        wait_until(lambda: traces(traced) == ON_THE_WAY, what="all tables")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(TABLE in text for path, text in rules(traced).items() if "/node1" in path), what="node1's end")
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=20)
    wait_until(lambda: rules(traced) == before, what="the rules as they were")
    found = to_task(traced, "web.2", f"node1:{WEB}", host="node2")
    assert (found["agrees"], found["unwatched_nodes"]) == (True, [])
    assert places(found)[:2] == ["node1/own", "node1/ingress_sbox"]


def test_a_missing_fdb_entry(traced: Cluster) -> None:
    """With node1's daemon dead, nobody puts it back."""
    task = next(task for task in traced.json("service", "ps", "web", host="node2") if task["name"] == "web.2")
    mac = "02:42:" + ":".join(f"{int(octet):02x}" for octet in task["address"].split("."))
    entry = ("dev", "vxlan0", "dst", ADDRESSES["node2"], "self")
    traced.inside(traced.overlay("node1"), "bridge", "fdb", "del", mac, *entry)
    try:
        found = to_task(traced, "web.2", *QUICK, f"node1:{WEB}", host="node2", status=3)
    finally:
        traced.inside(traced.overlay("node1"), "bridge", "fdb", "add", mac, *entry)
    assert found["agrees"]
    assert found["last"]["place"] == "node1: overlay ingress"
