"""`routemesh record DIR`: what everyday commands say in all namespaces of a node, for somebody else to look at."""

import os
import socket
import struct
import time
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from routemesh.cli.host import Host
from routemesh.cli.output import say
from routemesh.errors import Unavailable
from routemesh.legible import storable
from routemesh.model import Protocol

if TYPE_CHECKING:
    from routemesh.recording.write import Report, Target

_NO_PORT = (Protocol.TCP, 0)
"""Of connections we want none here."""

_CREDENTIALS = struct.Struct("3i")


@click.command("record")
@click.option("--swarm", is_flag=True, help="Of this Docker Swarm node, instead of a node of routemesh.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.pass_obj
def record(host: Host, directory: Path, swarm: bool) -> None:
    """Write down the state of a node's namespaces in a new DIRECTORY, as text. Nothing is changed.

    routemesh explain --from DIRECTORY reads it. Recordings of several nodes, side by side, tell the whole way between them.

    \b
    routemesh -H node1 record /tmp/case/node1
    routemesh record --swarm /tmp/case/swarm1
    """
    from routemesh.recording import write
    from routemesh.recording.swarm import target as of_swarm

    target = of_swarm() if swarm else _of_routemesh(host)
    report = write.record(directory, target)
    say(f"{target.about.name}: {len(target.namespaces)} namespaces, {report.files} files in {directory}")
    _complain(report)


def _complain(report: "Report") -> None:
    for reason, files in report.missing.items():
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        say(f"not recorded: {files[0]}{more}: {reason}", err=True)


def _of_routemesh(host: Host) -> "Target":
    """The node whose daemon is asked. Its namespaces are beside its socket; its own is the one that the daemon is in."""
    import msgspec

    from routemesh.nodeplan import HOST
    from routemesh.recording import known, ownplan
    from routemesh.recording.node import About
    from routemesh.recording.write import Target

    path, client = host.socket(), host.client()
    node = next((node for node in client.nodes() if node.asked), None)
    if node is None:
        raise Unavailable(f"the daemon on {path} has not joined a cluster yet")
    directory = path.parent / "netns"
    about = About(
        name=node.name,
        kind="routemesh",
        engine=node.engine,
        address=IPv4Address(node.address),
        kernel=os.uname().release,
        netns=str(directory),
        at=time.time(),
    )
    own = Path(f"/proc/{_daemon(path)}/ns/net")
    spaces = {HOST: own, **{storable(entry.name): entry for entry in sorted(directory.iterdir())}}
    names = client.snapshot([_NO_PORT]).names
    plan = {space.name: space.items for space in client.plan(node.name).namespaces}
    told = msgspec.json.format(msgspec.json.encode({"node": node.name, "namespaces": plan}), indent=1).decode() + "\n"
    return Target(about=about, namespaces=spaces, files={known.FILE: known.write(names), ownplan.FILE: told})


def _daemon(path: Path) -> int:
    """The process that listens on a socket. Source: unix(7), SO_PEERCRED."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as asking:
        asking.connect(str(path))
        pid, _, _ = _CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid)
