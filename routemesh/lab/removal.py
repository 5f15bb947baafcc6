"""Taking labs and nodes away by what is found below their directories, with no need to know what they were meant to be."""

import shutil
import signal
from contextlib import suppress
from pathlib import Path

from routemesh.lab import enter, find, mounts, processes
from routemesh.lab.mounts import network_namespaces
from routemesh.runtime.process.supervision import Init, living, send


def remove_lab(place: Path) -> None:
    """Remove a lab with everything that runs in it, in namespaces of its nodes' drivers as well."""
    _kill_noted(place)
    processes.kill_inside(lambda: network_namespaces(place))
    mounts.detach(place)
    shutil.rmtree(place)
    if not find.running_labs():
        enter.remove_traces()
        for directory in (find.LABS, find.LABS.parent):
            with suppress(OSError):
                directory.rmdir()  # which refuses while anything is in it


def empty_node(machine: Path, run_dir: Path) -> None:
    """Kill everything on a node whose own namespace is `machine`, and remove its run directory."""
    processes.kill_inside(lambda: [machine, *network_namespaces(run_dir)])
    mounts.detach(run_dir)
    with suppress(FileNotFoundError):
        shutil.rmtree(run_dir)


def _kill_noted(place: Path) -> None:
    """SIGKILL daemons, members of etcd and tasks that were noted, in case somebody removed the names of their namespaces."""
    for note in (*place.glob("*/daemon"), *place.glob("*/etcd"), *place.glob("*/tasks/*/init")):
        process = Init.parse(note.read_text(errors="replace"))
        if process is not None:
            with living(process) as file:
                if file is not None:
                    send(file, signal.SIGKILL)
