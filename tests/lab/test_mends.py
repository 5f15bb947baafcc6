"""Whatever explain and doctor print to mend a fault mends it, typed as it is printed; and it takes nothing of others away."""

from collections.abc import Iterator

import pytest

from routemesh.doctor import Severity
from tests.lab.cluster import ADDRESSES, CLIENT
from tests.lab.faults import (
    OVERLAY,
    SANDBOX,
    TASK,
    Fault,
    compare,
    demand,
    forget_neighbours,
    inflict,
    three_services,
)  # fmt: skip
from tests.lab.kinds import KINDS, NOT_MADE, PROVED, kinds
from tests.lab.printed import fixes, looks, mends, typed
from tests.lab.still import Still

MOST_ROUNDS = 3
"""What hangs on a link is told once that is up again; what a policy drops, first of requests, then of answers."""


@pytest.fixture(scope="module")
def still() -> Iterator[Still]:
    """Two nodes, three services with a task on each node, and no daemon any more."""
    with three_services("mends") as lab:
        yield lab


@pytest.fixture
def mended(still: Still) -> Iterator[Still]:
    """The lab, which is whole again afterwards."""
    yield still
    still.mend()
    forget_neighbours(still)


FAR, OTHERS = ADDRESSES["node2"], "the doctor asks as another client"
DROP = "table inet enemy {{ chain c {{ type filter hook {} priority -5; {} drop;\n}}\n}}\n"
REJECT = DROP.replace(" drop;", " reject;")
POLICY = "table inet enemy { chain c { type filter hook forward priority -5; policy drop;\n}\n}\n"
ENEMY, PEACE = "filter c drops it (inet enemy: ", "nft delete table inet enemy"
UNTRACKED = "table inet enemy { chain c { type filter hook prerouting priority -300; meta l4proto tcp notrack;\n}\n}\n"
LOOSE = "filter c keeps connection tracking from it"
OFF = "sysctl -w net.ipv4.conf.{}.forwarding=0"
FAULTS = {
    "a port that is not published": Fault(
        "node1", "nft flush set ip routemesh published", "node1", "not forwarded to the sandbox"
    ),
    "a port without a mark": Fault("SANDBOX", "nft flush map ip routemesh marks", SANDBOX, "gets no firewall mark"),
    "a mark without a chain": Fault("SANDBOX", "nft flush map ip routemesh services", SANDBOX, "nothing balances what has mark"),
    "a backend missing": Fault(
        "SANDBOX", "nft delete element ip routemesh backends { 256 . 1 }", SANDBOX, "nothing balances what has mark"
    ),
    "a drop in the node's forward": Fault("node1", DROP.format("forward", "tcp dport 8080"), "node1", ENEMY, PEACE),
    "VXLAN dropped": Fault("node2", DROP.format("input", "udp dport 4789"), "node2", ENEMY, PEACE),
    "a drop in the sandbox": Fault("SANDBOX", DROP.format("forward", "tcp dport 8080"), SANDBOX, ENEMY, PEACE),
    "a drop in the task": Fault("TASK", DROP.format("input", "tcp dport 80"), TASK, ENEMY, PEACE),
    "a rejection in the task": Fault("TASK", REJECT.format("input", "tcp dport 80"), TASK, "rejects with icmp", PEACE),
    "a policy that drops": Fault("node1", POLICY, "node1", "the policy of filter c drops it", PEACE),
    "connections that are not tracked": Fault("node1", UNTRACKED, "node1", LOOSE, PEACE),
    "connections that the sandbox does not track": Fault("SANDBOX", UNTRACKED, SANDBOX, LOOSE, PEACE),
    "a node that does not forward": Fault("node1", OFF.format("eth0"), "node1", "forwards nothing"),
    "a node's bridge that does not forward": Fault("node1", OFF.format("docker_gwbridge"), "node1", "forwards nothing"),
    "a sandbox that does not forward": Fault("SANDBOX", OFF.format("eth1"), SANDBOX, "forwards nothing"),
    "a strict reverse path filter": Fault("TASK", "sysctl -w net.ipv4.conf.eth0.rp_filter=1", TASK, "rp_filter is 1"),
    "an FDB entry missing": Fault("OVERLAY", "bridge fdb del FAR dev vxlan0 self", OVERLAY, "does not know which node has"),
    "an FDB entry of another node": Fault(
        "OVERLAY",
        "bridge fdb replace FAR dev vxlan0 dst 192.168.200.77 self permanent",
        "outside",
        "belongs to no node",
        reported=OVERLAY,
    ),
    "a bridge that is down": Fault("node1", "ip link set docker_gwbridge down", "node1", "docker_gwbridge is down"),
    "the sandbox's gateway link down": Fault("SANDBOX", "ip link set eth1 down", SANDBOX, "eth1 is down"),
    "the sandbox's overlay link down": Fault("SANDBOX", "ip link set eth0 down", SANDBOX, "eth0 is down"),
    "the overlay's bridge down": Fault("OVERLAY", "ip link set br0 down", OVERLAY, "br0 is down"),
    "the tunnel down": Fault("OVERLAY", "ip link set vxlan0 down", OVERLAY, "vxlan0 is down"),
    "the task's link down": Fault("TASK", "ip link set eth0 down", TASK, "eth0 is down"),
    "a port that is in no bridge": Fault("OVERLAY2", "ip link set PORT nomaster", OVERLAY, ""),
    "the sandbox without a default route": Fault("SANDBOX", "ip route del default", SANDBOX, "no route to"),
    "the node without the route to its bridge": Fault(
        "node1", "ip route del 172.18.0.0/16 dev docker_gwbridge", "node1", "no route to"
    ),
    "no redirection": Fault("TASK", "nft flush map ip routemesh ports", TASK, "is not redirected to 80"),
    "no rule for the way back": Fault("TASK", "ip rule del pref 82", "", "the answer is lost"),
    "no route for the way back": Fault("TASK", "ip route flush table 82", "", "the answer is lost"),
    "no sandbox known in the task": Fault("TASK", "nft flush map ip routemesh nodes", "", "the answer is lost"),
    "no MAC for the way back": Fault("TASK", "nft flush map netdev routemesh macs", "", "the answer is lost"),
    "a wrong MAC": Fault("TASK", "ip link set eth0 address 02:42:00:00:00:01", TASK, "", reported=TASK),
    "a neighbour with a wrong MAC": Fault(
        "SANDBOX", "ip neighbour replace FARIP lladdr 02:42:00:00:00:01 dev eth0 nud permanent", OVERLAY, "", reported=SANDBOX
    ),
    "an overlay port with a small MTU": Fault("OVERLAY2", "ip link set PORT mtu 1200", OVERLAY, "large packets are lost"),
    "a tunnel with a small MTU": Fault("OVERLAY", "ip link set vxlan0 mtu 1200", OVERLAY, "large packets are lost"),
    "an underlay with a small MTU": Fault("node2", "ip link set eth0 mtu 1300", "node2", "large packets are lost"),
    "a bridge without its port": Fault("OVERLAY", "ip link set vxlan0 nomaster", OVERLAY, ""),
    "a rule that sends all away": Fault("node1", "ip rule add pref 5 blackhole", "node1", "", "ip rule del pref 5"),
    "a black hole for one client": Fault(
        "node1", f"ip route add blackhole {CLIENT}", "node1", "is a black hole", f"ip route del blackhole {CLIENT}", told=OTHERS
    ),
    "a client that is unreachable": Fault(
        "node1", f"ip route add unreachable {CLIENT}", "node1", "unreachable", f"ip route del unreachable {CLIENT}", told=OTHERS
    ),
    "a wrong MAC of the other node": Fault(
        "node1",
        f"ip neighbour replace {FAR} lladdr 02:42:00:00:00:99 dev eth0 nud permanent",
        "node1",
        f"the ARP table has 02:42:00:00:00:99 for {FAR}",
        f"ip neighbour del {FAR} dev eth0",
    ),
    "an IPsec policy against the other node": Fault(
        "node1",
        f"ip xfrm policy add src 0.0.0.0/0 dst {FAR}/32 dir out action block",
        "node1",
        f"an IPsec policy (out, 0.0.0.0/0 to {FAR}/32) blocks it",
        f"ip xfrm policy delete src 0.0.0.0/0 dst {FAR}/32 dir out",
    ),
    "a drop of frames in the overlay": Fault(
        "OVERLAY",
        "table bridge enemy { chain c { type filter hook forward priority -5; ip protocol tcp drop;\n}\n}\n",
        OVERLAY,
        "filter c drops it (bridge enemy: ",
        "nft delete table bridge enemy",
    ),
    "a route of others to the sandbox": Fault(
        "node1", f"ip route add 172.18.0.2/32 via {FAR}", "node1", "leads to eth0, and", "ip route del 172.18.0.2/32"
    ),
    "a route of others to a task": Fault(
        "SANDBOX", "ip route add FARIP/32 via 172.18.0.1", SANDBOX, "leads to eth1, and", "ip route del FARIP/32"
    ),
    "a default route takes over for the bridge": Fault(
        "node1",
        "ip route add default via 192.168.200.254; ip route del 172.18.0.0/16 dev docker_gwbridge",
        "node1",
        "leads to eth0, and that address is behind docker_gwbridge",
    ),
    "two ports that may not reach one another": Fault(
        "OVERLAY2", "bridge link set dev vxlan0 isolated on; bridge link set dev PORT isolated on", OVERLAY, "isolated"
    ),
    "an address missing": Fault("TASK", "ip address del FARIP/24 dev eth0", TASK, "eth0 has no address"),
}


def test_each_kind_of_reason_has_its_fault_or_the_reason_why_it_has_none() -> None:
    assert PROVED.keys() | NOT_MADE.keys() == KINDS
    assert not PROVED.keys() & NOT_MADE.keys()
    assert set(PROVED.values()) <= FAULTS.keys()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_where_it_is_said_and_what_is_printed_mends_it(mended: Still, fault: str) -> None:
    wrong = FAULTS[fault]
    inflict(mended, wrong.where, wrong.command)
    try:
        compare(mended, wrong.node, wrong.port)
        found = mended.explain(f"{wrong.node}:{wrong.port}")
        assert found.status == 3
        assert {kind for kind, by in PROVED.items() if by == fault} <= kinds(found)
        assert any(wrong.at in cause.place and wrong.why in cause.why for cause in found.causes), found.causes
        if wrong.told != OTHERS:
            demand(mended, wrong.reported or wrong.at)
        assert bool(looks(found)) == bool(wrong.undo), "what is others' is shown, and nothing of it is undone"
        type_what_explain_prints(mended, wrong)
        type_what_the_doctor_prints(mended)
        compare(mended, wrong.node, wrong.port)
    finally:
        if wrong.undo:
            inflict(mended, wrong.where, f"{wrong.undo} 2>/dev/null || true")


def type_what_explain_prints(still: Still, wrong: Fault) -> None:
    """Until the port that was asked is reached."""
    for _ in range(MOST_ROUNDS):
        found = still.explain(f"{wrong.node}:{wrong.port}")
        if found.outcome == "reaches":
            return
        for each in looks(found):
            assert typed(still, each).strip(), each
        for each in mends(found):
            typed(still, each)
        if not mends(found):
            inflict(still, wrong.where, wrong.undo)  # only its owner can
        forget_neighbours(still)
    found = still.explain(f"{wrong.node}:{wrong.port}")
    assert found.outcome == "reaches", found.causes


def type_what_the_doctor_prints(still: Still) -> None:
    """Until nothing is found: a fault of one port may be one of others too."""
    for _ in range(MOST_ROUNDS):
        found = [finding for finding in still.findings() if finding.state is not Severity.OK]
        if not found:
            return
        for each in fixes(found):
            typed(still, each)
        forget_neighbours(still)
    found = [finding for finding in still.findings() if finding.state is not Severity.OK]
    assert not found, found
