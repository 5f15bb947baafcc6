"""How connections are shared out, with real packets: shares, who stays with whom, what is near."""

import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from ipaddress import IPv4Address
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from tests.lab.cluster import ADDRESSES, Cluster, ask_by
from tests.lab.crowd import NETWORK, ask_as, clients, connect_as, crowd, name_over
from tests.support import wait_until

NODE1, NODE2, NODE3 = ADDRESSES.values()
CROWD = clients(1000)
AFFINITY = "routemesh.affinity=client-ip;timeout=1h"

Answers = Mapping[IPv4Address, str]


@pytest.fixture(scope="module")
def mesh(mesh: Cluster) -> Iterator[Cluster]:
    """The shared lab, with a crowd of clients."""
    with crowd(mesh):
        yield mesh


def by_slot(mesh: Cluster, service: str) -> dict[int, str]:
    """The serving tasks' hostnames."""
    return {task["slot"]: task["container"] for task in mesh.serving(service)}


def shares(answers: Answers) -> Counter[str]:
    return Counter(answers.values())


def moved(before: Answers, after: Answers) -> set[IPv4Address]:
    return {client for client, task in before.items() if after[client] != task}


def of(answers: Answers, task: str) -> set[IPv4Address]:
    """The clients of a task."""
    return {client for client, other in answers.items() if other == task}


def assert_likely(counts: Mapping[str, int], expected: Mapping[str, float], deviations: float = 5) -> None:
    """Each count is what so many independent draws may give: within five standard deviations."""
    total = sum(counts.values())
    assert counts.keys() <= expected.keys()
    for task, share in expected.items():
        assert abs(counts.get(task, 0) - total * share) <= deviations * sqrt(total * share * (1 - share)), (counts, expected)


def kill(mesh: Cluster, service: str, slot: int) -> None:
    """A task's process is killed, as by a crash."""
    (pid,) = (task["pid"] for task in mesh.serving(service) if task["slot"] == slot)
    os.kill(pid, signal.SIGKILL)


# --- shares ------------------------------------------------------------------------------------------------------


def test_weights_are_exact_shares_in_every_round(mesh: Cluster) -> None:
    labels = ("--label", "routemesh.weight=1,.1=5,.2=2,.4=0")
    with mesh.service("heavy", "--replicas", "4", "-p", "8100:80", *labels):
        tasks = by_slot(mesh, "heavy")
        for address in ADDRESSES.values():
            answers = [answer.hostname for answer in mesh.ask(address, 8100, times=24)]
            assert Counter(answers) == {tasks[1]: 15, tasks[2]: 6, tasks[3]: 3}
            assert all(len(set(answers[start : start + 3])) > 1 for start in range(22)), "in turn, not in blocks"


def test_random_shares_are_near_the_weights(mesh: Cluster) -> None:
    labels = ("--label", "routemesh.lb=random", "--label", "routemesh.weight=1,.1=3")
    with mesh.service("dice", "--replicas", "3", "-p", "8101:80", *labels):
        tasks = by_slot(mesh, "dice")
        answers = [answer.hostname for answer in mesh.ask(NODE1, 8101, times=600)]
        assert_likely(Counter(answers), {tasks[1]: 0.6, tasks[2]: 0.2, tasks[3]: 0.2})
        assert any(one == other for one, other in pairwise(answers)), "drawn, not in turn"


@pytest.mark.parametrize("scheduler", ["source-hash", "maglev"])
def test_a_hash_gives_each_client_one_task_through_every_node(mesh: Cluster, scheduler: str) -> None:
    with mesh.service("hashed", "--replicas", "3", "-p", "8102:80", "--label", f"routemesh.lb={scheduler}"):
        answers = ask_as(mesh, CROWD, NODE1, 8102)
        assert_likely(shares(answers), dict.fromkeys(by_slot(mesh, "hashed").values(), 1 / 3))
        for address in (NODE1, NODE2, NODE3):
            assert ask_as(mesh, CROWD[:100], address, 8102) == {client: answers[client] for client in CROWD[:100]}


# --- who stays, who moves ----------------------------------------------------------------------------------------


def test_maglev_moves_few_when_tasks_come_and_only_the_orphans_when_one_goes(mesh: Cluster) -> None:
    with mesh.service("maglev", "--replicas", "4", "-p", "8103:80", "--label", "routemesh.lb=mh"):
        before = ask_as(mesh, CROWD, NODE1, 8103)
        mesh.cli("service", "scale", "maglev=5")
        new = by_slot(mesh, "maglev")[5]
        grown = ask_as(mesh, CROWD, NODE2, 8103)
        movers = moved(before, grown)
        assert of(grown, new) <= movers
        assert_likely({"new": len(of(grown, new)), "old": len(CROWD) - len(of(grown, new))}, {"new": 0.2, "old": 0.8})
        assert len(movers - of(grown, new)) <= 0.08 * len(CROWD), "hardly anybody moves from one old task to another"
        mesh.cli("service", "scale", "maglev=4")
        assert ask_as(mesh, CROWD, NODE3, 8103) == before, "as if nothing had been"


def test_a_task_that_takes_a_dead_ones_place_takes_its_clients(mesh: Cluster) -> None:
    options = ("--replicas", "3", "-p", "8104:80", "--label", "routemesh.lb=mh", "--restart-delay", "0s")
    with mesh.service("slots", *options):
        before, tasks = ask_as(mesh, CROWD, NODE1, 8104), by_slot(mesh, "slots")
        kill(mesh, "slots", 2)
        wait_until(lambda: by_slot(mesh, "slots").get(2, tasks[2]) != tasks[2], 20, "another web.2")
        mesh.cli("service", "update", "slots")  # waits until every node knows
        after = ask_as(mesh, CROWD, NODE1, 8104)
        assert moved(before, after) == of(before, tasks[2]) == of(after, by_slot(mesh, "slots")[2])


def test_affinity_keeps_known_clients_through_scaling_and_moves_the_orphans_once(mesh: Cluster) -> None:
    with mesh.service("sticky", "--replicas", "3", "-p", "8105:80", "--label", AFFINITY):
        before = ask_as(mesh, CROWD, NODE1, 8105)
        assert_likely(shares(before), dict.fromkeys(by_slot(mesh, "sticky").values(), 1 / 3))
        strangers = ask_as(mesh, CROWD[:100], NODE2, 8105)
        assert strangers == {client: before[client] for client in CROWD[:100]}, "a node that does not know them chooses the same"

        mesh.cli("service", "scale", "sticky=5")
        assert ask_as(mesh, CROWD, NODE1, 8105) == before, "a known client stays"
        newcomers = ask_as(mesh, clients(2000)[1::2], NODE1, 8105)
        assert len(shares(newcomers)) == 5, "who is new meets all tasks"

        mesh.cli("service", "scale", "sticky=2")
        left = set(by_slot(mesh, "sticky").values())
        orphans = {client for client, task in before.items() if task not in left}
        after = ask_as(mesh, CROWD, NODE1, 8105)
        assert moved(before, after) == orphans
        assert set(after.values()) == left

        mesh.cli("service", "scale", "sticky=5")
        assert ask_as(mesh, CROWD, NODE1, 8105) == after, "nobody moves back"


def test_affinity_outlives_the_daemon(own_mesh: Cluster) -> None:
    with crowd(own_mesh), own_mesh.service("lasting", "--replicas", "3", "-p", "8106:80", "--label", AFFINITY):
        before = ask_as(own_mesh, CROWD[:200], NODE1, 8106)
        own_mesh.cli("service", "scale", "lasting=4")
        os.kill(_daemon(own_mesh)["pid"], signal.SIGKILL)
        assert ask_as(own_mesh, CROWD[:200], NODE1, 8106) == before
        own_mesh.lab("start", "node1")
        wait_until(lambda: _daemon(own_mesh)["ready"], 10, "the daemon")
        own_mesh.cli("service", "scale", "lasting=5")
        assert ask_as(own_mesh, CROWD[:200], NODE1, 8106) == before
        own_mesh.cli("diff", "node1")
        assert "no json callback" not in (own_mesh.directory / "disk" / "node1" / "daemon.log").read_text()


def test_orphans_are_forgotten_one_by_one(mesh: Cluster) -> None:
    with mesh.service("orphans", "--replicas", "2", "-p", "8107:80", "--label", AFFINITY):
        before = ask_as(mesh, CROWD[:50], NODE1, 8107)
        mesh.cli("service", "scale", "orphans=1")
        left = by_slot(mesh, "orphans")[1]
        mark = mesh.json("service", "inspect", "orphans")[0]["fwmark"]
        assert _remembered(mesh, mark) == of(before, left), "whose task is gone is forgotten, the others are not"


def test_draining_keeps_connections_and_gives_no_new_ones(mesh: Cluster) -> None:
    with mesh.service("drain", "--replicas", "2", "-p", "8108:80", "--label", AFFINITY):
        tasks, before = by_slot(mesh, "drain"), ask_as(mesh, CROWD[:50], NODE1, 8108)
        client = min(of(before, tasks[2]))
        with connect_as(mesh, client, NODE1, 8108) as kept:
            assert name_over(kept) == tasks[2]
            mesh.cli("service", "update", "--label-add", "routemesh.weight=1,.2=0", "drain")
            assert by_slot(mesh, "drain") == tasks, "no task is replaced for a weight"
            assert name_over(kept) == tasks[2]
            assert set(ask_as(mesh, CROWD[:50], NODE1, 8108).values()) == {tasks[1]}
            mesh.cli("service", "update", "--label-add", "routemesh.weight=1", "drain")
            assert name_over(kept) == tasks[2]
        assert set(ask_as(mesh, CROWD[:50], NODE1, 8108).values()) == {tasks[1]}, "they moved once"


def test_a_full_memory_leaves_the_hash(mesh: Cluster, tmp_path: Path) -> None:
    with mesh.service("full", "--replicas", "3", "-p", "8109:80", "--label", AFFINITY):
        known = ask_as(mesh, CROWD[:20], NODE1, 8109)
        mark = mesh.json("service", "inspect", "full")[0]["fwmark"]
        some_task = next(iter(_elements(mesh, "tasks", rf"{mark:#010x} \. (0x[0-9a-f]+)")))
        left = 65536 - len(known) - 1  # node1 has asked itself, too
        others = (f"{IPv4Address('10.0.0.0') + number} . {mark} timeout 1h : {some_task}" for number in range(left))
        file = tmp_path / "others.nft"
        file.write_text(f"add element ip routemesh clients {{ {', '.join(others)} }}\n")
        mesh.nft("node1/ingress_sbox", "-f", str(file))
        strangers = ask_as(mesh, CROWD[500:600], NODE1, 8109)
        assert strangers == ask_as(mesh, CROWD[500:600], NODE2, 8109), "as a node chooses that has room"
        assert ask_as(mesh, CROWD[:20], NODE1, 8109) == known
        assert _remembered(mesh, mark) >= set(CROWD[:20])
        assert not _remembered(mesh, mark) & set(CROWD[500:600])


def test_udp_clients_stay_too(mesh: Cluster) -> None:
    with mesh.service("voice", "--replicas", "3", "-p", "8110:80/udp", "--label", AFFINITY):
        before = {answer.hostname for answer in mesh.ask_udp(NODE1, 8110, times=10)}
        mesh.cli("service", "scale", "voice=5")
        assert len(before) == 1
        assert {answer.hostname for answer in mesh.ask_udp(NODE1, 8110, times=10)} == before


# --- changes under load ------------------------------------------------------------------------------------------


def test_weights_and_schedulers_change_under_open_connections(mesh: Cluster) -> None:
    with mesh.service("change", "--replicas", "2", "-p", "8111:80"), ExitStack() as opened:
        tasks = by_slot(mesh, "change")
        kept = [opened.enter_context(mesh.connect(NODE3, 8111)) for _ in range(4)]
        names = [name_over(connection) for connection in kept]
        for label in ("weight=3,.2=1", "lb=mh", "lb=random", "affinity=client-ip", "locality=prefer-local", "lb=rr"):
            mesh.cli("service", "update", "--label-add", f"routemesh.{label}", "change")
            assert [name_over(connection) for connection in kept] == names, label
        assert by_slot(mesh, "change") == tasks


# --- what is near ------------------------------------------------------------------------------------------------


def test_local_tasks_are_preferred_and_others_stand_in(mesh: Cluster) -> None:
    options = ("--constraint", "node.hostname!=node3", "--mode", "global", "-p", "8112:80")
    with mesh.service("near", *options, "--label", "routemesh.locality=prefer-local"):
        tasks = {task["node"]: task["container"] for task in mesh.serving("near")}
        assert {answer.hostname for answer in mesh.ask(NODE1, 8112, times=6)} == {tasks["node1"]}
        assert {answer.hostname for answer in mesh.ask(NODE2, 8112, times=6)} == {tasks["node2"]}
        assert Counter(answer.hostname for answer in mesh.ask(NODE3, 8112, times=6)) == dict.fromkeys(tasks.values(), 3)
        with mesh.connect(NODE1, 8112) as kept:
            assert name_over(kept) == tasks["node1"]
            mesh.cli("service", "update", "--label-add", "routemesh.weight=1,node1=0", "near")
            assert {answer.hostname for answer in mesh.ask(NODE1, 8112, times=4)} == {tasks["node2"]}
            assert name_over(kept) == tasks["node1"]


def test_a_node_without_a_local_task_refuses_at_once_if_told_so(mesh: Cluster) -> None:
    ports, locality = ("-p", "8113:80", "-p", "8113:80/udp"), ("--label", "routemesh.locality=local-only")
    options = ("--name", "own", "--constraint", "node.hostname==node2", *ports, *locality)
    said = mesh.cli("service", "create", *options, "host", "routemesh", "whoami")
    try:
        assert "converged: of all nodes, only node2 answers on 8113/tcp, 8113/udp, because only it has eligible tasks" in said
        assert mesh.ask(NODE2, 8113)[0].peer == "192.168.200.100"
        for address in (NODE1, NODE3):
            assert mesh.is_refused(address, 8113)
            with pytest.raises(ConnectionRefusedError):
                mesh.ask_udp_by_connection(address, 8113, "client")
        patient = mesh.at("client", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with patient:
            patient.sendto(b"hello", (NODE1, 8113))  # conntrack now knows where this flow leads: nowhere
            mesh.cli("service", "update", "--label-rm", "routemesh.locality", "own")
            assert ask_by(patient, NODE1, 8113).peer == "192.168.200.100"
        assert len({answer.hostname for address in ADDRESSES.values() for answer in mesh.ask(address, 8113)}) == 1
    finally:
        mesh.cli("service", "rm", "own")
        wait_until(lambda: not mesh.containers("own"), 30, "the end of its task")


def _daemon(mesh: Cluster) -> Mapping[str, Any]:
    return next(node for node in mesh.json("lab", "status", "--name", mesh.name) if node["name"] == "node1")


def _remembered(mesh: Cluster, mark: int) -> set[IPv4Address]:
    """Whom node1 knows of a service's clients, of the crowd."""
    found = map(IPv4Address, _elements(mesh, "clients", rf"(\d+\.\d+\.\d+\.\d+) \. {mark:#010x} timeout"))
    return {address for address in found if address in NETWORK}


def _elements(mesh: Cluster, name: str, pattern: str) -> list[str]:
    return re.findall(pattern, mesh.nft("node1/ingress_sbox", "list", "map", "ip", "routemesh", name))
