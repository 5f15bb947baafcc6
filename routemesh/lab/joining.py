"""Machines of a lab that share nothing but the network: node1 makes a cluster, and the others join it by its token."""

import subprocess
import sys
from collections.abc import Sequence

from routemesh.api.client import Client
from routemesh.errors import Unavailable
from routemesh.lab import daemons
from routemesh.lab.find import Lab
from routemesh.model import Role
from routemesh.options import API_PORT, NodeOptions

_PATIENCE_S = 60.0


def join_all(lab: Lab) -> None:
    """Do on the machines what a person does on real ones, up to the start of the workers' daemons. Raises Unavailable."""
    first, *others = (lab.node(name) for name in lab.node_names)
    subnets = (("--ingress-subnet", lab.ingress_subnet), ("--gwbridge-subnet", lab.gwbridge_subnet))
    _finish(lab, {first.name: _begin(lab, first, "init", *(word for pair in subnets if pair[1] for word in pair))})
    daemons.spawn(lab, first.name)
    daemons.wait_ready([first])
    token = Client(first.socket).join_token(Role.WORKER).token
    manager = f"{first.advertise}:{API_PORT}"
    _finish(lab, {node.name: _begin(lab, node, "join", "--token", token, manager) for node in others})


def _begin(lab: Lab, node: NodeOptions, command: str, *words: str) -> "subprocess.Popen[str]":
    for directory in (node.run_dir, node.data_dir):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = {
        "--name": node.name,
        "--advertise-addr": node.advertise,
        "--engine": node.engine,
        "--run-dir": node.run_dir,
        "--data-dir": node.data_dir,
    }
    enter = ("nsenter", f"--net={lab.netns(node.name)}", f"--wd={daemons.PACKAGE_PARENT}", "--")
    given = (str(word) for pair in flags.items() for word in pair)
    argv = (*enter, sys.executable, "-m", "routemesh", "cluster", command, *given, *words)
    return subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=daemons.environment())


def _finish(lab: Lab, begun: "dict[str, subprocess.Popen[str]]") -> None:
    failures = []
    for name, process in begun.items():
        _, said = process.communicate(timeout=_PATIENCE_S)
        if process.returncode:
            failures.append(f"{name}: {_last(said)}")
    if failures:
        raise Unavailable(f"lab {lab.name}: {failures[0]}")


def _last(said: str) -> str:
    lines: Sequence[str] = said.strip().splitlines()
    return lines[-1].removeprefix("routemesh: ") if lines else "it ended without a word"
