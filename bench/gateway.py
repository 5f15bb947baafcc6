"""Question: what does the gateway cost over the same proxy configured by hand, and what a task's change among 1,000 servers?

Setup, throughput: a lab of 3 nodes on this one machine; one nginx (one process, a constant answer) as a service behind the
gateway on node2. `by hand` is the same program with the same options (time-outs, access log, headers for the task), but for one
host name only, in the namespace of the gateway's task on node1, so that both have one way to clients and to the task. wrk on
node1: 1 thread, 16 connections, kept alive, rounds of 2 s in which all have their turn; ratios are of one round. `mesh alone` and
`direct` are the published port and the program's own address. Wanted: 0.95 of the same proxy by hand. Setup, change: a real
HAProxy in a namespace of its own, 100 services of 10 tasks; from the table to the process doing it, with what runs read back
before and after. Budget: 100 ms for a task, 1 s for a route.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from bench import webserver, wrk
from bench.cluster import addresses, answer, client, lab, program, run_service, scratch, until
from bench.measurement import Limit, Measurement, Rival
from routemesh.gateway.files import Directory
from routemesh.gateway.haproxy import Haproxy
from routemesh.gateway.proxies import Inside
from routemesh.gateway.supervise import PROGRAMS
from routemesh.kernel import netns
from routemesh.lab.find import Lab
from routemesh.model import Gateway, GatewayDriver, Http, Publish, ServiceId, ServiceSpec
from routemesh.proxy import haproxy, service
from routemesh.proxy.routes import Backend, Route, RouteTable, Server
from routemesh.values import replace

RUNS = 5
SECONDS, CONNECTIONS = 2, 16
WEB, DIRECT, BY_HAND = 80, 9080, 8081
SERVICES, TASKS = 100, 10

_HAPROXY = """
global
    log stdout format raw daemon
    fd-hard-limit 50000
defaults
    mode http
    log global
    option httplog
    option dontlognull
    option redispatch 1
    timeout connect 3s
    timeout http-request 10s
    timeout http-keep-alive 10s
    timeout client 60s
    timeout server 60s
frontend web
    bind :{port}
    option idle-close-on-response
    http-request capture req.hdr(host) len 64
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port {port}
    default_backend task
backend task
    server task {target}
"""
_NGINX = """
user www-data;
worker_processes auto;
pid {directory}/by-hand.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    log_format web '$remote_addr:$remote_port [$time_local] $host $upstream_addr $status $bytes_sent $request_time "$request"';
    access_log /dev/stdout web;
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    client_max_body_size 0;
    upstream task {{ server {target}; keepalive 32; }}
    server {{
        listen {port};
        server_name web;
        location / {{
            proxy_pass http://task;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Port {port};
        }}
    }}
}}
"""


def measure(runs: int) -> Iterator[Measurement]:
    """Both drivers beside the same program by hand, then HAProxy among many servers."""
    with ExitStack() as stack:
        cluster = stack.enter_context(lab("wrk", "nginx", "haproxy"))
        directory = stack.enter_context(scratch())
        spec = ServiceSpec(
            name="web",
            command=webserver.answering(directory, WEB),
            labels={"routemesh.http.host": "*"},
            publish=(Publish(published=8080, target=WEB),),
            constraints=("node.hostname==node2",),
        )
        run_service(client(cluster), spec)
        stack.enter_context(program(cluster, "node2", webserver.answering(directory, DIRECT)))
        for driver in GatewayDriver:
            yield from _throughput(cluster, directory, driver, runs)
    yield from asyncio.run(_changes(runs))


# --- throughput ------------------------------------------------------------------------------------------------------------


def _throughput(cluster: Lab, directory: Path, driver: GatewayDriver, runs: int) -> Iterator[Measurement]:
    api = client(cluster)
    enabled = run_service(api, service.spec(Gateway(driver=driver, http_port=80, https_port=0), ()))
    task = next(task for task in api.tasks(enabled.id) if task.node == "node1" and task.serving)
    target = next(f"{task.address}:{WEB}" for task in api.tasks("web") if task.serving)
    place = cluster.node("node1").run_dir / "netns" / task.container
    nodes = addresses(cluster)
    ways = {
        "by hand": (str(task.gateway_address), BY_HAND),
        "gateway": (str(task.gateway_address), 80),
        "mesh alone": (nodes["node1"], 8080),
        "direct": (nodes["node2"], DIRECT),
    }
    with _by_hand(place, directory, driver, target), netns.entered(cluster.netns("node1")):
        for name, way in ways.items():
            until(partial(answer, *way), f"it answered: {name}")
        seen: dict[str, list[wrk.Answered]] = {name: [] for name in ways}
        for number in range(runs):
            order = list(ways)
            for name in (*order[number % len(order) :], *order[: number % len(order)]):
                seen[name].append(wrk.ask("http://{}:{}/".format(*ways[name]), CONNECTIONS, SECONDS))
        back = [_back(task.pid, ways["gateway"]) for _ in range(runs)]
    api.remove_service(enabled.id)
    until(lambda: not any(info.name == service.NAME for info in api.services()), "the gateway was gone")
    by_hand = [each.per_s for each in seen["by hand"]]
    for name, answers in seen.items():
        against = None if name == "by hand" else Rival("by hand", by_hand)
        yield Measurement(f"{driver}: {name}", [each.per_s for each in answers], "requests/s", against)
        yield Measurement(f"{driver}: {name}, p50", [each.p50_ms for each in answers], "ms")
        yield Measurement(f"{driver}: {name}, p99", [each.p99_ms for each in answers], "ms")
    yield Measurement(f"{driver}: killed until it answers again", back, "ms", Limit(1000))


def _back(pid: int | None, way: tuple[str, int]) -> float:
    """Kill the proxy with its workers: the one program below the task's first process and its supervisor."""
    assert pid is not None
    for _ in range(2):
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    os.killpg(pid, signal.SIGKILL)
    started = time.perf_counter()
    until(partial(answer, *way), "the proxy was back")
    return (time.perf_counter() - started) * 1000


@contextmanager
def _by_hand(place: Path, directory: Path, driver: GatewayDriver, target: str) -> Iterator[None]:
    file = directory / f"by-hand-{driver}.conf"
    text = _HAPROXY if driver is GatewayDriver.HAPROXY else _NGINX
    file.write_text(text.format(port=BY_HAND, target=target, directory=directory))
    nginx = ("nginx", "-e", "stderr", "-g", "daemon off;", "-c")
    command = ("haproxy", "-db", "-f") if driver is GatewayDriver.HAPROXY else nginx
    enter = ("nsenter", f"--net={place}", "--", *command, str(file))
    with open(directory / f"by-hand-{driver}.log", "a") as log:
        process = subprocess.Popen(enter, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


# --- a change ----------------------------------------------------------------------------------------------------------------


async def _changes(runs: int) -> list[Measurement]:
    """One task leaves and another comes, in turn; then one route more."""
    with scratch() as path:
        path.chmod(0o700)
        directory = Directory(path)
        proxy = Haproxy(directory, Inside(_execute, 0))
        full = _table()
        first = haproxy.render(full, Gateway(https_port=0), str(path), {}, "")
        directory.propose(first)
        directory.accept(first)
        process = subprocess.Popen(
            ("unshare", "--net", *PROGRAMS["haproxy"].command(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until((path / "admin.sock").exists, "HAProxy answered")
            task = [await _apply(proxy, path, _moved(full, number % 2)) for number in range(2 * runs)]
            route = [await _apply(proxy, path, _routed(full, number)) for number in range(runs)]
        finally:
            process.terminate()
            process.wait()
    return [
        Measurement(f"HAProxy, {SERVICES * TASKS:,} servers: a task goes, another comes", task, "ms", Limit(100)),
        Measurement(f"HAProxy, {SERVICES * TASKS:,} servers: a route more (check and reload)", route, "ms", Limit(1000)),
    ]


async def _apply(proxy: Haproxy, directory: Path, table: RouteTable) -> float:
    started = time.perf_counter()
    await proxy.apply(haproxy.render(table, Gateway(https_port=0), str(directory), {}, ""), table)
    return (time.perf_counter() - started) * 1000


async def _execute(command: Sequence[str], timeout_s: float) -> tuple[int, str]:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=timeout_s)
    return done.returncode, done.stdout + done.stderr


def _table() -> RouteTable:
    first = IPv4Address("10.0.0.10")
    backends = []
    for number in range(SERVICES):
        addresses = [first + number * TASKS + task for task in range(TASKS)]
        servers = tuple(
            Server(f"t{int(address)}", f"s{number}.1", int(address) - int(first) + 1, address, 80) for address in addresses
        )
        backends.append(Backend(f"s{number}", ServiceId(f"s{number}"), Http(hosts=(f"s{number}.example",), port=80), servers))
    return RouteTable(tuple(Route(f"{backend.name}.example", "/", backend.name) for backend in backends), tuple(backends))


def _moved(table: RouteTable, turn: int) -> RouteTable:
    """The last task of the first service is at one address or another."""
    backend, *others = table.backends
    address = IPv4Address("10.0.200.1") + turn
    moved = Server(f"m{turn}", "s0.10", 60_000 + turn, address, 80)
    return replace(table, backends=(replace(backend, servers=(*backend.servers[:-1], moved)), *others))


def _routed(table: RouteTable, number: int) -> RouteTable:
    return replace(table, routes=(*table.routes, Route(f"more{number}.example", "/", table.backends[0].name)))
