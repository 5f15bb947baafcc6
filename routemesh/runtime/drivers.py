"""The registry of drivers: which images each of them runs, and on which nodes. Nothing else knows which there are."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from routemesh.runtime import Runtime
from routemesh.runtime.process.driver import ProcessRuntime
from routemesh.runtime.process.hostcommand import IMAGE


@dataclass(frozen=True, slots=True)
class Driver:
    """A way to run tasks. `images`: what it runs, for people. `lacks`: what keeps it from being used on this node, "" if nothing
    does.

    `open` makes its runtime, with a daemon's run directory and the directory of its tasks' logs.
    """

    name: str
    images: str
    takes: Callable[[str], bool]
    lacks: Callable[[], str]
    open: Callable[[Path, Path], Runtime]


PROCESS = Driver(
    name="process",
    images=f"image {IMAGE!r} (commands of the node itself)",
    takes=lambda image: image == IMAGE,
    lacks=lambda: "",
    open=ProcessRuntime,
)

DRIVERS: dict[str, Driver] = {driver.name: driver for driver in (PROCESS,)}
"""In the order in which an image is offered to them."""
