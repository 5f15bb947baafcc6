"""What breaks the way of the walk-through, one thing after the other, is named by explain and by doctor.

The nodes are those of test_walkthrough, whose daemons are killed first: this module is the last to use them.
"""

import subprocess
from pathlib import Path

import pytest

from routemesh.doctor import Finding, Severity
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from tests.lab.cluster import ADDRESSES, Cluster
from tests.lab.faults import OVERLAY, SANDBOX, TASK, Fault, demand, inflict
from tests.lab.printed import fixes, looks, mends, typed
from tests.lab.still import Still, kill_daemons

OLD = 8081
MOST_ROUNDS = 3
SNAT = ("--label", "routemesh.client-ip=snat")
ENTRIES = Path("/proc/sys/net/netfilter/nf_conntrack_max")


@pytest.fixture(scope="module")
def still(swarm: Cluster) -> Still:
    options = ("--name", "old", "--replicas", "2", "-p", f"{OLD}:80", *SNAT)
    swarm.cli("service", "create", *options, "host", "routemesh", "whoami")
    found = kill_daemons(swarm)
    forget(found)
    return found


DROPS = "filter {} drops it"
UNSERVED = "web.2 serves, but gets no connections"
NO_SNAT = "iptables -t nat -F POSTROUTING"
FAULTS = {
    "DNAT missing": Fault("node1", "iptables -t nat -F DOCKER-INGRESS", "node1", "not forwarded to the sandbox"),
    "DROP in the node's FORWARD": Fault(
        "node1", "iptables -I FORWARD -p tcp --dport 8080 -j DROP", "node1", DROPS.format("FORWARD"),
        "iptables -D FORWARD -p tcp --dport 8080 -j DROP",
    ),
    "DROP of VXLAN in INPUT": Fault(
        "node2", "iptables -I INPUT -p udp --dport 4789 -j DROP", "node2", DROPS.format("INPUT"),
        "iptables -D INPUT -p udp --dport 4789 -j DROP",
    ),
    "a node that does not forward": Fault("node1", "sysctl -w net.ipv4.conf.eth0.forwarding=0", "node1", "forwards nothing"),
    "MARK missing": Fault("SANDBOX", "iptables -t mangle -F PREROUTING", SANDBOX, "gets no firewall mark"),
    "DROP in the sandbox": Fault("SANDBOX", "iptables -I INPUT -p tcp --dport 8080 -j DROP", SANDBOX, DROPS.format("INPUT")),
    "IPVS service missing": Fault("SANDBOX", "ipvsadm -D -f 256", SANDBOX, "nothing balances what has mark 0x100"),
    "IPVS destination missing": Fault("SANDBOX", "ipvsadm -d -f 256 -r FARIP:0", SANDBOX, UNSERVED),
    "IPVS destination of weight 0": Fault("SANDBOX", "ipvsadm -e -f 256 -r FARIP:0 -m -w 0", SANDBOX, UNSERVED),
    "SNAT missing": Fault("SANDBOX", NO_SNAT, "", "the answer is lost", port=OLD, reported=SANDBOX),
    "the sandbox without a default route": Fault("SANDBOX", "ip route del default", SANDBOX, "no route to"),
    "the sandbox's gateway link down": Fault("SANDBOX", "ip link set eth1 down", SANDBOX, "eth1 is down"),
    "the tunnel down": Fault("OVERLAY", "ip link set vxlan0 down", OVERLAY, "vxlan0 is down"),
    "an FDB entry missing": Fault("OVERLAY", "bridge fdb del FAR dev vxlan0 self", OVERLAY, "does not know which node has"),
    "a neighbour missing": Fault("OVERLAY", "ip neighbour del FARIP dev vxlan0", "", "", reported=OVERLAY),
    "REDIRECT missing": Fault("TASK", "iptables -t nat -F PREROUTING", TASK, "is not redirected to 80"),
    "DROP in the task": Fault("TASK", "iptables -I INPUT -p tcp --dport 80 -j DROP", TASK, DROPS.format("INPUT")),
    "a strict reverse path filter": Fault("TASK", "sysctl -w net.ipv4.conf.eth0.rp_filter=1", TASK, "rp_filter is 1"),
    "the task's link down": Fault("TASK", "ip link set eth0 down", TASK, "eth0 is down"),
}  # fmt: skip


TYPED = (
    "DNAT missing", "DROP in the node's FORWARD", "DROP of VXLAN in INPUT", "a node that does not forward", "MARK missing"
)  # fmt: skip
"""Of which what is printed is typed, in this slow machine; tests/lab/test_mends.py does it of all of the other engine's."""


def test_without_a_fault_nothing_is_found(still: Still) -> None:
    found = still.findings()
    assert {finding.state for finding in found} == {Severity.OK}, found
    assert found[0].found.startswith("all 4 ways")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_explain_and_by_doctor(still: Still, fault: str) -> None:
    wrong = FAULTS[fault]
    node = inflict(still, wrong.where, wrong.command)
    try:
        if fault == "a neighbour missing":
            forget(still)
        now = still.read()
        found = explain(now, ask(now, target(f"{wrong.node}:{wrong.port}"), "", None))
        assert found.status == 3
        assert any(wrong.at in cause.place and wrong.why in cause.why for cause in found.causes), found.causes
        demand(still, wrong.reported or wrong.at, now, node)
        if fault in TYPED:
            type_what_is_printed(still, wrong, node)
    finally:
        if wrong.undo:
            inflict(still, wrong.where, f"{wrong.undo} 2>/dev/null || true")
        still.mend(node)


def type_what_is_printed(still: Still, wrong: Fault, node: str) -> None:
    """What explain says without knowing the plan, as of a Swarm; then what the doctor does, who knows it."""
    for _ in range(MOST_ROUNDS):
        now = still.read()
        found = explain(now, ask(now, target(f"{wrong.node}:{wrong.port}"), "", None))
        for each in looks(found):
            assert typed(still, each).strip(), each
        for each in mends(found):
            typed(still, each)
        if not mends(found):
            break
        forget(still)
    wrong_still: list[Finding] = []
    for _ in range(MOST_ROUNDS):
        wrong_still = [finding for finding in still.findings(None, node) if finding.state is not Severity.OK]
        if not wrong_still:
            break
        for each in fixes(wrong_still):
            typed(still, each)
        forget(still)
    assert not wrong_still, wrong_still
    now = still.read()
    assert explain(now, ask(now, target(f"{wrong.node}:{wrong.port}"), "", None)).outcome == "reaches"
    assert len({answer.hostname for answer in still.cluster.ask(ADDRESSES[wrong.node], wrong.port, 2)}) == 2


def forget(still: Still) -> None:
    """What was learned would hide that it can't be learned any more, or that it can again."""
    for node in still.plans:
        still.cluster.inside(f"{node}/{SANDBOX}", "ip", "neighbour", "flush", "dev", "eth0")


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("SANDBOX", "iptables -t nat -A POSTROUTING -j SNAT --to-source 10.0.0.250"),
        ("TASK", "ip route del default"),
    ],
)
def test_what_breaks_no_way_is_found_by_doctor_all_the_same(still: Still, place: str, command: str) -> None:
    node = inflict(still, place, command)
    try:
        demand(still, SANDBOX if place == "SANDBOX" else TASK, None, node)
    finally:
        still.mend(node)


def test_a_full_table_of_connections(still: Still) -> None:
    """The limit is one for all namespaces; connections are made before it is lowered."""
    still.cluster.ask("192.168.200.10", 8080, 2)
    limit = ENTRIES.read_text()
    ENTRIES.write_text("1")
    try:
        now = still.read()
        found = explain(now, ask(now, target("node1:8080"), "", None))
        (full,) = (cause for cause in found.causes if "connection tracking table is full" in cause.why)
        assert full.mend, found.causes
        for command in full.mend:  # as printed, on the machine
            subprocess.run(command.split(), check=True)
        now = still.read()
        assert explain(now, ask(now, target("node1:8080"), "", None)).outcome == "reaches"
        ENTRIES.write_text("1")
        now = still.read()
        told = [finding for finding in still.findings(now) if finding.what == "conntrack"]
        assert told and all("nf_conntrack_max" in finding.fix for finding in told)
    finally:
        ENTRIES.write_text(limit)
