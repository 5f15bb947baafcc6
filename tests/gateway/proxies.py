"""A proxy run with a configuration of ours, in front of servers on 127.0.0.1."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from routemesh.model import Gateway, GatewayDriver, Http, ServiceId
from routemesh.proxy import haproxy, nginx
from routemesh.proxy.routes import Backend, Route, RouteTable, Server
from tests.support import wait_until

HERE = IPv4Address("127.0.0.1")
COMMANDS = {
    GatewayDriver.HAPROXY: ("haproxy", "-db", "-f"),
    GatewayDriver.NGINX: ("nginx", "-e", "stderr", "-g", "daemon off;", "-c"),
}


def table(services: dict[str, tuple[Http, list[int]]]) -> RouteTable:
    """By name, how each is reached, and the ports of its tasks."""
    backends = tuple(
        Backend(
            name,
            ServiceId(name),
            http,
            tuple(Server(f"{name}{number}", name, number, HERE, port) for number, port in enumerate(ports, 1)),
        )
        for name, (http, ports) in services.items()
    )
    routes = [Route(host, each.http.path, each.name) for each in backends for host in each.http.hosts]
    return RouteTable(tuple(sorted(routes, key=lambda route: (route.host, -len(route.path)))), backends)


def free_port() -> int:
    """A port that nothing has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(driver: GatewayDriver, routes: RouteTable, default_certificate: str = "", https_port: int = 0) -> Iterator[int]:
    """A proxy's port while it runs."""
    directory = Path(tempfile.mkdtemp(prefix="rm-"))  # short: sockets are in it
    gateway = Gateway(driver=driver, http_port=free_port(), https_port=https_port)
    render = {GatewayDriver.HAPROXY: haproxy.render, GatewayDriver.NGINX: nginx.render}[driver]
    rendered = render(routes, gateway, str(directory), {}, default_certificate)
    for name, text in rendered.files.items():
        (directory / name).write_text(text)
    with open(directory / "log", "w") as log:
        process = subprocess.Popen((*COMMANDS[driver], str(directory / rendered.main)), stdout=log, stderr=log)
    try:
        wait_until(lambda: _listens(gateway.http_port), 20, f"{driver}: {(directory / 'log').read_text()}")
        yield gateway.http_port
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(directory)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
