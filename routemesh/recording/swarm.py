"""A Docker Swarm's node, asked for itself: its engine over its unix socket, its namespaces as files. Nothing is changed.

Source: Docker Engine API v1.41; libnetwork's osl/namespace_linux.go for the directory of the namespaces.
"""

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import quote

from routemesh.errors import Unavailable, UserError
from routemesh.legible import storable
from routemesh.names import GWBRIDGE
from routemesh.nodeplan import HOST
from routemesh.plan.engines import SWARM
from routemesh.recording.engine import read_engine
from routemesh.recording.naming import names
from routemesh.recording.node import DOCKER_NETNS, About, underlay
from routemesh.recording.write import Target
from routemesh.sight.observe import observe
from routemesh.snapshot import ClusterSnapshot, NodeSnapshot, Unread
from routemesh.values import replace

SOCKET = Path("/var/run/docker.sock")
_TIMEOUT_S = 30.0
_ELSEWHERE = "only this node can be read from here; record both (routemesh record --swarm) and use --from"
_OWN_NAMESPACE = "default"
"""What libnetwork calls the node's own namespace in that directory."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))


def target(path: Path = SOCKET) -> Target:
    """What is to be recorded of this node. Raises Unavailable without an engine, UserError for one that is in no swarm."""
    with closing(_Connection(path)) as engine:
        about = _about(engine, path)
        files = dict(_files(engine))
    return Target(about=about, namespaces=_namespaces(), files=files)


def live(path: Path = SOCKET) -> ClusterSnapshot:
    """This node as it is now, with all that its engine knows of the cluster. Raises as `target` does."""
    found = target(path)
    unread: list[Unread] = []
    engine = read_engine(found.about.name, found.files, unread)
    spaces = observe(found.namespaces)
    device, addresses = underlay(spaces[HOST], found.about.address)
    node = NodeSnapshot(
        name=found.about.name,
        kind="swarm",
        engine=SWARM,
        addresses=addresses,
        device=device,
        namespaces=spaces,
        kernel=found.about.kernel,
        at=found.about.at,
    )
    named = names({node.name: engine}, {node.name: node}, unread)
    others = tuple(replace(each, absent=_ELSEWHERE if each.absent else "") for each in named.nodes)
    return ClusterSnapshot(nodes={node.name: node}, names=replace(named, nodes=others), unread=tuple(unread))


def _namespaces() -> dict[str, Path]:
    try:
        found = {storable(entry.name): entry for entry in sorted(Path(DOCKER_NETNS).iterdir()) if entry.name != _OWN_NAMESPACE}
    except OSError as error:
        raise Unavailable(f"the namespaces in {DOCKER_NETNS} can't be listed: {error.strerror}") from error
    return {HOST: Path(f"/proc/{os.getpid()}/ns/net"), **found}


def _about(engine: _Connection, path: Path) -> About:
    try:
        info = _get(engine, "/info")
    except OSError as error:
        raise Unavailable(f"no Docker Engine answers on {path}: {error.strerror or error}") from error
    swarm = info.get("Swarm", {})
    if swarm.get("LocalNodeState") != "active":
        raise UserError("this Docker Engine is not in a swarm: there is no routing mesh to look at")
    return About(
        name=info["Name"],
        kind="swarm",
        engine=SWARM,
        address=IPv4Address(swarm["NodeAddr"]),
        kernel=info.get("KernelVersion", ""),
        at=time.time(),
    )


def _files(engine: _Connection) -> Iterator[tuple[str, str]]:
    for network in _get(engine, "/networks"):
        if network["Driver"] == "overlay" or network["Name"] == GWBRIDGE:
            inspected = _get(engine, f"/networks/{quote(network['Id'])}?verbose=true")
            yield f"docker/network-{network['Name']}.json", _text([inspected])
    containers = [_get(engine, f"/containers/{quote(each['Id'])}/json") for each in _get(engine, "/containers/json")]
    yield "docker/container-netns.txt", "".join(map(_container, containers))
    for kind in ("nodes", "services", "tasks"):
        try:
            yield f"docker/{kind}.json", _text(_masked(_get(engine, f"/{kind}")))
        except _NotAManager:
            return


def _container(inspected: Any) -> str:
    sandbox, pid = inspected["NetworkSettings"]["SandboxKey"], inspected["State"]["Pid"]
    return f"{inspected['Id']} {inspected['Name']} sandbox={sandbox} pid={pid}\n" if sandbox else ""


def _masked(found: Any) -> Any:
    """The answer without the values of environment variables, where people put passwords."""
    if isinstance(found, list):
        return [_masked(each) for each in found]
    if not isinstance(found, dict):
        return found
    hidden = [f"{each.partition('=')[0]}=…" for each in found.get("Env") or ()]
    return {name: hidden if name == "Env" else _masked(value) for name, value in found.items()}


def _text(found: Any) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


class _NotAManager(Exception):
    """The engine is a worker's."""


def _get(engine: _Connection, path: str) -> Any:
    engine.request("GET", path)
    with engine.getresponse() as answer:
        body = answer.read()
    if answer.status == http.client.SERVICE_UNAVAILABLE:
        raise _NotAManager
    if answer.status != http.client.OK:
        raise Unavailable(f"Docker's engine answers {answer.status} to GET {path}: {body[:200].decode(errors='replace').strip()}")
    return json.loads(body)
