"""Question: what does a way of choosing tasks cost, per connection and in the plan, against plain round robin?

Setup of the first part: a lab of 3 nodes, and for each way a service of 2 replicas on node1 that never answer. The client sends
datagrams to node1, each the first of a connection, from one thread. What the kernel does with one, up to the task's socket, it
does in that thread: so the time is that of a whole new connection through the mesh, without programs and without answers. For
affinity once the clients are 1,000 that it knows, once each is new. Rounds in which all ways have their turn.
Setup of the second part: 100 services of 3 tasks on 50 nodes, all balanced one way; plan and diff of one node that is up to date,
processor time.
Budget: none, the ratios are what is asked.
"""

import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from itertools import count

from bench.cluster import addresses, as_client, client, lab, run_service
from bench.measurement import Measurement, Rival
from bench.plan_and_diff import CAPS, large_state
from routemesh.diff import diff
from routemesh.lab import topology
from routemesh.lab.find import Lab
from routemesh.labels.balance import balancing
from routemesh.model import Protocol, Publish, ServiceSpec, State
from routemesh.plan import plan
from routemesh.plan.view import view
from routemesh.values import replace

RUNS = 7
ENTRY, FIRST_PORT, TARGET = "node1", 5000, 80
FLOWS, KNOWN = 3000, 1000
SERVICES = 100
CLIENTS = IPv4Network("198.18.0.0/15")

_SILENT = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 80)); time.sleep(1e6)"
AFFINITY = {"routemesh.affinity": "client-ip"}
WAYS: Mapping[str, Mapping[str, str]] = {
    "rr": {},
    "wrr, weights 2 and 1": {"routemesh.weight": "2,.1=1"},
    "random": {"routemesh.lb": "random"},
    "sh": {"routemesh.lb": "sh"},
    "mh": {"routemesh.lb": "mh"},
    "affinity": AFFINITY,
}
NEWCOMERS = "affinity, unknown clients"


def measure(runs: int) -> Iterator[Measurement]:
    """Connections, then the plans."""
    yield from _connections(runs)
    yield from _plans(runs)


def _connections(runs: int) -> Iterator[Measurement]:
    with ExitStack() as stack:
        cluster = stack.enter_context(lab())
        ports = {way: FIRST_PORT + number for number, way in enumerate((*WAYS, NEWCOMERS))}
        for way, port in ports.items():
            run_service(client(cluster), _service(port, WAYS.get(way, AFFINITY)))
        _know_the_way_to_clients(cluster)
        stack.enter_context(as_client(cluster))
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        target, flows, strangers = IPv4Address(addresses(cluster)[ENTRY]), count(), count(KNOWN)
        costs: dict[str, list[float]] = {way: [] for way in ports}
        order = list(ports)
        for number in range(-1, runs):  # the first round makes the clients known
            first = number % len(order)
            for way in (*order[first:], *order[:first]):
                whose = strangers if way == NEWCOMERS else (flow % KNOWN for flow in count())
                packets = [_datagram(next(whose), next(flows), target, ports[way]) for _ in range(FLOWS)]
                costs[way].append(_send_us(sender, target, packets))
    yield from _against_the_first("a new connection: ", {way: cost[1:] for way, cost in costs.items()}, "µs")


def _service(port: int, labels: Mapping[str, str]) -> ServiceSpec:
    return ServiceSpec(
        name=f"way-{port}",
        replicas=2,
        command=(sys.executable, "-c", _SILENT),
        publish=(Publish(published=port, target=TARGET, protocol=Protocol.UDP),),
        constraints=(f"node.hostname=={ENTRY}",),
        labels=labels,
    )


def _know_the_way_to_clients(cluster: Lab) -> None:
    route = ("ip", "route", "add", str(CLIENTS), "via", str(topology.address(topology.CLIENT)))
    subprocess.run(("nsenter", f"--net={cluster.netns(ENTRY)}", *route), check=True)


def _datagram(client: int, flow: int, target: IPv4Address, port: int) -> bytes:
    """A UDP datagram of a few bytes, of the flow-th source port of a client; checksums are the kernel's or none."""
    source = CLIENTS.network_address + 1 + client
    udp = struct.pack("!HHHH", 1024 + flow % 60_000, port, 16, 0) + bytes(8)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
    return head + source.packed + target.packed + udp


def _send_us(sender: socket.socket, target: IPv4Address, packets: Sequence[bytes]) -> float:
    """Microseconds per packet: the median, lest what else the machine does counts."""
    to = (str(target), 0)
    times = []
    for packet in packets:
        started = time.perf_counter()
        sender.sendto(packet, to)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def _plans(runs: int) -> Iterator[Measurement]:
    times: dict[str, list[float]] = {}
    for way, labels in WAYS.items():
        state = _balanced(large_state(SERVICES), labels)
        node_id = next(iter(state.nodes))
        have = plan(view(state, node_id), CAPS)
        name = f"{way}, {sum(map(len, have.namespaces.values())):,} items"
        for _ in range(runs):
            started = time.thread_time()
            diff(have, plan(view(replace(state), node_id), CAPS))
            times.setdefault(name, []).append((time.thread_time() - started) * 1000)
    yield from _against_the_first(f"{SERVICES} services, nothing to change: ", times, "ms")


def _balanced(state: State, labels: Mapping[str, str]) -> State:
    how = balancing(labels)
    services = {key: replace(one, spec=replace(one.spec, balancing=how)) for key, one in state.services.items()}
    return replace(state, services=services)


def _against_the_first(what: str, samples: Mapping[str, list[float]], unit: str) -> Iterator[Measurement]:
    plain, *others = samples
    yield Measurement(what + plain, samples[plain], unit)
    for name in others:
        yield Measurement(what + name, samples[name], unit, Rival("rr", samples[plain]))
