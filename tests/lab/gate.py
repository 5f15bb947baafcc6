"""Services behind the gateway, and clients that ask it."""

import http.client
import re
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from routemesh.gateway import selfsigned
from tests.lab.cluster import ADDRESSES, Answer, Cluster, answer_s, parse
from tests.support import wait_until

HTTP, HTTPS = 80, 443
SERVER = str(Path(__file__).with_name("gateserver.py"))
WHOAMI = ("routemesh", "whoami")
COOKIE = re.compile(r"(ROUTEMESH[^=;]*)=([^;]*)")
_AT_ONCE = 4


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


def labels(host: str, **others: str) -> tuple[str, ...]:
    """Flags that put a service behind the gateway."""
    ours = {"host": host, "port": "80"} | {name.replace("_", "-"): value for name, value in others.items()}
    flags = [f"routemesh.http.{key}={value}" for key, value in ours.items()]
    return tuple(word for flag in (*flags, "routemesh.health.tcp=80") for word in ("--label", flag))


def server(kind: str, *arguments: str) -> tuple[str, ...]:
    """A command of gateserver.py."""
    return (sys.executable, SERVER, kind, "80", *arguments)


def stand(cluster: Cluster, services: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> None:
    """Make services, by name their flags and commands, several at once; return when all of their tasks serve."""

    def create(name: str) -> None:
        flags, command = services[name]
        cluster.cli("service", "create", "--detach", "--quiet", "--name", name, *flags, "host", *command)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(create, services))

    def missing() -> list[str]:
        return [info.name for info in cluster.api.services() if info.name in services and info.running < info.wanted]

    wait_until(lambda: not missing(), 60, "the services' tasks")


def certificate(cluster: Cluster, name: str, directory: Path, *hosts: str, days: int = 90) -> Path:
    """A certificate of that name, also kept as a secret."""
    (pem := directory / f"{name}.pem").write_bytes(selfsigned.make(hosts, days=days))
    cluster.cli("secret", "create", name, str(pem))
    return pem


def get(cluster: Cluster, host: str, path: str = "/", address: str = ADDRESSES["node1"], **headers: str) -> Reply:
    """Ask for http://HOST/PATH at a node, by a new connection."""
    (reply,) = visit(cluster, host, address, [{name.replace("_", "-"): value for name, value in headers.items()}], path)
    return reply


def visit(cluster: Cluster, host: str, address: str, clients: Iterable[dict[str, str]], path: str = "/") -> list[Reply]:
    """Ask once for each client, with its headers, over one connection.

    A proxy that is reloaded closes connections on which it owes nothing, also as a request comes; that is made again then (RFC
    9112, 9.3.1). That a reload costs nobody an answer is tested with load.py.
    """

    def ask() -> list[Reply]:
        connection = http.client.HTTPConnection(address, HTTP, timeout=2 * answer_s())

        def answered(headers: dict[str, str]) -> http.client.HTTPResponse:
            connection.request("GET", path, headers={"Host": host} | headers)
            return connection.getresponse()

        replies = []
        try:
            for headers in clients:
                try:
                    answer = answered(headers)
                except ConnectionError:
                    connection.close()
                    answer = answered(headers)
                found = {name.lower(): value for name, value in answer.getheaders()}
                replies.append(Reply(answer.status, answer.read().decode(), found))
        finally:
            connection.close()
        return replies

    return cluster.at("client", ask)


def curl(cluster: Cluster, *arguments: str) -> str:
    """What curl prints on the client."""
    return cluster.inside("client", "curl", "--silent", "--show-error", "--max-time", "5", *arguments)


def led(host: str, address: str = ADDRESSES["node1"], port: int = HTTPS) -> tuple[str, ...]:
    """curl's flag that leads a name to a node."""
    return ("--connect-to", f"{host}:{port}:{address}:{port}")


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
