"""The gateway in the lab, with real proxies: where requests go, what survives what, and who is kept with which task."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.lab.cluster import ADDRESSES, CLIENT, Answer, Cluster, parse
from tests.lab.gateserver import exactly, head
from tests.lab.load import load
from tests.support import Need, require, unique, wait_until

HTTP, HTTPS = 80, 443
NODE1, NODE2, NODE3 = ADDRESSES.values()
COOKIE = re.compile(r"(ROUTEMESH[^=;]*)=([^;]*)")


@dataclass(frozen=True)
class Reply:
    """An answer through the gateway."""

    status: int
    body: str
    headers: dict[str, str]

    @property
    def answer(self) -> Answer:
        """What whoami said."""
        assert self.status == 200, self
        return parse(self.body)

    @property
    def cookie(self) -> str:
        """The gateway's cookie, NAME=VALUE; "" if it set none."""
        found = COOKIE.search(self.headers.get("set-cookie", ""))
        return found[0] if found else ""


@pytest.fixture(scope="module")
def lab() -> Iterator[Cluster]:
    """A lab for the gateway alone, whose ports are those of everybody's services."""
    require("root", "netns", "nf_tables")
    cluster = Cluster(unique("gate"))
    cluster.lab("up")
    yield cluster
    cluster.lab("down")


@pytest.fixture(scope="module", params=["haproxy", "nginx"])
def driver(lab: Cluster, request: pytest.FixtureRequest) -> str:
    """The gateway, on every node, made of one program and then of the other."""
    name: Literal["haproxy", "nginx"] = request.param
    require(name)
    lab.cli("gateway", "enable", "--driver", name)
    return name


@pytest.fixture
def gate(lab: Cluster, driver: str) -> Cluster:
    """The lab with the gateway on every node."""
    return lab


@pytest.fixture
def haproxy(gate: Cluster, driver: str) -> Cluster:
    """The same, for what only HAProxy can."""
    if driver != "haproxy":
        pytest.skip("nginx does it otherwise, and says so")
    return gate


def labels(host: str, **others: str) -> tuple[str, ...]:
    """Flags that put whoami behind the gateway."""
    ours = {"host": host, "port": "80"} | {name.replace("_", "-"): value for name, value in others.items()}
    flags = [f"routemesh.http.{key}={value}" for key, value in ours.items()]
    return tuple(word for flag in (*flags, "routemesh.health.tcp=80") for word in ("--label", flag))


def get(cluster: Cluster, host: str, path: str = "/", address: str = NODE1, **headers: str) -> Reply:
    """Ask for http://HOST/PATH at a node, by a new connection."""

    def ask() -> Reply:
        connection = http.client.HTTPConnection(address, HTTP, timeout=5)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET", path, headers={"Host": host} | given)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, answer.read().decode(), found)
        finally:
            connection.close()

    return cluster.at("client", ask)


def curl(cluster: Cluster, *arguments: str) -> str:
    """What curl prints on the client."""
    return cluster.inside("client", "curl", "--silent", "--show-error", "--max-time", "5", *arguments)


def proxy_pid(cluster: Cluster, node: str) -> int:
    """The proxy's master on a node, somewhere below the first process of the task."""
    task = next(task for task in cluster.serving("gateway") if task["node"] == node)
    pids: list[int] = [task["pid"]]
    for pid in pids:
        if Path(f"/proc/{pid}/comm").read_text().strip() in ("haproxy", "nginx"):
            return pid
        pids += children(pid)
    raise AssertionError(f"no proxy on {node}")


def children(pid: int) -> list[int]:
    """The processes that a process has started, by their pids."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _daemon(cluster: Cluster, name: str) -> dict[str, Any]:
    return next(node for node in cluster.json("lab", "status", "--name", cluster.name) if node["name"] == name)


# --- where requests go -------------------------------------------------------------------------------------------------------


@contextmanager
def routes(cluster: Cluster, **wanted: tuple[str, str]) -> Iterator[dict[str, str]]:
    """A service for each host and path, under these names; the container of each one's task."""
    create = ("service", "create", "--quiet")
    for name, (host, path) in wanted.items():
        cluster.cli(*create, "--name", name, *labels(host, path=path), "host", "routemesh", "whoami")
    try:
        yield {name: cluster.serving(name)[0]["container"] for name in wanted}
    finally:
        cluster.cli("service", "rm", *wanted)


def test_the_most_specific_host_and_then_the_longest_path_wins(gate: Cluster) -> None:
    with routes(
        gate,
        exact=("a.example", "/"),
        api=("a.example", "/api"),
        apitwo=("a.example", "/api/v2"),
        wild=("*.example", "/wild"),
        every=("*", "/every"),
    ) as containers:
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
    with routes(gate, below=("p.example", "/api")):
        assert get(gate, "p.example", "/api/x").status == 200
        assert get(gate, "p.example/api", "/secret").status == 400
        for path in ("/api/../secret", "/api/%2e%2e/secret", "/api/.."):
            assert get(gate, "p.example", path).status in (400, 404), path


def test_a_task_and_the_log_know_the_client(gate: Cluster) -> None:
    with routes(gate, seen=("seen.example", "/")):
        reply = get(gate, "seen.example", address=NODE3, X_Forwarded_For="203.0.113.9")
        assert re.findall(r"(?i)^x-forwarded-for: (.*)$", reply.body, re.MULTILINE) == [CLIENT]
        for header in ("x-forwarded-proto: http", "x-forwarded-host: seen.example", "x-forwarded-port: 80"):
            assert header in reply.body.lower()
        logged = re.compile(rf"\| {CLIENT}:\d+ .*seen.*GET / HTTP/1.1")
        wait_until(lambda: logged.search(gate.cli("service", "logs", "gateway")), what="the client's address in the log")


def test_a_service_without_tasks_says_so(gate: Cluster) -> None:
    with gate.service("none", "--replicas", "0", *labels("none.example")):
        reply = get(gate, "none.example")
        assert (reply.status, reply.body) == (503, "503: no task of service none can answer (0 are up)\n")


def test_who_is_not_allowed_is_told_so(gate: Cluster) -> None:
    with gate.service("closed", *labels("closed.example", allow="203.0.113.0/24")):
        reply = get(gate, "closed.example")
        assert (reply.status, reply.body) == (403, f"403: service closed does not answer {CLIENT}\n")


def test_headers_are_added_and_text_is_compressed(gate: Cluster) -> None:
    added = "X-Env=lab one;response:X-Frame-Options=DENY"
    with gate.service("dressed", *labels("dressed.example", header_add=added, compress="on")):
        reply = get(gate, "dressed.example")
        assert "x-env: lab one" in reply.body.lower()
        assert reply.headers["x-frame-options"] == "DENY"
        assert get(gate, "dressed.example", Accept_Encoding="identity").headers.get("content-encoding") is None
        asked = ("-H", "Host: dressed.example", "-H", "Accept-Encoding: gzip", f"http://{NODE1}/")
        assert "content-encoding: gzip" in curl(gate, "-I", "-X", "GET", *asked).lower()


# --- what survives what ------------------------------------------------------------------------------------------------------


def test_nothing_is_lost_in_an_update_nor_when_services_come_and_go(gate: Cluster) -> None:
    with gate.service("rolling", "--replicas", "3", *labels("*")), load(gate, HTTP) as witness:
        before = {task["id"] for task in gate.serving("rolling")}
        gate.cli("service", "update", "--env-add", "NEW=1", "rolling")
        assert not before & {task["id"] for task in gate.serving("rolling")}
        gate.cli("service", "update", "--update-order", "start-first", "--env-add", "NEW=2", "rolling")
        gate.cli("service", "scale", "rolling=5")
        gate.cli("service", "scale", "rolling=2")
        with routes(gate, guest=("guest.example", "/")):
            assert get(gate, "guest.example").status == 200
        assert witness.total > 100
    assert witness.failures == []


def test_a_task_coming_or_going_reloads_nothing(haproxy: Cluster) -> None:
    gate = haproxy
    with gate.service("calm", *labels("calm.example")):
        get(gate, "calm.example")
        workers = {node: children(proxy_pid(gate, node)) for node in ADDRESSES}
        gate.cli("service", "scale", "calm=3")
        seen = {get(gate, "calm.example").answer.hostname for _ in range(6)}
        assert seen == {task["container"] for task in gate.serving("calm")}
        for node, before in workers.items():
            assert children(proxy_pid(gate, node)) == before


def test_a_killed_proxy_is_back_at_once_and_other_nodes_are_unaffected(gate: Cluster) -> None:
    with gate.service("steady", "--replicas", "2", *labels("*")):
        get(gate, "x")
        task = next(task["id"] for task in gate.serving("gateway") if task["node"] == "node1")
        os.killpg(proxy_pid(gate, "node1"), signal.SIGKILL)  # with its workers

        def is_back() -> bool:
            assert [get(gate, "x", address=address).status for address in (NODE2, NODE3)] == [200, 200]
            try:
                return get(gate, "x").status == 200
            except OSError:
                return False

        wait_until(is_back, 4, "the proxy")
        assert task in [task["id"] for task in gate.serving("gateway")]


def test_a_restarted_daemon_leaves_proxies_alone(gate: Cluster) -> None:
    with gate.service("kept", *labels("kept.example")):
        before = proxy_pid(gate, "node2")
        kept = gate.at("client", lambda: http.client.HTTPConnection(NODE2, HTTP, timeout=5))
        gate.at("client", lambda: kept.request("GET", "/", headers={"Host": "kept.example"}))
        kept.getresponse().read()
        os.kill(_daemon(gate, "node2")["pid"], signal.SIGKILL)
        gate.lab("start", "node2")
        wait_until(lambda: _daemon(gate, "node2")["ready"], 10, "the daemon")
        kept.request("GET", "/", headers={"Host": "kept.example"})
        assert kept.getresponse().status == 200
        kept.close()
        assert proxy_pid(gate, "node2") == before


# --- who is kept with which task ---------------------------------------------------------------------------------------------


def test_a_cookie_keeps_each_client_with_its_task_whatever_node_it_asks(gate: Cluster) -> None:
    with gate.service("shop", "--replicas", "3", *labels("shop.example", sticky="cookie")):
        first = get(gate, "shop.example")
        name, _, value = first.cookie.partition("=")
        assert name.startswith("ROUTEMESH")
        assert first.headers["cache-control"] == "private"
        for address in ADDRESSES.values():
            again = get(gate, "shop.example", address=address, Cookie=f"a=1; {name}={value}; b=2")
            assert again.answer.hostname == first.answer.hostname
            assert again.cookie == ""
            assert "cookie: a=1; " in again.body.lower()


def test_haproxy_keeps_its_cookie_to_itself(haproxy: Cluster) -> None:
    with haproxy.service("shop", *labels("shop.example", sticky="cookie")):
        cookie = get(haproxy, "shop.example").cookie
        assert "cookie: a=1; b=2\n" in get(haproxy, "shop.example", Cookie=f"a=1; {cookie}; b=2").body.lower().replace("\r", "")
        assert "cookie:" not in get(haproxy, "shop.example", Cookie=cookie).body.lower()


def test_only_clients_of_a_task_that_is_gone_move(haproxy: Cluster) -> None:
    gate = haproxy
    with gate.service("crowd", "--replicas", "3", *labels("crowd.example", sticky="cookie")):
        clients = [get(gate, "crowd.example") for _ in range(300)]
        homes = {reply.cookie: reply.answer.hostname for reply in clients}
        assert Counter(reply.answer.hostname for reply in clients) == Counter(dict.fromkeys(homes.values(), 100))
        gate.cli("service", "scale", "crowd=5")
        for cookie, home in homes.items():
            assert get(gate, "crowd.example", address=NODE2, Cookie=cookie).answer.hostname == home
        gate.cli("service", "scale", "crowd=2")
        left = {task["container"] for task in gate.serving("crowd")}
        for cookie, home in homes.items():
            moved = get(gate, "crowd.example", address=NODE3, Cookie=cookie)
            assert (moved.answer.hostname == home) == (home in left)
            assert bool(moved.cookie) == (home not in left)


@pytest.mark.parametrize("sticky", ["header:X-User", "source"])
def test_hashes_agree_on_all_nodes_and_move_few_when_a_task_comes(gate: Cluster, sticky: str) -> None:
    users = [f"user{number}" for number in range(60)]
    with gate.service("hashed", "--replicas", "3", *labels("hashed.example", sticky=sticky)):

        def homes() -> list[tuple[str, ...]]:
            return [
                tuple(get(gate, "hashed.example", address=at, X_User=user).answer.hostname for at in ADDRESSES.values())
                for user in users
            ]

        before = homes()
        assert all(len(set(home)) == 1 for home in before)
        asked = ("gateway", "explain", "hashed.example", "--header", f"X-User: {users[0]}", "--source", CLIENT)
        names = {f"{task['name']} {task['address']}:80": task["container"] for task in gate.serving("hashed")}
        assert [names[server] for server in gate.json(*asked)["servers"]] == [before[0][0]]
        gate.cli("service", "scale", "hashed=4")
        after = homes()
        added = {task["container"] for task in gate.serving("hashed")} - {home[0] for home in before}
        moved = [new[0] for old, new in zip(before, after, strict=True) if old != new]
        assert set(moved) <= added
        assert len(moved) < len(users) * 0.6 or sticky == "source"


def test_what_explain_says_is_so(gate: Cluster, driver: str) -> None:
    with gate.service("told", "--replicas", "3", *labels("told.example", path="/x", sticky="cookie")):
        reply = get(gate, "told.example", "/x")
        task = next(task for task in gate.serving("told") if task["container"] == reply.answer.hostname)
        said = gate.json("gateway", "explain", "--cookie", reply.cookie.partition("=")[2], "http://told.example/x/y?z")
        assert [step["at"] for step in said["steps"]] == ["frontend", "rule", "backend", "server"]
        assert said["servers"] == [f"{task['name']} {task['address']}:80"]
        assert gate.json("gateway", "explain", "told.example/other")["status"] == 404

        question = ("explain", "node1:80", "--http", "told.example/x/y", "--cookie", reply.cookie)
        found = gate.json(*question)
        assert (found["outcome"], found["reached"]) == ("reaches", [task["name"]])
        assert f"node1:80/tcp for http://told.example/x/y reaches {task['name']} by way of gateway." in found["verdict"]
        steps = [step["what"].split()[0] for step in found["ways"][0]["there"] if step["device"] == driver]
        assert steps == ["frontend", "rule", "backend", "server"]
        assert found["ways"][0]["back"][-1]["after"]["destination"].startswith(CLIENT)
        unknown = json.loads(gate.cli("explain", "node1:443", "--http", "told.example", "--format", "json", status=3))
        assert "it answers 404 itself: no service has host told.example and path /" in unknown["verdict"]

        inside = f"{task['node']}/{task['container']}"
        gate.nft(
            inside,
            "add table ip fw; add chain ip fw in { type filter hook input priority 0; }; add rule ip fw in tcp dport 80 drop",
        )
        try:
            said = gate.cli(*question, status=3)
        finally:
            gate.nft(inside, "delete table ip fw")
        assert f"is broken at {task['node']}: task {task['name']}: filter in drops it (ip fw: " in said


def test_explain_knows_what_a_proxy_has_otherwise(haproxy: Cluster) -> None:
    with haproxy.service("other", *labels("other.example")):
        (admin,) = haproxy.directory.glob("node1/gateway/*/admin.sock")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(admin))
            (task,) = haproxy.serving("other")
            connection.sendall(f"set server other/{task['id'][:12]} state maint\n".encode())
            connection.recv(100)
        said = haproxy.cli("explain", "node1:80", "--http", "other.example", status=3)
        assert "it answers 503 itself: no task of the service serves" in said
        assert "haproxy has other.1 in maintenance, though it serves" in said


# --- TLS and protocols -------------------------------------------------------------------------------------------------------


def at(host: str, port: int = HTTPS, address: str = NODE1) -> tuple[str, ...]:
    """curl's flag that leads a name to a node."""
    return ("--connect-to", f"{host}:{port}:{address}:{port}")


@pytest.fixture(scope="module")
def certificate(lab: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for tls.example, kept as the secret tls-example."""
    from routemesh.gateway import selfsigned

    pem = tmp_path_factory.mktemp("tls") / "tls.pem"
    pem.write_bytes(selfsigned.make(("tls.example", "*.tls.example")))
    lab.cli("secret", "create", "tls-example", str(pem))
    return pem


def test_tls_by_name_with_http2_and_a_redirect_from_http(gate: Cluster, certificate: Path) -> None:
    with gate.service("secure", *labels("tls.example", tls="tls-example,redirect")):
        said = curl(gate, "--cacert", str(certificate), *at("tls.example"), "-i", "https://tls.example/")
        assert said.startswith("HTTP/2 200")
        assert "x-forwarded-proto: https" in said.lower()
        assert (reply := get(gate, "tls.example", "/a?b=c")).status == 308
        assert reply.headers["location"] == "https://tls.example/a?b=c"
        other = gate.inside(
            "client", "sh", "-c", f"openssl s_client -connect {NODE1}:443 -servername other.example </dev/null 2>&1"
        )
        assert "CN = routemesh.invalid" in other
        row = next(secret for secret in gate.json("secret", "ls") if secret["name"] == "tls-example")
        assert row["services"] == ["secure"]
        assert "in use by service secure" in gate.refused("secret", "rm", "tls-example")


def test_a_new_certificate_breaks_no_connection(gate: Cluster, certificate: Path, tmp_path: Path) -> None:
    from routemesh.gateway import selfsigned

    renewed = tmp_path / "renewed.pem"
    renewed.write_bytes(selfsigned.make(("renew.example",)))
    gate.cli("secret", "create", "renewed", str(renewed))
    with (
        gate.service("renew", *labels("renew.example", tls="tls-example")),
        load(gate, HTTP) as witness,
        gate.service("any", *labels("*")),
    ):
        wait_until(lambda: witness.total > 20, what="the load")
        witness.failures.clear()
        tasks = [task["id"] for task in gate.serving("renew")]
        gate.cli("service", "update", "--label-add", "routemesh.http.tls=renewed", "renew")
        assert curl(gate, "--cacert", str(renewed), *at("renew.example"), "https://renew.example/").startswith("Hostname")
        assert [task["id"] for task in gate.serving("renew")] == tasks
        assert witness.failures == []
    gate.cli("secret", "rm", "renewed")


def test_what_can_go_wrong_with_certificates_is_told(gate: Cluster, tmp_path: Path) -> None:
    from routemesh.gateway import selfsigned

    create = ("service", "create", "--name", "wrong")
    refusal = gate.refused(*create, *labels("w.example", tls="missing"), "host", "true")
    assert "label routemesh.http.tls=missing: there is no secret missing; secrets are: " in refusal
    (junk := tmp_path / "junk").write_text("no certificate")
    gate.cli("secret", "create", "junk", str(junk))
    assert "it is not a certificate in PEM" in gate.refused(*create, *labels("w.example", tls="junk"), "host", "true")
    (old := tmp_path / "old").write_bytes(selfsigned.make(("old.example",), days=-1))
    gate.cli("secret", "create", "old", str(old))
    with gate.service("old", *labels("old.example", tls="old")):
        assert "warning: service old: certificate old has expired on " in gate.cli("gateway", "status")
        assert "service old: certificate old has expired on " in gate.cli("doctor", status=3)
    gate.cli("secret", "rm", "junk", "old")


def test_keys_are_nobodys_to_read_and_in_no_log(gate: Cluster, certificate: Path) -> None:
    with gate.service("keys", *labels("tls.example", tls="tls-example")):
        found = list(gate.directory.glob("node*/gateway/*/cert-*.pem"))
        assert len(found) >= 3
        assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
        assert {path.parent.stat().st_mode & 0o777 for path in found} == {0o700}
        key = certificate.read_text().rpartition("-----BEGIN PRIVATE KEY-----\n")[2][:40]
        for log in gate.directory.glob("disk/*/daemon.log"):
            assert key not in log.read_text()


# --- other protocols ---------------------------------------------------------------------------------------------------------

SERVER = str(Path(__file__).with_name("gateserver.py"))


@contextmanager
def speaking(cluster: Cluster, kind: str, host: str, *arguments: str, **others: str) -> Iterator[None]:
    """A service of gateserver.py behind the gateway."""
    with cluster.service(f"speaks-{kind}", *labels(host, **others), command=(sys.executable, SERVER, kind, "80", *arguments)):
        yield


def test_websockets_pass(gate: Cluster) -> None:
    with speaking(gate, "websocket", "ws.example"), gate.connect(NODE2, HTTP) as connection:
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
    with speaking(gate, "sse", "sse.example"):

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


def test_a_grpc_stream(gate: Cluster, driver: str, certificate: Path) -> None:
    target, ca = (f"{NODE3}:{HTTP}", ()) if driver == "haproxy" else (f"{NODE3}:{HTTPS}", (str(certificate),))
    with speaking(gate, "grpc", "grpc.tls.example", protocol="grpc", tls="tls-example"):
        said = gate.inside("client", sys.executable, SERVER, "grpc-client", target, "grpc.tls.example", *ca)
        assert said.splitlines() == [f"message {number}" for number in range(5)]


def test_tasks_are_told_the_client_by_the_proxy_protocol(haproxy: Cluster) -> None:
    with speaking(haproxy, "proxy", "pp.example", proxy_protocol="v2"):
        assert re.fullmatch(rf"v2 family=0x11 client={CLIENT}:\d+\n", get(haproxy, "pp.example").body)


def test_the_proxy_protocol_is_believed_from_those_who_were_named(haproxy: Cluster) -> None:
    with haproxy.service("told", *labels("told.example")):
        haproxy.cli("gateway", "enable", "--accept-proxy", f"{CLIENT}/32")
        header = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n"
        with haproxy.connect(NODE1, HTTP) as connection:
            connection.sendall(header + b"GET / HTTP/1.1\r\nHost: told.example\r\nConnection: close\r\n\r\n")
            said = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        assert "x-forwarded-for: 203.0.113.7" in said.lower()
        haproxy.cli("gateway", "enable")


def test_tls_is_left_to_a_task_that_wants_it(gate: Cluster, tmp_path: Path) -> None:
    from routemesh.gateway import selfsigned

    pem = tmp_path / "raw.pem"
    pem.write_bytes(selfsigned.make(("raw.example",)))
    with speaking(gate, "tls", "raw.example", str(pem), tls="passthrough"), gate.service("beside", *labels("beside.example")):
        said = curl(gate, "--cacert", str(pem), *at("raw.example"), "https://raw.example/")
        assert said.startswith("TLS ends in the task; peer 10.0.0.")
        assert get(gate, "raw.example").headers["location"] == "https://raw.example/"
        beside = curl(gate, "-k", *at("beside.example"), "https://beside.example/")
        assert f"x-forwarded-for: {CLIENT}" in beside.lower()


# --- outside of the cluster --------------------------------------------------------------------------------------------------


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
def test_a_balancer_outside_of_the_cluster_survives_a_node(lab: Cluster, program: Need, tmp_path: Path) -> None:
    require(program)
    options = ("--replicas", "2", "-p", "8300:80", "--constraint", "node.hostname!=node3", "--label", "routemesh.health.tcp")
    with lab.service("out", *options), balancer(lab, program, tmp_path):
        wait_until(lambda: not lab.is_refused("127.0.0.1", 8300), what="the balancer")
        assert {answer.peer for answer in lab.ask("127.0.0.1", 8300, times=6)} == {CLIENT}
        lab.lab("cut", "node3")
        try:
            assert len(lab.ask("127.0.0.1", 8300, times=12)) == 12
        finally:
            lab.lab("heal", "node3")
            wait_until(lambda: all(node["state"] == "ready" for node in lab.json("node", "ls")), 20, "the node's return")
