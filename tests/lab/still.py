"""A lab whose daemons are dead: nothing is repaired, so that what is broken stays so, and packets go on all the same."""

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar, cast

from routemesh.api.client import Client
from routemesh.codec.plain import restored
from routemesh.diff import diff
from routemesh.doctor import Finding
from routemesh.doctor.facts import Facts, NodeFacts, differences
from routemesh.doctor.mesh import findings
from routemesh.explain.answer import explain
from routemesh.explain.ask import ask, target
from routemesh.explain.mend import Repair
from routemesh.explain.nouns import Explanation
from routemesh.kernel.linux import LinuxKernel
from routemesh.lab import direct, topology
from routemesh.lab.find import load
from routemesh.language import command
from routemesh.model import Protocol
from routemesh.nodeplan import Item, NodePlan, Op, namespace
from routemesh.sight.checkup import check_up
from routemesh.snapshot import ClusterSnapshot
from routemesh.values import replace
from tests.lab.cluster import Cluster
from tests.support import patience, wait_until

T = TypeVar("T")

FAILED = "failed"
OVERLAY_MTU = 1450
_ANSWER_S = 1.5


@dataclass(frozen=True)
class Still:
    """The lab as it was when its daemons were killed: what the manager knew, and what each node should have."""

    cluster: Cluster
    known: ClusterSnapshot
    plans: Mapping[str, NodePlan]

    def read(self) -> ClusterSnapshot:
        """Everything, as it is now."""
        return direct.with_silent_nodes(self.known, load(self.cluster.name))

    def explain(self, what: str, client: str = "") -> Explanation:
        """What is said of a connection, with what the nodes' plans would repair."""
        now = self.read()
        asked = ask(now, target(what), client, topology.address(topology.CLIENT))
        found = explain(now, asked)
        return found if found.outcome == "reaches" else explain(now, asked, self.repairs())

    def findings(self, now: ClusterSnapshot | None = None, *nodes: str) -> tuple[Finding, ...]:
        """What the doctor says, with packets sent between the nodes. `nodes`: who says something of itself, if not all."""
        asked = nodes or tuple(self.plans)
        with ThreadPoolExecutor() as both:
            told = dict(zip(asked, both.map(self._facts, asked), strict=True))
        return findings(now or self.read(), Facts(nodes=told))

    def _facts(self, node: str) -> NodeFacts:
        others = [other for other in self.known.names.nodes if other.name != node and other.ingress_address is not None]
        peers = {other.name: (cast(IPv4Address, other.ingress_address), OVERLAY_MTU) for other in others}
        spaces, address = self.cluster.directory / node / "netns", topology.address(node)
        probes, offloads = self.cluster.at(node, lambda: check_up(spaces, address, peers, _ANSWER_S / 5 * patience()))
        wrong = differences(self.missing(node), partial(self._path, node))
        return NodeFacts(node=node, differences=wrong, probes=probes, offloads=offloads)

    def repairs(self) -> dict[str, list[Repair]]:
        """What every node would do if its daemon lived."""
        return {
            node: [Repair(op.netns, command(op, partial(self._path, node)), op) for op in self.missing(node)]
            for node in self.plans
        }

    def _path(self, node: str, netns: str) -> Path:
        return self.cluster.netns(f"{node}/{netns}")

    def missing(self, node: str) -> tuple[Op, ...]:
        """What a node lacks of its plan."""
        plan = self.plans[node]
        return self._with_kernel(node, lambda kernel: diff(kernel.read(plan), plan))

    def change(self, node: str, op: Op) -> bool:
        """Do something to a node's kernel; whether it let us."""
        return not self._with_kernel(node, lambda kernel: kernel.apply([op]))

    def mend(self, *nodes: str) -> None:
        """Bring nodes, all if none is named, to their plans again, and their devices up, which are in no plan."""
        for node in nodes or self.plans:
            self.cluster.inside(node, "ip", "link", "set", "eth0", "up")
            wait_until(partial(self._mended, node), what=f"{node} as planned")

    def _mended(self, node: str) -> bool:
        """What one pass did without a refusal another would not change (rule 7)."""
        plan = self.plans[node]
        return self._with_kernel(node, lambda kernel: not kernel.apply(diff(kernel.read(plan), plan)))

    def _with_kernel(self, node: str, work: Callable[[LinuxKernel], T]) -> T:
        def inside() -> T:
            with closing(LinuxKernel(self.cluster.directory / node, topology.address(node))) as kernel:
                return work(kernel)

        return self.cluster.at(node, inside)


def kill_daemons(cluster: Cluster) -> Still:
    """What the manager knows and nodes should have, and then the end of all daemons."""
    lab = load(cluster.name)
    client = Client(lab.node("node1").socket)
    known = client.snapshot()
    absent = tuple(replace(node, absent="its daemon is dead") for node in known.names.nodes)
    plans = {node: _plan(client, node) for node in lab.node_names}
    pids = [int(line.split()[3]) for line in cluster.lab("status").splitlines()[1:]]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="the daemons' end")
    return Still(cluster, replace(known, nodes={}, names=replace(known.names, nodes=absent)), plans)


def _plan(client: Client, node: str) -> NodePlan:
    found = client.plan(node).namespaces
    return NodePlan({space.name: namespace(_items(space.items)) for space in found})


def _items(raw: Iterable[object]) -> list[Item]:
    return [cast(Item, restored(object, item)) for item in raw]


def predicted(found: Explanation, still: Still, times: int) -> Counter[str]:
    """How many of so many connections get to which task (by its hostname), and how many fail."""
    hosts = {task.name: task.netns for task in still.known.names.tasks}
    counts: Counter[str] = Counter()
    for way in found.ways:
        number = Fraction(*way.share) * times
        assert number.denominator == 1, "ask as often as there are ways, or a multiple of it"
        counts[hosts[way.task] if way.arrives else FAILED] += int(number)
    return counts


def happens(still: Still, place: str, address: str, port: int, protocol: Protocol, times: int) -> Counter[str]:
    """What comes of so many connections, all begun at once."""
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def attempt() -> None:
        outcome = FAILED
        with suppress(OSError, AssertionError, IndexError):
            outcome = still.cluster.at(place, lambda: _asked(address, port, protocol))
        with lock:
            counts[outcome] += 1

    threads = [threading.Thread(target=attempt) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def _asked(address: str, port: int, protocol: Protocol) -> str:
    """The hostname in whoami's answer."""
    if protocol is Protocol.UDP:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_ANSWER_S * patience())
            sender.sendto(b"hello", (address, port))
            data, source = sender.recvfrom(65536)
            assert source == (address, port)
            return _hostname(data.decode())
    with socket.create_connection((address, port), timeout=_ANSWER_S * patience()) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
        return _hostname(b"".join(iter(lambda: connection.recv(65536), b"")).decode())


def _hostname(text: str) -> str:
    return next(line.partition(": ")[2] for line in text.splitlines() if line.startswith("Hostname: "))
