"""`routemesh demo`: the main job, told as it happens: a cluster, a published port, every node answers.

Every step is a command that a person could type; it is shown and then run.
"""

import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from routemesh import names
from routemesh.errors import Conflict, Unavailable
from routemesh.lab.find import NAME_VARIABLE, running_labs

DEFAULT_LAB = "demo"
_HOST_VARIABLE = "ROUTEMESH_HOST"
"""Another daemon that somebody chose: not for the demo's commands."""
NODES = {"node1": "192.168.200.10", "node2": "192.168.200.11", "node3": "192.168.200.12"}
CLIENT = "192.168.200.100"
PORT = 8080
ASKS = 4

Chosen = Callable[[str], bool]
"""Which lines of an output are worth showing."""


def main(*, keep: bool) -> None:
    """Run the demo in a lab of its own, called as ROUTEMESH_LAB says, and removed at the end unless `keep`.

    Raises Conflict for a lab that is there already, which somebody else made, and Unavailable when a step fails or an answer is
    not what the mesh promises.
    """
    with _lab(keep):
        _say("1. Publish a port: a service of two tasks, on two of the three nodes.")
        _routemesh("service", "create", "--name", "web", "--replicas", "2", "-p", f"{PORT}:80", "host", "routemesh", "whoami")
        _routemesh("service", "ps", "web")
        _say("2. The client asks every node, also the one that runs no task.")
        tasks = _ask_every_node()
        _show_path()
        _say(f"Every node answered {ASKS} times, in turn from {' and '.join(tasks)}, and each task saw the client: {CLIENT}.")


def _show_path() -> None:
    _say("3. What carried the requests. On the node, a published port of any local address leads into the ingress sandbox.")
    _table("chain", names.INGRESS_CHAIN, swarm="iptables -nvL -t nat")
    _table("set", "published")
    _exec("node1", "ip", "-br", "-4", "address", "show", "dev", names.GWBRIDGE)
    _say("4. The sandbox is a network namespace, not a container. The port gives the packet a mark, the mark a task in turn.")
    sandbox = ("--sandbox", names.SANDBOX)
    _exec("node1", *sandbox, "--", "ip", "-br", "-4", "address")
    _table("map", "marks", *sandbox, swarm="iptables -nvL -t mangle")
    _table("map", "backends", *sandbox, swarm="ipvsadm -Ln")
    _exec("node1", *sandbox, "--", "ip", "route")
    _say("5. The overlay of the node without a task knows each task's MAC and the node behind which it is.")
    fdb = ("bridge", "fdb", "show", "dev", names.VXLAN)
    overlay = next(name for name in _exec("node3", "ip", "netns", show=_nothing).split() if name.startswith("1-"))
    _exec("node3", "--sandbox", overlay, "--", *fdb, show=lambda line: " dst " in line)
    _say("6. In the task: published port to target port; the reply leaves by the sandbox whose MAC brought the request.")
    _table("map", "ports", "--task", "web.1", swarm="iptables -nvL -t nat")
    _table("map", "nodes", "--task", "web.1")
    print(
        "\n  Swarm's own commands show it with --engine ipvs, on a kernel that has ip_vs: ./run uml gives a shell in one.",
        flush=True,
    )


def _ask_every_node() -> list[str]:
    """Ask each node ASKS times, each time by a new connection; returns the tasks' hostnames."""
    hosts: Counter[str] = Counter()
    for address in NODES.values():
        asks = [f"http://{address}:{PORT}/"] * ASKS
        answers = _exec("client", "curl", "-s", "-H", "Connection: close", *asks, show=_telling)
        hosts.update(line.split()[1] for line in answers.splitlines() if line.startswith("Hostname:"))
        if answers.count(f"RemoteAddr: {CLIENT}:") != ASKS:
            raise Unavailable(
                f"{address}:{PORT} did not answer {ASKS} times with the client's address; see `routemesh diff node1`"
            )
    if set(hosts.values()) != {ASKS * len(NODES) // 2}:
        raise Unavailable(f"the answers did not come from both tasks in turn: {dict(hosts)}; see `routemesh service ps web`")
    return sorted(hosts)


@contextmanager
def _lab(keep: bool) -> Iterator[None]:
    _say(f"A cluster on this machine: {len(NODES)} nodes, each a network namespace with a daemon of its own, and a client.")
    name = _lab_name()
    if any(lab.name == name for lab in running_labs()):
        raise Conflict(
            f"lab {name} is there already, perhaps of a demo before; remove it with 'routemesh lab down --name {name}', "
            f"or call this one otherwise: {NAME_VARIABLE}=NAME"
        )
    _routemesh("lab", "up", "--name", name, "--nodes", str(len(NODES)))
    try:
        yield
    finally:
        if keep:
            _say(f"The lab stays. Look around with `routemesh lab exec`, end it with `routemesh lab down --name {name}`.")
        else:
            _routemesh("lab", "down", "--name", name)


def _lab_name() -> str:
    return os.environ.get(NAME_VARIABLE) or DEFAULT_LAB


def _table(kind: str, name: str, *place: str, swarm: str = "") -> None:
    """Show one object of the node's, the sandbox's or the task's nftables table; `swarm`: what shows the same in a Swarm."""
    if swarm:
        print(f"\n  in a Swarm this would be: {swarm}", end="", flush=True)
    inner = ("nft", "list", kind, "ip", names.TABLE, name)
    _exec("node1", *place, "--", *inner, show=lambda line: line.startswith("\t\t"))


def _exec(host: str, *args: str, show: Chosen = bool) -> str:
    separator = () if "--" in args else ("--",)
    return _routemesh("lab", "exec", host, *separator, *args, show=show)


def _routemesh(*args: str, show: Chosen = bool) -> str:
    """Show a command, run it, show the lines of its output that `show` chooses; returns all of it."""
    if show is not _nothing:
        print(f"\n$ routemesh {shlex.join(args)}", flush=True)
    done = subprocess.run(
        [*_command(), *args],
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, NAME_VARIABLE: _lab_name(), _HOST_VARIABLE: ""},
    )
    for line in done.stdout.splitlines():
        if show(line):
            print(f"  {line.strip() if line.startswith(chr(9)) else line}", flush=True)
    if done.returncode != 0:
        raise Unavailable(f"`routemesh {shlex.join(args)}` ended with status {done.returncode}; the lines above say why")
    return done.stdout


def _command() -> list[str]:
    return [sys.executable, "-m", "routemesh"]


def _telling(line: str) -> bool:
    return line.startswith(("Hostname:", "RemoteAddr:"))


def _nothing(_: str) -> bool:
    return False


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)
