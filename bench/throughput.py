"""Question: what is left of a program's speed when it is asked through the mesh, and what do proxies leave of it?

Setup: a lab of 3 nodes, and everything, the client too, on this one machine: whatever a packet costs is taken from client and
server as well. On node2, nginx (one process, a constant answer) and `iperf3 -s` run as services of one replica, one service for
each entry node (so that closed connections, which a replica remembers for a minute, are no matter between the ways), and as mere
programs on the node's own address. The client asks the latter directly; through the mesh by node1 (the replica is remote) and
node2 (local); and through HAProxy (TCP mode) and nginx (stream) on node1 and node2, in the packages' defaults, which forward to
the program on node2's own address. wrk: 1 thread, 16 connections, kept alive or one per request; iperf3: one TCP stream, client
to server. Rounds of 2 s in which all have their turn; ratios are of one round. Budget: none, the ratios are what is asked.
"""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from bench import webserver
from bench.cluster import addresses, answer, as_client, client, lab, program, run_service, scratch, until
from bench.measurement import Measurement, Rival
from bench.wrk import requests_per_s
from routemesh.lab.find import Lab
from routemesh.model import Publish, ServiceSpec


class Ports(NamedTuple):
    """Where the web server and the sink of a stream are reached."""

    web: int
    stream: int


class Way(NamedTuple):
    """How the client comes to the programs."""

    address: str
    ports: Ports


Speed = Callable[[Way], float]

RUNS = 5
SECONDS, CONNECTIONS = 2, 16
HOME = "node2"
ENTRIES = {"remote": "node1", "local": HOME}
MESH = {"remote": Ports(8080, 5201), "local": Ports(8081, 5202)}
TARGET, DIRECT, HAPROXY, NGINX = Ports(80, 5201), Ports(9080, 5300), Ports(9081, 5301), Ports(9082, 5302)

_HAPROXY = """
global
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""


def measure(runs: int) -> Iterator[Measurement]:
    """Keep-alive, one connection per request, one long stream."""
    with ExitStack() as stack:
        cluster = stack.enter_context(lab("wrk", "iperf3", "nginx", "haproxy"))
        directory = stack.enter_context(scratch())
        _start_services(cluster, directory)
        for machine, command in _programs(addresses(cluster)[HOME], directory):
            stack.enter_context(program(cluster, machine, command))
        stack.enter_context(as_client(cluster))
        ways = dict(_ways(addresses(cluster)))
        for name, way in ways.items():
            until(partial(answer, way.address, way.ports.web), f"the program answered: {name}")
        for kind, unit, speed in (
            ("keep-alive", "requests/s", _requests_per_s),
            ("a connection each", "requests/s", _connections_per_s),
            ("one stream", "Gbit/s", _gigabits_per_s),
        ):
            yield from _compare(kind, unit, speed, ways, runs)


def _start_services(cluster: Lab, directory: Path) -> None:
    commands = (webserver.answering(directory, TARGET.web), _iperf_server(TARGET.stream))
    for place, ports in MESH.items():
        for kind, command, published, target in zip(Ports._fields, commands, ports, TARGET, strict=True):
            spec = ServiceSpec(
                name=f"{kind}-{place}",
                command=command,
                publish=(Publish(published=published, target=target),),
                constraints=(f"node.hostname=={HOME}",),
            )
            run_service(client(cluster), spec)


def _programs(home: str, directory: Path) -> Iterator[tuple[str, Sequence[str]]]:
    """What runs on the nodes besides: machine and command."""
    yield HOME, webserver.answering(directory, DIRECT.web)
    yield HOME, _iperf_server(DIRECT.stream)
    proxies = (
        webserver.forwarding(directory, dict(zip(NGINX, _targets(home), strict=True))),
        _haproxy(directory, _targets(home)),
    )
    yield from product(ENTRIES.values(), proxies)


def _targets(home: str) -> tuple[str, ...]:
    return tuple(f"{home}:{port}" for port in DIRECT)


def _ways(nodes: Mapping[str, str]) -> Iterator[tuple[str, Way]]:
    """The direct one first."""
    yield "direct", Way(nodes[HOME], DIRECT)
    for place, entry in ENTRIES.items():
        for name, ports in (("mesh", MESH[place]), ("HAProxy", HAPROXY), ("nginx stream", NGINX)):
            yield f"{name}, {place}", Way(nodes[entry], ports)


def _compare(kind: str, unit: str, speed: Speed, ways: Mapping[str, Way], runs: int) -> Iterator[Measurement]:
    """All ways in turn, `runs` times, each round beginning with another."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for number in range(runs):
        first = number % len(order)
        for name in (*order[first:], *order[:first]):
            speeds[name].append(speed(ways[name]))
    direct, *others = order
    yield Measurement(f"{kind}: {direct}", speeds[direct], unit)
    for name in others:
        yield Measurement(f"{kind}: {name}", speeds[name], unit, Rival(direct, speeds[direct]))


def _requests_per_s(way: Way) -> float:
    return _wrk(way)


def _connections_per_s(way: Way) -> float:
    return _wrk(way, "--header", "Connection: close")


def _gigabits_per_s(way: Way) -> float:
    return until(partial(_stream, way), f"iperf3 at {way.address}:{way.ports.stream} had a result")


def _stream(way: Way) -> float | None:
    """None while the server is still busy with the end of the measurement before."""
    command = ("iperf3", "--client", way.address, "--port", str(way.ports.stream), "--time", str(SECONDS), "--json")
    done = subprocess.run(command, capture_output=True, text=True)
    received = json.loads(done.stdout)["end"].get("sum_received")
    return float(received["bits_per_second"]) / 1e9 if received else None


def _wrk(way: Way, *words: str) -> float:
    return requests_per_s(f"http://{way.address}:{way.ports.web}/", CONNECTIONS, SECONDS, *words)


def _iperf_server(port: int) -> tuple[str, ...]:
    return ("iperf3", "--server", "--port", str(port))


def _haproxy(directory: Path, targets: Sequence[str]) -> tuple[str, ...]:
    listeners = (
        f"listen port-{port}\n    bind :{port}\n    server backend {target}\n"
        for port, target in zip(HAPROXY, targets, strict=True)
    )
    file = directory / "haproxy.cfg"
    file.write_text(_HAPROXY + "".join(listeners))
    return ("haproxy", "-db", "-f", str(file))
