"""Taking labs and nodes away by what is found below their directories, with no need to know what they were meant to be."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from routemesh.kernel import netns
from routemesh.lab import enter, find, processes
from routemesh.lab.processes import Namespaces
from routemesh.runtime.process.supervision import Init, living, send


def namespaces_of_lab(place: Path) -> Namespaces:
    """All network namespaces of a lab: its machines and what the nodes made below their run directories."""
    return {number for run_dir in _run_dirs(place) for number in _identities(run_dir)}


def remove_lab(place: Path) -> None:
    """Remove a lab with everything that runs in it."""
    _kill_noted(place)
    processes.kill_inside(lambda: namespaces_of_lab(place))
    for run_dir in _run_dirs(place):
        _remove_namespaces(run_dir)
    shutil.rmtree(place)
    if not find.running_labs():
        enter.remove_traces()
        for directory in (find.LABS, find.LABS.parent):
            with suppress(OSError):
                directory.rmdir()  # which refuses while anything is in it


def empty_node(machine: Path, run_dir: Path) -> None:
    """Kill everything on a node whose own namespace is `machine`, and remove its run directory."""
    own = {machine.stat().st_ino} if machine.exists() else set()
    processes.kill_inside(lambda: own | set(_identities(run_dir)))
    _remove_namespaces(run_dir)
    with suppress(FileNotFoundError):
        shutil.rmtree(run_dir)


def _kill_noted(place: Path) -> None:
    """SIGKILL the daemons and tasks that the nodes wrote down, in case somebody removed the names of their namespaces."""
    for note in (*place.glob("*/daemon"), *place.glob("*/tasks/*/init")):
        process = Init.parse(note.read_text(errors="replace"))
        if process is not None:
            with living(process) as file:
                if file is not None:
                    send(file, signal.SIGKILL)


def _run_dirs(place: Path) -> list[Path]:
    return [path.parent for path in (*place.glob("*/netns"), place / "netns")]


def _identities(run_dir: Path) -> Iterator[int]:
    with suppress(FileNotFoundError):
        yield from netns.identities(run_dir / "netns").values()


def _remove_namespaces(run_dir: Path) -> None:
    with suppress(FileNotFoundError):
        for path in sorted((run_dir / "netns").iterdir()):
            netns.remove(path)
