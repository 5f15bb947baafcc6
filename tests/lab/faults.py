"""Faults: what is done to a lab whose daemons are dead, and what explain and doctor must say of it."""

from dataclasses import dataclass
from ipaddress import IPv4Address

from routemesh.doctor import State
from routemesh.nodeplan import Link
from routemesh.snapshot import ClusterSnapshot
from tests.lab.still import Still

MOST_FINDINGS = 4
WEB = 8080
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


def demand(still: Still, where: str, now: ClusterSnapshot | None = None, *nodes: str) -> None:
    """The doctor finds it too, there, in few words, and knows what to do. `nodes`: as for Still.findings."""
    found = [finding for finding in still.findings(now, *nodes) if finding.state is State.WRONG]
    assert any(where in finding.where for finding in found), found
    assert 1 <= len(found) <= MOST_FINDINGS, found
    assert all(finding.effect and finding.fix for finding in found), found


def inflict(still: Still, where: str, command: str) -> str:
    """Do it in the namespace that is meant; the node on which that is."""
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
        return place.partition("/")[0]
    port = next(
        item.name
        for item in still.plans["node2"].namespaces[still.cluster.overlay("node2").partition("/")[2]].values()
        if isinstance(item, Link) and item.peer is not None and item.peer.netns == task.netns
    )
    words = command.replace("FARIP", str(far)).replace("FAR", mac(far)).replace("PORT", port)
    still.cluster.inside(place, "sh", "-c", words.replace("{", "'{").replace("}", "}'") if words.startswith("nft") else words)
    return place.partition("/")[0]


def mac(address: IPv4Address) -> str:
    return f"02:42:{address.packed.hex(':')}"
