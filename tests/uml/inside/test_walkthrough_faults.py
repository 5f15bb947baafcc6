"""What breaks the way of the walk-through, one thing after the other, is named by explain and by doctor.

The nodes are those of test_walkthrough, whose daemons are killed first: this module is the last to use them.
"""

import re
import subprocess
from pathlib import Path

import pytest

from routemesh.doctor import Finding, Severity
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from routemesh.explain.nouns import Explanation
from routemesh.snapshot import ClusterSnapshot
from tests.lab.cluster import ADDRESSES, CLIENT, Cluster
from tests.lab.faults import OVERLAY, SANDBOX, TASK, Fault, demand, inflict
from tests.lab.printed import Printed, fixes, looks, mends, typed
from tests.lab.still import Still, kill_daemons
from tests.support import require

OLD = 8081
MOST_ROUNDS = 3
SNAT = ("--label", "routemesh.client-ip=snat")
CONNECTION = (
    f"-p tcp -s {CLIENT} --sport 5555 --dport 8080 --reply-dst {CLIENT} --reply-port-src 8080 --reply-port-dst 5555 --timeout 600"
)
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
ANOTHER_MARK = "iptables -t mangle -A PREROUTING -p tcp -m tcp --dport 8080 -j MARK --set-mark 0x999"
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
    "another MARK": Fault(
        "SANDBOX", f"iptables -t mangle -F PREROUTING; {ANOTHER_MARK}", SANDBOX, "has mark 0x999"
    ),
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


def test_without_a_fault_nothing_is_found(still: Still) -> None:
    found = still.findings()
    assert {finding.state for finding in found} == {Severity.OK}, found
    assert found[0].found.startswith("all 4 ways")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_explain_and_by_doctor_and_what_they_print_mends_it(still: Still, fault: str) -> None:
    wrong = FAULTS[fault]
    node = inflict(still, wrong.where, wrong.command)
    is_whole = False
    try:
        if fault == "a neighbour missing":
            forget(still)
        now = still.read()
        found = explained(now, wrong)
        assert found.status == 3
        assert any(wrong.at in cause.place and wrong.why in cause.why for cause in found.causes), found.causes
        type_what_is_printed(still, wrong, node, found, demand(still, wrong.reported or wrong.at, now, node))
        is_whole = True
    finally:
        if wrong.undo:
            inflict(still, wrong.where, f"{wrong.undo} 2>/dev/null || true")
        if not is_whole:
            still.mend(node)


def explained(now: ClusterSnapshot, wrong: Fault) -> Explanation:
    """What is said without the nodes' plans, as of a Swarm."""
    return explain(now, ask(now, target(f"{wrong.node}:{wrong.port}"), "", None))


def type_what_is_printed(still: Still, wrong: Fault, node: str, found: Explanation, findings: list[Finding]) -> None:
    """What explain says, who does not know the plan; then what the doctor does, who knows it, until both are content."""
    passing: list[Printed] = []
    for _ in range(MOST_ROUNDS):
        for each in looks(found):
            assert typed(still, each).strip(), each
        for each in (commands := mends(found) or fixes(findings)):
            typed(still, each)
        passing += [each for each in commands if each.command.endswith("-j ACCEPT")]
        forget(still)
        now = still.read()
        found, findings = explained(now, wrong), [each for each in still.findings(now, node) if each.state is not Severity.OK]
        if found.outcome == "reaches" and not findings:
            break
    assert (found.outcome, findings) == ("reaches", []), (found.causes, commands)
    assert len({answer.hostname for answer in still.cluster.ask(ADDRESSES[wrong.node], wrong.port, 2)}) == 2
    for each in passing:
        back = re.sub(r" -[AI] (\S+)( \d+)?", r" -D \1", each.command)
        typed(still, each._replace(command=f"{back} 2>/dev/null || true"))  # the plan may have done without it


def forget(still: Still) -> None:
    """What was learned would hide that it can't be learned any more, or that it can again."""
    for node in still.plans:
        still.cluster.inside(f"{node}/{SANDBOX}", "ip", "neighbour", "flush", "dev", "eth0")


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("SANDBOX", "iptables -t nat -A POSTROUTING -j SNAT --to-source 10.0.0.250"),
        ("SANDBOX", "ipvsadm -E -f 256 -s lc; ipvsadm --set 900 120 300"),
        ("TASK", "ip route del default"),
    ],
)
def test_what_breaks_no_way_is_found_by_doctor_all_the_same_and_mended_as_it_prints(
    still: Still, place: str, command: str
) -> None:
    node = inflict(still, place, command)
    is_whole = False
    try:
        type_what_the_doctor_prints(still, node, demand(still, SANDBOX if place == "SANDBOX" else TASK, None, node))
        is_whole = True
    finally:
        if not is_whole:
            still.mend(node)


def type_what_the_doctor_prints(still: Still, node: str, findings: list[Finding]) -> None:
    """Once, and it finds nothing more."""
    for each in fixes(findings):
        typed(still, each)
    left = [finding for finding in still.findings(None, node) if finding.state is not Severity.OK]
    assert not left, left


@pytest.mark.parametrize(
    ("place", "leads"),
    [
        (f"node1/{SANDBOX}", "-d 172.18.0.2 --reply-src 10.0.0.250 --state ESTABLISHED"),
        ("node1", f"-d {ADDRESSES['node1']} --reply-src {ADDRESSES['node1']} --state SYN_SENT"),
    ],
)
def test_connections_that_lead_to_nobody_are_let_go_of_as_the_doctor_prints(still: Still, place: str, leads: str) -> None:
    require("conntrack")
    still.cluster.inside(place, "conntrack", "-I", *CONNECTION.split(), *leads.split())
    found = demand(still, place.replace("/", ": "), None, "node1")
    assert ["conntrack -D" in finding.fix for finding in found] == [True]
    type_what_the_doctor_prints(still, "node1", found)


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
        assert told
        for printed in fixes(told):
            subprocess.run(printed.command.split(), check=True)
        assert not [finding for finding in still.findings() if finding.what == "conntrack"]
    finally:
        ENTRIES.write_text(limit)
