"""Faults: what is done to a lab whose daemons are dead, and what explain and doctor must say of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

from routemesh.doctor import Finding, Severity
from routemesh.model import Protocol
from routemesh.nodeplan import Link
from routemesh.snapshot import ClusterSnapshot
from tests.lab.cluster import ADDRESSES, running
from tests.lab.still import Still, happens, kill_daemons, predicted
from tests.support import require

MOST_FINDINGS = 4
TASKS = 2
WEB, DNS, OLD = 8080, 5353, 8081
SERVICES = (
    ("web", ("-p", f"{WEB}:80")),
    ("dns", ("-p", f"{DNS}:80/udp")),
    ("old", ("-p", f"{OLD}:80", "--label", "routemesh.client-ip=snat")),
)
SANDBOX, OVERLAY, TASK = "ingress_sbox", "overlay ingress", "task web.2"


@dataclass(frozen=True)
class Fault:
    """`where` something is done: a command, or the deletion of what a plan has there. `at` and `why` are what is to be said.

    `reported`: where the doctor says that it is, if that is another place.
    Places: node1, node2, SANDBOX, OVERLAY, TASK (of web.2 on node2).
    """

    where: str
    command: str
    at: str
    why: str
    undo: str = ""
    node: str = "node1"
    port: int = WEB
    reported: str = ""
    told: str = ""
    """Why the doctor does not find it, where it does not."""


@contextmanager
def three_services(prefix: str) -> Iterator[Still]:
    """Two nodes, three services with a task on each node, and no daemon any more."""
    require("root", "netns", "nf_tables")
    with running(prefix, "--nodes", "2") as cluster:
        for name, options in SERVICES:
            cluster.cli("service", "create", "--name", name, "--replicas", str(TASKS), *options, "host", "routemesh", "whoami")
        yield kill_daemons(cluster)


def demand(still: Still, where: str, now: ClusterSnapshot | None = None, *nodes: str) -> list[Finding]:
    """The doctor finds it too, there, in few words, and knows what to do: that. `nodes`: as for Still.findings."""
    found = [finding for finding in still.findings(now, *nodes) if finding.state is Severity.WRONG]
    assert any(where in finding.where for finding in found), found
    assert 1 <= len(found) <= MOST_FINDINGS, found
    assert all(finding.effect and finding.fix for finding in found), found
    return found


def inflict(still: Still, where: str, command: str) -> str:
    """Do it in the namespace that is meant, and let nobody remember how it was before; the node on which that is."""
    task = next(task for task in still.known.names.tasks if task.name == "web.2")
    far = next(network for network in task.addresses.values())
    place = {
        "SANDBOX": "node1/ingress_sbox",
        "OVERLAY": still.cluster.overlay("node1"),
        "OVERLAY2": still.cluster.overlay("node2"),
        "TASK": f"{task.node}/{task.netns}",
    }.get(where, where)
    if command.startswith("table"):
        still.cluster.inside(place, "sh", "-c", f"printf '%s' '{command}' | nft -f -")
        forget_neighbours(still)
        return place.partition("/")[0]
    port = next(
        item.name
        for item in still.plans["node2"].namespaces[still.cluster.overlay("node2").partition("/")[2]].values()
        if isinstance(item, Link) and item.peer is not None and item.peer.netns == task.netns
    )
    words = command.replace("FARIP", str(far)).replace("FAR", mac(far)).replace("PORT", port)
    still.cluster.inside(place, "sh", "-c", words.replace("{", "'{").replace("}", "}'") if words.startswith("nft") else words)
    forget_neighbours(still)
    return place.partition("/")[0]


def mac(address: IPv4Address) -> str:
    return f"02:42:{address.packed.hex(':')}"


def forget_neighbours(still: Still) -> None:
    """What was learned before hides for a time, which depends on the machine, whether it can be learned now."""
    for place in places(still):
        still.cluster.inside(place, "ip", "neighbour", "flush", "all")


def places(still: Still) -> list[str]:
    return [f"{node}/{netns}" if netns else node for node, plan in still.plans.items() for netns in plan.namespaces]


def compare(
    still: Still, node: str, port: int, protocol: Protocol = Protocol.TCP, place: str = "client", client: str = ""
) -> str:
    """Hold the explanation against real connections; the verdict.

    Nothing may be untold: all that is in this lab is ours, and all of it was read.
    """
    found = still.explain(f"{node}:{port}/{protocol}", client)
    assert found.outcome != "untold", found.causes
    times = max(len(found.ways), 1) * TASKS
    expected = predicted(found, still, times)
    real = happens(still, place, ADDRESSES[node], port, protocol, times)
    if real != expected:  # on a busy machine a client may send its SYN again, which takes another task's turn
        real = happens(still, place, ADDRESSES[node], port, protocol, times)
    assert real == expected, f"{found.verdict}: {found.causes}"
    return found.verdict
