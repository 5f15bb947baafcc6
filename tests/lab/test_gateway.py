"""The gateway in the lab, with real proxies: where requests go, what survives what, and who is kept with which task.

Most services stand all the time, for both proxies: what is tested is what a request meets, not how services are made.
"""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from routemesh.decide import admit
from routemesh.gateway import selfsigned
from routemesh.model import State
from routemesh.store.sqlite import SqliteStore
from routemesh.values import replace
from tests.lab.cluster import ADDRESSES, CLIENT, Cluster, running
from tests.lab.gate import (
    HTTP,
    HTTPS,
    SERVER,
    WHOAMI,
    Reply,
    certificate,
    children,
    curl,
    get,
    labels,
    led,
    proxy_pid,
    server,
    stand,
    visit,
)
from tests.lab.gateserver import exactly, head
from tests.lab.load import load
from tests.support import Need, require, wait_until

NODE1, NODE2, NODE3 = ADDRESSES.values()
BALANCER = "192.168.200.101"
"""Another address of the client's machine; who asks from there speaks the PROXY protocol."""
CLIENTS = 1000
ROUTES = {
    "exact": ("a.example", "/"),
    "api": ("a.example", "/api"),
    "apitwo": ("a.example", "/api/v2"),
    "wild": ("*.example", "/wild"),
    "every": ("*", "/every"),
    "below": ("p.example", "/api"),
    "seen": ("seen.example", "/"),
}


@pytest.fixture(scope="module")
def certificates(lab: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the names of their secrets, but `raw`, which is a task's own."""
    place = tmp_path_factory.mktemp("tls")
    names = {"tls-example": ("tls.example", "*.tls.example"), "raw": ("raw.example",), "renewed-haproxy": ("renew.example",),
             "renewed-nginx": ("renew.example",)}  # fmt: skip
    return {name: certificate(lab, name, place, *hosts) for name, hosts in names.items()}


@pytest.fixture(scope="module")
def lab() -> Iterator[Cluster]:
    """A lab for the gateway alone, whose ports are those of everybody's services."""
    require("root", "netns", "nf_tables")
    with running("gate") as cluster:
        cluster.inside("client", "ip", "address", "add", f"{BALANCER}/24", "dev", "eth0")
        yield cluster


@pytest.fixture(scope="module")
def services(lab: Cluster, certificates: dict[str, Path]) -> None:
    """What stands behind the gateway all the time."""
    added = "X-Env=lab one;response:X-Frame-Options=DENY"
    flags = {name: labels(host, path=path) for name, (host, path) in ROUTES.items()} | {
        "none": ("--replicas", "0", *labels("none.example")),
        "closed": labels("closed.example", allow="203.0.113.0/24"),
        "dressed": labels("dressed.example", header_add=added, compress="on"),
        "rolling": ("--replicas", "2", *labels("lab")),
        "shop": ("--replicas", "3", *labels("shop.example", path="/x", sticky="cookie")),
        "crowd": ("--replicas", "4", *labels("crowd.example", sticky="cookie")),
        "byheader": ("--replicas", "3", *labels("byheader.example", sticky="header:X-User")),
        "bysource": ("--replicas", "3", *labels("bysource.example", sticky="source")),
        "secure": labels("tls.example", tls="tls-example,redirect"),
        "renew": labels("renew.example", tls="tls-example"),
    }
    speaking = {
        "websocket": (labels("ws.example"), server("websocket")),
        "sse": (labels("sse.example"), server("sse")),
        "grpc": (labels("grpc.tls.example", protocol="grpc", tls="tls-example"), server("grpc")),
        "tls": (labels("raw.example", tls="passthrough"), server("tls", str(certificates["raw"]))),
    }
    stand(lab, {name: (words, WHOAMI) for name, words in flags.items()} | speaking)


@pytest.fixture(scope="module", params=["haproxy", "nginx"])
def driver(lab: Cluster, services: None, request: pytest.FixtureRequest) -> str:
    """The gateway, on every node, made of one program and then of the other."""
    name: Literal["haproxy", "nginx"] = request.param
    require(name)
    lab.cli("gateway", "enable", "--driver", name, *(("--accept-proxy", f"{BALANCER}/32") if name == "haproxy" else ()))
    return name


@pytest.fixture
def gate(lab: Cluster, driver: str) -> Cluster:
    """The lab with the gateway on every node."""
    return lab


@pytest.fixture
def haproxy(gate: Cluster, driver: str) -> Cluster:
    """The same, for what only HAProxy can, and what does not depend on the proxy."""
    if driver != "haproxy":
        pytest.skip("nginx does it otherwise, and says so, or it is the same with it")
    return gate


def _daemon(cluster: Cluster, name: str) -> dict[str, Any]:
    return next(node for node in cluster.json("lab", "status", "--name", cluster.name) if node["name"] == name)


# --- where requests go -------------------------------------------------------------------------------------------------------


def test_the_most_specific_host_and_then_the_longest_path_wins(gate: Cluster) -> None:
    containers = {name: gate.serving(name)[0]["container"] for name in ROUTES}
    expected = {
        ("a.example", "/"): "exact",
        ("A.Example:80", "/x"): "exact",
        ("a.example", "/api"): "api",
        ("a.example", "/api/"): "api",
        ("a.example", "/api?x=1"): "api",
        ("a.example", "/apix"): "exact",
        ("a.example", "/api/v2/x"): "apitwo",
        ("a.example", "/api/v20"): "api",
        ("b.example", "/wild/x"): "wild",
        ("b.example", "/"): None,
        ("a.b.example", "/wild"): None,
        ("b.example", "/every"): "every",
        ("elsewhere.test", "/every/x"): "every",
        ("elsewhere.test", "/"): None,
    }
    for (host, path), name in expected.items():
        reply = get(gate, host, path, NODE2)
        if name is None:
            assert reply.status == 404, (host, path)
            assert f"404: no service behind the gateway has host {host} and path {path}" in reply.body
        else:
            assert reply.answer.hostname == containers[name], (host, path)


def test_nobody_gets_past_a_path(gate: Cluster) -> None:
    assert get(gate, "p.example", "/api/x").status == 200
    assert get(gate, "p.example/api", "/secret").status == 400
    for path in ("/api/../secret", "/api/%2e%2e/secret", "/api/.."):
        assert get(gate, "p.example", path).status in (400, 404), path


def test_a_task_and_the_log_know_the_client(gate: Cluster) -> None:
    reply = get(gate, "seen.example", address=NODE3, X_Forwarded_For="203.0.113.9")
    assert re.findall(r"(?i)^x-forwarded-for: (.*)$", reply.body, re.MULTILINE) == [CLIENT]
    for header in ("x-forwarded-proto: http", "x-forwarded-host: seen.example", "x-forwarded-port: 80"):
        assert header in reply.body.lower()
    logged = re.compile(rf"\| {CLIENT}:\d+ .*seen.*GET / HTTP/1.1")
    wait_until(lambda: logged.search(gate.cli("service", "logs", "gateway")), what="the client's address in the log")


def test_a_service_without_tasks_says_so(gate: Cluster) -> None:
    reply = get(gate, "none.example")
    assert (reply.status, reply.body) == (503, "503: no task of service none can answer (0 are up)\n")


def test_who_is_not_allowed_is_told_so(gate: Cluster) -> None:
    reply = get(gate, "closed.example")
    assert (reply.status, reply.body) == (403, f"403: service closed does not answer {CLIENT}\n")


def test_headers_are_added_and_text_is_compressed(gate: Cluster) -> None:
    reply = get(gate, "dressed.example")
    assert "x-env: lab one" in reply.body.lower()
    assert reply.headers["x-frame-options"] == "DENY"
    assert get(gate, "dressed.example", Accept_Encoding="identity").headers.get("content-encoding") is None
    asked = ("-H", "Host: dressed.example", "-H", "Accept-Encoding: gzip", f"http://{NODE1}/")
    assert "content-encoding: gzip" in curl(gate, "-I", "-X", "GET", *asked).lower()


# --- what survives what ------------------------------------------------------------------------------------------------------


def test_a_restarted_daemon_leaves_proxies_alone(gate: Cluster) -> None:
    before = proxy_pid(gate, "node2")
    kept = gate.at("client", lambda: http.client.HTTPConnection(NODE2, HTTP, timeout=5))
    gate.at("client", kept.connect)
    statuses, ended = [], threading.Event()

    def go_on() -> None:
        while not ended.wait(1.0):  # a proxy closes what is idle for 10 s
            kept.request("GET", "/", headers={"Host": "seen.example"})
            statuses.append((answer := kept.getresponse()).status)
            answer.read()

    with ThreadPoolExecutor(1) as pool:
        going_on = pool.submit(go_on)
        os.kill(_daemon(gate, "node2")["pid"], signal.SIGKILL)
        gate.lab("start", "node2")
        wait_until(lambda: _daemon(gate, "node2")["ready"], 10, "the daemon")
        answered = len(statuses)
        wait_until(lambda: len(statuses) > answered or going_on.done(), 10, "an answer to the kept connection")
        ended.set()
        going_on.result()
    assert set(statuses) == {200}
    kept.close()
    assert proxy_pid(gate, "node2") == before


def test_a_killed_proxy_is_back_at_once_and_other_nodes_are_unaffected(gate: Cluster) -> None:
    task = next(task["id"] for task in gate.serving("gateway") if task["node"] == "node1")
    os.killpg(proxy_pid(gate, "node1"), signal.SIGKILL)  # with its workers

    def is_back() -> bool:
        assert [get(gate, "seen.example", address=address).status for address in (NODE2, NODE3)] == [200, 200]
        try:
            return get(gate, "seen.example").status == 200
        except OSError:
            return False

    wait_until(is_back, 4, "the proxy")
    assert task in [task["id"] for task in gate.serving("gateway")]


def test_nothing_is_lost_in_an_update_nor_when_services_come_and_go(gate: Cluster, driver: str) -> None:
    with load(gate, HTTP) as witness:
        with gate.service("guest", *labels("guest.example")):
            assert get(gate, "guest.example").status == 200
        before = {task["id"] for task in gate.serving("rolling")}
        gate.cli("service", "update", "--update-order", "stop-first", "--env-add", f"NEW={driver}1", "rolling")
        assert not before & {task["id"] for task in gate.serving("rolling")}
        gate.cli("service", "update", "--update-order", "start-first", "--env-add", f"NEW={driver}2", "rolling")
        gate.cli("service", "scale", "rolling=4")
        gate.cli("service", "scale", "rolling=2")
        assert witness.total > 100
    assert witness.failures == []


def test_what_a_proxy_refuses_concerns_its_service_alone(gate: Cluster, driver: str) -> None:
    """A certificate that proxies refuse, as an older version would have admitted it: put into the store."""
    with gate.service("weak", *labels("weak.example")):
        admitted(gate, "weak", "weak-key")
        reason = {"haproxy": "unable to load SSL certificate", "nginx": "ee key too small"}[driver]
        everywhere = "service weak: the gateway leaves it out on node1, node2, node3: "
        wait_until(lambda: gate.api.progress("weak").failed.startswith(everywhere), 60, "the refusal by all proxies")
        assert reason in gate.api.progress("weak").failed
        assert reason in gate.cli("service", "ps", "--no-trunc", "weak")
        assert everywhere in gate.cli("gateway", "status")
        assert reason in gate.cli("doctor", status=3)
        assert "weak.1" not in gate.cli("gateway", "ls")
        assert {get(gate, "weak.example", address=address).status for address in ADDRESSES.values()} == {503}
        told = gate.cli("explain", "--http", "http://weak.example/", f"{NODE1}:{HTTP}", status=3)
        assert "the proxy leaves it out: " in told
        # The others go on: new ones come, present ones change, and nothing of them is lost.
        with gate.service("fresh", *labels("fresh.example")), load(gate, HTTP) as witness:
            assert {get(gate, "fresh.example", address=address).status for address in ADDRESSES.values()} == {200}
            gate.cli("service", "update", "--env-add", f"WEAK={driver}", "rolling")
        gate.cli("service", "update", "--label-rm", "routemesh.http.tls", "weak")
        assert {get(gate, "weak.example", address=address).status for address in ADDRESSES.values()} == {200}
        assert gate.api.gateway().refused == {}
    assert witness.failures == []


def admitted(cluster: Cluster, name: str, secret: str) -> None:
    """Give a service a certificate with a key of 1,024 bits, past all admission."""
    key = rsa.generate_private_key(65537, 1024)
    pem = selfsigned.make((f"{name}.example",), key=key)

    def change(state: State) -> State:
        if not any(each.name == secret for each in state.secrets.values()):
            state = admit.create_secret(state, secret, pem, 0.0)
        (old,) = (each for each in state.services.values() if each.spec.name == name)
        assert old.spec.http is not None
        spec = replace(
            old.spec,
            labels={**old.spec.labels, "routemesh.http.tls": secret},
            http=replace(old.spec.http, certificate=secret),
        )
        return replace(state, services={**state.services, old.id: replace(old, spec=spec, version=old.version + 1)})

    async def write() -> None:
        store = await SqliteStore.open(cluster.directory / "state.db")
        try:
            await store.update(change)
        finally:
            await store.close()

    asyncio.run(write())


# --- who is kept with which task ---------------------------------------------------------------------------------------------


def test_a_cookie_keeps_each_client_with_its_task_whatever_node_it_asks(gate: Cluster) -> None:
    first = get(gate, "shop.example", "/x")
    name, _, value = first.cookie.partition("=")
    assert name.startswith("ROUTEMESH")
    assert first.headers["cache-control"] == "private"
    for address in ADDRESSES.values():
        again = get(gate, "shop.example", "/x", address, Cookie=f"a=1; {name}={value}; b=2")
        assert again.answer.hostname == first.answer.hostname
        assert again.cookie == ""
        assert "cookie: a=1; " in again.body.lower()


def test_haproxy_keeps_its_cookie_to_itself(haproxy: Cluster) -> None:
    cookie = get(haproxy, "shop.example", "/x").cookie
    seen = get(haproxy, "shop.example", "/x", Cookie=f"a=1; {cookie}; b=2")
    assert "cookie: a=1; b=2\n" in seen.body.lower().replace("\r", "")
    assert "cookie:" not in get(haproxy, "shop.example", "/x", Cookie=cookie).body.lower()


class Crowd:
    """Clients of a service that is sticky by cookie: what each one's cookie is, and which task it is with."""

    def __init__(self, gate: Cluster, count: int) -> None:
        self.gate = gate
        first = visit(gate, "crowd.example", NODE1, [{}] * count)
        self.cookies = [reply.cookie for reply in first]
        self.homes = [reply.answer.hostname for reply in first]

    def come_again(self, address: str) -> list[tuple[str, str, Reply]]:
        """Of each client its former and its present task, and the reply; who gets a new cookie takes it."""
        replies = visit(self.gate, "crowd.example", address, [{"Cookie": cookie} for cookie in self.cookies])
        moves = [(old, reply.answer.hostname, reply) for old, reply in zip(self.homes, replies, strict=True)]
        self.homes = [new for _, new, _ in moves]
        self.cookies = [reply.cookie or cookie for cookie, reply in zip(self.cookies, replies, strict=True)]
        return moves

    def tasks(self) -> set[str]:
        """The containers of the tasks that serve."""
        return {task["container"] for task in self.gate.serving("crowd")}


def test_of_a_thousand_clients_only_those_of_a_task_that_is_gone_move(gate: Cluster, driver: str) -> None:
    """Tasks come, die and go. With HAProxy clients move only when they must; nginx's hash gives a new task its share."""
    crowd = Crowd(gate, CLIENTS)
    before = crowd.tasks()
    assert len(before) == 4
    if driver == "haproxy":
        # A connection that is tried again with another task, or a server that joins as the first ask, moves the turn by one.
        assert {abs(count - CLIENTS // 4) for count in Counter(crowd.homes).values()} <= {0, 1, 2}
    workers = {node: children(proxy_pid(gate, node)) for node in ADDRESSES}

    def come_again(address: str) -> None:
        nonlocal before
        now = crowd.tasks()
        moves = crowd.come_again(address)
        moved = {(old, new) for old, new, _ in moves if old != new}
        assert {new for _, new, _ in moves} <= now
        assert {old for old, *_ in moves} - now <= {old for old, _ in moved}
        if driver == "haproxy":
            assert {old for old, _ in moved} <= before - now
            assert all(bool(reply.cookie) == (old != new) for old, new, reply in moves)
        else:
            assert all(old not in now or new in now - before for old, new in moved)
            assert not any(reply.cookie for *_, reply in moves)
        before = now

    gate.cli("service", "scale", "crowd=6")
    come_again(NODE2)
    victim = next(task for task in gate.serving("crowd") if task["container"] in crowd.homes)
    os.kill(victim["pid"], signal.SIGKILL)
    wait_until(lambda: victim["container"] not in crowd.tasks(), what="the death")
    wait_until(lambda: gate.api.progress("crowd").converged, 20, "the dead task's successor")
    come_again(NODE3)
    gate.cli("service", "scale", "crowd=2")
    come_again(NODE1)
    if driver == "haproxy":  # and nothing was reloaded for any of it
        assert {node: children(proxy_pid(gate, node)) for node in ADDRESSES} == workers
    gate.cli("service", "scale", "crowd=4")


def test_hashes_agree_on_all_nodes_and_move_few_when_a_task_comes(gate: Cluster) -> None:
    users = [f"user{number}" for number in range(60)]
    kinds = ("byheader", "bysource")

    def homes() -> dict[str, list[set[str]]]:
        asked = [{"X-User": user} for user in users]
        found = {}
        for kind in kinds:
            replies = [visit(gate, f"{kind}.example", address, asked) for address in ADDRESSES.values()]
            found[kind] = [{reply.answer.hostname for reply in of_user} for of_user in zip(*replies, strict=True)]
        return found

    before = homes()
    tasks = {kind: {f"{task['name']} {task['address']}:80": task["container"] for task in gate.serving(kind)} for kind in kinds}
    for kind, containers in tasks.items():
        assert all(len(home) == 1 for home in before[kind])
        told = gate.json("gateway", "explain", f"{kind}.example", "--header", f"X-User: {users[0]}", "--source", CLIENT)
        assert {containers[server] for server in told["servers"]} == before[kind][0]
    gate.cli("service", "scale", *(f"{kind}={len(containers) + 1}" for kind, containers in tasks.items()))
    after = homes()
    for kind in kinds:
        added = {task["container"] for task in gate.serving(kind)} - set(tasks[kind].values())
        moved = [new for old, new in zip(before[kind], after[kind], strict=True) if old != new]
        assert all(new == added for new in moved)
        assert len(moved) < len(users) * 0.6 or kind == "bysource"


def test_what_explain_says_is_so(gate: Cluster, driver: str) -> None:
    reply = get(gate, "shop.example", "/x")
    task = next(task for task in gate.serving("shop") if task["container"] == reply.answer.hostname)
    said = gate.json("gateway", "explain", "--cookie", reply.cookie.partition("=")[2], "http://shop.example/x/y?z")
    assert [step["at"] for step in said["steps"]] == ["frontend", "rule", "backend", "server"]
    assert said["servers"] == [f"{task['name']} {task['address']}:80"]
    assert gate.json("gateway", "explain", "shop.example/other")["status"] == 404

    question = ("explain", "node1:80", "--http", "shop.example/x/y", "--cookie", reply.cookie)
    found = gate.json(*question)
    assert (found["outcome"], found["reached"]) == ("reaches", [task["name"]])
    assert f"node1:80/tcp for http://shop.example/x/y reaches {task['name']} by way of gateway." in found["verdict"]
    steps = [step["what"].split()[0] for step in found["ways"][0]["there"] if step["device"] == driver]
    assert steps == ["frontend", "rule", "backend", "server"]
    assert found["ways"][0]["back"][-1]["after"]["destination"].startswith(CLIENT)
    unknown = json.loads(gate.cli("explain", "node1:443", "--http", "shop.example", "--format", "json", status=3))
    assert "it answers 404 itself: no service has host shop.example and path /" in unknown["verdict"]

    inside = f"{task['node']}/{task['container']}"
    chain = "add table ip fw; add chain ip fw in { type filter hook input priority 0; }"
    gate.nft(inside, f"{chain}; add rule ip fw in tcp dport 80 drop")
    try:
        said = gate.cli(*question, status=3)
    finally:
        gate.nft(inside, "delete table ip fw")
    assert f"is broken at {task['node']}: task {task['name']}: filter in drops it (ip fw: " in said


def test_a_trace_goes_on_with_the_connection_that_the_proxy_opens(gate: Cluster, driver: str) -> None:
    question = ("trace", "--timeout", "1", "--http", "a.example/", f"node2:{HTTP}")
    (task,) = gate.serving("exact")
    inside = f"{task['node']}/{task['container']}"
    chain = "add table ip fw; add chain ip fw in { type filter hook input priority 0; }"
    gate.nft(inside, f"{chain}; add rule ip fw in tcp dport 80 drop")
    try:
        broken = json.loads(gate.cli(*question, "--format", "json", status=3))
    finally:
        gate.nft(inside, "delete table ip fw")
    if broken["onward"] is None:  # nginx's workers each keep the connections that they have opened
        assert driver == "nginx" and "it may have had one" in broken["notes"][-1]
    else:
        assert broken["onward"]["drops"] == [f"{task['node']} {task['container']}: ip fw in: tcp dport 80 drop"]
        assert (broken["onward"]["agrees"], broken["onward"]["arrives"]) == (True, False)

    wait_until(lambda: get(gate, "a.example", "/").status == 200, what="the proxy's trust in the task")
    found = gate.json(*question)
    assert (found["agrees"], found["prediction"]["ways"][found["way"]]["task"]) == (True, "gateway.node2")
    assert found["sent"]["what"].startswith("HTTP/1.1 200")
    if found["onward"] is None:
        assert driver == "nginx" and "it may have had one" in found["notes"][-1]
    else:
        onward = found["onward"]
        assert (onward["agrees"], onward["arrives"], onward["prediction"]["question"]["client"]) == (
            True,
            True,
            "task gateway.node2",
        )
        assert onward["prediction"]["ways"][onward["way"]]["task"] == task["name"]
        assert "rule a.example" in onward["sent"]["what"]


def test_a_trace_names_the_proxy_that_answers_itself(gate: Cluster) -> None:
    found = gate.json("trace", "--http", "nobody.example/", f"node2:{HTTP}")
    assert found["onward"] is None
    assert "of gateway.node2 answers itself: no service has host nobody.example and path /" in found["notes"][0]


def test_explain_knows_what_a_proxy_has_otherwise(haproxy: Cluster) -> None:
    (admin,) = haproxy.directory.glob("node1/gateway/*/admin.sock")
    (task,) = haproxy.serving("seen")

    def tell(state: str) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(admin))
            connection.sendall(f"set server seen/{task['id'][:12]} state {state}\n".encode())
            connection.recv(100)

    def seen() -> str:
        """What is said, unless the node has put it right before anybody looked: it looks every few seconds."""
        tell("maint")
        done = haproxy.run("explain", "node1:80", "--http", "seen.example")
        return done.stdout if done.returncode == 3 else ""

    said = wait_until(seen, 30, "the fault")
    tell("ready")
    assert "it answers 503 itself: no task of the service serves" in said
    assert "haproxy has seen.1 in maintenance, though it serves" in said


# --- TLS and protocols -------------------------------------------------------------------------------------------------------


def test_tls_by_name_with_http2_and_a_redirect_from_http(gate: Cluster, certificates: dict[str, Path]) -> None:
    said = curl(gate, "--cacert", str(certificates["tls-example"]), *led("tls.example"), "-i", "https://tls.example/")
    assert said.startswith("HTTP/2 200")
    assert "x-forwarded-proto: https" in said.lower()
    assert (reply := get(gate, "tls.example", "/a?b=c")).status == 308
    assert reply.headers["location"] == "https://tls.example/a?b=c"
    other = gate.inside(
        "client", "sh", "-c", f"openssl s_client -connect {NODE1}:{HTTPS} -servername other.example </dev/null 2>&1"
    )
    assert "CN = routemesh.invalid" in other
    row = next(secret for secret in gate.json("secret", "ls") if secret["name"] == "tls-example")
    assert {"secure", "grpc"} <= set(row["services"])
    assert "in use by service" in gate.refused("secret", "rm", "tls-example")


def test_a_new_certificate_breaks_no_connection(gate: Cluster, driver: str, certificates: dict[str, Path]) -> None:
    with load(gate, HTTP) as witness:
        wait_until(lambda: witness.total > 20, what="the load")
        tasks = [task["id"] for task in gate.serving("renew")]
        gate.cli("service", "update", "--label-add", f"routemesh.http.tls=renewed-{driver}", "renew")
        renewed = certificates[f"renewed-{driver}"]
        assert curl(gate, "--cacert", str(renewed), *led("renew.example"), "https://renew.example/").startswith("Hostname")
        assert [task["id"] for task in gate.serving("renew")] == tasks
    assert witness.failures == []


def test_what_can_go_wrong_with_certificates_is_told(haproxy: Cluster, tmp_path: Path) -> None:
    create = ("service", "create", "--name", "wrong")
    refusal = haproxy.refused(*create, *labels("w.example", tls="missing"), "host", "true")
    assert "label routemesh.http.tls=missing: there is no secret missing; secrets are: " in refusal
    (junk := tmp_path / "junk").write_text("no certificate")
    haproxy.cli("secret", "create", "junk", str(junk))
    assert "it is not a certificate in PEM" in haproxy.refused(*create, *labels("w.example", tls="junk"), "host", "true")
    certificate(haproxy, "old", tmp_path, "old.example", days=-1)
    with haproxy.service("old", *labels("old.example", tls="old")):
        assert "warning: service old: certificate old has expired on " in haproxy.cli("gateway", "status")
        assert "service old: certificate old has expired on " in haproxy.cli("doctor", status=3)
    haproxy.cli("secret", "rm", "junk", "old")


def test_keys_are_nobodys_to_read_and_in_no_log(gate: Cluster, certificates: dict[str, Path]) -> None:
    found = list(gate.directory.glob("node*/gateway/*/cert-*.pem"))
    assert len(found) >= 3
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
    assert {path.parent.stat().st_mode & 0o777 for path in found} == {0o700}
    kind = gate.inside("client", "findmnt", "-no", "FSTYPE", "-T", str(gate.directory)).strip()
    told = gate.json("gateway", "status")["keys_on_disk"]
    assert told == ({} if kind == "tmpfs" else dict.fromkeys(ADDRESSES, kind))
    key = certificates["tls-example"].read_text().rpartition("-----BEGIN PRIVATE KEY-----\n")[2][:40]
    for log in gate.directory.glob("disk/*/daemon.log"):
        assert key not in log.read_text()


def test_websockets_pass(gate: Cluster) -> None:
    with gate.connect(NODE2, HTTP) as connection:
        connection.sendall(
            b"GET /chat HTTP/1.1\r\nHost: ws.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        opened = head(connection).decode()
        assert opened.startswith("HTTP/1.1 101")
        assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in opened  # RFC 6455's own example
        for word in (b"hello", b"again"):
            connection.sendall(bytes([0x81, 0x80 | len(word)]) + bytes(4) + word)
            assert exactly(connection, 2 + len(word)) == bytes([0x81, len(word)]) + word


def test_events_arrive_one_by_one(gate: Cluster) -> None:
    def times() -> list[float]:
        connection = http.client.HTTPConnection(NODE1, HTTP, timeout=5)
        connection.request("GET", "/", headers={"Host": "sse.example"})
        answer = connection.getresponse()
        found = [time.monotonic() for line in iter(answer.readline, b"") if line.startswith(b"data:")]
        connection.close()
        return found

    seen = gate.at("client", times)
    assert len(seen) == 5
    assert seen[-1] - seen[0] > 0.3


def test_a_grpc_stream(gate: Cluster, driver: str, certificates: dict[str, Path]) -> None:
    ca = str(certificates["tls-example"])
    target, trusted = (f"{NODE3}:{HTTP}", ()) if driver == "haproxy" else (f"{NODE3}:{HTTPS}", (ca,))
    said = gate.inside("client", sys.executable, SERVER, "grpc-client", target, "grpc.tls.example", *trusted)
    assert said.splitlines() == [f"message {number}" for number in range(5)]


def test_tasks_are_told_the_client_by_the_proxy_protocol(haproxy: Cluster) -> None:
    with haproxy.service("proxied", *labels("pp.example", proxy_protocol="v2"), command=server("proxy")):
        assert re.fullmatch(rf"v2 family=0x11 client={CLIENT}:\d+\n", get(haproxy, "pp.example").body)


def test_the_proxy_protocol_is_believed_from_those_who_were_named(haproxy: Cluster) -> None:
    def say(source: str) -> str:
        with socket.create_connection((NODE1, HTTP), 5, (source, 0)) as connection:
            connection.sendall(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n")
            connection.sendall(b"GET / HTTP/1.1\r\nHost: seen.example\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode().lower()

    assert "x-forwarded-for: 203.0.113.7" in haproxy.at("client", lambda: say(BALANCER))
    assert haproxy.at("client", lambda: say(CLIENT)).startswith("http/1.1 400")


def test_tls_is_left_to_a_task_that_wants_it(gate: Cluster, certificates: dict[str, Path]) -> None:
    said = curl(gate, "--cacert", str(certificates["raw"]), *led("raw.example"), "https://raw.example/")
    assert said.startswith("TLS ends in the task; peer 10.0.0.")
    assert get(gate, "raw.example").headers["location"] == "https://raw.example/"
    assert f"x-forwarded-for: {CLIENT}" in curl(gate, "-k", *led("seen.example"), "https://seen.example/").lower()


# --- outside of the cluster --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def out(lab: Cluster) -> Iterator[None]:
    """A published service."""
    options = ("--replicas", "2", "-p", "8300:80", "--constraint", "node.hostname!=node3", "--label", "routemesh.health.tcp")
    with lab.service("out", *options):
        yield


@contextmanager
def balancer(cluster: Cluster, program: str, directory: Path) -> Iterator[None]:
    """A proxy on the client's machine with the configuration that `gateway config` prints."""
    config = directory / "balancer.conf"
    config.write_text(cluster.cli("gateway", "config", "--for", program))
    haproxy, nginx = ("haproxy", "-f", str(config)), ("nginx", "-e", "stderr", "-c", str(config))
    enter = ("nsenter", f"--net={cluster.netns('client')}")
    check = (*enter, *haproxy, "-c", "-q") if program == "haproxy" else (*enter, *nginx, "-t", "-q")
    checked = subprocess.run(check, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    run = (*haproxy, "-db") if program == "haproxy" else (*nginx, "-g", f"daemon off; pid {directory}/pid;")
    process = subprocess.Popen((*enter, *run))
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("program", ["haproxy", "nginx"])
def test_a_balancer_outside_of_the_cluster_survives_a_node(lab: Cluster, out: None, program: Need, tmp_path: Path) -> None:
    require(program)
    with balancer(lab, program, tmp_path):
        wait_until(lambda: not lab.is_refused("127.0.0.1", 8300), what="the balancer")
        assert {answer.peer for answer in lab.ask("127.0.0.1", 8300, times=6)} == {CLIENT}
        lab.lab("cut", "node3")
        try:
            assert len(lab.ask("127.0.0.1", 8300, times=12)) == 12
        finally:
            lab.lab("heal", "node3")
            wait_until(lambda: all(node["state"] == "ready" for node in lab.json("node", "ls")), 20, "the node's return")
